"""Populations of graph-conditioned networks as one stack, searches over states and programs, and library learning.

The rival of library learning: pip install stitch-core.
"""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable
from itertools import islice
from typing import Any

import networkx as nx
import torch
from torch import Tensor, nn
from torch_geometric.nn import GINEConv

from commutant.papers.symbolic_synthesis.models import Population, grids, searched
from commutant.programs import (
    Grammar,
    GraphMachine,
    GraphModule,
    PortGraph,
    Program,
    compress,
    enumerate_programs,
    search_states,
)

GRAPHS, SEEDS, FEATURES, BATCH = 50, 5, 96, 8
STEPS = 3  # in a row, as training runs them
SEARCHED = 1_000_000


class PyGHead(nn.Module):
    """The same head from layers of PyG, as one would write it without this library."""

    def __init__(self, head: GraphModule) -> None:
        super().__init__()
        table, graph = head.stacked, head.graph
        nodes, edges = len(graph.nodes), len(graph.edges)
        offset = nodes * torch.arange(BATCH).repeat_interleave(2 * edges)
        arcs = torch.cat([table.ends.T, table.ends.T.flip(0)], 1)
        self.nodes = nodes
        self.register_buffer("edge_index", arcs.repeat(1, BATCH) + offset)
        self.register_buffer("coordinate", torch.cat([table.coordinate, table.coordinate[nodes:]]))
        self.register_buffer("code", torch.cat([table.codes, table.codes[nodes:]]))
        self.layers = nn.ModuleList(GINEConv(nn.Linear(FEATURES, FEATURES)) for _ in range(3))
        self.readout = nn.Linear(FEATURES, 1)

    def forward(self, x: Tensor) -> Tensor:
        element = x[:, self.coordinate] + self.code
        node, edge = (t.flatten(0, 1) for t in (element[:, : self.nodes], element[:, self.nodes :]))
        for layer in self.layers:
            node, edge = (nn.functional.dropout(t, 0.3, self.training) for t in (node, edge))
            node = layer(node, self.edge_index, edge)
        return self.readout(node.view(len(x), self.nodes, -1).mean(1))


