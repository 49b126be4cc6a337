"""Pointer networks beside a plain beam search and LSTMs with an attention product; tours beside exact solvers.

The rivals for tours: pip install elkai ortools.
"""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from commutant.algebra import improve_tour, path_length, shortest_hamiltonian_path, tour_lower_bound
from commutant.data import TSPInstance, load_tsplib, tour_examples
from commutant.permutations import PointerNetwork, Tour
from commutant.training import fit

from ._measure import peak_memory

BATCH, N, HIDDEN, WIDTH = 128, 50, 256, 10
PLAIN_SETS = 4  # a plain search of all sets would take minutes


def network() -> PointerNetwork:
    """Return the pointer network that is timed."""
    torch.manual_seed(0)
    model = PointerNetwork(2, HIDDEN).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)  # default weights make all tours nearly equal, and rounding then decides
    return model


@torch.no_grad()
def plain_beam(model: PointerNetwork, x: Tensor) -> list[int]:
    """Return the best tour of one set by a beam search over Python lists, one hypothesis at a time."""
    memory = model.encode(x[None])
    decoder: Any = model.decoder
    projected = decoder.projected(memory)
    beams: list[tuple[list[int], float, Any]] = [([], 0.0, memory.state)]
    for _ in range(len(x)):
        grown = []
        for prefix, score, state in beams:
            inputs = memory.inputs[:, prefix[-1]] if prefix else decoder.start[None]
            lstm = decoder.lstm
            state = torch.lstm_cell(
                inputs, state, lstm.weight_ih_l0, lstm.weight_hh_l0, lstm.bias_ih_l0, lstm.bias_hh_l0
            )
            hidden, key = decoder.attention.queries(state[0]), decoder.attention.weight
            scores = torch.tanh(projected + hidden[:, None]) @ key
            scores[0, prefix] = -torch.inf
            scores[0, -1] = -torch.inf
            logs, choices = scores[0].log_softmax(-1).topk(min(WIDTH, len(x) - len(prefix)))
            grown += [([*prefix, j], score + v, state) for v, j in zip(logs.tolist(), choices.tolist(), strict=True)]
        beams = sorted(grown, key=lambda b: -b[1])[:WIDTH]
    return beams[0][0]


