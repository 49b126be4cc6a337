"""Drawn cases of the laws stated by the layers of this subpackage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from ..laws import BatchIndependence, Draw, Equivariance, GraphPermutation, Law
from ._ego_nets import EgoNets
from ._neighborhoods import Neighborhoods

Case: TypeAlias = tuple[Law, Callable[..., Any], Any]


def _graph(draw: Draw, channels: int) -> Any:
    """Draw a directed graph with parallel edges, self-loops and isolated nodes."""
    from torch_geometric.data import Data

    n = 3 + draw.size % 6
    edge_index = torch.randint(0, n, (2, n + draw.size % 4), generator=draw.generator)
    return Data(x=draw.normal(n, channels), edge_index=edge_index)


def dense_pairs(values: Tensor, pair_index: Tensor, n: int) -> Tensor:
    """Return features of pairs as a dense tensor, `(n, n, channels)`."""
    out = values.new_zeros(n * n, values.shape[1]).index_copy(0, pair_index[0] * n + pair_index[1], values)
    return out.reshape(n, n, -1)


def layer_on_graphs(draw: Draw, make: Callable[[dict[int, int], dict[int, int]], nn.Module], k: int) -> Case:
    """Draw a layer from nodes to pairs, nodes and ego-nets, and a graph."""
    layer = draw.module(lambda: make({1: draw.width}, {2: 2, 1: 3, 0: 1}))

    def apply(data: Any) -> tuple[Tensor, ...]:
        n = Neighborhoods.from_data(EgoNets(k)(data))
        out = layer({1: data.x}, n)
        return dense_pairs(out[2], n.pair_index, n.count(1)), out[1], out[0]

    return Equivariance(GraphPermutation()), apply, _graph(draw, draw.width)


def network_on_graphs(draw: Draw, make: Callable[[int], nn.Module], law: Law) -> Case:
    """Draw a network and a graph, whose ego-nets are found anew after each permutation."""
    network = draw.module(lambda: make(draw.width)).eval()
    return law, lambda data: network(EgoNets(1)(data)), _graph(draw, draw.width)


def network_on_batches(draw: Draw, make: Callable[[int], nn.Module]) -> Case:
    """Draw a network and a batch of four graphs."""
    from torch_geometric.data import Batch

    network = draw.module(lambda: make(draw.width)).eval()
    batch = Batch.from_data_list([EgoNets(1)(_graph(draw, draw.width)) for _ in range(4)])
    return BatchIndependence(), network, batch
