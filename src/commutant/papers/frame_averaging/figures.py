"""Figures of the claims on frame averaging."""

from __future__ import annotations

import statistics
from typing import Any

from ...evidence import Measurement
from .._shared.figures import CRIMSON, GREY, NAVY, OCHRE, SILVER, SLATE, TEAL, VIOLET, axes_of, label_ends, plain

_NORMALS = {
    "plain": ("PointNet", CRIMSON),
    "augmented": ("PointNet, rotated\nin training", OCHRE),
    "one-frame": ("a frame drawn\nin training", NAVY),
    "frames": ("all 8 frames", TEAL),
}


def normals(measurements: list[Measurement]) -> Any:
    """Plot the error on upright and rotated clouds, and one rotated cloud with the predictions of two arms."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    grid = figure.add_gridspec(1, 3, width_ratios=(1.5, 1, 1))
    axes = figure.add_subplot(grid[0])
    plain(axes)
    ends = []
    for arm, (label, color) in _NORMALS.items():
        for m in measurements:
            axes.plot((0, 1), (m[f"{arm}@upright"], m[f"{arm}@turned"]), color=color, alpha=0.35, linewidth=1)
        means = [statistics.fmean(m[f"{arm}@{where}"] for m in measurements) for where in ("upright", "turned")]
        axes.plot((0, 1), means, "o-", color=color, linewidth=2, markersize=5)
        ends.append((means[1], label, color))
    axes.set(xticks=(0, 1), xticklabels=("upright", "rotated"), xlim=(-0.15, 1.9), ylabel="1 - cos², test clouds")
    label_ends(axes, ends, 1.08, 0.035)
    shown = next((m for m in measurements if "_frames-0-x" in m), None)
    for place, arm in ((1, "plain"), (2, "frames")):
        panel = figure.add_subplot(grid[place])
        panel.set_axis_off()
        panel.set_aspect("equal")
        if shown is None:
            continue
        count = sum(1 for key in shown if key.startswith(f"_{arm}-") and key.endswith("-loss"))
        part = lambda what: [shown[f"_{arm}-{i}-{what}"] for i in range(count)]  # noqa: B023, E731
        x, z, nx, nz = part("x"), part("z"), part("nx"), part("nz")
        for a, b, c, d, wrong in zip(x, z, nx, nz, part("loss"), strict=True):
            panel.plot((a, a + 1.1 * c), (b, b + 1.1 * d), color=CRIMSON if wrong > 0.25 else TEAL, linewidth=1)
        panel.plot(x, z, ".", color=GREY, markersize=3)
        good = sum(wrong <= 0.25 for wrong in part("loss"))
        panel.set_title(f"{_NORMALS[arm][0]}:\n{good} of {count} within 30°", fontsize=9)
    return figure


def separation(measurements: list[Measurement]) -> Any:
    """Plot the share of copies taken for another graph, and the number of pairs not told apart."""
    arms = {
        "gin": "GIN",
        "numbered-gin": "GIN with numbered nodes",
        "random-order-mlp": "MLP, any order",
        "one-frame-mlp": "MLP, one order of the frame",
        "spectral-mlp": "MLP, all orders of the frame",
        "spectral-gin": "numbered GIN, all orders",
        "refined-mlp": "MLP, canonical order",
        "refined-gin": "numbered GIN, canonical order",
    }
    figure, axes = axes_of(3.5)
    axes.grid(False)
    axes.grid(axis="x", alpha=0.25, linewidth=0.6)
    for row, arm in enumerate(reversed(arms)):
        copies = statistics.fmean(100 * m[f"{arm}@copies"] / m["graphs"] for m in measurements)
        merged = statistics.fmean(m[f"{arm}@merged"] for m in measurements)
        right = copies == 0 and merged == 0
        axes.barh(row, copies, color=CRIMSON, height=0.5)
        text = "tells all graphs apart, and no copy from its original" if right else (
            f"{copies:.1f} % of copies" + (f", {merged:.0f} pairs not told apart" if merged else ""))  # fmt: skip
        axes.text(copies + 1, row, text, va="center", fontsize=8.5, color=TEAL if right else GREY)
    axes.set_yticks(range(len(arms)), list(reversed(arms.values())))
    axes.tick_params(axis="y", length=0)
    axes.set(xlabel="relabeled copies taken for another graph, percent", xlim=(0, 138), xticks=(0, 25, 50, 75, 100))
    return figure


def particles(measurements: list[Measurement]) -> Any:
    """Plot the test error of each network on systems as generated, rotated, and shifted."""
    arms = {
        "plain": ("message passing", CRIMSON),
        "centred": ("centered", GREY),
        "augmented": ("rotated in training", OCHRE),
        "egnn": ("EGNN", VIOLET),
        "egnn-features": ("EGNN, same features", SLATE),
        "sampled": ("one frame drawn", VIOLET),
        "frames": ("one frame, whole network", NAVY),
        "latent-frames": ("frames in every layer", TEAL),
    }
    figure, axes = axes_of(3.4)
    places = {"error": 0, "turned": 1, "shifted": 2}
    ends = []
    for arm, (label, color) in arms.items():
        for m in measurements:
            axes.plot(list(places.values()), [m[f"{arm}@{p}"] for p in places], color=color, alpha=0.35, linewidth=1)
        means = [statistics.fmean(m[f"{arm}@{p}"] for m in measurements) for p in places]
        axes.plot(list(places.values()), means, "o-", color=color, linewidth=2, markersize=5)
        ends.append((means[-1], label, color))
    straight = statistics.fmean(m["straight@error"] for m in measurements)
    axes.axhline(straight, color=SILVER, linestyle=":", linewidth=1)
    axes.text(-0.2, straight, "best straight line", color=GREY, fontsize=8.5, va="bottom")
    axes.set(yscale="log", xlim=(-0.25, 3), ylabel="squared error, test")
    axes.set_yticks([0.02, 0.03, 0.05, 0.1, 0.2, 0.3], ["0.02", "0.03", "0.05", "0.1", "0.2", "0.3"])
    axes.set_yticks([], minor=True)
    axes.set_xticks(list(places.values()), ["as generated", "rotated", "shifted by 3"])
    for height, label, color in _spread_logs(ends):
        axes.text(2.08, height, label, color=color, va="center", fontsize=8.5)
    return figure


def _spread_logs(ends: list[tuple[float, str, str]]) -> list[tuple[float, str, str]]:
    """Return labels whose heights are at least a fifth apart on a logarithmic axis."""
    out: list[tuple[float, str, str]] = []
    for height, label, color in sorted(ends):
        out.append((max(height, out[-1][0] * 1.22) if out else height, label, color))
    return out


def exactness(measurements: list[Measurement]) -> Any:
    """Plot the largest jump of the average between two clouds near a cube against their distance from it."""
    figure, axes = axes_of(3.4)
    powers = (1, 2, 3, 4, 5)
    ends = []
    for name, label, color in (
        ("axes", "principal axes", CRIMSON),
        ("blended", "axes that slide\ninto tuples", TEAL),
        ("weighted", "tuples of points", NAVY),
    ):
        means = [statistics.fmean(m[f"{name}@jump-{p}"] for m in measurements) for p in powers]
        axes.plot([10.0**-p for p in powers], means, "o-", color=color, linewidth=1.8, markersize=5,
                  markerfacecolor="none" if name == "weighted" else color)  # fmt: skip
        ends.append((means[-1], label, color))
    axes.set(xscale="log", yscale="log", xlabel="distance from the cube", ylabel="largest jump of the average")
    axes.set_xlim(2e-1, 4e-7)
    axes.set_xticks([10.0**-p for p in powers])
    axes.set_xticks([], minor=True)
    axes.set_ylim(min(e[0] for e in ends) / 4, 8)
    for height, (_, label, color) in zip(_apart([e[0] for e in sorted(ends)]), sorted(ends), strict=True):
        axes.text(6e-6, height, label, color=color, va="center", fontsize=8.5)
    return figure


def _apart(heights: list[float]) -> list[float]:
    out: list[float] = []
    for height in heights:
        out.append(max(height, out[-1] * 6) if out else height)
    return out
