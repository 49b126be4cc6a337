"""Figures of the claims on split representations."""

from __future__ import annotations

import statistics
from typing import Any

import torch

from ...data import object_clouds, shapes3d
from ...evidence import Measurement
from .._shared.figures import CRIMSON, GREY, NAVY, OCHRE, SILVER, TEAL, VIOLET, axes_of, plain

_ARMS = {
    "vicreg": ("VICReg", GREY),
    "sie": ("SIE", TEAL),
    "quaternion": ("quaternions", NAVY),
    "bias": ("SIE, with a bias", OCHRE),
    "mlp": ("SIE, an MLP", CRIMSON),
}


def views(measurements: list[Measurement]) -> Any:
    """Plot example views, the R^2 of the pose from each half, and the mean reciprocal rank of the correct view."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 5.6), layout="constrained")
    grid = figure.add_gridspec(2, 2, height_ratios=(1.15, 1))
    _pictures(figure.add_subplot(grid[0, :]))
    left, right = figure.add_subplot(grid[1, 0]), figure.add_subplot(grid[1, 1])
    plain(left, right)
    for i, (arm, (_, color)) in enumerate(_ARMS.items()):
        for j, half in enumerate(("first half", "second half")):
            values = [m[f"{arm}@pose {half}"] for m in measurements]
            place = i + 0.36 * (j - 0.5)
            left.bar(place, statistics.fmean(values), 0.32, color=color, alpha=0.4 + 0.6 * j)
            left.plot([place] * len(values), values, ".", color="black", markersize=3)
        if arm != "vicreg":
            values = [m[f"{arm}@mrr"] for m in measurements]
            right.bar(i - 1, statistics.fmean(values), 0.6, color=color)
            right.plot([i - 1] * len(values), values, ".", color="black", markersize=3)
    chance = statistics.fmean(m["chance@mrr"] for m in measurements)
    right.axhline(chance, color=SILVER, linestyle=":")
    right.text(3.42, chance + 0.006, "chance", fontsize=8, color=GREY)
    right.set_xlim(-0.5, 3.9)
    names = [label.replace(", ", ",\n").replace("with ", "with\u00a0") for label, _ in _ARMS.values()]
    left.set_xticks(range(len(names)), names, fontsize=8)
    right.set_xticks(range(len(names) - 1), names[1:], fontsize=8)
    left.set_ylabel("$R^2$ of the rotation,\nfirst half (pale) and second", fontsize=9)
    right.set_ylabel("mean reciprocal rank", fontsize=9)
    return figure


def _pictures(axes: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    images = shapes3d(object_clouds(4, 36_864, generator), 9, generator, size=96).images
    rows = torch.cat([torch.cat(list(row), -1) for row in images], -2)
    axes.imshow(rows.movedim(0, -1).numpy(), interpolation="nearest")
    axes.set_axis_off()


def floor(measurements: list[Measurement]) -> Any:
    """Plot errors of predictors of constant features, with and without a bias, and the formula."""
    from .measures import FLOORS

    figure, axes = axes_of(3.2)
    for i, name in enumerate(FLOORS):
        bar = statistics.fmean(m[f"{name}@floor"] for m in measurements)
        axes.plot((i - 0.35, i + 0.35), (bar, bar), color=VIOLET, linewidth=2, label=None if i else "the formula")
        for shift, kind, color in ((-0.12, "without", TEAL), (0.12, "with", OCHRE)):
            values = [m[f"{name}@{kind}"] for m in measurements]
            label = None if i else f"trained, {kind} a bias"
            axes.plot([i + shift] * len(values), values, "o", color=color, markersize=6, alpha=0.7, label=label)
    axes.set_xticks(range(len(FLOORS)), FLOORS)
    axes.set(yscale="log", ylabel="relative squared error")
    axes.legend(frameon=False, fontsize=8.5)
    return figure
