"""Parts of the figures of all papers: colors, axes, labels at the ends of lines, rows of dots."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from ...evidence import Measurement

TEAL, NAVY, CRIMSON, VIOLET, OCHRE = "#0b7a75", "#1d4e89", "#c8374a", "#7a5195", "#a86f0b"
SLATE, GREY, SILVER = "#5c5c5c", "#858585", "#a9a9a9"
PALETTE = (TEAL, NAVY, CRIMSON, VIOLET, OCHRE, SLATE, GREY, SILVER)
"""Line colors; the report maps each to a light and a dark shade."""


def axes_of(height: float = 3.6) -> tuple[Any, Any]:
    """Return a figure of the report's width and its single set of plain axes."""
    figure, (axes,) = columns_of(1, height)
    return figure, axes


def columns_of(columns: int, height: float) -> tuple[Any, Any]:
    """Return a figure of the report's width and its sets of plain axes, side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, height), layout="constrained")
    panels = figure.subplots(1, columns, squeeze=False)[0]
    plain(*panels)
    return figure, panels


def plain(*panels: Any) -> None:
    """Give axes the report's look: no frame above and on the right, thin horizontal lines."""
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.25, linewidth=0.6)


def label_ends(
    axes: Any, ends: Sequence[tuple[float, str, str]], x: float, gap: float, ceiling: float = float("inf")
) -> None:
    """Write the names of lines at their ends, spread so that they do not overlap.

    Args:
        axes: Axes of the lines.
        ends: Height, name and color of each line at its end.
        x: Horizontal position at which the names begin.
        gap: Smallest distance between two names.
        ceiling: Largest height of a name.
    """
    ends = sorted(ends)
    heights = [y for y, _, _ in ends]
    for i in range(1, len(heights)):
        heights[i] = max(heights[i], heights[i - 1] + gap)
    for i in reversed(range(len(heights))):
        heights[i] = min(heights[i], ceiling if i == len(heights) - 1 else heights[i + 1] - gap)
    for height, (_, label, color) in zip(heights, ends, strict=True):
        axes.text(x, height, label, color=color, va="center", fontsize=8.5, clip_on=False)


def seeds_and_mean(axes: Any, x: Sequence[float], rows: Sequence[Sequence[float]], color: str) -> list[float]:
    """Draw a thin line for each seed and a thick line for their mean; return the mean."""
    for row in rows:
        axes.plot(x, row, color=color, alpha=0.3, linewidth=0.8)
    mean = [statistics.fmean(values) for values in zip(*rows, strict=True)]
    axes.plot(x, mean, "o-", color=color, linewidth=2, markersize=5)
    return mean


def dots(measurements: Sequence[Measurement], keys: Mapping[str, tuple[str, str]], label: str) -> Any:
    """Return a figure with one row per key: a dot for each seed, a bar at the mean.

    Args:
        measurements: Figures of each seed.
        keys: Name and color of each row, by the key of its figure.
        label: Label of the horizontal axis.
    """
    figure, axes = axes_of(0.9 + 0.42 * len(keys))
    axes.grid(False)
    axes.grid(axis="x", alpha=0.25, linewidth=0.6)
    for row, (key, (_, color)) in enumerate(reversed(list(keys.items()))):
        values = [m[key] for m in measurements]
        axes.plot(values, [row] * len(values), "o", color=color, alpha=0.45, markersize=5, markeredgewidth=0)
        axes.plot([statistics.fmean(values)] * 2, [row - 0.28, row + 0.28], color=color, linewidth=2.4)
    axes.set_yticks(range(len(keys)), [name for name, _ in reversed(list(keys.values()))])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set(xlabel=label, ylim=(-0.6, len(keys) - 0.4))
    return figure
