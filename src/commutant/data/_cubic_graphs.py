"""Random 3-regular graphs, which message passing cannot tell apart, with labels about their cycles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from .._checks import one_of, whole
from .._errors import InputError, require

Property = Literal["triangle", "four-cycle"]


def cubic_graphs(
    count: int, with_property: Property, generator: torch.Generator, sizes: Sequence[int] = (10, 12, 14, 16)
) -> list[Any]:
    """Draw connected 3-regular graphs, half of them with a kind of cycle.

    Graphs are uniform among those with the label, for each number of nodes, which is drawn first. All have the same
    degrees, so message passing with constant features (1-WL) sees the number of nodes alone.

    Args:
        count: Number of graphs, even.
        with_property: `"triangle"`: graphs with label 1 have a triangle, the others have none. `"four-cycle"`: no graph
            has a triangle, and graphs with label 1 have a 4-cycle.
        generator: Source of randomness, on the CPU.
        sizes: Numbers of nodes, even and at least 6; at least 10 for 4-cycles. Smaller graphs all have the same label.

    Returns:
        PyG `Data` objects with `edge_index` and label `y`, in random order.
    """
    data_class = require("torch_geometric.data", "graphs").Data
    whole("count", count)
    one_of("with_property", with_property, get_args(Property))
    smallest = 6 if with_property == "triangle" else 10
    if count % 2 or not sizes or any(n % 2 or n < smallest for n in sizes):
        raise InputError(
            f"count must be even and sizes even numbers of at least {smallest}, got {count} and {list(sizes)}"
        )
    left = {(n, label): 0 for n in sizes for label in (0, 1)}
    for i in range(count):
        left[sizes[int(torch.randint(len(sizes), (), generator=generator))], i % 2] += 1
    found = []
    for (n, label), wanted in left.items():
        drawn: list[Tensor] = []
        while len(drawn) < wanted:
            adjacency = _simple_connected(n, 4000, generator)
            triangle, four_cycle = _has_cycles(adjacency)
            labels = triangle if with_property == "triangle" else four_cycle
            fits = (labels == bool(label)) & (~triangle if with_property == "four-cycle" else True)
            drawn += adjacency[fits].unbind()
        found += [(a, label) for a in drawn[:wanted]]
    order = torch.randperm(count, generator=generator).tolist()
    return [
        data_class(
            edge_index=found[i][0].nonzero().t().contiguous(), num_nodes=len(found[i][0]), y=torch.tensor([found[i][1]])
        )
        for i in order
    ]


def _simple_connected(n: int, tries: int, generator: torch.Generator) -> Float[Tensor, "graphs n n"]:
    """Draw pairings of three stubs a node, and return those that are simple connected graphs."""
    stubs = torch.rand(tries, 3 * n, generator=generator).argsort(1) // 3
    ends = stubs.reshape(tries, -1, 2)
    adjacency = torch.zeros(tries, n * n)
    for a, b in ((0, 1), (1, 0)):
        places = ends[..., a] * n + ends[..., b]
        adjacency.scatter_add_(1, places, torch.ones_like(places, dtype=torch.float32))
    adjacency = adjacency.reshape(tries, n, n)
    simple = (adjacency.amax((1, 2)) <= 1) & (adjacency.diagonal(0, 1, 2).sum(1) == 0)
    adjacency = adjacency[simple]
    reach = adjacency + torch.eye(n)
    for _ in range(n.bit_length()):
        reach = (reach @ reach > 0).float()
    return adjacency[(reach > 0).all(2).all(1)]


def _has_cycles(adjacency: Tensor) -> tuple[Tensor, Tensor]:
    """Return which graphs have a triangle, and which have a 4-cycle."""
    square = adjacency @ adjacency
    triangle = (square * adjacency).sum((1, 2)) > 0
    off_diagonal = square - torch.diag_embed(square.diagonal(0, 1, 2))
    return triangle, off_diagonal.amax((1, 2)) > 1


def cycle_counts(adjacency: Float[Tensor, "n n"], longest: int = 6) -> list[int]:
    """Return the numbers of simple cycles of length 3 to `longest` of an undirected graph.

    Args:
        adjacency: Symmetric matrix of zeros and ones without diagonal.
        longest: Largest length, at least 3.

    Example:
        >>> cycle_counts(1 - torch.eye(4), 4)
        [4, 3]
    """
    nx = require("networkx", "graphs")
    whole("longest", longest, 3)
    if not torch.equal(adjacency, adjacency.t()) or bool(adjacency.diagonal().any()):
        raise InputError("adjacency must be symmetric without diagonal")
    graph = nx.from_numpy_array(adjacency.numpy())
    lengths = [len(cycle) for cycle in nx.simple_cycles(graph, length_bound=longest)]
    return [lengths.count(length) for length in range(3, longest + 1)]
