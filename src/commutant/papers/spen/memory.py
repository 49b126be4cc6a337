"""Measurement of the memory that training keeps, against the number of nodes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch_geometric.data import Data

from ...algebra import PermutationEquivariantLinear
from ...evidence import Context, Measurement
from ...graphs import EgoNets, Neighborhoods, SPENConv

CHANNELS = 16


def _regular_graph(n: int, generator: torch.Generator) -> Data:
    """Draw three random perfect matchings; the few parallel edges stay."""
    ends = torch.cat([torch.randperm(n, generator=generator).reshape(2, -1) for _ in range(3)], 1)
    return Data(edge_index=torch.cat([ends, ends.flip(0)], 1), num_nodes=n)


def kept_bytes(run: Callable[[], Tensor]) -> int:
    """Return the bytes that autograd keeps for the backward pass of a function.

    Args:
        run: Function of no arguments.
    """
    storages: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        storages[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = run()  # keeps what is saved alive, so that no storage takes the place of another
    del out
    return sum(storages.values())


def measure_memory(context: Context) -> Measurement:
    """Return the bytes kept for the backward pass of two layers of pairs, for each number of nodes."""

    def measure(arm: str) -> Measurement:
        out: Measurement = {}
        for n in context.settings["sizes" if arm != "global" else "global_sizes"]:
            out[f"{arm}@{n}"] = float(kept_bytes(partial(_pass, arm, n, context.generator(n))))
        return out

    return context.arms({arm: partial(measure, arm) for arm in ("one-hop", "two-hops", "global")})


def _pass(arm: str, n: int, generator: torch.Generator) -> Tensor:
    """Return the sum of the outputs of two layers on one graph."""
    graph = _regular_graph(n, generator)
    if arm == "global":
        layers = [PermutationEquivariantLinear({2: CHANNELS}, {2: CHANNELS}) for _ in range(2)]
        x = torch.zeros(1, n, n, CHANNELS)
        x[0, graph.edge_index[0], graph.edge_index[1]] = 1
        for layer in layers:
            x = torch.nn.functional.elu(layer({2: x})[2])
        return x.sum()
    near = Neighborhoods.from_data(EgoNets(1 if arm == "one-hop" else 2)(graph))
    x = torch.zeros(near.count(2), CHANNELS)
    x[near.find(graph.edge_index)] = 1
    for _ in range(2):
        x = torch.nn.functional.elu(SPENConv({2: CHANNELS}, {2: CHANNELS})({2: x}, near)[2])
    return x.sum()
