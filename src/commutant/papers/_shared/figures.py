"""Parts that the figures of all papers share: colours, axes, labels at the ends of lines, rows of dots."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from ...evidence import Measurement

TEAL, NAVY, CRIMSON, VIOLET, OCHRE = "#0b7a75", "#1d4e89", "#c8374a", "#7a5195", "#a86f0b"
SLATE, GREY, SILVER = "#5c5c5c", "#858585", "#a9a9a9"
PALETTE = (TEAL, NAVY, CRIMSON, VIOLET, OCHRE, SLATE, GREY, SILVER)
"""Line colours; the report maps each to a light and a dark shade."""


def axes_of(height: float = 3.6) -> tuple[Any, Any]:
    """A figure of the report's width with one plain set of axes."""
    figure, (axes,) = columns_of(1, height)
    return figure, axes


def columns_of(columns: int, height: float) -> tuple[Any, Any]:
    """A figure of the report's width with sets of plain axes side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, height), layout="constrained")
    panels = figure.subplots(1, columns, squeeze=False)[0]
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.25, linewidth=0.6)
    return figure, panels


def label_ends(
    axes: Any, ends: Sequence[tuple[float, str, str]], x: float, gap: float, ceiling: float = float("inf")
) -> None:
    """Name lines at their ends, (height, label, colour), spread so that the names do not overlap."""
    ends = sorted(ends)
    heights = [y for y, _, _ in ends]
    for i in range(1, len(heights)):
        heights[i] = max(heights[i], heights[i - 1] + gap)
    for i in reversed(range(len(heights))):
        heights[i] = min(heights[i], ceiling if i == len(heights) - 1 else heights[i + 1] - gap)
    for height, (_, label, colour) in zip(heights, ends, strict=True):
        axes.text(x, height, label, color=colour, va="center", fontsize=8.5, clip_on=False)


def seeds_and_mean(axes: Any, x: Sequence[float], rows: Sequence[Sequence[float]], colour: str) -> list[float]:
    """A thin line a seed and a thick one for their mean, which is returned."""
    for row in rows:
        axes.plot(x, row, color=colour, alpha=0.3, linewidth=0.8)
    mean = [statistics.fmean(values) for values in zip(*rows, strict=True)]
    axes.plot(x, mean, "o-", color=colour, linewidth=2, markersize=5)
    return mean


def dots(measurements: Sequence[Measurement], keys: Mapping[str, tuple[str, str]], label: str) -> Any:
    """A row for each key, given as (name, colour): a dot a seed, a bar at the mean."""
    figure, axes = axes_of(0.9 + 0.42 * len(keys))
    axes.grid(False)
    axes.grid(axis="x", alpha=0.25, linewidth=0.6)
    for row, (key, (_, colour)) in enumerate(reversed(list(keys.items()))):
        values = [m[key] for m in measurements]
        axes.plot(values, [row] * len(values), "o", color=colour, alpha=0.45, markersize=5, markeredgewidth=0)
        axes.plot([statistics.fmean(values)] * 2, [row - 0.28, row + 0.28], color=colour, linewidth=2.4)
    axes.set_yticks(range(len(keys)), [name for name, _ in reversed(list(keys.values()))])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set(xlabel=label, ylim=(-0.6, len(keys) - 0.4))
    return figure
