"""Plots of the experiments."""

from __future__ import annotations

import statistics
from typing import Any

from ...evidence import Measurement, series
from .._shared.figures import CRIMSON, NAVY, OCHRE, SLATE, TEAL, VIOLET, axes_of, dots

FOUR_CYCLES = {
    "rooted": ("SPEN, two hops, rooted", TEAL),
    "plain": ("SPEN, two hops", NAVY),
    "norm": ("SPEN, one hop, means, GraphNorm", OCHRE),
    "sum": ("SPEN, one hop, sums", VIOLET),
    "mean": ("SPEN, one hop, means", CRIMSON),
    "sswl": ("SSWL, two hops", SLATE),
    "ngnn": ("NGNN, two hops", SLATE),
    "gin": ("GIN (1-WL)", SLATE),
}
_MEMORY = {"global": ("all pairs", CRIMSON), "two-hops": ("SPEN, two hops", NAVY), "one-hop": ("SPEN, one hop", TEAL)}
_COLLECTION = {"spen": ("SPEN", TEAL), "gin": ("GIN", SLATE), "gnn-ak": ("GNN-AK", OCHRE)}


def four_cycles(measurements: list[Measurement]) -> Any:
    """Plot the test accuracy at finding 4-cycles."""
    return dots(measurements, FOUR_CYCLES, "test accuracy, 4-cycle or not (chance 0.5)")


def collection(measurements: list[Measurement]) -> Any:
    """Plot the test accuracy on each data set of the TU collection."""
    names = list(dict.fromkeys(key.split("@")[1] for key in measurements[0]))
    keys = {
        f"{arm}@{name}": (f"{name}, {label}", color) for name in names for arm, (label, color) in _COLLECTION.items()
    }
    return dots(measurements, keys, "test accuracy")


def memory(measurements: list[Measurement]) -> Any:
    """Plot the memory for the backward pass against the number of nodes."""
    figure, axes = axes_of(3.8)
    ends = []
    for arm, (name, color) in _MEMORY.items():
        rows = [series(m, arm) for m in measurements]
        sizes = list(rows[0])
        mean = [statistics.fmean(row[n] for row in rows) / 2**20 for n in sizes]
        axes.plot(sizes, mean, "o-", color=color, linewidth=1.8, markersize=4)
        ends.append((sizes[-1], mean[-1], name, color))
    axes.set(xscale="log", yscale="log", xlabel="nodes of a random 3-regular graph", ylabel="kept for backward, MiB")
    for n, height, name, color in ends:
        axes.annotate(name, (n, height), (8, 0), textcoords="offset points", color=color, va="center", fontsize=8.5)
    axes.margins(x=0.22)
    return figure
