"""Gaussian expectations of narrow features and singularities, correct or refused, and derivatives at variance zero."""

import math

import pytest
import torch
import torch.nn.functional as F

from commutant import InputError
from commutant.algebra import (
    Activation,
    find_kinks,
    gaussian_expectation,
    gaussian_nodes,
    gaussian_pair_expectation,
    hermite_coefficients,
)


def below(t, s=1.0):
    return math.erfc(-t / s / math.sqrt(2)) / 2


def ramp(t):
    """Return E relu(z - t)."""
    return math.exp(-t * t / 2) / math.sqrt(2 * math.pi) - t * below(-t)


PLACES = [(0.37, 1e-3), (0.37, 1e-4), (0.0, 1e-3), (3.1, 1e-2), (-2.3, 0.03), (1.234, 0.06), (0.5, 0.01)]


@pytest.mark.parametrize(("at", "width"), PLACES)
def test_narrow_indicators_and_ramps(at, width):
    def indicator(z):
        return ((z > at) & (z < at + width)).double()

    share = below(at + width) - below(at)
    assert float(gaussian_expectation(indicator, 1.0)) == pytest.approx(share, rel=1e-7)
    assert float(Activation(indicator).g(1.0)) == pytest.approx(share, rel=1e-7)
    assert float(hermite_coefficients(indicator, 1.0, 1)) == pytest.approx(share, rel=1e-7)
    pair = gaussian_pair_expectation(indicator, torch.ones_like, 1.0, 1.0, 0.3)
    assert float(pair) == pytest.approx(share, rel=1e-7)
    found = gaussian_expectation(lambda z: torch.relu(z - at) - torch.relu(z - at - width), 1.0)
    assert float(found) == pytest.approx(ramp(at) - ramp(at + width), rel=1e-8)


@pytest.mark.parametrize(("at", "width"), PLACES)
def test_narrow_hats_and_bumps_are_right_or_refused(at, width):
    def hat(z):
        return (width - (z - at).abs()).clamp(min=0)

    def bump(z):
        return torch.tanh(z) + torch.exp(-(((z - at) / width) ** 2))

    variance = width**2 / 2
    smooth = math.sqrt(2 * math.pi * variance) * math.exp(-(at**2) / 2 / (1 + variance))
    smooth /= math.sqrt(2 * math.pi * (1 + variance))
    corner = ramp(at - width) - 2 * ramp(at) + ramp(at + width)
    for f, exact in ((hat, corner), (bump, smooth)):
        try:
            found = float(gaussian_expectation(f, 1.0))
        except InputError:
            continue
        assert found == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize(
    "f",
    [
        lambda z: z.abs() ** -0.5,
        lambda z: (z.abs() + 1e-300) ** -0.5,
        lambda z: (z - 0.3).abs().clamp(min=1e-200) ** -0.5,
        lambda z: 1 / z,
        lambda z: 1 / (z - 0.3),
        torch.tan,
        lambda z: z.abs().log(),
        lambda z: (z - 0.3) ** -2,
    ],
)
@pytest.mark.parametrize("mean", [0.0, 0.3])
def test_singular_functions_are_refused(f, mean):
    for kinks in (None, (0.0, 0.3)):
        with pytest.raises(InputError, match=r"does not converge|not finite|finite on the whole line|too many"):
            gaussian_expectation(f, 1.0, mean, kinks=kinks)
    with pytest.raises(InputError):
        Activation(f).g(1.0)


@pytest.mark.parametrize("name", ["relu", "tanh", "gelu", "selu", "hardswish", "softplus", "mish", "sigmoid", "cos"])
def test_ordinary_activations_have_no_further_kinks(name):
    expected = {"relu": (0,), "selu": (0,), "hardswish": (-3, 3), "softplus": (20,)}
    assert Activation(name).kinks == pytest.approx(expected.get(name, ()), abs=1e-9)
    if name != "softplus":  # whose code jumps by 1e-9 of its value
        f = Activation(name)
        assert find_kinks(lambda z: f(100 * z)) == pytest.approx([k / 100 for k in expected.get(name, ())], abs=1e-9)


