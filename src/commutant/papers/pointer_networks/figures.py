"""Plots of the experiments."""

from __future__ import annotations

from typing import Any

from ...evidence import Measurement, series
from .._shared.figures import CRIMSON, NAVY, SLATE, TEAL, columns_of, dots, label_ends, seeds_and_mean

HULLS = {
    "set": ("pointer, set encoder, all rotations", TEAL),
    "pointer": ("pointer, LSTM encoder", NAVY),
    "attention": ("LSTM with attention, fixed vocabulary", SLATE),
    "lstm": ("LSTM, fixed vocabulary", SLATE),
    "tagger": ("tagger of points (Transformer), by angle", CRIMSON),
    "deepsets-tagger": ("tagger of points (DeepSets), by angle", CRIMSON),
}
"""Name and color of each arm."""


def hulls(measurements: list[Measurement]) -> Any:
    """Plot the share of exact hulls of each arm."""
    return dots(measurements, HULLS, "share of convex hulls that are exact")


def lengths(measurements: list[Measurement]) -> Any:
    """Plot exact hulls and covered area against the number of points."""
    figure, panels = columns_of(2, 3.4)
    lines = {"pointer": ("LSTM encoder", NAVY), "set": ("set encoder", TEAL), "tagger": ("tagger", CRIMSON)}
    for axes, end, label in zip(panels, ("", "-area"), ("exact hulls", "covered area, simple polygons"), strict=True):
        ends = []
        for arm, (name, color) in lines.items():
            rows = [series(m, f"{arm}{end}") for m in measurements]
            sizes = list(rows[0])
            mean = seeds_and_mean(axes, sizes, [[row[n] for n in sizes] for row in rows], color)
            ends.append((mean[-1], name, color))
        axes.set(xlabel="points", ylabel=label)
        axes.set_xlim(sizes[0] - 1, sizes[-1] * 1.45)
        label_ends(axes, ends, sizes[-1] * 1.03, 0.045 if not end else 0.004)
    return figure


def tours(measurements: list[Measurement]) -> Any:
    """Plot the length of tours of 10 cities relative to the optimum."""
    keys = {
        "pointer@10": ("pointer network, beam 10", NAVY),
        "polished@10": ("pointer network, then 2-opt", TEAL),
        "nearest-neighbor@10": ("nearest neighbor", SLATE),
        "nearest-neighbor-polished@10": ("nearest neighbor, then 2-opt", CRIMSON),
        "local-search@10": ("greedy edges, then 2-opt", CRIMSON),
    }
    return dots(measurements, keys, "length of tours of 10 cities over that of optimal tours")
