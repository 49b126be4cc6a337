"""Energies of symmetric molecules are continuously differentiable; forces and tensors rotate with them."""

import itertools
import math

import pytest
import torch
from torch import nn

from commutant.algebra import pca_frame, weighted_frame
from commutant.geometry import FrameAverage
from commutant.laws import Orthogonal, Rotation

CUBE = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=3)), dtype=torch.float64)


def ring(n, radius=1.0, height=0.0, start=0.0):
    angle = torch.arange(n, dtype=torch.float64) * 2 * math.pi / n + start
    return torch.stack([radius * angle.cos(), radius * angle.sin(), torch.full_like(angle, height)], -1)


def axis(*heights):
    return torch.tensor([[0.0, 0.0, h] for h in heights], dtype=torch.float64)


MOLECULES = {
    "CH3CN": (torch.cat([ring(3, 1.03, 0.37), axis(0.0, -1.46, -2.62)]), [1, 1, 1, 6, 6, 7]),
    "cubane": (torch.cat([CUBE * 0.78, CUBE * 1.41]), [6] * 8 + [1] * 8),
    "benzene": (torch.cat([ring(6, 1.39), ring(6, 2.48)]), [6] * 6 + [1] * 6),
    "methane": (torch.cat([CUBE[[0, 3, 5, 6]] * 0.63, axis(0.0)]), [1, 1, 1, 1, 6]),
    "ammonia": (torch.cat([ring(3, 0.94, -0.27), axis(0.1)]), [1, 1, 1, 7]),
    "BF3": (torch.cat([ring(3, 1.31), axis(0.0)]), [9, 9, 9, 5]),
    "CO2": (axis(-1.16, 0.0, 1.16), [8, 6, 8]),
    "HCN": (axis(-1.07, 0.0, 1.15), [1, 6, 7]),
    "H2": (axis(0.0, 0.74), [1, 1]),
}
NEARBY = {  # almost symmetric: gaps and extents within the range of `blend`
    "bent CO2": (MOLECULES["CO2"][0] + torch.tensor([[0.0, 0, 0], [0.2, 0, 0], [0.0, 0.1, 0]]).double(), [8, 6, 8]),
    "pressed cubane": (MOLECULES["cubane"][0] * torch.tensor([1.0, 1.004, 1.01]).double(), [6] * 8 + [1] * 8),
    "stretched benzene": (MOLECULES["benzene"][0] * torch.tensor([1.0, 1.003, 1.0]).double(), [6] * 6 + [1] * 6),
}


class Energy(nn.Module):
    """Smooth energy of atoms with elements, without symmetry."""

    def __init__(self):
        super().__init__()
        g = torch.Generator().manual_seed(5)
        draw = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)  # noqa: E731
        self.place, self.element, self.last = draw(3, 24) / 2, draw(20, 24), draw(24)

    def forward(self, x, z):
        h = torch.tanh(x @ self.place + self.element[z]).mean(-2)
        return torch.tanh(3 * h.sin()) @ self.last


def energy_of(z, build=pca_frame, group="E", **options):
    net, z = Energy(), torch.tensor(z)

    def energy(x):
        frame = build(x[None], group, **options)
        return frame.pool(net(frame.canonicalize(x[None]), z))[0]

    return energy


