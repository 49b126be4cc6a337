"""Measurement of the pairs of graphs that networks with random weights tell apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from ...data import hard_graphs
from ...evidence import Context, Measurement
from ...graphs import SPEN, EgoNets
from .models import GIN

EQUAL = 1e-10
"""Outputs closer than this, relative to the largest output, count as equal; rounding is about 1e-15."""

ARMS: dict[str, tuple[int, Callable[[int], nn.Module]]] = {
    "one-hop": (1, lambda c: SPEN(c, 16, 16, 3, norm=False)),
    "one-hop-sum": (1, lambda c: SPEN(c, 16, 16, 3, norm=False, reinsertion="sum")),
    "one-hop-norm": (1, lambda c: SPEN(c, 16, 16, 3)),
    "two-hops": (2, lambda c: SPEN(c, 16, 16, 3, norm=False)),
    "rooted": (1, lambda c: SPEN(c, 16, 16, 3, norm=False, rooted=True)),
    "rooted-two-hops": (2, lambda c: SPEN(c, 16, 16, 3, rooted=True, reinsertion="sum")),
    "gin": (0, lambda c: GIN(c, 16, 16, 3, readout="sum")),
}


def measure_separation(context: Context) -> Measurement:
    """Return the numbers of pairs of graphs that each arm does not tell apart, in each family."""
    families = {name: hard_graphs(name, context.data_dir) for name in context.settings["families"]}
    out: Measurement = {}
    for name, graphs in families.items():
        n = len(graphs)
        out[f"pairs@{name}"] = float(n // 2 if name == "exp" else n * (n - 1) // 2)
        if name == "graph8c":
            out[f"refinement@{name}"] = float(_equal_by_refinement([a for a, _ in graphs]))

    def measure(arm: str) -> Measurement:
        return {f"{arm}@{name}": float(_equal_pairs(context, arm, name, graphs)) for name, graphs in families.items()}

    return out | context.arms({arm: partial(measure, arm) for arm in ARMS})


def _equal_pairs(context: Context, arm: str, name: str, graphs: list[tuple[Tensor, Tensor]]) -> int:
    hops, make = ARMS[arm]
    torch.manual_seed(context.seed)
    model = make(graphs[0][1].shape[1]).double().eval()
    outputs = []
    for start in range(0, len(graphs), 500):
        part = [Data(edge_index=a.nonzero().t(), x=x, num_nodes=len(a)) for a, x in graphs[start : start + 500]]
        batch = Batch.from_data_list([EgoNets(hops)(g) for g in part] if hops else part)
        with torch.no_grad():
            outputs.append(model(batch))
    z = torch.cat(outputs)
    z = z / z.abs().max()
    if name == "exp":  # the graphs of a pair are adjacent
        return int(((z[::2] - z[1::2]).abs().amax(1) <= EQUAL).sum())
    z = z[z[:, 0].argsort()]
    equal = 0
    for gap in range(1, len(z)):
        near = z[gap:, 0] - z[:-gap, 0] <= EQUAL
        if not bool(near.any()):
            break
        equal += int(((z[gap:] - z[:-gap])[near].abs().amax(1) <= EQUAL).sum())
    return equal


def _equal_by_refinement(graphs: list[Tensor]) -> int:
    """Return the number of pairs of graphs that color refinement (1-WL) does not tell apart."""
    import networkx as nx

    seen: Counter[str] = Counter()
    for adjacency in graphs:
        graph = nx.from_numpy_array(adjacency.numpy())
        nx.set_node_attributes(graph, "same", "color")
        seen[nx.weisfeiler_lehman_graph_hash(graph, node_attr="color", iterations=8)] += 1
    return sum(count * (count - 1) // 2 for count in seen.values())
