"""Figures of the claims on criticality and finite width."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch

from ...algebra import Activation
from ...evidence import Measurement, series
from ...theory import kernel_flow, optimal_ratio
from .._shared.figures import CRIMSON, GREY, NAVY, OCHRE, TEAL, axes_of, columns_of, dots, label_ends, seeds_and_mean
from .measures import ASPECTS, CRITICAL, CURES, SCALES, VERTICES, plane_of

_COLORS = {"relu": CRIMSON, "linear": NAVY, "tanh": TEAL}
_NAMES = {"relu": "ReLU", "linear": "linear", "tanh": "tanh"}


def _mean(measurements: list[Measurement]) -> Callable[[str], float]:
    return lambda key: statistics.fmean(m[key] for m in measurements)


def ensembles(measurements: list[Measurement]) -> Any:
    """Plot the kernel against depth with the band of networks, and the four-point vertex with its orders."""
    figure, (flow, vertex) = columns_of(2, 3.8)
    mean, ends = _mean(measurements), []
    layers = list(series(measurements[0], "relu-measured"))
    for name in CRITICAL:
        color = _COLORS[name]
        vertex.plot(layers, [mean(f"{name}-first@{i}") for i in layers], color=color, linewidth=1.6)
        if f"{name}-all@{layers[0]}" in measurements[0]:
            vertex.plot(layers, [mean(f"{name}-all@{i}") for i in layers], "--", color=color, linewidth=1.2)
        for m in measurements:
            vertex.plot(layers, [m[f"{name}-measured@{i}"] for i in layers], "o", color=color, alpha=0.35, markersize=4)
        ends.append((mean(f"{name}-first@{layers[-1]}"), _NAMES[name], color))
    _flows(flow, measurements, layers)
    vertex.set(xlabel="layer", ylabel="four-point vertex V / K²", ylim=(0, None), xlim=(1.5, layers[-1] * 1.25))
    vertex.set_xticks(layers[::4])
    label_ends(vertex, ends, layers[-1] + 0.5, 9)
    vertex.plot([], [], color=GREY, linewidth=1.6, label="first order in 1/width")
    vertex.plot([], [], "--", color=GREY, linewidth=1.2, label="all orders")
    vertex.plot([], [], "o", color=GREY, markersize=4, label="random networks of width 64")
    vertex.legend(frameon=False, fontsize=8, loc="upper left")
    return figure


def _flows(axes: Any, measurements: list[Measurement], layers: list[float]) -> None:
    """Draw kernels against depth: theory, mean over networks and standard deviation."""
    mean = _mean(measurements)
    for name in ("relu", "tanh"):
        color, theory = _COLORS[name], [mean(f"_{name}-theory@{i}") for i in layers]
        found = [k * mean(f"{name}-kernel@{i}") for i, k in zip(layers, theory, strict=True)]
        spread = [mean(f"_{name}-spread@{i}") for i in layers]
        low, high = ([k + sign * s for k, s in zip(found, spread, strict=True)] for sign in (-1, 1))
        axes.fill_between(layers, low, high, color=color, alpha=0.15, linewidth=0)
        axes.plot(layers, theory, color=color, linewidth=1.6)
        axes.plot(layers, found, "o", color=color, markersize=4)
        axes.text(layers[-1] + 0.5, theory[-1], _NAMES[name], color=color, va="center", fontsize=8.5)
    axes.set(xlabel="layer", ylabel="kernel, and the spread of networks", ylim=(0, None), xlim=(1.5, layers[-1] * 1.25))
    axes.set_xticks(layers[::4])


def vertices(measurements: list[Measurement]) -> Any:
    """Plot measured over predicted vertices, one row per vertex and activation."""
    letters = dict(zip(VERTICES, ("V", "D", "F", "B", "A"), strict=True))
    keys: dict[str, tuple[str, str]] = {}
    rows = [f"{name}-{v}" for name in ("tanh", "gelu") for v in VERTICES]
    ratios = [{row: m[f"{row}@measured"] / m[f"{row}@theory"] for row in rows} for m in measurements]
    for name, color in (("tanh", TEAL), ("gelu", OCHRE)):
        keys |= {f"{name}-{v}": (f"{letters[v]}, {name}", color) for v in VERTICES}
    figure = dots(ratios, keys, "measured over first order in 1/width, at width 32 and layer 4")
    figure.axes[0].axvline(1, color=GREY, linestyle=":", linewidth=1)
    return figure


def training(measurements: list[Measurement]) -> Any:
    """Plot test accuracy against the variance of weights, relative to the critical one."""
    figure, axes = axes_of(3.2)
    ends = []
    for name, scales in SCALES.items():
        rows = [[m[f"{name}-{s}@accuracy"] for s in scales] for m in measurements]
        line = seeds_and_mean(axes, scales, rows, _COLORS[name])
        ends.append((line[-1], _NAMES[name], _COLORS[name]))
    axes.axvline(1, color=GREY, linestyle=":", linewidth=1)
    axes.set(xscale="log", xlabel="variance of weights over the critical one", ylabel="test accuracy", ylim=(0, 1))
    axes.set_xticks([0.5, 1, 2, 4], ["½", "1", "2", "4"])
    axes.minorticks_off()
    for (height, label, color), x in zip(ends, (SCALES["relu"][-1], SCALES["tanh"][-1]), strict=True):
        axes.text(x * 1.04, height, label, color=color, va="center", fontsize=8.5)
    return figure


def cures(measurements: list[Measurement]) -> Any:
    """Plot test accuracy before and after each cure."""
    names = ("PyTorch's default", "outputs rescaled", "critical_", "autoscale_")
    colors = (CRIMSON, OCHRE, NAVY, TEAL)
    keys = {f"{cure}@accuracy": (n, c) for cure, n, c in zip(CURES, names, colors, strict=True)}
    figure = dots(measurements, keys, "test accuracy on digits, 50 tanh layers")
    figure.axes[0].set_xlim(0, 1)
    return figure


def plane(measurements: list[Measurement]) -> Any:
    """Plot accuracy over the plane of variances with six correlation scales, and correlation maps at three points."""
    import numpy as np
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 5.9), layout="constrained")
    axes, maps = figure.subplots(2, 1, height_ratios=(1.1, 1))
    points = plane_of(measurements[0])
    biases, weights = (sorted({p[i] for p in points}) for i in (0, 1))
    mean = _mean(measurements)
    heat = np.array([[mean(f"accuracy@{b},{w}") for w in weights] for b in biases])
    depths = np.array([[6 * mean(f"scale@{b},{w}") for w in weights] for b in biases])
    axes.imshow(heat, origin="lower", aspect="auto", cmap="BuGn", vmin=0, vmax=1.15)
    for row in range(len(biases)):
        for column in range(len(weights)):
            reach = f"{depths[row, column]:.0f} layers" if depths[row, column] < 1000 else "any depth"
            color = "white" if heat[row, column] > 0.7 else "black"
            label = f"{heat[row, column]:.2f}\n{reach}"
            axes.text(column, row, label, ha="center", va="center", fontsize=7.5, color=color)
    axes.set_xticks(range(len(weights)), [f"{w:g}" for w in weights])
    axes.set_yticks(range(len(biases)), [f"{b:g}" for b in biases])
    axes.set(xlabel="variance of weights times fan-in", ylabel="variance of biases")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    _correlation_maps(maps, biases[min(1, len(biases) - 1)], (weights[0], 1.0, weights[-1]))
    return figure


def _correlation_maps(axes: Any, bias: float, weights: tuple[float, ...]) -> None:
    """Draw the correlation of two inputs after one more tanh layer against the correlation before it."""
    rho = torch.linspace(0, 1, 101, dtype=torch.float64)
    for weight, color in zip(weights, (NAVY, TEAL, CRIMSON), strict=True):
        act = Activation("tanh")
        k = float(kernel_flow(act, 200, 1.0, bias_variance=bias, weight_variance=weight).kernel[-1])
        after = (bias + weight * act.dual(k, k, k * rho)) / (bias + weight * float(act.g(k)))
        axes.plot(rho, after, color=color, linewidth=1.8)
        axes.text(-0.01, float(after[0]), f"weights {weight:g}", color=color, fontsize=8.5, va="center", ha="right")
    axes.plot([0, 1], [0, 1], ":", color=GREY, linewidth=1)
    axes.set(
        xlabel=f"correlation of two inputs, biases {bias:g}", ylabel="one layer later", xlim=(-0.16, 1), ylim=(0, 1)
    )
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
    axes.spines[["top", "right"]].set_visible(False)


def shares(measurements: list[Measurement]) -> Any:
    """Plot the share of the tangent kernel that comes from the biases of each layer."""
    figure, axes = axes_of(2.8)
    ends = []
    for name, label, color in (("uniform", "one rate", CRIMSON), ("rule", "the rule", TEAL)):
        layers = list(series(measurements[0], f"_{name}"))
        for m in measurements:
            axes.plot(layers, [100 * m[f"_{name}@{i}"] for i in layers], color=color, alpha=0.3, linewidth=0.8)
        line = [100 * statistics.fmean(m[f"_{name}@{i}"] for m in measurements) for i in layers]
        axes.plot(layers, line, color=color, linewidth=2)
        ends.append((line[-1], label, color))
    axes.set(
        xlabel="layer", ylabel="share of the tangent\nkernel, percent", ylim=(0, None), xlim=(0.5, layers[-1] * 1.16)
    )
    label_ends(axes, ends, layers[-1] + 0.6, 0.4)
    return figure


def aspects(measurements: list[Measurement]) -> Any:
    """Plot accuracy against depth over width, and the optimal ratio by theory."""
    figure, axes = axes_of(3.2)
    ends = []
    ratios = list(series(measurements[0], "relu-accuracy"))
    for name in ASPECTS:
        rows = [[m[f"{name}-accuracy@{r}"] for r in ratios] for m in measurements]
        line = seeds_and_mean(axes, ratios, rows, _COLORS[name])
        ends.append((line[-1], _NAMES[name], _COLORS[name]))
        axes.axvline(optimal_ratio(name, 10), color=_COLORS[name], linestyle=":", linewidth=1.2)
    axes.set(xscale="log", xlabel="depth over width (dotted: optimum by theory)", ylabel="test accuracy", ylim=(0, 1))
    axes.set_xticks(ratios, [f"{r:g}" for r in ratios])
    axes.minorticks_off()
    label_ends(axes, ends, ratios[-1] * 1.1, 0.07)
    return figure
