"""Plots of the experiments."""

from __future__ import annotations

from typing import Any

from ...evidence import Measurement, series
from .._shared.figures import CRIMSON, NAVY, SLATE, TEAL, axes_of, dots, label_ends, seeds_and_mean

ANOMALIES = {
    "none": ("subset alone (EquiVSet)", SLATE),
    "added": ("subset alone, ground set added (control)", SLATE),
    "concat": ("jointly with the ground set", TEAL),
    "complement": ("with the complement (INSET)", TEAL),
    "deepsets": ("DeepSets tagger", CRIMSON),
    "set-transformer": ("Set Transformer tagger", CRIMSON),
    "selector-mean-field": ("`SubsetSelector`, mean field", NAVY),
    "selector-exact": ("`SubsetSelector`, exact likelihood", NAVY),
}
"""Name and color of each arm."""


def anomalies(measurements: list[Measurement]) -> Any:
    """Plot the overlap of each arm."""
    rows = {arm: (name.replace("`", ""), color) for arm, (name, color) in ANOMALIES.items()}
    return dots(measurements, rows, "mean Jaccard coefficient")


def growth(measurements: list[Measurement]) -> Any:
    """Plot the overlap against the size of the ground sets."""
    figure, axes = axes_of()
    lines = {
        "complement-sum": ("complement, sums", TEAL),
        "complement-mean": ("complement, means", NAVY),
        "none-sum": ("subset alone, sums", SLATE),
        "set-transformer-sum": ("Set Transformer tagger", CRIMSON),
    }
    ends = []
    for arm, (name, color) in lines.items():
        rows = [series(m, arm) for m in measurements]
        sizes = list(rows[0])
        mean = seeds_and_mean(axes, sizes, [[row[n] for n in sizes] for row in rows], color)
        ends.append((mean[-1], name, color))
    axes.set(xscale="log", xlabel="elements of a test ground set", ylabel="mean Jaccard coefficient")
    axes.set_xticks(sizes, [f"{n}" for n in sizes])
    axes.minorticks_off()
    axes.set_xlim(sizes[0] * 0.9, sizes[-1] * 3)
    label_ends(axes, ends, sizes[-1] * 1.08, 0.009)
    return figure
