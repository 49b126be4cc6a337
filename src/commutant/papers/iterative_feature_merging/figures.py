"""Figure of the claims on feature merging."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np

from ...evidence import Measurement
from .._shared.figures import CRIMSON, GREY, NAVY, OCHRE, SLATE, TEAL
from .measures import SHARES

_ARMS = {"ifm": ("paper's rule", NAVY), "saliency": ("folding, bound", TEAL), "activations": ("folding, data", OCHRE),
         "magnitude": ("pruned by magnitude", CRIMSON), "random": ("pruned at random", GREY)}  # fmt: skip


def merging(measurements: list[Measurement]) -> Any:
    """Plot accuracy against size, the share of parameters to keep against the width, and one tree of merges."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=[1.25, 1, 1.1])
    widths = sorted({int(key.split("@")[0][1:]) for key in measurements[0] if key.endswith("@accuracy")})
    wide = 256 if 256 in widths else widths[-1]

    def median(key: str) -> float:
        return statistics.median(m[key] for m in measurements)

    for arm, (label, color) in _ARMS.items():
        left.plot(SHARES, [median(f"w{wide}-{arm}@at-{s:g}") for s in SHARES], color=color, linewidth=1.6, label=label)
        middle.plot(
            widths, [median(f"w{w}-{arm}@kept") for w in widths], "o-", color=color, linewidth=1.6, markersize=4
        )
    left.set(xlabel="share of parameters kept", ylabel="accuracy", xscale="log", title=f"{wide} units per layer")
    left.set_xticks([0.05, 0.1, 0.25, 0.5, 0.9], ["0.05", "0.1", "0.25", "0.5", "0.9"])
    left.minorticks_off()
    left.invert_xaxis()
    middle.set(xlabel="units per layer", ylabel="share kept at one point lost", xscale="log", ylim=(0, 1.03))
    middle.set_xticks(widths, [str(w) for w in widths])
    middle.minorticks_off()
    _tree(right, measurements[0], widths[0])
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.title.set_fontsize(9.5)
    for axes in (left, middle):
        axes.grid(axis="y", alpha=0.25, linewidth=0.6)
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=5, frameon=False, fontsize=8,
                  columnspacing=1.2, handlelength=1.4)  # fmt: skip
    return figure


def _tree(axes: Any, first: Measurement, width: int) -> None:
    """Draw the merges of one layer as a dendrogram."""
    from scipy.cluster.hierarchy import dendrogram

    count = sum(key.startswith(f"_w{width}@tree-") and key.endswith("-a") for key in first)
    name, size = {c: c for c in range(count + 1)}, dict.fromkeys(range(count + 1), 1)
    rows, height = [], 0.0
    for i in range(count):
        kept, gone, level = (first[f"_w{width}@tree-{i}-{n}"] for n in "abl")
        height = max(height, level)  # distances may fall again: the tree shows the threshold that each merge takes
        size[int(kept)] += size[int(gone)]
        rows.append([name[int(kept)], name[int(gone)], height, size[int(kept)]])
        name[int(kept)] = count + 1 + i
    dendrogram(np.array(rows, dtype=float), ax=axes, no_labels=True, color_threshold=0,
               above_threshold_color=SLATE)  # fmt: skip
    axes.set(xlabel=f"{count + 1} units", ylabel="squared distance", title="merges of the first layer")
