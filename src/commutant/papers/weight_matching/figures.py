"""Figure of the claims on weight matching."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np

from ...evidence import Measurement
from .._shared.figures import CRIMSON, GREY, NAVY, OCHRE, TEAL, plain
from .measures import DIRECTIONS, POINTS, THRESHOLDS

_ARMS = {"none": ("as trained", GREY), "random": ("random permutation", CRIMSON), "am": ("activation matching", NAVY),
         "ste": ("loss of the merge, Sinkhorn", OCHRE), "wm": ("weight matching", TEAL)}  # fmt: skip


def matching(measurements: list[Measurement]) -> Any:
    """Plot loss along the line, alignment against the threshold, and single directions before and after matching."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 6.0), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=[3.4, 2.6])
    upper, lower = parts
    left, right = upper.subplots(1, 2)
    plain(left, right)
    widths = sorted({int(key.split("-")[0][1:]) for key in measurements[0] if "-none@barrier" in key})
    width = 128 if 128 in widths else widths[-1]

    def median(key: str) -> float:
        return statistics.median(m[key] for m in measurements)

    grid = [i / (POINTS - 1) for i in range(POINTS)]
    for arm, (label, color) in _ARMS.items():
        if f"w{width}-{arm}@barrier" not in measurements[0]:
            continue
        left.plot(
            grid, [median(f"w{width}-{arm}@curve-{i}") for i in range(POINTS)], color=color, linewidth=1.6, label=label
        )
        if arm != "random":
            values = [median(f"w{width}-{arm}@R-{t:g}") for t in THRESHOLDS]
            right.plot(THRESHOLDS, values, "o-", color=color, linewidth=1.6, markersize=4)
    left.set(
        xlabel="share of the second network", ylabel="loss above the straight line", title=f"{width} units per layer"
    )
    right.set(
        xlabel="threshold on singular values", ylabel="alignment R", title="singular directions", ylim=(-0.05, 0.75)
    )
    upper.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=8.5)
    for axes in (left, right):
        axes.title.set_fontsize(9.5)
    _directions(lower, measurements[0], width)
    return figure


def _directions(part: Any, first: Measurement, width: int) -> None:
    """Draw a square for each pair of directions: teal where they agree, red where they are opposed."""
    from matplotlib.colors import to_rgb

    arms = ("none", "ste", "wm")
    for axes, arm in zip(part.subplots(1, len(arms)), arms, strict=True):
        image = np.zeros((DIRECTIONS, DIRECTIONS, 4))
        for i in range(DIRECTIONS):
            for j in range(DIRECTIONS):
                value = first.get(f"_w{width}-{arm}@D-{i}-{j}", 0.0)
                image[i, j] = (*to_rgb(TEAL if value > 0 else CRIMSON), min(1.0, abs(value)))
        axes.imshow(image, extent=(0.5, DIRECTIONS + 0.5, DIRECTIONS + 0.5, 0.5), interpolation="nearest")
        axes.set(xlabel="direction of the second", xticks=(1, 6, 12), yticks=(1, 6, 12))
        axes.set_title(_ARMS[arm][0], fontsize=9.5)
        axes.tick_params(length=2)
        if arm == arms[0]:
            axes.set_ylabel("direction of the first")
