"""Split representations: the objective, the predictor that cannot collapse, and the cost of a collapse."""

import tempfile
from pathlib import Path

import pytest
import torch
from torch import nn

from commutant import InputError
from commutant.geometry import (
    HyperPredictor,
    SIELoss,
    Split,
    SplitRepresentation,
    collapse_floor,
    vicreg_covariance,
    vicreg_variance,
)
from processes import run_in_group


def views(batch=12, invariant=5, equivariant=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    draw = lambda d: torch.randn(batch, d, generator=g, dtype=torch.float64)  # noqa: E731
    return [Split(draw(9), draw(invariant), draw(equivariant)) for _ in range(2)], draw(equivariant)


def test_the_objective_by_hand():
    (first, second), predicted = views()
    found = SIELoss()(first, second, predicted)
    total = 0.0
    total += 10 * (first.invariant - second.invariant).square().mean()
    total += 4.5 * (predicted - second.equivariant).square().mean()
    for part, halved in ((first, True), (second, True)):
        z = torch.cat([part.invariant, part.equivariant], 1)
        total += 10 * torch.relu(1 - torch.sqrt(z.var(0) + 1e-4)).mean() / 2 * halved
        c = torch.cov(z.T)
        total += (c**2).fill_diagonal_(0).sum() / 9
    total += 10 * torch.relu(1 - torch.sqrt(predicted.var(0) + 1e-4)).mean() / 2
    assert torch.allclose(found["total"], total)
    less = SIELoss(predicted_variance=False)(first, second, predicted)
    assert float(less["variance"]) < float(found["variance"])


def test_parts_do_not_touch_each_other():
    net = SplitRepresentation(nn.Linear(6, 10), 10, 4, projector=(15, 20)).double()
    x = torch.randn(8, 6).double()
    out = net(x)
    assert (out.invariant.shape, out.equivariant.shape) == ((8, 12), (8, 8))
    weight = net.backbone.weight
    (gradient,) = torch.autograd.grad(out.invariant.square().sum(), weight, retain_graph=True)
    assert float(gradient[6:].abs().max()) == 0
    assert float(gradient[:6].abs().max()) > 0
    (gradient,) = torch.autograd.grad(out.equivariant.square().sum(), weight)
    assert float(gradient[:6].abs().max()) == 0


def test_variance_and_covariance_vanish_where_they_should():
    z = torch.randn(4000, 6, dtype=torch.float64)
    z = z - z.mean(0)
    white = z @ torch.linalg.inv(torch.linalg.cholesky(z.T @ z / (len(z) - 1))).T
    assert float(vicreg_covariance(white)) < 1e-20
    assert float(vicreg_variance(1.01 * white)) == 0
    assert abs(float(vicreg_variance(0 * z)) - 0.99) < 1e-9
    order = torch.randperm(6)
    for f in (vicreg_variance, vicreg_covariance):
        assert torch.allclose(f(z[:, order]), f(z))
        assert torch.allclose(f(z[torch.randperm(4000)]), f(z))
    half = z.bfloat16()
    assert vicreg_covariance(half).dtype == torch.float32


def rotations(number, largest, generator):
    """Return quaternions (x, y, z, w) of rotations by up to `angle` about random axes, with w not negative."""
    axis = nn.functional.normalize(torch.randn(number, 3, generator=generator, dtype=torch.float64), dim=-1)
    angle = torch.rand(number, 1, generator=generator, dtype=torch.float64) * largest / 2
    return torch.cat([axis * angle.sin(), angle.cos()], 1)


def test_the_floor_is_what_the_best_predictor_of_a_still_representation_reaches():
    generator = torch.Generator().manual_seed(0)
    g = rotations(100_000, torch.pi, generator)
    z = torch.randn(100_000, 3, generator=generator, dtype=torch.float64)
    products = (g[:, :, None] * z[:, None, :]).flatten(1)  # the predictor is linear in them
    solved = torch.linalg.lstsq(products, z).solution
    error = float((products @ solved - z).square().sum() / z.square().sum())
    assert abs(error - collapse_floor(g)) < 2e-3
    assert collapse_floor(torch.cat([g, torch.ones(len(g), 1)], 1)) < 1e-9, "a constant in the code is a bias"
    assert collapse_floor(rotations(10_000, 0.26, generator)) < 1e-3, "for small rotations the guarantee is void"
    small = rotations(10_000, 0.26, generator)
    assert collapse_floor(small - small.mean(0)) > 0.99, "subtracting the mean code restores it"


@pytest.mark.deep
def test_training_never_ends_below_the_floor_unless_a_bias_is_there():
    generator = torch.Generator().manual_seed(0)
    found = {}
    for bias in (False, True):
        torch.manual_seed(0)
        predictor = HyperPredictor(8, 4, hyper_bias=bias)
        optimizer = torch.optim.Adam(predictor.parameters(), 1e-2)
        for _ in range(400):
            g = rotations(256, torch.pi, generator).float()
            z = torch.randn(256, 8, generator=generator)
            loss = (predictor(z, g) - z).square().mean()
            optimizer.zero_grad(), loss.backward(), optimizer.step()
        found[bias] = loss.item()
    floor = collapse_floor(rotations(100_000, torch.pi, generator))
    assert found[False] > 0.8 * floor
    assert found[True] < 0.3 * floor


def test_a_representation_that_holds_the_pose_is_predicted_exactly():
    """The product of quaternions is linear in the left factor z: it is W(g) z for one fixed W."""
    generator = torch.Generator().manual_seed(1)
    a, b = (rotations(50, 3.0, generator) for _ in range(2))
    predictor = HyperPredictor(4, 4).double()
    units = torch.eye(4, dtype=torch.float64)
    with torch.no_grad():
        for k in range(4):
            predictor.linear.weight[k] = torch.stack([_product(units[i], units[k]) for i in range(4)], -1)
    assert torch.allclose(predictor(a, b), _product(a, b))
    assert predictor.homomorphism_residual(a, b, _product(a, b)) < 1e-12
    assert HyperPredictor(4, 4).double().homomorphism_residual(a, b, _product(a, b)) > 0.1
    centered = HyperPredictor(4, 4, center=b.mean(0)).double()
    assert float(centered(a[:1], b.mean(0, keepdim=True)).detach().abs().max()) < 1e-12


def _product(p, q):
    x, y, z, w = p.unbind(-1)
    a, b, c, d = q.unbind(-1)
    return torch.stack([w * a + x * d + y * c - z * b, w * b - x * c + y * d + z * a,
                        w * c + x * b - y * a + z * d, w * d - x * a - y * b - z * c], -1)  # fmt: skip


def _on_rank(rank, size, folder):
    (first, second), predicted = views()
    leaf = first.equivariant.clone().requires_grad_()
    rows = slice(6 * rank, 6 * rank + 6)
    mine = [
        Split(view.representation[rows], view.invariant[rows], part[rows])
        for view, part in ((first, leaf), (second, second.equivariant))
    ]
    found = SIELoss()(mine[0], mine[1], predicted[rows])
    found["total"].backward()
    torch.save({k: v.detach() for k, v in found.items()} | {"gradient": leaf.grad}, f"{folder}/{rank}.pt")


def test_two_processes_see_the_statistics_of_the_whole_batch():
    (first, second), predicted = views()
    leaf = first.equivariant.clone().requires_grad_()
    whole = SIELoss()(first._replace(equivariant=leaf), second, predicted)
    whole["total"].backward()
    with tempfile.TemporaryDirectory() as folder:
        run_in_group(_on_rank, folder)
        parts = [torch.load(Path(folder) / f"{rank}.pt") for rank in range(2)]
    for name in ("variance", "covariance"):
        assert all(torch.allclose(part[name], whole[name]) for part in parts)
    mean = {k: (parts[0][k] + parts[1][k]) / 2 for k in ("total", "gradient")}
    assert torch.allclose(mean["total"], whole["total"])
    assert torch.allclose(mean["gradient"], leaf.grad), "data-parallel training averages the gradients"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: SplitRepresentation(nn.Linear(3, 4), 4, 4), "equivariant must lie"),
        (lambda: SplitRepresentation(nn.Linear(3, 4), 4, projector=()), "at least one width"),
        (lambda: SplitRepresentation(nn.Linear(3, 4), 6, projector=(4,))(torch.randn(2, 3)), "backbone must give"),
        (lambda: vicreg_variance(torch.randn(1, 3)), "batch size of at least 2"),
        (lambda: collapse_floor(torch.full((3, 2), torch.nan)), "finite"),
        (lambda: HyperPredictor(4, 3, center=torch.zeros(2)), "center must be"),
    ],
)
def test_bad_input_is_named(make, words, unchecked):
    with pytest.raises(InputError, match=words):
        make()
