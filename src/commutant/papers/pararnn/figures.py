"""Figures of the ParaRNN paper's claims."""

from __future__ import annotations

import statistics
from typing import Any

from ...evidence import Measurement, series
from .._shared.figures import CRIMSON, GREY, NAVY, OCHRE, SILVER, TEAL, axes_of, dots, plain


def _lines(measurements: list[Measurement], arms: dict[str, tuple[str, str]], floor: float) -> Any:
    """Plot a line for each arm over the lengths on logarithmic axes, with its name at its end."""
    figure, axes = axes_of(4.0)
    lengths = list(series(measurements[0], next(iter(arms))))
    for arm, (label, color) in arms.items():
        values = [max(statistics.median(m[f"{arm}@{n}"] for m in measurements), floor) for n in lengths]
        axes.plot(lengths, values, "o-", color=color, linewidth=1.8, markersize=4, clip_on=False)
        offset = {"xytext": (6, 0), "textcoords": "offset points", "va": "center", "fontsize": 9}
        axes.annotate(label, (lengths[-1], values[-1]), color=color, annotation_clip=False, **offset)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(lengths, [str(n) for n in lengths])
    axes.minorticks_off()
    axes.set(xlabel="length", xlim=(lengths[0], lengths[-1]))
    return figure, axes


def agreement(measurements: list[Measurement]) -> Any:
    """Plot the error after three Newton iterations against the length."""
    arms = {
        "gru-0.5": ("ParaGRU, 0.5", TEAL),
        "gru-0.9": ("ParaGRU, 0.9", NAVY),
        "gru-2.0": ("ParaGRU, 2", CRIMSON),
        "shoot-2.0": ("2, multiple shooting", OCHRE),
    }
    figure, axes = _lines(measurements, arms, 1e-9)
    axes.axhline(1e-5, color=GREY, linewidth=0.8, linestyle=":")
    axes.set_ylabel("largest error against the loop")
    return figure


def speed(measurements: list[Measurement]) -> Any:
    """Plot the milliseconds of a forward and backward pass against the length."""
    scaled = [{key: value * 1e3 for key, value in m.items()} for m in measurements]
    arms = {
        "newton": ("Newton, 3 iterations", CRIMSON),
        "sequential": ("step by step", GREY),
        "multishoot": ("shooting", OCHRE),
        "auto": ("auto: a kernel", TEAL),
    }
    figure, axes = _lines(scaled, arms, 1e-3)
    axes.set_ylabel("milliseconds")
    return figure


def parity(measurements: list[Measurement]) -> Any:
    """Plot the accuracy on parity at four times the training length."""
    keys = {
        "gru@4": ("ParaGRU", TEAL),
        "linear-wide@4": ("linear, four times as wide", OCHRE),
        "linear@4": ("linear (minGRU)", GREY),
    }
    return dots(measurements, keys, "share of steps with the right parity, 4 times the training length")


def tasks(measurements: list[Measurement]) -> Any:
    """Plot the accuracy on every task, by block."""
    arms = {"paragru": ("ParaGRU", TEAL), "mingru": ("minGRU", OCHRE), "nothing": ("no recurrence", SILVER)}
    keys = {
        f"{task}-{arm}": (f"{task}, {label}", color)
        for task in ("keep-5th", "recall", "1-hop", "2-hop")
        for arm, (label, color) in arms.items()
    }
    return dots(measurements, keys, "accuracy")


def language(measurements: list[Measurement]) -> Any:
    """Plot the loss against steps and against seconds."""
    from matplotlib.figure import Figure

    arms = {"gru": ("nn.GRU", GREY), "attention": ("attention", NAVY), "mingru": ("minGRU", OCHRE)}
    arms["paragru"] = ("ParaGRU", TEAL)
    figure = Figure(figsize=(7.2, 3.3), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    plain(*panels)
    marks = sorted(int(key.split("-")[1]) for key in measurements[0] if key.startswith("gru@loss-"))
    for arm, (label, color) in arms.items():
        median = lambda what, s, arm=arm: statistics.median(m[f"{arm}@{what}-{s}"] for m in measurements)  # noqa: E731
        losses = [median("loss", s) for s in marks]
        panels[0].plot(marks, losses, color=color, linewidth=1.6, label=label)
        panels[1].plot([median("second", s) for s in marks], losses, color=color, linewidth=1.6)
    for axes, name in zip(panels, ("steps", "seconds"), strict=True):
        axes.set(xlabel=name, xlim=(0, None))
    panels[0].set(ylabel="nats per character", ylim=(None, 3.2))
    panels[0].legend(frameon=False, fontsize=9)
    return figure
