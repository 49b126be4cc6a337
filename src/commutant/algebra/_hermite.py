"""Hermite coefficients of an elementwise function, and the expectations that Mehler's series gives from them."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from .._errors import InputError
from ._gaussian import (
    RADIUS,
    Elementwise,
    Scalar,
    checked,
    density,
    evaluate,
    gaussian_expectation,
    geometric_mean,
    kinks_of,
    panel_edges,
    panel_nodes,
    powers_of_two,
)

_ORDER = 20  # nodes of a panel
_TERMS = 200
_ROUNDING = 1e-13


def hermite_coefficients(
    f: Elementwise, variance: Scalar, terms: int, kinks: Iterable[float] | None = None
) -> Float[Tensor, "... terms"]:
    """$a_k = E f(\\sqrt q\\, x)\\, he_k(x)$ over a standard normal x, of orthonormal Hermite polynomials.

    $\\sum_k a_k^2 = E f^2$, and $E f(u) g(v) = \\sum_k a_k b_k \\rho^k$ (Mehler) for a pair of correlation $\\rho$.

    Args:
        f: elementwise.
        variance: q, at least zero.
        terms: how many coefficients, from k = 0.
        kinks: where f or a derivative jumps; by default looked for, or taken from f where it states them.

    Returns:
        `(..., terms)` for variances `(...)`, float64, without gradients by the variance.

    Raises:
        InputError: for a negative or non-finite variance, or no term.

    Example:
        >>> [round(float(a), 6) for a in hermite_coefficients(lambda z: z**2, 1.0, 4)]
        [1.0, 0.0, 1.414214, 0.0]
    """
    (q,) = checked(variance=variance)
    if terms < 1:
        raise InputError(f"a series has at least one term, got {terms}")
    if not q.numel():
        return torch.zeros(*q.shape, terms, dtype=torch.float64, device=q.device)
    points = kinks_of(f) if kinks is None else tuple(kinks)
    shape, q = q.shape, q.detach().reshape(-1)
    sigma = q.sqrt()
    at = torch.tensor([*points, *powers_of_two(RADIUS * float(sigma.max()))], dtype=torch.float64, device=q.device)
    z, weights = panel_nodes(panel_edges(torch.zeros_like(q), sigma, at), _ORDER)
    mass = weights * density(z, q, torch.zeros_like(q)) * evaluate(f, z)
    x, out = z / torch.where(sigma > 0, sigma, 1.0)[:, None], []
    below, this = torch.zeros_like(x), torch.ones_like(x)
    for k in range(terms):
        out.append((mass * this).sum(-1))
        below, this = this, (x * this - math.sqrt(k) * below) / math.sqrt(k + 1)
    constant = torch.zeros(len(q), terms, dtype=torch.float64, device=q.device)
    constant[:, 0] = evaluate(f, torch.zeros_like(q))
    return torch.where((q > 0)[:, None], torch.stack(out, -1), constant).reshape(*shape, terms)


def mehler_series(
    functions: tuple[Elementwise, Elementwise],
    kinks: tuple[tuple[float, ...], tuple[float, ...]],
    variances: tuple[Tensor, Tensor],
    covariance: Tensor,
) -> tuple[Tensor, Tensor]:
    """$E f(u) g(v)$ by 200 terms, and where the rest of the series might be more than rounding.

    What these terms leave of $E f^2$ and $E g^2$, $r_f$ and $r_g$, bounds the rest by $|\\rho|^{200} \\sqrt{r_f r_g}$
    (Cauchy and Schwarz). The variances broadcast with the covariance, and are taken as they are, not once a pair.
    """
    series, squares, rests = [], [], []
    for f, points, q in zip(functions, kinks, variances, strict=True):
        coefficients = hermite_coefficients(f, q, _TERMS, points)
        series.append(coefficients)
        squares.append(gaussian_expectation(_Squared(f), q, kinks=points))
        rests.append((squares[-1] - coefficients.square().sum(-1)).clamp(min=0))
    scale = geometric_mean(*variances)
    rho = torch.where(scale > 0, covariance / torch.where(scale > 0, scale, 1.0), 0.0).clamp(-1, 1)
    out = torch.zeros_like(rho)
    for k in range(_TERMS - 1, -1, -1):
        out.mul_(rho).add_(series[0][..., k] * series[1][..., k])
    bound = rho.abs() ** _TERMS * (rests[0] * rests[1]).sqrt()
    return out, bound > _ROUNDING * (squares[0] * squares[1]).sqrt()


class _Squared:
    def __init__(self, f: Elementwise) -> None:
        self.f = f

    def __call__(self, z: Tensor) -> Tensor:
        return evaluate(self.f, z).square()
