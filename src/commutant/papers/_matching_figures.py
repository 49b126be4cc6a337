"""The figure of the weight-matching claims."""

from __future__ import annotations

import statistics
from typing import Any

from ..evidence import Measurement
from ._figures import CRIMSON, GREY, NAVY, TEAL
from ._matching_measures import POINTS, THRESHOLDS

_ARMS = {"none": ("as trained", GREY), "random": ("random permutation", CRIMSON), "am": ("activation matching", NAVY),
         "wm": ("weight matching", TEAL)}  # fmt: skip


def matching(measurements: list[Measurement]) -> Any:
    """Left: loss above the chord along the line between two networks. Right: alignment against the threshold."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.25, linewidth=0.6)
    widths = sorted({int(key.split("-")[0][1:]) for key in measurements[0] if "-none@barrier" in key})
    width = 128 if 128 in widths else widths[-1]

    def median(key: str) -> float:
        return statistics.median(m[key] for m in measurements)

    grid = [i / (POINTS - 1) for i in range(POINTS)]
    for arm, (label, colour) in _ARMS.items():
        left.plot(
            grid, [median(f"w{width}-{arm}@curve-{i}") for i in range(POINTS)], color=colour, linewidth=1.6, label=label
        )
        if arm != "random":
            values = [median(f"w{width}-{arm}@R-{t:g}") for t in THRESHOLDS]
            right.plot(THRESHOLDS, values, "o-", color=colour, linewidth=1.6, markersize=4, label=label)
    left.set(xlabel="share of the second network", ylabel="loss above the chord", title=f"{width} units a layer")
    right.set(
        xlabel="threshold on singular values", ylabel="alignment R", title="singular directions", ylim=(-0.05, 0.75)
    )
    left.set_ylim(top=1.5 * left.get_ylim()[1])  # room for the legend
    left.legend(frameon=False, fontsize=8.5, loc="upper left")
    for axes in (left, right):
        axes.title.set_fontsize(9.5)
    return figure
