"""Figure of the claims on digits."""

from __future__ import annotations

from typing import Any

from ...evidence import Measurement
from .._shared.figures import CRIMSON, GREY, NAVY, OCHRE, TEAL, columns_of

_KINDS = {
    "local": ("local basis", TEAL), "global": ("global basis", NAVY), "pca": ("PCA", OCHRE),
    "random": ("PCA, turned", CRIMSON), "neuron": ("neurons", GREY),
}  # fmt: skip


def digits(measurements: list[Measurement]) -> Any:
    """Plot the interactions that each basis needs, one panel for each section."""
    figure, panels = columns_of(3, 2.8)
    every = [m[f"{kind}@{place}"] for m in measurements for kind in _KINDS for place in range(3)]
    ticks = [10**power for power in range(6) if min(every) <= 10**power <= max(every)]
    for place, (axes, title) in enumerate(
        zip(panels, ("input to layer 1", "layer 1 to layer 2", "layer 2 to output"), strict=True)
    ):
        for row, (kind, (_, color)) in enumerate(_KINDS.items()):
            values = [m[f"{kind}@{place}"] for m in measurements]
            axes.plot(values, [row] * len(values), "o", color=color, alpha=0.6, markersize=5)
        axes.set(xscale="log", xlabel="interactions needed", title=title, xlim=(min(every) / 1.6, max(every) * 1.6))
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
        axes.set_yticks(range(len(_KINDS)), [label for label, _ in _KINDS.values()] if not place else [])
        axes.invert_yaxis()
        axes.title.set_fontsize(9.5)
        axes.grid(axis="x", alpha=0.25, linewidth=0.6)
    return figure
