"""The figures of the ParaRNN paper's claims."""

from __future__ import annotations

import statistics
from typing import Any

from ..evidence import Measurement
from ._figures import CRIMSON, GREY, NAVY, OCHRE, TEAL, axes_of, dots


def _lines(measurements: list[Measurement], arms: dict[str, tuple[str, str]], floor: float) -> Any:
    """A line for each arm over the lengths, both axes logarithmic, named at its end."""
    figure, axes = axes_of(4.0)
    lengths = sorted(int(key.split("@")[1]) for key in measurements[0] if key.startswith(f"{next(iter(arms))}@"))
    for arm, (label, colour) in arms.items():
        values = [max(statistics.median(m[f"{arm}@{n}"] for m in measurements), floor) for n in lengths]
        axes.plot(lengths, values, "o-", color=colour, linewidth=1.8, markersize=4, clip_on=False)
        offset = {"xytext": (6, 0), "textcoords": "offset points", "va": "center", "fontsize": 9}
        axes.annotate(label, (lengths[-1], values[-1]), color=colour, annotation_clip=False, **offset)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(lengths, [str(n) for n in lengths])
    axes.minorticks_off()
    axes.set(xlabel="length", xlim=(lengths[0], lengths[-1]))
    return figure, axes


def agreement(measurements: list[Measurement]) -> Any:
    """Error after three Newton iterations against the length."""
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
    """Milliseconds of forward and backward against the length."""
    scaled = [{key: value * 1e3 for key, value in m.items()} for m in measurements]
    arms = {"sequential": ("step by step", GREY), "newton": ("Newton, 3 iterations", CRIMSON), "auto": ("auto", TEAL)}
    figure, axes = _lines(scaled, arms, 1e-3)
    axes.set_ylabel("milliseconds")
    return figure


def parity(measurements: list[Measurement]) -> Any:
    """Accuracy on parity at four times the training length."""
    keys = {
        "gru@4": ("ParaGRU", TEAL),
        "linear-wide@4": ("linear, four times as wide", OCHRE),
        "linear@4": ("linear (minGRU)", GREY),
    }
    return dots(measurements, keys, "share of steps with the right parity, at 4 times the training length")
