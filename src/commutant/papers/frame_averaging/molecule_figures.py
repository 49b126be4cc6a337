"""Figures of the claims on real molecules and on families of hard graphs."""

from __future__ import annotations

import statistics
from typing import Any

import torch
from torch import Tensor

from ...algebra import pca_frame
from ...data import Molecule, load_molecules, molecules_unavailable
from ...evidence import Measurement
from ...laws import Rotation
from .._shared.figures import CRIMSON, GREY, NAVY, SILVER, SLATE, TEAL, axes_of, plain

_ATOMS = {1: (SILVER, 60), 6: (SLATE, 150), 8: (CRIMSON, 150)}


def molecules(measurements: list[Measurement]) -> Any:
    """Plot a molecule and its rotated copy in their frames, and the change of energies when molecules move."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 6.0), layout="constrained")
    grid = figure.add_gridspec(3, 5, height_ratios=(1, 1, 2))
    if molecules_unavailable("g2", None) is None:
        shown = next(m for m in load_molecules("g2") if m.name == "CH3CH2OH")
        turn = Rotation(3).sample(torch.zeros(1, 3), torch.Generator().manual_seed(4))
        for row, (name, positions) in enumerate(
            (("as given", shown.positions), ("rotated", shown.positions @ turn.mT))
        ):
            frame = pca_frame(positions[None], "SE")
            seen = sorted(frame.canonicalize(positions[None]), key=lambda x: x[0].sign().tolist())
            for column, x in enumerate((positions - positions.mean(0), *seen)):
                panel = figure.add_subplot(grid[row, column])
                _draw(panel, shown, x)
                title = name if column == 0 else f"its frame {column}" if row == 0 else ""
                panel.set_title(title, fontsize=8.5, color=GREY if column == 0 else NAVY)
    axes = figure.add_subplot(grid[2, :])
    plain(axes)
    for way, label, color in (
        ("eigenvectors", "eigenvectors, all signs", CRIMSON),
        ("sliding", "sliding frames", TEAL),
    ):
        for m in measurements:
            count = int(m["molecules"])
            values = [max(m.get(f"_{way}-{i}", float("nan")), 1e-9) for i in range(count)]
            share = [100 * (i + 1) / count for i in range(count)]
            axes.plot(share, values, color=color, linewidth=1.2, alpha=0.6)
        right = statistics.fmean(100 * m[f"{way}@right forces"] for m in measurements)
        axes.plot([], [], color=color, linewidth=2, label=f"{label}: correct forces for {right:.0f} %")
    axes.axhline(1e-3, color=SILVER, linestyle=":", linewidth=1)
    axes.set(yscale="log", xlabel="molecules, percent", ylabel="change of the energy,\nrelative", xlim=(0, 100))
    axes.legend(frameon=False, fontsize=8.5, loc="upper left")
    return figure


def _draw(panel: Any, molecule: Molecule, x: Tensor) -> None:
    panel.set_axis_off()
    panel.set_aspect("equal")
    panel.set(xlim=(-2.3, 2.3), ylim=(-1.6, 1.6))
    far = torch.cdist(x, x)
    light = molecule.elements == 1
    for i, j in (far < torch.where(light[:, None] | light, 1.25, 1.7)).triu(1).nonzero().tolist():
        panel.plot(x[[i, j], 0], x[[i, j], 1], color=GREY, linewidth=1.2, zorder=0)
    for i in x[:, 2].argsort().tolist():  # nearer atoms are drawn later
        color, size = _ATOMS[int(molecule.elements[i])]
        panel.scatter(x[i, 0], x[i, 1], s=size / 3, color=color, edgecolors="white", linewidths=0.6, zorder=1)


def families(measurements: list[Measurement]) -> Any:
    """Plot the pairs of each family not told apart by an MLP in canonical order and by message passing."""
    names = {"graph8c": "graphs of\n8 nodes", "exp": "EXP,\n600 pairs", "sr16": "SR16", "sr25": "SR25",
             "sr26": "SR26", "sr28": "SR28", "sr29": "SR29"}  # fmt: skip
    shown = [n for n in names if f"{n}@graphs" in measurements[0]]
    figure, axes = axes_of(3.2)
    for shift, way, color in ((-0.2, "GIN", CRIMSON), (0.2, "canonical order", TEAL)):
        heights = [statistics.fmean(m[f"{n}@{way}, merged"] for m in measurements) for n in shown]
        copies = sum(m[f"{n}@{way}, copies"] for m in measurements for n in shown)
        name = "GIN" if way == "GIN" else "MLP in the canonical order"
        spots = [i + shift for i in range(len(shown))]
        axes.bar(spots, [max(h, 0.35) for h in heights], 0.36, bottom=0, color=color,
                 label=f"{name}: {copies:.0f} copies mistaken")  # fmt: skip
        for spot, height in zip(spots, heights, strict=True):
            axes.text(spot, max(height, 0.35) * 1.15, f"{height:.0f}", ha="center", fontsize=8.5, color=color)
    axes.set_xticks(range(len(shown)), [names[n] for n in shown], fontsize=8.5)
    axes.set(yscale="log", ylabel="pairs not told apart", ylim=(0.3, 3e4))
    axes.set_yticks([1, 10, 100, 1000], ["1", "10", "100", "1000"])
    axes.legend(frameon=False, fontsize=8.5, loc="upper right")
    return figure
