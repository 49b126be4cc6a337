"""Plots of the experiments."""

from __future__ import annotations

from typing import Any

from ...evidence import Measurement
from .._shared.figures import NAVY, SLATE, TEAL, axes_of, dots

_NAMES = {
    "cyclic": "cyclic shifts",
    "dihedral": "shifts and reflections",
    "symmetric": "all permutations",
    "torus": "shifts of a 2 x 4 grid",
    "halves": "the same permutation of both halves",
}


def population(measurements: list[Measurement]) -> Any:
    """Plot validation against training accuracy of the graphs of one seed."""
    figure, axes = axes_of(3.6)
    m = measurements[0]
    rows = [(m[f"_train@{i}"], m[f"_validation@{i}"], m[f"_size@{i}"]) for i in range(len(m)) if f"_train@{i}" in m]
    train, validation, size = zip(*rows, strict=True)
    points = axes.scatter(train, validation, c=size, cmap="viridis", s=42, zorder=3)
    axes.scatter(m["encoder-train@16"], m["encoder-validation@16"], marker="D", color=SLATE, s=46, zorder=3)
    axes.annotate(
        "encoder alone", (m["encoder-train@16"], m["encoder-validation@16"]), (-8, 0), textcoords="offset points",
        ha="right", va="center", color=SLATE, fontsize=8.5,
    )  # fmt: skip
    axes.set(xlabel="training accuracy", ylabel="validation accuracy")
    figure.colorbar(points, label="nodes and edges", ax=axes, pad=0.02)
    return figure


def ties(measurements: list[Measurement]) -> Any:
    """Plot how often planted symmetries are found, beside clusters of weights."""
    keys = {f"{k}-found": (label, TEAL) for k, label in _NAMES.items()}
    keys |= {"none-found": ("no symmetry", NAVY), "bic": ("BIC of ridge weights, all five", SLATE)}
    return dots(measurements, keys, "share found")
