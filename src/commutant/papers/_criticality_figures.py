"""The figures of the claims on criticality and finite width."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from ..evidence import Measurement
from ._criticality_measures import CRITICAL, CURES, SCALES, VERTICES
from ._figures import CRIMSON, GREY, NAVY, OCHRE, TEAL, axes_of, dots, label_ends, seeds_and_mean

_COLOURS = {"relu": CRIMSON, "linear": NAVY, "tanh": TEAL}
_NAMES = {"relu": "ReLU", "linear": "linear", "tanh": "tanh"}


def _mean(measurements: list[Measurement]) -> Callable[[str], float]:
    return lambda key: statistics.fmean(m[key] for m in measurements)


def ensembles(measurements: list[Measurement]) -> Any:
    """The four-point vertex against depth: networks (dots), first order (lines), all orders (dashed)."""
    figure, axes = axes_of(3.8)
    mean, ends = _mean(measurements), []
    layers = sorted(int(key.split("@")[1]) for key in measurements[0] if key.startswith("relu-measured"))
    for name in CRITICAL:
        colour = _COLOURS[name]
        axes.plot(layers, [mean(f"{name}-first@{i}") for i in layers], color=colour, linewidth=1.6)
        if f"{name}-all@{layers[0]}" in measurements[0]:
            axes.plot(layers, [mean(f"{name}-all@{i}") for i in layers], "--", color=colour, linewidth=1.2)
        for m in measurements:
            axes.plot(layers, [m[f"{name}-measured@{i}"] for i in layers], "o", color=colour, alpha=0.35, markersize=4)
        ends.append((mean(f"{name}-first@{layers[-1]}"), _NAMES[name], colour))
    axes.set(xlabel="layer", ylabel="four-point vertex V / K²", ylim=(0, None), xlim=(1.5, layers[-1] + 2.2))
    axes.set_xticks(layers[::2])
    label_ends(axes, ends, layers[-1] + 0.4, 9)
    axes.plot([], [], color=GREY, linewidth=1.6, label="first order in 1/width")
    axes.plot([], [], "--", color=GREY, linewidth=1.2, label="all orders")
    axes.plot([], [], "o", color=GREY, markersize=4, label="random networks of width 64")
    axes.legend(frameon=False, fontsize=8.5, loc="upper left")
    return figure


def vertices(measurements: list[Measurement]) -> Any:
    """Measured over predicted, a row a vertex and activation."""
    letters = dict(zip(VERTICES, ("V", "D", "F", "B", "A"), strict=True))
    keys: dict[str, tuple[str, str]] = {}
    rows = [f"{name}-{v}" for name in ("tanh", "gelu") for v in VERTICES]
    ratios = [{row: m[f"{row}@measured"] / m[f"{row}@theory"] for row in rows} for m in measurements]
    for name, colour in (("tanh", TEAL), ("gelu", OCHRE)):
        keys |= {f"{name}-{v}": (f"{letters[v]}, {name}", colour) for v in VERTICES}
    figure = dots(ratios, keys, "measured over first order in 1/width, at width 32 and layer 4")
    figure.axes[0].axvline(1, color=GREY, linestyle=":", linewidth=1)
    return figure


def training(measurements: list[Measurement]) -> Any:
    """Test accuracy against the variance of weights, over the critical one."""
    figure, axes = axes_of(3.2)
    ends = []
    for name, scales in SCALES.items():
        rows = [[m[f"{name}-{s}@accuracy"] for s in scales] for m in measurements]
        line = seeds_and_mean(axes, scales, rows, _COLOURS[name])
        ends.append((line[-1], _NAMES[name], _COLOURS[name]))
    axes.axvline(1, color=GREY, linestyle=":", linewidth=1)
    axes.set(xscale="log", xlabel="variance of weights over the critical one", ylabel="test accuracy", ylim=(0, 1))
    axes.set_xticks([0.5, 1, 2, 4], ["½", "1", "2", "4"])
    axes.minorticks_off()
    for (height, label, colour), x in zip(ends, (SCALES["relu"][-1], SCALES["tanh"][-1]), strict=True):
        axes.text(x * 1.04, height, label, color=colour, va="center", fontsize=8.5)
    return figure


def cures(measurements: list[Measurement]) -> Any:
    """Test accuracy as found and as cured."""
    names = ("as torch initialises it", "outputs rescaled", "critical_", "autoscale_")
    colours = (CRIMSON, OCHRE, NAVY, TEAL)
    keys = {f"{cure}@accuracy": (n, c) for cure, n, c in zip(CURES, names, colours, strict=True)}
    figure = dots(measurements, keys, "test accuracy on digits, 50 layers of tanh")
    figure.axes[0].set_xlim(0, 1)
    return figure


def plane(measurements: list[Measurement]) -> Any:
    """Accuracy over the plane of variances, and where depth is six correlation scales."""
    import numpy as np

    figure, axes = axes_of(3.2)
    axes.grid(False)
    keys = [key for key in measurements[0] if key.startswith("accuracy@")]
    points = [tuple(float(v) for v in key.split("@")[1].split(",")) for key in keys]
    biases, weights = (sorted({p[i] for p in points}) for i in (0, 1))
    mean = _mean(measurements)
    heat = np.array([[mean(f"accuracy@{b},{w}") for w in weights] for b in biases])
    depths = np.array([[6 * mean(f"scale@{b},{w}") for w in weights] for b in biases])
    axes.imshow(heat, origin="lower", aspect="auto", cmap="BuGn", vmin=0, vmax=1.15)
    for row in range(len(biases)):
        for column in range(len(weights)):
            reach = f"{depths[row, column]:.0f} layers" if depths[row, column] < 1000 else "any depth"
            colour = "white" if heat[row, column] > 0.7 else "black"
            label = f"{heat[row, column]:.2f}\n{reach}"
            axes.text(column, row, label, ha="center", va="center", fontsize=7.5, color=colour)
    axes.set_xticks(range(len(weights)), [f"{w:g}" for w in weights])
    axes.set_yticks(range(len(biases)), [f"{b:g}" for b in biases])
    axes.set(xlabel="variance of weights times fan-in", ylabel="variance of biases")
    axes.tick_params(length=0)
    axes.spines[["left", "bottom"]].set_visible(False)
    return figure


def shares(measurements: list[Measurement]) -> Any:
    """What the biases of every layer add to the tangent kernel."""
    figure, axes = axes_of(2.8)
    ends = []
    for name, label, colour in (("uniform", "one rate", CRIMSON), ("rule", "by the rule", TEAL)):
        layers = sorted(int(k.split("@")[1]) for k in measurements[0] if k.startswith(f"_{name}@"))
        for m in measurements:
            axes.plot(layers, [100 * m[f"_{name}@{i}"] for i in layers], color=colour, alpha=0.3, linewidth=0.8)
        line = [100 * statistics.fmean(m[f"_{name}@{i}"] for m in measurements) for i in layers]
        axes.plot(layers, line, color=colour, linewidth=2)
        ends.append((line[-1], label, colour))
    axes.set(
        xlabel="layer", ylabel="share of the tangent\nkernel, per cent", ylim=(0, None), xlim=(0.5, layers[-1] * 1.16)
    )
    label_ends(axes, ends, layers[-1] + 0.6, 0.4)
    return figure