class Single(nn.Module):
    """Encoder and graph-conditioned head of one model, from ordinary layers."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.patch, self.hidden, self.out = nn.Linear(64, 24), nn.Linear(216, 64), nn.Linear(64, FEATURES)
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        patches = nn.functional.gelu(self.patch(x)).flatten(1)
        return self.head(self.out(nn.functional.gelu(self.hidden(patches)))).squeeze(-1)


def training_step(net: nn.Module, x: Tensor, y: Tensor) -> Callable[[], None]:
    optimizer = torch.optim.Adam(net.parameters(), 1e-3, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(net(x), y, reduction="none")
        loss.mean(-1).sum().backward()
        optimizer.step()

    return step


def graph_population() -> dict[str, Any]:
    """Time a training step of all models as one stack, and of one after the other."""
    torch.manual_seed(0)
    trees = [nx.random_labeled_tree(2 + i * 14 // (GRAPHS - 1), seed=i) for i in range(GRAPHS)]
    shapes = [PortGraph.from_networkx(tree) for tree in trees for _ in range(SEEDS)]
    models = len(shapes)
    x, y = grids(BATCH * models, 0.2, torch.Generator().manual_seed(0))
    x, y = x.view(models, BATCH, 9, 64), y.view(models, BATCH)
    population = Population(shapes, 1, FEATURES)
    stacked = training_step(population, x, y)
    singles = [Single(GraphModule(g, FEATURES, 1)) for g in shapes]
    alone = [training_step(net, x[m], y[m]) for m, net in enumerate(singles)]
    others = [training_step(Single(PyGHead(net.head)), x[m], y[m]) for m, net in enumerate(singles)]
    rows = sum(len(g.nodes) for g in shapes) * BATCH
    a, b = torch.randn(rows, FEATURES), torch.randn(FEATURES, FEATURES)

    def each(steps: list[Callable[[], None]]) -> Callable[[], None]:
        def run() -> None:
            for step in steps:
                step()

        return run

    def products() -> None:
        for _ in range(9):  # three layers, forward and twice backward
            a @ b

    arms = {"stacked": stacked, "loop": each(alone), "pyg": each(others), "product": products}
    times: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(6):
        for name, step in arms.items():
            start = time.perf_counter()
            for _ in range(STEPS):
                step()
            if turn:
                times[name].append((time.perf_counter() - start) / STEPS)
    ms = {name: statistics.median(values) * 1e3 for name, values in times.items()}
    return {
        "name": "graph-population",
        "title": "Training step of a population of graph-conditioned networks",
        "description": f"{GRAPHS} random trees of 2 to 16 nodes with {SEEDS} seeds each, {FEATURES} features, batch {BATCH}, encoder and head, "
        f"forward, backward and Adam, float32, {torch.get_num_threads()} threads, {STEPS} steps in a row, median of 5.",
        "columns": ["ms"],
        "rows": [
            {"name": "**`GraphModules`, one stack**", "ms": ms["stacked"]},
            {"name": f"a loop over {models} `GraphModule`s", "ms": ms["loop"]},
            {"name": f"a loop over {models} networks of PyG's `GINEConv`", "ms": ms["pyg"]},
            {"name": "products of the message-passing layers alone, as one matrix", "ms": ms["product"]},
        ],
        "reading": f"The stack is {ms['pyg'] / ms['stacked']:.1f} times as fast as a loop over networks of PyG's layers, "
        f"and {ms['loop'] / ms['stacked']:.1f} times as fast as one over our modules (bar: 10). The products of the three "
        f"layers alone, as one matrix, take {ms['product'] / ms['stacked']:.0%} of its step; memory bounds the rest.",
    }


def state_search() -> dict[str, Any]:
    """Time the search for graphs over states, and over programs by their probability."""
    machine, out = GraphMachine(10), []
    start = time.perf_counter()
    moments = [time.perf_counter() - start for _ in search_states(machine, max_applications=SEARCHED)]
    out.append(("**`search_states`**", len(moments), moments, time.perf_counter() - start))
    start, steps, keys, moments = time.perf_counter(), 0, set(), []
    for program in enumerate_programs(machine.dsl):
        steps += program.size
        if steps > SEARCHED:
            break
        output = machine.output(machine.run(program))
        if output is not None and (key := machine.key(output)) not in keys:
            keys.add(key)
            moments.append(time.perf_counter() - start)
    out.append(("`enumerate_programs`, every program run", len(keys), moments, time.perf_counter() - start))
    same = len(keys)
    first = [moments[same - 1] for _, _, moments, _ in out]
    return {
        "name": "state-search",
        "title": "New graphs by search over states and over programs",
        "description": f"Graphs of the graph machine with 10 ports, {SEARCHED:,} primitives each, uniform weights, one "
        "process of Python.".replace(",", " ", 1),
        "columns": ["graphs", f"s for {same}", "s in all"],
        "rows": [
            {"name": name, "graphs": number, f"s for {same}": moment, "s in all": seconds}
            for (name, number, _, seconds), moment in zip(out, first, strict=True)
        ],
        "reading": f"The search over states finds the first {same} graphs {first[1] / first[0]:.0f} times as fast (bar: "
        "10). The released logs of the paper have two graphs after 15 s and a million programs.",
    }


def programs_of_graphs(count: int) -> list[Program]:
    """Return accepted programs of 20 and more primitives, as many as the paper released."""
    machine = GraphMachine(10)
    dsl = searched(10_000)[0].program.dsl
    rare = dict.fromkeys(("add", "connect", "next_port", "prev_port", "func", "if_positions_equal"), 1e-9)
    programs = enumerate_programs(Grammar(dsl, rare))
    inlined = (machine.dsl.program(dsl.inline(p.term)) for p in programs if p.mass >= 20)
    return list(islice((p for p in inlined if machine.output(machine.run(p)) is not None), count))


def library_learning() -> dict[str, Any]:
    """Time library learning in Python and by Stitch."""
    programs = programs_of_graphs(119)
    rows, costs = [], {}
    methods = ["python", "stitch"] if importlib.util.find_spec("stitch_core") else ["python"]
    for method in methods:
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            result = compress(programs, 3, max_arity=2, method=method)  # type: ignore[arg-type]
            seconds.append(time.perf_counter() - start)
        costs[method] = result.cost_after
        label = {"python": "**`compress`, in Python**", "stitch": "`compress` by stitch-core 0.1.29 (Rust)"}[method]
        rows.append({"name": label, "s": statistics.median(seconds), "cost": result.cost_after})
    agree = "The costs are equal" if len(set(costs.values())) == 1 else "The costs differ"
    return {
        "name": "library-learning",
        "title": "Library learning",
        "description": f"{len(programs)} programs of graphs, cost {result.cost_before:,}, three functions of up to two "
        "arguments, median of 3.".replace(",", " ", 1),
        "columns": ["s", "cost"],
        "rows": rows,
        "reading": f"{agree} (bar: equal).",
    }


ALL = (graph_population, state_search, library_learning)
