"""Measurements of the experiments."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ...algebra import improve_tour, is_simple_polygon, path_length, shortest_hamiltonian_path
from ...data import PointerExamples, delaunay_examples, hull_examples, tour_examples
from ...evidence import Context, Measurement
from ...permutations import (
    PointerNetwork,
    Tour,
    area_coverage,
    open_polygon,
    same_polygon,
    same_triangles,
    tour_length,
    triangle_coverage,
)
from .models import HullTagger, Objective, fixed_vocabulary

Examples = Callable[[torch.Generator, int], PointerExamples]


def trained(
    context: Context, name: str, make: Callable[[], nn.Module], examples: Examples, **options: Any
) -> nn.Module:
    """Return a network trained on fresh examples for the steps of the settings, in evaluation mode."""
    s = context.settings
    objective = context.train(
        name,
        lambda: Objective(make(), **options),
        lambda generator, count: examples(generator, count).to(context.device),
        lambda model, batch: model(batch),
        steps=s["steps"],
        batch_size=s["batch_size"],
        learning_rate=s["learning_rate"],
        warmup=s["warmup"],
        clip=2.0,
    )
    network: Any = objective.network
    return network.eval()


@torch.no_grad()
def polygons_of(network: Any, test: PointerExamples) -> Tensor:
    """Return the polygons that a network finds, by greedy decoding without a constraint for pointer networks."""
    if isinstance(network, HullTagger):
        return network.polygons(test.x, test.lengths)
    return network.decode(test.x, lengths=test.lengths).best


def hull_figures(name: str, network: Any, test: PointerExamples, end: str = "") -> Measurement:
    """Return the share of exact polygons and of simple ones, and the covered area of those that are simple."""
    found = polygons_of(network, test)
    simple = is_simple_polygon(test.x, open_polygon(found))
    area = area_coverage(test.x, found, test.targets)[simple]
    return {
        f"{name}{end}": float(same_polygon(found, test.targets).double().mean()),
        f"{name}-simple{end}": float(simple.double().mean()),
        f"{name}-area{end}": float(area.mean()) if len(area) else 0.0,
    }


def measure_hulls(context: Context) -> Measurement:
    """Return how many hulls of n points each arm finds."""
    s = context.settings
    n, width = s["n"], s["width"]
    test = hull_examples(context.generator(1), s["test"], n).to(context.device)
    networks: dict[str, tuple[Callable[[], nn.Module], dict[str, Any]]] = {
        "pointer": (lambda: PointerNetwork(2, width), {}),
        "attention": (lambda: fixed_vocabulary(width, n, True), {}),
        "lstm": (lambda: fixed_vocabulary(width, n, False), {}),
        "set": (lambda: PointerNetwork(2, width, "set"), {"equivalent": "rotations"}),
        "tagger": (lambda: HullTagger(width, "set"), {}),
        "deepsets-tagger": (lambda: HullTagger(width, "deepsets"), {}),
    }

    def of_arm(name: str) -> Measurement:
        make, options = networks[name]
        network = trained(context, name, make, lambda g, count: hull_examples(g, count, n), **options)
        return hull_figures(name, network, test)

    return context.arms({name: partial(of_arm, name) for name in networks})


def measure_lengths(context: Context) -> Measurement:
    """Return how many hulls each arm finds for sets larger than in training."""
    s = context.settings
    width = s["width"]
    tests = {n: hull_examples(context.generator(n), s["test"], n).to(context.device) for n in s["sizes"]}
    networks: dict[str, tuple[Callable[[], nn.Module], dict[str, Any]]] = {
        "pointer": (lambda: PointerNetwork(2, width), {}),
        "set": (lambda: PointerNetwork(2, width, "set"), {"equivalent": "rotations"}),
        "tagger": (lambda: HullTagger(width, "set"), {}),
    }

    def of_arm(name: str) -> Measurement:
        make, options = networks[name]
        network = trained(context, name, make, lambda g, count: hull_examples(g, count, tuple(s["trained"])), **options)
        out: Measurement = {}
        for n, test in tests.items():
            out |= hull_figures(name, network, test, f"@{n}")
        return out

    return context.arms({name: partial(of_arm, name) for name in networks})


def measure_triangulations(context: Context) -> Measurement:
    """Return how many Delaunay triangulations, and which share of the triangles, each arm finds."""
    s = context.settings
    n, width = s["n"], s["width"]
    test = delaunay_examples(context.generator(1), s["test"], n).to(context.device)
    networks: dict[str, tuple[Callable[[], nn.Module], dict[str, Any]]] = {
        "pointer": (lambda: PointerNetwork(2, width), {}),
        "any-order": (lambda: PointerNetwork(2, width), {"equivalent": "triangles"}),
        "lstm": (lambda: fixed_vocabulary(width, n, False), {}),
    }

    def of_arm(name: str) -> Measurement:
        make, options = networks[name]
        network: Any = trained(context, name, make, lambda g, count: delaunay_examples(g, count, n), **options)
        found = network.decode(test.x, max_steps=6 * n).best
        return {
            name: float(same_triangles(found, test.targets).double().mean()),
            f"{name}-coverage": float(triangle_coverage(found, test.targets).mean()),
        }

    return context.arms({name: partial(of_arm, name) for name in networks})


def measure_tours(context: Context) -> Measurement:
    """Return the length of the tours of each method over that of the optimal tours."""
    s = context.settings
    tests = {n: tour_examples(context.generator(n), s["test"], n).to(context.device) for n in s["sizes"]}
    best = {n: float(tour_length(test.x, test.targets).mean()) for n, test in tests.items()}

    def of_network() -> Measurement:
        network: Any = trained(
            context,
            "pointer",
            lambda: PointerNetwork(2, s["width"]),
            lambda g, count: tour_examples(g, count, tuple(s["trained"])),
        )
        out: Measurement = {}
        for n, test in tests.items():
            found = network.decode(test.x, "beam", s["beam"], constraint=Tour(), lengths=test.lengths).best[:, :n]
            free = network.decode(test.x).best
            out[f"pointer@{n}"] = float(tour_length(test.x, found).mean()) / best[n]
            out[f"polished@{n}"] = float(tour_length(test.x, improve_tour(distances(test.x), found)).mean()) / best[n]
            out[f"invalid@{n}"] = float(torch.isinf(tour_length(test.x, free)).double().mean())
        return out

    def of_heuristics() -> Measurement:
        out: Measurement = {}
        for n, test in tests.items():
            d = distances(test.x)
            near = nearest_neighbors(d)
            found = {
                "nearest-neighbor": near,
                "nearest-neighbor-polished": improve_tour(d, near),
                "local-search": shortest_hamiltonian_path(d, closed=True, exact=False),
            }
            for name, tour in found.items():
                out[f"{name}@{n}"] = float(path_length(d, tour, closed=True).mean()) / best[n]
        return out

    return context.arms({"pointer": of_network, "heuristics": of_heuristics})


def distances(x: Tensor) -> Tensor:
    """Return symmetric distances in float64, `(batch, n, n)`."""
    d = torch.cdist(x.double(), x.double())
    return (d + d.mT) / 2


def nearest_neighbors(d: Tensor) -> Tensor:
    """Return tours from point 0 that always go on to the nearest point left, `(batch, n)`."""
    left = d.clone()
    tour = [torch.zeros(len(d), dtype=torch.int64, device=d.device)]
    rows = torch.arange(len(d), device=d.device)
    for _ in range(d.shape[1] - 1):
        left[rows, :, tour[-1]] = torch.inf
        tour.append(left[rows, tour[-1]].argmin(1))
    return torch.stack(tour, 1)
