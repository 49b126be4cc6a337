"""Matplotlib figures as inline SVG that takes its colors and its font from the page."""

from __future__ import annotations

import io
import re
from typing import Any

from ..evidence import Judged
from ..papers import PALETTE

_INK, _RULE = "#010203", "#040506"  # stand-ins for the colors of the page


def inline_svg(figure: Any, label: str) -> str:
    """Render a figure as an `<svg>` element with a text alternative.

    Args:
        figure: A matplotlib figure.
        label: Description of the figure, for readers who do not see it.
    """
    import matplotlib as mpl

    for axes in figure.axes:
        axes.patch.set_alpha(0)
        for spine in axes.spines.values():
            spine.set_color(_RULE)
        axes.tick_params(colors=_INK, which="both", labelsize=9)
        axes.xaxis.label.set(color=_INK, size=9)
        axes.yaxis.label.set(color=_INK, size=9)
        for line in (*axes.get_xgridlines(), *axes.get_ygridlines()):
            line.set_color(_RULE)
    figure.patch.set_alpha(0)
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": label}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Type": None, "Format": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1; font-family: inherit", svg)
    svg = svg.replace(_INK, "var(--ink)").replace(_RULE, "var(--rule)")
    for number, color in enumerate(PALETTE):
        svg = svg.replace(color, f"var(--series-{number})")
    # figures of a page share one document, so their ids must differ
    prefix = re.sub(r"\W+", "-", label)[:40]
    svg = re.sub(r'(id="|url\(#|href="#)', lambda m: f"{m[1]}{prefix}-", svg)
    title = label.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return svg.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)


def interval_svg(judged: Judged) -> str:
    """Draw the intervals of a claim's effect and controls with the bar and the paper's effect."""
    from matplotlib.figure import Figure

    verdict, claim = judged.verdict, judged.claim
    rows = [("effect", verdict.effect), *((f"control: {name}", i) for name, i in verdict.controls.items())]
    figure = Figure(figsize=(5.0, 0.62 + 0.5 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    finite = [v for _, i in rows for v in (i.low, i.mean, i.high) if abs(v) < 1e9] + [verdict.bar]
    if claim.reported_effect is not None:
        finite.append(claim.reported_effect)
    low, high = min(finite), max(finite)
    pad = 0.08 * (high - low or 1.0)
    for row, (name, interval) in enumerate(reversed(rows)):
        color = PALETTE[0] if row == len(rows) - 1 else PALETTE[6]
        left, right = max(interval.low, low - pad), min(interval.high, high + pad)
        axes.plot([left, right], [row, row], color=color, linewidth=5, alpha=0.35, solid_capstyle="butt")
        axes.plot([interval.mean], [row], "o", color=color, markersize=6)
        axes.text(low - pad, row + 0.27, name, color=color, fontsize=10, va="bottom", ha="left")
    top = len(rows) - 0.36
    for row in range(len(rows)):  # not through the names of the rows below the first
        upper = top if row == len(rows) - 1 else row + 0.24
        axes.vlines(verdict.bar, row - 0.24, upper, color=_INK, linewidth=1, linestyle=(0, (3, 2)))
    near_right = verdict.bar > (low + high) / 2
    axes.annotate("bar", (verdict.bar, top), xytext=(-4 if near_right else 4, 0), textcoords="offset points",
                  color=_INK, fontsize=9, va="bottom", ha="right" if near_right else "left")  # fmt: skip
    if claim.reported_effect is not None:
        axes.plot([claim.reported_effect], [len(rows) - 1], "D", color=PALETTE[4], markersize=6, markerfacecolor="none")
        axes.annotate("paper", (claim.reported_effect, len(rows) - 1), xytext=(0, -14), textcoords="offset points",
                      color=PALETTE[4], fontsize=9, ha="center")  # fmt: skip
    axes.set_yticks([])
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set(xlim=(low - pad, high + pad), ylim=(-0.55, len(rows) - 0.15))
    return inline_svg(figure, f"{claim.name}-{judged.scale}: interval of the effect against the bar")


def curves_svg(curves: dict[str, list[tuple[int, float]]], label: str) -> str:
    """Draw the training loss of every arm."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 2.8), layout="constrained")
    axes = figure.add_subplot()
    for number, (arm, points) in enumerate(curves.items()):
        axes.plot(
            [s for s, _ in points],
            [v for _, v in points],
            color=PALETTE[number % len(PALETTE)],
            linewidth=1.5,
            label=arm,
        )
    axes.set_yscale("log")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set(xlabel="step", ylabel="training loss")
    legend = axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    for text in legend.get_texts():
        text.set_color(_INK)
    return inline_svg(figure, label)
