"""Figures of the claims on invariant coordinates."""

from __future__ import annotations

import statistics
from typing import Any

from ...evidence import Measurement
from .._shared.figures import CRIMSON, GREY, NAVY, OCHRE, SILVER, TEAL, VIOLET, axes_of, label_ends

_SHAPES = {
    "raw": ("raw coordinates", CRIMSON),
    "augmented": ("rotated any way in training", OCHRE),
    "no-rule": ("invariant, no sign rule", VIOLET),
    "random": ("invariant, random signs", GREY),
    "frames": ("all eight signs", NAVY),
    "maxabs": ("invariant, sign rule", TEAL),
}


def shapes(measurements: list[Measurement]) -> Any:
    """Plot accuracy against the motion of the test objects, one line per kind of coordinates."""
    figure, axes = axes_of(3.6)
    places = {"upright": "upright", "z": "about z", "any": "any way", "similar": "and scaled,\nshifted"}
    ends = []
    for arm, (label, color) in _SHAPES.items():
        means = [statistics.fmean(m[f"{arm}@{p}"] for m in measurements) for p in places]
        for m in measurements:
            axes.plot(range(4), [m[f"{arm}@{p}"] for p in places], color=color, alpha=0.3, linewidth=0.8)
        axes.plot(range(4), means, "o-", color=color, linewidth=2, markersize=5)
        ends.append((means[-1], label, color))
    axes.plot((-0.2, 3), (0.1, 0.1), color=SILVER, linestyle=":", linewidth=1)
    axes.set_xticks(range(4), list(places.values()))
    axes.set(xlim=(-0.2, 4.7), ylim=(0, 1), ylabel="test accuracy")
    label_ends(axes, ends, 3.1, 0.065)
    return figure


def routes(measurements: list[Measurement]) -> Any:
    """Plot the share of tours that stay for each motion of the map, one row of bars per arm."""
    figure, axes = axes_of(3.2)
    arms = {
        "raw": ("raw coordinates", CRIMSON),
        "no-rule": ("invariant, no sign rule", VIOLET),
        "maxabs": ("invariant, sign rule", TEAL),
    }
    places = {"shifted": "shifted by 5", "turned": "rotated", "larger": "ten times larger", "all": "all three"}
    for i, (arm, (label, color)) in enumerate(arms.items()):
        gap = statistics.fmean(m[f"{arm}@gap-as-is"] for m in measurements)
        heights = [statistics.fmean(100 * m[f"{arm}@same-{p}"] for m in measurements) for p in places]
        spots = [p + 0.27 * (i - 1) for p in range(4)]
        axes.bar(spots, heights, 0.24, color=color, label=f"{label} ({100 * gap:.1f} % above the shortest)")
        for spot, height in zip(spots, heights, strict=True):
            axes.text(spot, height + 1.5, f"{height:.0f}", ha="center", fontsize=8, color=color)
    axes.set_xticks(range(4), list(places.values()))
    axes.set(ylabel="tours that stay, percent", ylim=(0, 172), yticks=(0, 25, 50, 75, 100))
    axes.legend(frameon=False, fontsize=8.5, loc="upper left")
    return figure
