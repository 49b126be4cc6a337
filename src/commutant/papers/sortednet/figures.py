"""Figure of the claims on digits."""

from __future__ import annotations

from statistics import mean
from typing import Any

from ...evidence import Measurement
from .._shared.figures import CRIMSON, GREY, OCHRE, TEAL, columns_of

_ARMS = {"sorted": ("sorted", TEAL), "sandwich": ("sandwich", OCHRE), "sum": ("sum", CRIMSON), "cut": ("cut", GREY)}


def digits(measurements: list[Measurement]) -> Any:
    """Plot the accuracy of the sub-networks with all blocks against their width, for each way of training."""
    figure, (axes,) = columns_of(1, 3.2)
    for arm, (label, color) in _ARMS.items():
        widths = sorted(int(key.partition("@")[2]) for key in measurements[0] if key.startswith(f"{arm}@"))
        if widths:
            values = [mean(m[f"{arm}@{width}"] for m in measurements) for width in widths]
            axes.plot(widths, values, "o-", color=color, label=label, markersize=4)
            axes.set_xticks(widths, [str(width) for width in widths])
    axes.set(xscale="log", xlabel="channels of each block", ylabel="test accuracy")
    axes.set_xticks(widths, [str(width) for width in widths])
    axes.minorticks_off()
    axes.grid(axis="y", alpha=0.25, linewidth=0.6)
    axes.legend(frameon=False)
    return figure
