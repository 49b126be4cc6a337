"""Figures of the claims on self-normalizing networks."""

from __future__ import annotations

import statistics
from typing import Any

from ...evidence import Measurement, series
from .._shared.figures import CRIMSON, GREY, NAVY, OCHRE, SLATE, TEAL, VIOLET, axes_of, dots, label_ends, seeds_and_mean
from .measures import METHODS

_COLORS = {"selu": TEAL, "relu": CRIMSON, "batch": OCHRE, "layer": NAVY}
_NAMES = {"selu": "SELU", "relu": "ReLU", "batch": "batch norm", "layer": "layer norm"}


def moments(measurements: list[Measurement]) -> Any:
    """Plot the variance of activations against depth under three initializations, and squared gradients."""
    figure, axes = axes_of(3.6)
    layers = list(series(measurements[0], "lecun-variance"))
    lines = (
        ("lecun-variance", "variance", TEAL, "-"),
        ("he-variance", "variance, He's initialization", CRIMSON, "-"),
        ("gain 3/4-variance", "variance, gain 3/4", OCHRE, "-"),
        ("lecun-gradient", "squared gradient", NAVY, "--"),
    )
    ends = []
    for key, label, color, style in lines:
        line = [statistics.fmean(m[f"{key}@{i}"] for m in measurements) for i in layers]
        axes.plot(layers, line, style, color=color, linewidth=1.8)
        ends.append((line, label, color))
    axes.axhline(1, color=GREY, linestyle=":", linewidth=1)
    axes.set(yscale="log", xlabel="layer", xlim=(0, layers[-1] * 1.42))
    axes.set_xticks([i for i in layers if i % 8 == 0])
    for line, label, color in ends:
        if label == "squared gradient":  # ends where the variance does
            middle = len(layers) // 2
            axes.text(middle, line[middle] * 1.3, label + ", from the last layer back", color=color, fontsize=8.5)
        else:
            axes.text(layers[-1] + 0.6, line[-1], label, color=color, va="center", fontsize=8.5)
    return figure


def depths(measurements: list[Measurement]) -> Any:
    """Plot the mean accuracy over the tables against depth."""
    figure, axes = axes_of(3.2)
    layers = list(series(measurements[0], "mean-selu"))
    places, ends = list(range(len(layers))), []
    for method in METHODS:
        rows = [[m[f"mean-{method}@{i}"] for i in layers] for m in measurements]
        line = seeds_and_mean(axes, places, rows, _COLORS[method])
        ends.append((line[-1], _NAMES[method], _COLORS[method]))
    axes.set_xticks(places, [str(i) for i in layers])
    axes.set(xlabel="hidden layers", ylabel="test accuracy, mean over tables", xlim=(-0.15, len(layers) - 0.55))
    low, high = axes.get_ylim()
    label_ends(axes, ends, places[-1] + 0.07, (high - low) / 14)
    return figure


def very_deep(measurements: list[Measurement]) -> Any:
    """Plot the accuracy of 200 layers."""
    keys = {
        "skip@accuracy": ("SELU with a skip", TEAL),
        "plain@accuracy": ("SELU as published", NAVY),
        "relu@accuracy": ("ReLU, critical", CRIMSON),
    }
    figure = dots(measurements, keys, "test accuracy on digits, 200 layers")
    figure.axes[0].set_xlim(0, 1)
    return figure


def ranks(measurements: list[Measurement]) -> Any:
    """Plot the mean ranks among all six methods, best first."""
    names = _NAMES | {"adamw": "layer norm, AdamW", "boosting": "gradient boosting"}
    colors = _COLORS | {"adamw": SLATE, "boosting": VIOLET}
    order = sorted(names, key=lambda method: statistics.fmean(m[f"rank@{method}"] for m in measurements))
    keys = {f"rank@{method}": (names[method], colors[method]) for method in order}
    return dots(measurements, keys, f"mean rank of six over {measurements[0]['tables']:.0f} tables")