class TwoLSTMs(nn.Module):
    """Two LSTMs and one additive attention product with the tensor of all queries, keys and channels."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.LSTM(HIDDEN, HIDDEN, batch_first=True)
        self.decoder = nn.LSTM(HIDDEN, HIDDEN, batch_first=True)
        self.queries, self.keys = nn.Linear(HIDDEN, HIDDEN, bias=False), nn.Linear(HIDDEN, HIDDEN, bias=False)
        self.weight = nn.Parameter(torch.randn(HIDDEN) / HIDDEN**0.5)

    def forward(self, x: Tensor) -> Tensor:
        keys, state = self.encoder(x)
        hidden, _ = self.decoder(x, state)
        return torch.tanh(self.queries(hidden)[:, :, None] + self.keys(keys)[:, None]) @ self.weight


def step_of(name: str) -> Callable[[], None]:
    """Return forward and backward of one way."""
    torch.manual_seed(0)
    x, targets = torch.rand(BATCH, N, 2), torch.rand(BATCH, N).argsort(1)
    if name == "pointer":
        model = PointerNetwork(2, HIDDEN, stop=False)
        return lambda: model.loss(x, targets).backward()
    other, wide = TwoLSTMs(), torch.rand(BATCH, N, HIDDEN)
    if name == "lstms":
        lstms = lambda: other.decoder(wide, other.encoder(wide)[1])[0].sum().backward()  # noqa: E731
        return lstms
    return lambda: nn.functional.cross_entropy(other(wide).flatten(0, 1), targets.flatten()).backward()


def pointer_step() -> dict[str, Any]:
    """Time a training step, and measure the memory that it adds."""
    names = {
        "pointer": "**`PointerNetwork.loss`**",
        "lstms": "two `nn.LSTM` alone",
        "plain": "the same, and plain attention",
    }
    steps, times = {name: step_of(name) for name in names}, {name: [] for name in names}
    for turn in range(8):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if turn:
                times[name].append(time.perf_counter() - start)
    code = "import torch\nfrom benchmarks.pointers import step_of\nstep = step_of({name!r})\n# MARK\nstep()\n"
    rows: list[dict[str, Any]] = [
        {
            "name": label,
            "ms": statistics.median(times[name]) * 1e3,
            "GiB": peak_memory(code.format(name=name)),
        }
        for name, label in names.items()
    ]
    ours, lstms, plain = (row["ms"] for row in rows)
    return {
        "name": "pointer-step",
        "title": "Training step of a pointer network",
        "description": f"{BATCH} sets of {N} points, width {HIDDEN}, {N} steps, forward and backward, float32, "
        f"{torch.get_num_threads()} threads, median of 7.",
        "columns": ["ms", "GiB"],
        "rows": rows,
        "reading": f"The step takes {ours / plain:.2f} times as long as two LSTMs with one plain additive attention "
        f"(bar: at most 1.3), and {ours / lstms:.2f} times as long as the two LSTMs alone. The tensor of all queries, "
        f"keys and channels would take {BATCH * N * N * HIDDEN * 4 / 2**30:.2f} GiB; it is never made.",
    }


def pointer_beam() -> dict[str, Any]:
    """Time a beam search of all sets at once, and one set and hypothesis at a time."""
    model, x = network(), torch.rand(BATCH, N, 2, generator=torch.Generator().manual_seed(0))
    found = model.decode(x[:PLAIN_SETS], "beam", WIDTH, constraint=Tour()).best[:, :N].tolist()
    equal = sum(plain_beam(model, one) == ours for one, ours in zip(x[:PLAIN_SETS], found, strict=True))
    ours, plain, greedy = [], [], []
    for turn in range(4):
        start = time.perf_counter()
        model.decode(x, "beam", WIDTH, constraint=Tour())
        middle = time.perf_counter()
        model.decode(x, constraint=Tour())
        third = time.perf_counter()
        for one in x[:PLAIN_SETS]:
            plain_beam(model, one)
        end = time.perf_counter()
        if turn:
            ours.append((middle - start) / BATCH)
            greedy.append((third - middle) / BATCH)
            plain.append((end - third) / PLAIN_SETS)
    each = {
        f"**`decode`, beam of {WIDTH}**": statistics.median(ours),
        "**`decode`, greedy**": statistics.median(greedy),
        f"beam of {WIDTH} over Python lists": statistics.median(plain),
    }
    fast, _, slow = each.values()
    return {
        "name": "pointer-beam",
        "title": "Beam search of tours",
        "description": f"{BATCH} sets of {N} points, width {HIDDEN}, tours only, float32, {torch.get_num_threads()} "
        f"threads. The search over lists was timed on {PLAIN_SETS} sets.",
        "columns": ["ms a set"],
        "rows": [{"name": name, "ms a set": seconds * 1e3} for name, seconds in each.items()],
        "reading": f"The vectorized search is {slow / fast:.0f} times as fast as the one over lists (bar: 20), and "
        f"keeps the greedy sequence. Both find the same tour for {equal} of {PLAIN_SETS} sets.",
    }


def tours() -> dict[str, Any]:
    """Find tours of uniform points, beside a heuristic solver and an exact one where they are installed."""
    examples = tour_examples(torch.Generator().manual_seed(0), 20, N, "local-search")
    distance = torch.cdist(examples.x.double(), examples.x.double())
    distance = (distance + distance.mT) / 2
    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "**`shortest_hamiltonian_path`**": lambda d: shortest_hamiltonian_path(d, closed=True)
    }
    if importlib.util.find_spec("elkai"):
        ways["elkai (LKH)"] = _elkai
    if importlib.util.find_spec("ortools"):
        ways["OR-Tools, first solution and 1 s of guided search"] = _ortools
    bound = tour_lower_bound(distance, 300)
    rows = []
    for name, way in ways.items():
        start = time.perf_counter()
        found = torch.stack([way(d) for d in distance])
        seconds = (time.perf_counter() - start) / len(distance)
        length = path_length(distance, found, closed=True)
        rows.append({"name": name, "length": float(length.mean()), "above the bound, %": float((length / bound - 1).mean()) * 100,
                     "s a tour": seconds})  # fmt: skip
    rows.append(
        {"name": "`tour_lower_bound`", "length": float(bound.mean()), "above the bound, %": 0.0, "s a tour": "-"}
    )
    return {
        "name": "tours",
        "title": "Tours of 50 points",
        "description": "20 sets of 50 uniform points in the unit square.",
        "columns": ["length", "above the bound, %", "s a tour"],
        "rows": rows,
        "reading": "Solvers made for tours find shorter ones. Use them where the tour is what you want; the local "
        "search here gives labels, and polishes the tours of networks.",
    }


def tsplib() -> dict[str, Any]:
    """Find tours of the small instances of TSPLIB (`$COMMUTANT_DATA`), whose optima are published."""
    instances = [i for i in load_tsplib(most=52) if i.points is not None]
    network = PointerNetwork(2, 128)
    fit(
        network,
        lambda g, count: tour_examples(g, count, (5, 10)),
        lambda model, batch: model.loss(batch.x, batch.targets, lengths=batch.lengths),
        steps=1500,
        batch_size=128,
        learning_rate=2e-3,
        warmup=100,
        seed=0,
    )
    network.eval()

    def pointed(instance: TSPInstance) -> Tensor:
        low, high = instance.points.amin(0), instance.points.amax(0)
        x = ((instance.points - low) / (high - low).max()).float()[None]
        return network.decode(x, "beam", WIDTH, constraint=Tour()).best[0, : x.shape[1]]

    ways: dict[str, Callable[[TSPInstance], Tensor]] = {
        "`PointerNetwork`, trained on 5 to 10 cities, beam of 10": pointed,
        "the same, then `improve_tour`": lambda i: improve_tour(i.distance.double(), pointed(i)),
        "**`shortest_hamiltonian_path`**": lambda i: shortest_hamiltonian_path(i.distance.double(), closed=True),
    }
    if importlib.util.find_spec("elkai"):
        ways["elkai (LKH)"] = lambda i: _elkai(i.distance, 1.0)
    if importlib.util.find_spec("ortools"):
        ways["OR-Tools, first solution and 1 s of guided search"] = lambda i: _ortools(i.distance, 1.0)
    rows = []
    for name, way in ways.items():
        start = time.perf_counter()
        gaps = [100 * (i.length(way(i)) / i.optimum - 1) for i in instances]
        seconds = (time.perf_counter() - start) / len(instances)
        optimal = sum(g == 0 for g in gaps)
        rows.append({"name": name, "above the optimum, %": statistics.fmean(gaps), "worst, %": max(gaps),
                     "optimal": optimal, "s a tour": seconds})  # fmt: skip
    sizes = [len(i.distance) for i in instances]
    return {
        "name": "tsplib",
        "title": "Small instances of TSPLIB",
        "description": f"{len(instances)} instances of {min(sizes)} to {max(sizes)} nodes with coordinates, distances "
        "rounded as published. The network saw 192 000 sets of uniform points.",
        "columns": ["above the optimum, %", "worst, %", "optimal", "s a tour"],
        "rows": rows,
        "reading": "LKH finds every optimum. A pointer network alone is far from it beyond the sizes that it was trained "
        "on. After polish its tours are about as long as those of a local search from scratch and of one second of "
        "OR-Tools.",
    }


def _elkai(distance: Tensor, scale: float = 1e6) -> Tensor:
    import elkai

    whole = (distance * scale).round().long().tolist()
    return torch.tensor(elkai.DistanceMatrix(whole).solve_tsp()[:-1])


def _ortools(distance: Tensor, scale: float = 1e6) -> Tensor:
    from ortools.constraint_solver import pywrapcp, routing_enums_pb2

    whole = (distance * scale).round().long().tolist()
    manager = pywrapcp.RoutingIndexManager(len(whole), 1, 0)
    routing = pywrapcp.RoutingModel(manager)
    cost = routing.RegisterTransitCallback(lambda i, j: whole[manager.IndexToNode(i)][manager.IndexToNode(j)])
    routing.SetArcCostEvaluatorOfAllVehicles(cost)
    options = pywrapcp.DefaultRoutingSearchParameters()
    options.local_search_metaheuristic = routing_enums_pb2.LocalSearchMetaheuristic.GUIDED_LOCAL_SEARCH
    options.time_limit.seconds = 1
    solution, order, index = routing.SolveWithParameters(options), [], routing.Start(0)
    while not routing.IsEnd(index):
        order.append(manager.IndexToNode(index))
        index = solution.Value(routing.NextVar(index))
    return torch.tensor(order)


ALL = (pointer_step, pointer_beam, tours, tsplib)