def test_second_order_terms_at_variance_zero():
    zero = torch.zeros((), dtype=torch.float64)

    def slope(value):
        leaf = zero.clone().requires_grad_()
        return float(torch.autograd.grad(value(leaf), leaf)[0])

    assert slope(lambda v: gaussian_expectation(torch.exp, v)) == pytest.approx(1 / 2)
    assert slope(lambda v: gaussian_expectation(torch.exp, v, 0.4)) == pytest.approx(math.exp(0.4) / 2)
    assert slope(lambda v: gaussian_expectation(torch.relu, v, 0.4)) == 0
    assert slope(lambda v: gaussian_expectation(torch.relu, v)) == 0  # infinite, so it is left out
    assert slope(lambda v: gaussian_pair_expectation(torch.exp, torch.cos, v, 0.5, 0.0)) == pytest.approx(
        math.exp(-0.25) / 2
    )
    assert slope(lambda v: gaussian_pair_expectation(torch.cos, torch.exp, 0.5, v, 0.0)) == pytest.approx(
        math.exp(-0.25) / 2
    )
    assert slope(lambda c: gaussian_pair_expectation(torch.sin, torch.exp, 0.0, 0.5, c)) == pytest.approx(
        math.exp(0.25)
    )


@pytest.mark.parametrize("f", [torch.tanh, F.selu, F.softplus, F.hardtanh])
def test_gradients_of_pairs_are_finite_at_variance_zero(f):
    u = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64, requires_grad=True)
    v = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64, requires_grad=True)
    c = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    for gradient in torch.autograd.grad(gaussian_pair_expectation(f, f, u, v, c).sum(), [u, v, c]):
        assert bool(gradient.isfinite().all())


def test_second_derivatives_of_pairs():
    at = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (1.3, 0.7, 0.4)]

    def value(*t):
        return gaussian_pair_expectation(torch.tanh, torch.sin, *t, kinks=((), ()))

    assert torch.autograd.gradgradcheck(value, at, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nodes_of_covariances_with_rounding(dtype):
    x = torch.randn(3, 1, generator=torch.Generator().manual_seed(0)).to(dtype)
    for rows in (x.expand(3, 2), x.repeat(2, 5) * 3):
        covariance = rows @ rows.mT
        nodes, weights, root = gaussian_nodes(covariance)
        assert root.shape[1] == 1
        z = nodes @ root.mT
        made = (weights[:, None, None] * z[:, :, None] * z[:, None]).sum(0)
        torch.testing.assert_close(made, covariance.double(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gaussian_expectation(torch.tanh, torch.tensor(1j)), "variance must be a real number"),
        (lambda: gaussian_expectation(torch.tanh, "1"), "variance must be a real number or tensor, got str"),
        (lambda: gaussian_expectation(torch.tanh, None), "got NoneType"),
        (lambda: gaussian_expectation(torch.tanh, 1.0, kinks=(math.nan,)), "kinks must be finite numbers"),
        (lambda: gaussian_expectation(torch.tanh, 1.0, kinks=("0",)), "kinks must be finite numbers"),
        (lambda: gaussian_expectation("tanh", 1.0), "f must be a function of tensors, got 'tanh'"),
        (lambda: gaussian_expectation(lambda z: torch.exp(1j * z), 1.0), "must be real"),
        (lambda: gaussian_expectation(math.tanh, 1.0), "fails on a tensor of numbers"),
        (lambda: hermite_coefficients(torch.tanh, 1.0, 2.5), "a whole number of at least 1, got 2.5"),
        (lambda: gaussian_nodes(torch.full((2, 2), math.nan)), "finite square matrix"),
        (lambda: gaussian_nodes(torch.ones(2, 3)), "finite square matrix"),
        (lambda: gaussian_nodes(torch.tensor([[1.0, 0.9], [0.0, 1.0]])), "must be symmetric"),
    ],
)
def test_wrong_arguments_are_named(unchecked, call, message):
    with pytest.raises(InputError, match=message):
        call()
