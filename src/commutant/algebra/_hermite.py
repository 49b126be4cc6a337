"""Hermite coefficients of elementwise functions, and Gaussian expectations by Mehler's series."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from .._checks import whole
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
    stated_kinks,
)
from .arithmetic import clip

_ORDER = 20  # nodes per panel
_TERMS = 200
_ROUNDING = 1e-13


def hermite_coefficients(
    f: Elementwise, variance: Scalar, terms: int, kinks: Iterable[float] | None = None
) -> Float[Tensor, "... terms"]:
    """Return $a_k = E f(\\sqrt q\\, x)\\, he_k(x)$ for a standard normal x and orthonormal Hermite polynomials.

    $\\sum_k a_k^2 = E f^2$, and $E f(u) g(v) = \\sum_k a_k b_k \\rho^k$ (Mehler) for a pair of correlation $\\rho$.

    Args:
        f: Elementwise function.
        variance: Variance q, at least zero.
        terms: Number of coefficients, from k = 0.
        kinks: Points where f or a derivative jumps; by default the `kinks` of f, or the result of a search.

    Returns:
        Coefficients `(..., terms)` for variances `(...)` in float64, without gradients with respect to the variance.

    Raises:
        InputError: For a negative or infinite variance, or fewer than one term.

    Example:
        >>> [round(float(a), 6) for a in hermite_coefficients(torch.exp, 1.0, 4)]
        [1.648721, 1.648721, 1.165822, 0.673088]
    """
    (q,) = checked(variance=variance)
    whole("terms", terms)
    if not q.numel():
        return torch.zeros(*q.shape, terms, dtype=torch.float64, device=q.device)
    points = kinks_of(f) if kinks is None else stated_kinks(kinks)
    coefficients, _ = _series(f, q.detach().reshape(-1), terms, points)
    return coefficients.reshape(*q.shape, terms)


def _series(f: Elementwise, q: Tensor, terms: int, points: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """Return coefficients `(variances, terms)`, and $E f^2$ by the same nodes."""
    sigma = q.sqrt()
    most = float(sigma.max())
    scales = torch.tensor(powers_of_two(RADIUS * most), dtype=torch.float64, device=q.device)
    kinks = torch.tensor(points, dtype=torch.float64, device=q.device)
    one, rows = torch.ones_like(q[:1]), torch.ones_like(q)
    if most == 0 or set(points) <= {0.0}:
        # panels between powers of two are also fine enough for every smaller variance
        edges = panel_edges(0 * one, one, torch.cat([kinks, scales / (most or 1.0)]))
    else:
        scaled = torch.cat([kinks, scales]) / torch.where(sigma > 0, sigma, 1.0)[:, None]
        edges = panel_edges(0 * rows, rows, scaled)
    x, weights = panel_nodes(edges, _ORDER)
    mass, values = weights * density(x, one.expand(len(x)), 0 * one.expand(len(x))), evaluate(f, sigma[:, None] * x)
    weighted, out = mass * values, []
    below, this = torch.zeros_like(x), torch.ones_like(x)
    for k in range(terms):
        out.append(this if len(x) == 1 else (weighted * this).sum(-1))
        below, this = this, (x * this - math.sqrt(k) * below) / math.sqrt(k + 1)
    coefficients = weighted @ torch.cat(out).T if len(x) == 1 else torch.stack(out, -1)
    return coefficients, (weighted * values).sum(-1)


def mehler_series(
    functions: tuple[Elementwise, Elementwise],
    kinks: tuple[tuple[float, ...], tuple[float, ...]],
    variances: tuple[Tensor, Tensor],
    covariance: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return $E f(u) g(v)$ by at most 200 terms, and where the rest of the series may be larger than rounding.

    If n terms miss $r_f$ of $E f^2$ and $r_g$ of $E g^2$, the rest is at most $|\\rho|^n \\sqrt{r_f r_g}$
    (Cauchy-Schwarz). The variances broadcast with the covariance; coefficients are computed once per variance.
    """
    series, rests, resolved = [], [], True
    for f, points, q in zip(functions, kinks, variances, strict=True):
        coefficients, square = _series(f, q.detach().reshape(-1), _TERMS, points)
        # checks the nodes at the largest variance, where they have most to resolve
        most = int(q.argmax())
        certified = gaussian_expectation(_Squared(f), q.detach().reshape(-1)[most], kinks=points)
        resolved &= bool((certified - square[most]).abs() <= 100 * _ROUNDING * certified)
        rests.append(_rests(coefficients, square).reshape(*q.shape, _TERMS))
        series.append(coefficients.reshape(*q.shape, _TERMS))
    scale = geometric_mean(*variances)
    rho = clip(torch.where(scale > 0, covariance / torch.where(scale > 0, scale, 1.0), 0.0), -1.0, 1.0)
    # as many terms as the worst pair needs
    worst = rests[0].reshape(-1, _TERMS).amax(0) * rests[1].reshape(-1, _TERMS).amax(0)
    powers = rho.abs().max() ** torch.arange(1, _TERMS + 1, dtype=torch.float64, device=rho.device)
    terms = 1 + int((powers * worst.sqrt() > _ROUNDING).sum().clamp(max=_TERMS - 1))
    out = torch.zeros_like(rho)
    for k in range(terms - 1, -1, -1):
        out.mul_(rho).addcmul_(series[0][..., k], series[1][..., k])
    bound = rho.abs() ** terms * (rests[0][..., terms - 1] * rests[1][..., terms - 1]).sqrt()
    return out, ~(bound <= _ROUNDING) | (not resolved)  # NaN counts as too large


def _rests(coefficients: Tensor, square: Tensor) -> Tensor:
    """Return the shares of $E f^2$ that the first 1, 2 ... terms miss, as sums of the later terms."""
    parts = coefficients.square() / torch.where(square > 0, square, 1.0)[:, None]
    after = torch.cat([parts[:, 1:].flip(-1).cumsum(-1).flip(-1), torch.zeros_like(parts[:, :1])], -1)
    beyond = (1 - parts.sum(-1, keepdim=True)).clamp(min=torch.finfo(torch.float64).eps)
    return torch.where(square[:, None] > 0, after + beyond, 0.0)


class _Squared:
    def __init__(self, f: Elementwise) -> None:
        self.f = f

    def __call__(self, z: Tensor) -> Tensor:
        return evaluate(self.f, z).square()
