"""Measurements for the claims on frame averaging of real molecules and of families of hard graphs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product

import torch
from torch import Tensor, nn

from ...algebra import graph_frame, pca_frame
from ...data import Molecule, hard_graphs, load_molecules
from ...evidence import Context, Measurement
from .._shared.rotations import random_rotations
from .measures import Gin

_SIGNS = torch.tensor(list(product((-1.0, 1.0), repeat=3)), dtype=torch.float64)


class _Energy(nn.Module):
    """Random energy of atoms, invariant to their order and to nothing else."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
        self.place, self.element, self.last = draw(3, 32) / 2, draw(120, 32), draw(32)

    def forward(self, x: Tensor, elements: Tensor) -> Tensor:
        """Return energies `(frames,)` of positions `(frames, atoms, 3)`."""
        return torch.tanh(torch.tanh(x @ self.place + self.element[elements]).mean(1).mul(3).sin() @ self.last)


def _by_eigenvectors(net: _Energy, x: Tensor, elements: Tensor, detached: bool = False) -> Tensor:
    """Return the mean energy over the eigenvectors of the covariance with all signs, as the paper writes it."""
    centered = x - x.mean(0)
    axes = torch.linalg.eigh(centered.mT @ centered)[1]
    axes = axes.detach() if detached else axes
    return net(centered @ (axes * _SIGNS[:, None]), elements).mean()


def _by_frame(net: _Energy, x: Tensor, elements: Tensor) -> Tensor:
    frame = pca_frame(x[None], "E")
    return frame.pool(net(frame.canonicalize(x[None]), elements))[0]


WAYS: dict[str, Callable[..., Tensor]] = {
    "eigenvectors": _by_eigenvectors,
    "detached": partial(_by_eigenvectors, detached=True),
    "sliding": _by_frame,
}


def measure_molecules(context: Context) -> Measurement:
    """Return the change of molecular energies under a rotation and a jitter, and the fraction of correct forces."""
    names = context.settings["sets"]
    found = [m for name in names for m in load_molecules(name, context.data_dir)]
    molecules = [m for m in found if len(m.elements) > 1]  # a single atom has no shape
    out: Measurement = {"molecules": float(len(molecules))}
    out |= context.arms({way: partial(_molecules_of, context, way, molecules) for way in WAYS})
    return out


def _molecules_of(context: Context, way: str, molecules: list[Molecule]) -> Measurement:
    """Measure one way to average, with changes relative to the effect of moving every atom by 0.1 angstrom."""
    generator, average = context.generator(1), WAYS[way]
    net = _Energy(generator)
    turns = random_rotations(len(molecules), generator)
    changes, right = [], 0
    for molecule, turn in zip(molecules, turns, strict=True):
        x, elements = molecule.positions.clone().requires_grad_(), molecule.elements
        energy = average(net, x, elements)
        (force,) = torch.autograd.grad(energy, x)
        noise = torch.randn(8, *x.shape, generator=generator, dtype=torch.float64)
        felt = (
            torch.stack([average(net, molecule.positions + 0.1 * n, elements) - energy for n in noise]).norm() / 8**0.5
        )
        moved = (molecule.positions + 1e-6 * noise[0]) @ turn.mT + 1
        changes.append(float(((average(net, moved, elements) - energy).abs() / felt).detach()))
        right += _is_right(partial(average, net, elements=elements), molecule.positions, force, turn, noise[1], felt)
    found = torch.tensor(changes)
    return {
        f"{way}@steady": float((found <= 1e-3).double().mean()),
        f"{way}@largest": float(found.max()),
        f"{way}@right forces": right / len(molecules),
    } | {f"_{way}-{i}": float(value) for i, value in enumerate(found.sort().values)}


def _is_right(
    energy: Callable[[Tensor], Tensor], x: Tensor, force: Tensor, turn: Tensor, direction: Tensor, felt: Tensor
) -> bool:
    """Return whether the force is the slope of the energy on both sides, rotates along, and has no sum or torque.

    Every invariant energy passes the last test; the others fail where the energy has a kink.
    """
    size = float(torch.maximum(force.norm(), felt).detach())
    arm = x - x.mean(0)
    off = torch.cat([torch.linalg.cross(arm, force).sum(0), force.sum(0)]).norm()
    if not bool(force.isfinite().all()) or float(off) > 1e-6 * size * float(arm.norm()):
        return False
    step, value = 1e-6, energy(x).detach()
    slopes = [float((energy(x + side * step * direction).detach() - value) / (side * step)) for side in (1, -1)]
    turned = (x @ turn.mT).requires_grad_()
    (other,) = torch.autograd.grad(energy(turned), turned)
    wrong = max(abs(slope - float((force * direction).sum())) for slope in slopes)
    rounding = 1e-15 / step
    return wrong <= 1e-2 * size + rounding and float((other - force @ turn.mT).norm()) <= 1e-3 * size


def measure_families(context: Context) -> Measurement:
    """Return the number of pairs of each family that are not told apart, and of relabeled copies that are."""
    families = context.settings["families"]
    return context.arms({family: partial(_family_of, context, family) for family in families})


def _family_of(context: Context, family: str) -> Measurement:
    graphs = hard_graphs(family, context.data_dir)
    most = max(len(a) for a, _ in graphs)
    generator = context.generator(2)
    orders = [torch.randperm(len(a), generator=generator) for a, _ in graphs]
    copies = [(a[p][:, p], x[p]) for (a, x), p in zip(graphs, orders, strict=True)]
    torch.manual_seed(context.seed)
    wide = most * (most + graphs[0][1].shape[1])
    flat = nn.Sequential(nn.Linear(wide, 64), nn.Tanh(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10)).double()
    gin = Gin(2 + graphs[0][1].shape[1]).double()

    def by_frame(a: Tensor, x: Tensor) -> Tensor:
        order = graph_frame(a[None], x[None], invariant=True).order[0]
        padded = a.new_zeros(most, most + x.shape[1])
        padded[: len(a), : len(a)], padded[: len(a), most:] = a[order][:, order], x[order]
        return flat(padded.flatten())  # type: ignore[no-any-return]

    def by_colors(a: Tensor, x: Tensor) -> Tensor:
        return gin(a[None], x[None])[0]

    out: Measurement = {f"{family}@graphs": float(len(graphs))}
    for name, embed in (("canonical order", by_frame), ("GIN", by_colors)):
        with torch.no_grad():
            one, two = (torch.stack([embed(a, x) for a, x in part]) for part in (graphs, copies))
        if family == "exp":  # consecutive graphs are pairs
            merged = int(((one[::2] - one[1::2]).abs().sum(1) <= 1e-6).sum())
        else:
            close = [int((torch.cdist(part, one, p=1) <= 1e-6).sum()) for part in one.split(1000)]
            merged = (sum(close) - len(one)) // 2
        out[f"{family}@{name}, merged"] = float(merged)
        out[f"{family}@{name}, copies"] = float(((one - two).abs().sum(1) > 1e-6).sum())
    return out
