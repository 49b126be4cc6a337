"""Measurements on 3-regular graphs: cycles that message passing cannot see."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch

from ...data import cubic_graphs, cycle_counts
from ...evidence import Context, Measurement
from ...graphs import SPEN, EgoNets
from .models import GIN, SubgraphNetwork

TRIANGLE_ARMS: dict[str, tuple[int, Callable[[int], nn.Module]]] = {
    "spen": (1, lambda c: SPEN(0, c, 2, 1)),
    "gin": (0, lambda c: GIN(0, 2 * c, 2)),
}
"""Hops and network of each arm, by its width."""
FOUR_CYCLE_ARMS: dict[str, tuple[int, Callable[[int], nn.Module]]] = {
    "rooted": (2, lambda c: SPEN(0, c, 2, 1, rooted=True)),
    "plain": (2, lambda c: SPEN(0, c, 2, 1)),
    "mean": (1, lambda c: SPEN(0, c, 2, 2, norm=False)),
    "sum": (1, lambda c: SPEN(0, c, 2, 2, norm=False, reinsertion="sum")),
    "norm": (1, lambda c: SPEN(0, c, 2, 2)),
    "gin": (0, lambda c: GIN(0, 2 * c, 2)),
    "ngnn": (0, lambda c: SubgraphNetwork("ngnn", 2, 2 * c, 2)),
    "sswl": (0, lambda c: SubgraphNetwork("sswl", 2, 2 * c, 2)),
}
COUNT_ARMS: dict[str, tuple[int, Callable[[int], nn.Module]]] = {
    "one-hop": (1, lambda c: SPEN(0, c, 4, 2, rooted=True)),
    "two-hops": (2, lambda c: SPEN(0, c, 4, 2, rooted=True)),
    "gin": (0, lambda c: GIN(0, 2 * c, 4, readout="sum")),
}


def batches(graphs: list[Any], hops: int) -> Callable[[torch.Tensor], Any]:
    """Return a function that batches the graphs of some indices, with ego-nets found once.

    Args:
        graphs: PyG graphs.
        hops: Radius of the ego-nets; 0 adds none.
    """
    ready = [EgoNets(hops)(g) for g in graphs] if hops else graphs
    return lambda which: Batch.from_data_list([ready[i] for i in which.tolist()])


def trained(
    context: Context, name: str, make: Callable[[], nn.Module], batch: Callable[[Tensor], Any], train: int, loss: Any
) -> tuple[nn.Module, float]:
    """Return a network trained on the first graphs for the epochs of the settings, and the seconds it took."""
    settings = context.settings

    def draw(generator: torch.Generator, count: int) -> Any:
        return batch(torch.randperm(train, generator=generator)[:count]).to(context.device)

    started = time.perf_counter()
    model = context.train(
        name,
        make,
        draw,
        loss,
        steps=settings["epochs"] * train // settings["batch_size"],
        batch_size=settings["batch_size"],
        learning_rate=settings["learning_rate"],
    )
    return model.eval(), time.perf_counter() - started


def cross_entropy(model: nn.Module, data: Any) -> Tensor:
    """Return the loss of a graph classifier on a PyG batch."""
    return nn.functional.cross_entropy(model(data), data.y)


def accuracy(model: nn.Module, data: Any) -> float:
    """Return the accuracy of a graph classifier on a PyG batch."""
    with torch.no_grad():
        return float((model(data).argmax(1) == data.y).float().mean())


def measure_triangles(context: Context) -> Measurement:
    """Return the test accuracy of each arm at finding triangles."""
    return _cycles_of(context, "triangle", TRIANGLE_ARMS)


def measure_four_cycles(context: Context) -> Measurement:
    """Return the test accuracy and the seconds of training of each arm at finding 4-cycles."""
    return _cycles_of(context, "four-cycle", FOUR_CYCLE_ARMS)


def _cycles_of(context: Context, kind: Any, arms: dict[str, tuple[int, Callable[[int], nn.Module]]]) -> Measurement:
    train, test = context.settings["train"], context.settings["test"]
    graphs = cubic_graphs(train + test, kind, context.generator(1))

    def measure(arm: str) -> Measurement:
        hops, make = arms[arm]
        batch = batches(graphs, hops)
        model, seconds = trained(context, arm, partial(make, context.settings["channels"]), batch, train, cross_entropy)
        held_out = batch(torch.arange(train, train + test)).to(context.device)
        return {arm: accuracy(model, held_out), f"{arm}@seconds": seconds}

    return context.arms({arm: partial(measure, arm) for arm in arms})


def measure_counts(context: Context) -> Measurement:
    """Return the error at counting cycles of 3 to 6 nodes, in standard deviations of each count."""
    train, test = context.settings["train"], context.settings["test"]
    graphs = cubic_graphs(train + test, "triangle", context.generator(1))
    counts = []
    for graph in graphs:
        adjacency = torch.zeros(graph.num_nodes, graph.num_nodes)
        adjacency[graph.edge_index[0], graph.edge_index[1]] = 1
        counts.append(cycle_counts(adjacency))
    targets = torch.tensor(counts, dtype=torch.float32)
    targets = (targets - targets[:train].mean(0)) / targets[:train].std(0)
    for graph, target in zip(graphs, targets, strict=True):
        graph.y = target[None]

    def measure(arm: str) -> Measurement:
        hops, make = COUNT_ARMS[arm]
        batch = batches(graphs, hops)
        model, _ = trained(
            context,
            arm,
            partial(make, context.settings["channels"]),
            batch,
            train,
            lambda model, data: (model(data) - data.y).abs().mean(),
        )
        held_out = batch(torch.arange(train, train + test)).to(context.device)
        with torch.no_grad():
            errors = (model(held_out) - held_out.y).abs().mean(0)
        return {f"{arm}@{length}": float(error) for length, error in zip(range(3, 7), errors, strict=True)}

    return context.arms({arm: partial(measure, arm) for arm in COUNT_ARMS})
