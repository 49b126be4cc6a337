"""Figures of the claims on sparse recurrent networks."""

from __future__ import annotations

import statistics
from typing import Any

from ...evidence import Measurement
from .._shared.figures import CRIMSON, GREY, NAVY, OCHRE, SILVER, TEAL, axes_of, plain

_COLORS = {"lstm": ("LSTM", TEAL), "gru": ("GRU", NAVY), "tanh": ("tanh", CRIMSON), "relu": ("ReLU", OCHRE)}
_TITLES = {"both": "all recurrent weights", "i2h": "input-to-hidden weights", "h2h": "hidden-to-hidden weights"}


def pruning(measurements: list[Measurement]) -> Any:
    """Plot accuracy against the share pruned, one panel per kind of weight; rings show it after retraining."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.3), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    plain(*panels)
    percents = (20, 40, 60, 80, 90, 100)
    for axes, (which, title) in zip(panels, _TITLES.items(), strict=True):
        axes.axhline(0.5, color=SILVER, linewidth=0.8, linestyle=":")
        for cell, (label, color) in _COLORS.items():
            median = lambda key: statistics.median(m[key] for m in measurements)  # noqa: E731
            values = [median(f"{cell}@base"), *(median(f"{cell}-{which}@{p}") for p in percents)]
            axes.plot([0, *percents], values, color=color, linewidth=1.6, label=label)
            again = [median(f"{cell}-{which}@{p}+3") for p in (80, 90, 100)]
            axes.plot((80, 90, 100), again, "o", color=color, markersize=5, markerfacecolor="none")
        axes.set_title(title, fontsize=9.5)
        axes.set(xticks=(0, 40, 80, 100), ylim=(0.28, 1.03))
    panels[0].set_ylabel("accuracy")
    panels[1].set_xlabel("percent pruned")
    panels[0].legend(frameon=False, fontsize=8.5, loc="lower left")
    return figure


def structure(measurements: list[Measurement]) -> Any:
    """Plot the accuracy of every graph against its number of sources."""
    figure, axes = axes_of(3.4)
    for kind, label, color in (("ws", "Watts-Strogatz", TEAL), ("ba", "Barabasi-Albert", GREY)):
        keys = [k.split("@")[0] for m in measurements[:1] for k in m if k.startswith(f"{kind}-") and "accuracy" in k]
        points = [(m[f"{k}@sources"], m[f"{k}@accuracy"]) for m in measurements for k in keys]
        axes.plot(
            *zip(*points, strict=True), "o", color=color, alpha=0.55, markersize=5, markeredgewidth=0, label=label
        )
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    axes.set(xlabel="source nodes of the graph", ylabel="accuracy")
    return figure
