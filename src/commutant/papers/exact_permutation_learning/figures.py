"""Figures of the claims on exact permutation learning."""

from __future__ import annotations

import statistics
from typing import Any

from ...evidence import Measurement
from .._shared.figures import CRIMSON, GREY, NAVY, OCHRE, TEAL, axes_of, dots, label_ends
from .measures import SIZES

_RULES = {
    "sign": ("sign, the paper's", CRIMSON),
    "midpoint": ("threshold by ones", NAVY),
    "topn": ("largest n", TEAL),
}


def learning(measurements: list[Measurement]) -> Any:
    """Plot the share of correct inputs against the number of networks averaged, by rounding rule, for the largest k."""
    figure, axes = axes_of(3.4)
    k = max(int(name[1:].split("@")[0]) for name in measurements[0] if name.endswith("@needed"))
    needed = measurements[0][f"k{k}@needed"]
    sizes = [n for n in SIZES if n < needed]
    ends = []
    for rule, (label, color) in _RULES.items():
        for m in measurements:
            line = [m[f"k{k}-{rule}@{n}"] for n in sizes] + [m[f"k{k}-{rule}@bound"]]
            axes.plot([*sizes, needed], line, color=color, alpha=0.3, linewidth=0.8)
        mean = [statistics.fmean(m[f"k{k}-{rule}@{n}"] for m in measurements) for n in sizes]
        mean.append(statistics.fmean(m[f"k{k}-{rule}@bound"] for m in measurements))
        axes.plot([*sizes, needed], mean, "o-", color=color, linewidth=2, markersize=4)
        at = sizes.index(5)
        ends.append((mean[at], label, color))
    axes.axvline(needed, color=GREY, linestyle=":", linewidth=1)
    axes.text(needed * 0.93, 0.05, "bound for the sign rule", rotation=90, ha="right", fontsize=8.5, color=GREY)
    axes.set(
        xscale="log", xlabel="networks averaged", ylabel=f"share of {2**k - 1} inputs that are right", ylim=(0, 1.03)
    )
    axes.set_xticks([1, 10, 100], ["1", "10", "100"])
    axes.minorticks_off()
    label_ends(axes, ends, 6.2, 0.09, ceiling=0.93)
    return figure


def regime(measurements: list[Measurement]) -> Any:
    """Plot the networks needed by each way of training and the predictions of each kernel."""
    keys = {
        "standard@needed": ("trained as the published code", OCHRE),
        "nngp@predicted": ("predicted, last layer alone", GREY),
        "ntk@needed": ("trained as the theorem", NAVY),
        "ntk@predicted": ("predicted, both layers", GREY),
    }
    return dots(measurements, keys, "networks until 90 % of the inputs with two ones are right")
