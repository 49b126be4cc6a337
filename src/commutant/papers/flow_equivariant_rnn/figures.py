"""Figures of the flow-equivariant RNN paper's claims."""

from __future__ import annotations

import statistics
from typing import Any

from ...evidence import Measurement
from .._shared.figures import CRIMSON, GREY, NAVY, OCHRE, SILVER, TEAL, axes_of, dots, label_ends


def forecast(measurements: list[Measurement]) -> Any:
    """Plot the error of every forecast frame."""
    arms = {
        "grnn": ("no velocities", GREY),
        "grnn-wide": ("no velocities, 4x parameters", OCHRE),
        "fernn-lagged": ("FERNN, published decoder", CRIMSON),
        "fernn": ("FERNN, aligned decoder", TEAL),
    }
    figure, axes = axes_of(4.0)
    frames = sum(key.startswith("fernn@frame-") for key in measurements[0])
    ends = []
    for arm, (label, color) in arms.items():
        values = [statistics.median(m[f"{arm}@frame-{t + 1}"] for m in measurements) for t in range(frames)]
        axes.plot(range(1, frames + 1), values, color=color, linewidth=1.8)
        ends.append((values[-1], label, color))
    axes.set_yscale("log")
    axes.axvline(frames / 4 + 0.5, color=SILVER, linewidth=0.8, linestyle=":")
    ends.sort()
    for i, (height, label, color) in enumerate(ends):  # the axis is logarithmic: names keep a ratio apart
        ends[i] = (max(height, ends[i - 1][0] * 1.45) if i else height, label, color)
    label_ends(axes, ends, frames + 0.4, 0.0)
    axes.set(xlabel="forecast frame", ylabel="mean squared error", xlim=(1, frames))
    axes.set_xticks([1, *range(frames // 4, frames + 1, frames // 4)])
    return figure


def velocities(measurements: list[Measurement]) -> Any:
    """Plot the error at seen and unseen velocities."""
    keys = {
        "grnn@seen": ("no velocities, seen", SILVER),
        "grnn@unseen": ("no velocities, unseen", GREY),
        "fernn@seen": ("V of 9, seen", OCHRE),
        "fernn@unseen": ("V of 9, unseen", CRIMSON),
        "fernn-v2@seen": ("V of 25, seen", NAVY),
        "fernn-v2@unseen": ("V of 25, unseen", TEAL),
    }
    figure = dots(measurements, keys, "mean squared error of the forecast")
    figure.axes[0].set_xscale("log")
    return figure


def equivariance(measurements: list[Measurement]) -> Any:
    """Plot the errors of flow equivariance."""
    keys = {
        "fernn": ("FERNN, closed V", TEAL),
        "mixing": ("FERNN, velocities mix", TEAL),
        "aligned": ("forecast, aligned decoder", NAVY),
        "lagged": ("forecast, published decoder", CRIMSON),
        "part": ("FERNN, V not closed (pooled)", OCHRE),
        "grnn": ("no velocities", GREY),
    }
    shown = [{key: max(m[key], 1e-17) for key in keys} for m in measurements]
    figure = dots(shown, keys, "relative error of flow equivariance")
    figure.axes[0].set_xscale("log")
    return figure


def cost(measurements: list[Measurement]) -> Any:
    """Plot the milliseconds of a layer against the number of velocities."""
    figure, axes = axes_of(3.4)
    ends = []
    for label, color, keys in (
        ("slice by slice", GREY, {9: "loop-v1", 25: "loop-v2"}),
        ("all at once", TEAL, {1: "v0", 9: "v1", 25: "v2"}),
    ):
        values = [1e3 * statistics.median(m[key] for m in measurements) for key in keys.values()]
        axes.plot(list(keys), values, "o-", color=color, linewidth=1.8, markersize=4, clip_on=False)
        ends.append((values[-1], label, color))
    top = max(height for height, _, _ in ends)
    label_ends(axes, ends, 25.6, top * 0.07)
    axes.set(xlabel="velocities", ylabel="milliseconds", xlim=(0, 25), ylim=(0, top * 1.05))
    axes.set_xticks([1, 9, 25])
    return figure
