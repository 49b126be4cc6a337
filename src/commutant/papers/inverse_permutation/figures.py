"""Plots of the experiments."""

from __future__ import annotations

from typing import Any

from ...evidence import Measurement, series
from .._shared.figures import CRIMSON, NAVY, SLATE, axes_of, seeds_and_mean


def learning(measurements: list[Measurement]) -> Any:
    """Plot the test error against the number of scratch tokens, and the floor."""
    figure, axes = axes_of()
    rows = [series(m, "scratch") for m in measurements]
    counts = list(rows[0])
    mean = seeds_and_mean(axes, counts, [[row[n] for n in counts] for row in rows], NAVY)
    floor = series(measurements[0], "floor")
    axes.plot(list(floor), list(floor.values()), color=CRIMSON, linewidth=1.6)
    before = measurements[0]["first"]
    axes.axhline(before, color=SLATE, linewidth=1.2, linestyle=":")
    axes.annotate(
        "output before the permuted rows", (counts[-1], before), (0, 5), textcoords="offset points",
        ha="right", color=SLATE, fontsize=8.5,
    )  # fmt: skip
    axes.set(xlabel="scratch tokens after the input", ylabel="squared error of a row", ylim=(-0.05, before * 1.12))
    axes.set_xticks(range(int(counts[-1]) + 1))
    axes.annotate(
        "two attention layers, causal",
        (counts[0], mean[0]),
        (8, 2),
        textcoords="offset points",
        color=NAVY,
        fontsize=8.5,
    )
    axes.annotate(
        "least error of any causal network",
        (0, floor[0]),
        (8, -14),
        textcoords="offset points",
        color=CRIMSON,
        fontsize=8.5,
    )
    return figure
