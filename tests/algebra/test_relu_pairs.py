"""Products of rectified Gaussian variables, against integration in one dimension and the closed form at mean zero."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import integrate, stats

from commutant import InputError
from commutant.algebra import Activation, relu_pair_expectation
from depth import some


def by_quadrature(a, b, rho):
    """Integrate over u, with the conditional expectation of v given u in closed form."""
    s = math.sqrt(1 - rho**2)

    def integrand(z):
        mean = b + rho * z
        inner = mean * stats.norm.cdf(mean / s) + s * stats.norm.pdf(mean / s) if s else max(mean, 0.0)
        return stats.norm.pdf(z) * max(a + z, 0.0) * inner

    edges = sorted({-12.0, 12.0, *(p for p in (-a, -b / rho if rho else 0.0) if -12 < p < 12)})
    fine = [p + q * s for p in edges for q in (-4, 0, 4)]
    edges = sorted({p for p in (*edges, *fine) if -12 <= p <= 12})
    parts = (integrate.quad(integrand, low, high, limit=200)[0] for low, high in zip(edges, edges[1:], strict=False))  # noqa: RUF007
    return sum(parts)


@pytest.mark.parametrize("rho", some([0.7, -1.0, 0.9999, -0.99, 0.0, 0.99, 1.0], keep=3))
@pytest.mark.parametrize("b", some([0.4, -1.0, 0.0, 2.0], keep=2))
@pytest.mark.parametrize("a", some([-0.3, 0.0, 3.0], keep=2))
def test_it_is_the_integral(a, b, rho):
    found = relu_pair_expectation(*(torch.tensor([v], dtype=torch.float64) for v in (a, b, rho)))
    assert float(found) == pytest.approx(by_quadrature(a, b, rho), abs=1e-7)


def test_without_means_it_is_the_arc_cosine_kernel():
    rho = torch.linspace(-1, 1, 101, dtype=torch.float64)
    zero = torch.zeros_like(rho)
    torch.testing.assert_close(relu_pair_expectation(zero, zero, rho), Activation("relu").dual(1.0, 1.0, rho))


def test_constants_far_above_zero_are_products_of_means():
    mean = torch.tensor([50.0], dtype=torch.float64)
    assert float(relu_pair_expectation(mean, mean, torch.tensor([0.5]))) == pytest.approx(2500.5)
    assert float(relu_pair_expectation(-mean, mean, torch.tensor([0.5]))) == 0


def test_first_derivatives_are_finite_at_full_correlation():
    points = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in ([0.3, -1.0], [0.5, 0.2], [0.6, -0.4])]
    assert torch.autograd.gradcheck(relu_pair_expectation, points)
    one = torch.ones(2, dtype=torch.float64, requires_grad=True)
    relu_pair_expectation(one * 0.5, one * 0.5, one).sum().backward()
    assert one.grad.isfinite().all()


def test_numbers_are_refused(unchecked):
    with pytest.raises(InputError, match="must be tensors"):
        relu_pair_expectation(0.0, 0.0, 0.5)