WAYS = {
    "pca": (pca_frame, "E", {}),
    "proper": (pca_frame, "SE", {}),
    "weighted": (weighted_frame, "E", {}),
    "softskew": (pca_frame, "E", {"signs": "softskew"}),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", [*MOLECULES, *NEARBY])
def test_slopes_on_both_sides_are_the_force(name, way):
    build, group, options = WAYS[way]
    x, z = (MOLECULES | NEARBY)[name]
    energy = energy_of(z, build, group, **options)
    x = (x @ Rotation(3).sample(x, torch.Generator().manual_seed(2)).mT).requires_grad_()
    value = energy(x)
    (force,) = torch.autograd.grad(value, x)
    noise = torch.randn(3, *x.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    for v in noise:
        expected, step = float((force * v).sum()), 2e-7
        for side in (1, -1):
            slope = float(energy(x.detach() + side * step * v) - value.detach()) / (side * step)
            assert abs(slope - expected) < 1e-3 * max(float(force.norm()), 0.1)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", [*MOLECULES, *NEARBY])
def test_forces_turn_with_the_molecule(name, way):
    build, group, options = WAYS[way]
    x, z = (MOLECULES | NEARBY)[name]
    energy = energy_of(z, build, group, **options)
    turn = (Orthogonal if group == "E" else Rotation)(3).sample(x, torch.Generator().manual_seed(4))
    order = torch.randperm(len(z), generator=torch.Generator().manual_seed(1))
    moved = energy_of([z[i] for i in order], build, group, **options)
    forces = []
    for f, y in ((energy, x.clone()), (moved, (x @ turn.mT + 3)[order])):
        y.requires_grad_()
        forces += torch.autograd.grad(f(y), y)
    assert float((forces[1] - (forces[0] @ turn.mT)[order]).abs().max()) < 1e-8


@pytest.mark.parametrize("way", ["pca", "weighted"])
@pytest.mark.parametrize("size", [1e-2, 1e-4, 1e-7])
@pytest.mark.parametrize("name", ["CO2", "HCN", "H2"])
def test_energies_are_continuous_at_lines(name, size, way):
    x, z = MOLECULES[name]
    energy = energy_of(z, WAYS[way][0])
    noise = torch.randn(4, *x.shape, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    assert max(abs(float(energy(x + size * v) - energy(x))) for v in noise) < 10 * size


SHAPES = {name: MOLECULES[name][0] for name in ("CO2", "HCN", "H2", "BF3")} | {
    "one point": torch.ones(1, 3).double(),
    "all in one place": torch.ones(4, 3).double(),
    "nearly a line": MOLECULES["CO2"][0]
    + 1e-9 * torch.randn(3, 3, generator=torch.Generator().manual_seed(0)).double(),
}


@pytest.mark.parametrize(
    "options", [{}, {"frames": "weighted"}, {"signs": "softskew"}], ids=["pca", "weighted", "rule"]
)
@pytest.mark.parametrize("group", ["E(3)", "SE(3)", "O(3)", "SO(3)"])
@pytest.mark.parametrize("name", SHAPES)
def test_tensors_of_lines_and_points_turn(name, group, options):
    class Stress(nn.Module):
        def forward(self, x):
            h = (x @ torch.arange(1.0, 28.0, dtype=torch.float64).sin().reshape(3, 9)).cos().cumsum(-1)
            return {"stress": h.mean(-2).unflatten(-1, (3, 3)), "own": h.unflatten(-1, (3, 3)), "spin": h[..., :3]}

    kinds = {"stress": "tensors", "own": "tensors", "spin": "pseudovectors"}
    model, x = FrameAverage(Stress(), group, outputs=kinds, **options), SHAPES[name][None]
    r = (Orthogonal if group[0] in "OE" else Rotation)(3).sample(x, torch.Generator().manual_seed(8))
    first, second = model(x), model(x @ r.mT + (5.0 if group in ("E(3)", "SE(3)") else 0.0))
    for key in ("stress", "own"):
        assert torch.allclose(r @ first[key] @ r.mT, second[key], atol=1e-6)
        assert float(first[key].abs().max()) > 0.1
    assert torch.allclose(torch.linalg.det(r) * first["spin"] @ r.mT, second["spin"], atol=1e-6)


def test_tensors_near_a_line_are_continuous():
    x = MOLECULES["CO2"][0][None]
    field = lambda y: (y @ torch.arange(1.0, 28.0).double().sin().reshape(3, 9)).cos().mean(-2).unflatten(-1, (3, 3))  # noqa: E731
    for frames in ("pca", "weighted"):
        model = FrameAverage(type("F", (nn.Module,), {"forward": lambda self, x: field(x)})(), outputs="tensors",
                             frames=frames)  # fmt: skip
        for size in (1e-2, 1e-4):
            noise = torch.randn(3, 3, generator=torch.Generator().manual_seed(1)).double()
            assert float((model(x + size * noise) - model(x)).abs().max()) < 10 * size


@pytest.mark.parametrize("d", [4, 5])
@pytest.mark.parametrize("build", [pca_frame, weighted_frame])
def test_flat_clouds_in_more_dimensions(build, d):
    flat = torch.zeros(6, d, dtype=torch.float64)
    flat[:, :2] = ring(6)[:, :2]  # two equal variances, the others zero
    line = torch.zeros(4, d, dtype=torch.float64)
    line[:, 0] = torch.tensor([0.0, 1.0, 3.0, 4.5])
    q = Orthogonal(d).sample(flat, torch.Generator().manual_seed(3))
    net = lambda y: (y @ torch.arange(1.0, 8 * d + 1).double().sin().reshape(d, 8)).cos().mean(-2).cumsum(-1).sin()  # noqa: E731
    for x in (flat, line):
        values = []
        for y in (x, x @ q.mT + 2):
            frame = build(y[None], "E")
            values.append(frame.pool(net(frame.canonicalize(y[None]))))
        assert torch.allclose(*values, atol=1e-9)
