"""Plots of the experiments."""

from __future__ import annotations

from typing import Any

from ...evidence import Measurement, series
from .._shared.figures import CRIMSON, NAVY, SLATE, TEAL, columns_of, seeds_and_mean

_ARMS = {"attention": ("attention", TEAL), "biased": ("attention, identity bias", NAVY), "mlp": ("concatenated", SLATE)}
_PANELS = {
    "average-2": "average of squares",
    "correlation-1": "inner product",
    "correlation-3": "inner product, cubed",
}


def targets(measurements: list[Measurement]) -> Any:
    """Plot the relative test error against the number of training sets, a panel for each target."""
    figure, panels = columns_of(3, 3.4)
    for axes, (target, title) in zip(panels, _PANELS.items(), strict=True):
        for arm, (name, color) in _ARMS.items():
            rows = [series(m, f"{arm}-{target}") for m in measurements]
            sizes = list(rows[0])
            seeds_and_mean(axes, sizes, [[row[n] for n in sizes] for row in rows], color)
            axes.plot([], [], "o-", color=color, label=name)
        trained = series(measurements[0], f"deepsets-{target}")
        for m in measurements:
            found = series(m, f"deepsets-{target}")
            axes.plot(list(found), list(found.values()), "x", color=CRIMSON, markersize=4, alpha=0.6)
        axes.plot([], [], "x", color=CRIMSON, label="trained DeepSets" if trained else None)
        bound = measurements[0][f"complexity-{target}"]
        axes.set(xscale="log", yscale="log", xlabel="training sets")
        axes.set_title(f"{title}\n$B(f) \\leq$ {bound:.1e}", fontsize=9)
        axes.set_xticks(sizes, [f"{n}" for n in sizes])
        axes.minorticks_off()
    panels[0].set_ylabel("relative test error")
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=8
    )
    return figure
