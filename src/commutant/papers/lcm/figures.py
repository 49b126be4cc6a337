"""Figures of the LCM paper's claims, drawn from the measurements of all seeds."""

from __future__ import annotations

import statistics
from typing import Any

from ...evidence import Measurement, series
from .._shared.figures import CRIMSON, GREY, NAVY, OCHRE, SILVER, SLATE, TEAL, VIOLET, axes_of, dots, label_ends

ARMS = {
    "gru": ("GRU fold", VIOLET),
    "binary-gru-random": ("LCM, random bracketing", NAVY),
    "binary-gru": ("LCM", TEAL),
    "binary-gru-assoc": ("LCM + associativity loss", CRIMSON),
    "pna": ("PNA", OCHRE),
    "max": ("max", GREY),
    "sum": ("sum", SLATE),
    "sum-wide": ("sum, more parameters", SILVER),
}
_REPORTED = {
    "gru": (0.998, 0.912),
    "binary-gru": (0.992, 0.443),
    "binary-gru-assoc": (0.997, 0.822),
    "pna": (0.794, 0.110),
    "max": (0.723, 0.069),
    "sum": (0.261, 0.045),
}


def second_minimum(measurements: list[Measurement]) -> Any:
    """Plot accuracy against the size of the set."""
    figure, axes = axes_of(4.2)
    sizes = sorted(int(key[4:]) for key in measurements[0] if key.startswith("sum@") and key[4:].isdigit())
    ends = []
    for arm in (arm for arm in ARMS if arm != "sum-wide"):
        label, color = ARMS[arm]
        values = [[m[f"{arm}@{n}"] for m in measurements] for n in sizes]
        mean = [statistics.fmean(v) for v in values]
        sd = [statistics.stdev(v) if len(v) > 1 else 0.0 for v in values]
        low, high = ([m + sign * s for m, s in zip(mean, sd, strict=True)] for sign in (-1, 1))
        axes.plot(sizes, mean, color=color, linewidth=1.8)
        axes.fill_between(sizes, low, high, color=color, alpha=0.13, linewidth=0)
        ends.append((mean[-1], label, color))
        for n, reported in zip((32, 200), _REPORTED.get(arm, ()), strict=False):
            axes.plot([n], [reported], "o", color=color, markersize=4.5, markerfacecolor="none", clip_on=False)
    label_ends(axes, ends, 210, gap=0.062, ceiling=1.0)
    ticks = [16, 32, 64, 128, 200]
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(t) for t in ticks])
    axes.minorticks_off()
    axes.set(xlim=(min(sizes), 200), ylim=(0, 1.02), xlabel="size of the set", ylabel="share of exact answers")
    return figure


def cost(measurements: list[Measurement]) -> Any:
    """Plot the time of a forward and backward pass against the size of the set."""
    figure, axes = axes_of()
    sizes = list(series(measurements[0], "gru"))
    for arm in ("gru", "binary-gru"):
        label, color = ARMS[arm]
        middle = [statistics.median(m[f"{arm}@{n}"] for m in measurements) * 1e3 for n in sizes]
        axes.plot(sizes, middle, "o-", color=color, linewidth=1.8, markersize=4)
        axes.text(sizes[-1] * 1.08, middle[-1], label, color=color, va="center", fontsize=8.5, clip_on=False)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(sizes, [str(n) for n in sizes])
    axes.minorticks_off()
    axes.set(xlabel="size of the sets", ylabel="milliseconds")
    return figure


def digits(measurements: list[Measurement]) -> Any:
    """Plot the test accuracy of each aggregation."""
    shown = ("binary-gru", "gru", "sum", "sum-wide", "max")
    return dots(measurements, {arm: ARMS[arm] for arm in shown}, "test accuracy")


def graphs(measurements: list[Measurement]) -> Any:
    """Plot the test accuracy of each aggregation, by data set and fold."""
    keys = {}
    for key in sorted(measurements[0]):
        data, arm = key.split("/")
        keys[key] = (f"{data}, {ARMS[arm][0]}", ARMS[arm][1])
    return dots(measurements, keys, "test accuracy")


def batch_dependence(measurements: list[Measurement]) -> Any:
    """Plot the violation of batch independence by each aggregation."""
    theirs = {"pyg-lcm": "PyG LCM", "pyg-lstm": "PyG LSTM", "pyg-gru": "PyG GRU"}
    ours = {"lcm": "LCM here", "gru": "GRU fold here"}
    keys = {k: (v, CRIMSON) for k, v in theirs.items()} | {k: (v, TEAL) for k, v in ours.items()}
    figure = dots(measurements, keys, "change of a result, relative to the spread of results")
    axes = figure.axes[0]
    axes.set_xscale("symlog", linthresh=1e-8)
    axes.set_xticks([0, 1e-6, 1e-3, 1, 100], ["0", "10⁻⁶", "0.001", "1", "100"])
    axes.minorticks_off()
    axes.set_xlim(-2e-9, 300)
    return figure
