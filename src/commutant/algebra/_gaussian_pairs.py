"""Expectations over two correlated Gaussian variables by nested quadrature, with an error estimate."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from .._errors import InputError
from ._gaussian import (
    RADIUS,
    Elementwise,
    Scalar,
    checked_pair,
    density,
    evaluate,
    gaussian_expectation,
    kinks_of,
    panel_edges,
    panel_nodes,
    powers_of_two,
    stated_kinks,
)
from ._hermite import mehler_series
from ._kinks import jumps_of, mean_bend, name_of
from .arithmetic import clip

_CHUNK = 1 << 22  # most function values held at once
_ORDERS = ((16, 10), (28, 20))  # nodes per panel, for the value and for its check
_HALO = (-6.0, -3.0, -1.0, 0.0, 1.0, 3.0, 6.0)


def gaussian_pair_expectation(
    f: Elementwise,
    g: Elementwise,
    variance_u: Scalar,
    variance_v: Scalar,
    covariance: Scalar,
    *,
    kinks: tuple[Iterable[float], Iterable[float]] | None = None,
    tolerance: float = 1e-9,
) -> Float[Tensor, "..."]:
    """Return $E f(u)\\, g(v)$ for a centered Gaussian pair in float64, for any two elementwise functions.

    A Hermite series of up to 200 terms is used where it is accurate to rounding. Other pairs, which are nearly fully
    correlated, use nested quadrature: given u, v is Gaussian with mean $c u / q_u$ and variance $q_v - c^2 / q_u$. The
    inner rule has its panels at the kinks of g, and the outer rule where the mean of v crosses those kinks. Gradients
    use Gaussian integration by parts and first derivatives of f and g only: $\\partial_c = E f' g'$ and
    $\\partial_{q_u} = (E u f' g - c\\, E f' g') / 2 q_u$. A jump of f or g adds its delta function.

    Args:
        f: Elementwise function of u.
        g: Elementwise function of v.
        variance_u: Variance of u; at zero, u is zero. The derivative with respect to it is infinite there if f or f'
            jumps at zero, and 0 is returned.
        variance_v: Variance of v.
        covariance: Covariance, at most $\\sqrt{q_u q_v}$ in size; an excess due to rounding is clamped.
        kinks: Kinks of f and of g; by default their attribute `kinks`, or the result of a search.
        tolerance: Largest accepted error, relative to $\\sqrt{E f^2\\, E g^2}$.

    Returns:
        Expectations in float64, in the broadcast shape of the variances and the covariance.

    Raises:
        InputError: As for `gaussian_expectation`, or if no pair with these variances has this covariance.

    Example:
        >>> round(float(gaussian_pair_expectation(torch.tanh, torch.tanh, 1.0, 1.0, 0.5)), 9)
        0.186324413
    """
    u, v, c = checked_pair(variance_u, variance_v, covariance)
    points = (kinks_of(f), kinks_of(g)) if kinks is None else (stated_kinks(kinks[0]), stated_kinks(kinks[1]))
    return _PairExpectation.apply(_Integrand(f, g, *points), u, v, c, tolerance)


def slope_of(f: Elementwise) -> Elementwise:
    """Return f' as a function."""

    def slope(z: Tensor) -> Tensor:
        return slope_at(f, z)

    return slope


def slope_at(f: Elementwise, z: Tensor) -> Tensor:
    """Return f' at points, by autograd; it is differentiable if f is twice differentiable."""
    with torch.enable_grad():
        point = z if z.requires_grad else z.detach().requires_grad_()
        values = f(point.clone())
        if not values.requires_grad:
            return torch.zeros_like(z)
        (out,) = torch.autograd.grad(values.sum(), point, create_graph=z.requires_grad, allow_unused=True)
    return torch.zeros_like(z) if out is None else out


@dataclass(frozen=True)
class _Integrand:
    """Product $f(u) g(v)$ with the kinks of both functions."""

    f: Elementwise
    g: Elementwise
    kinks_f: tuple[float, ...]
    kinks_g: tuple[float, ...]

    def at(self, u: Tensor, v: Tensor, c: Tensor, tolerance: float) -> Tensor:
        """Return the expectation by a Hermite series, or by nested quadrature where the series is too short."""
        shape = np.broadcast_shapes(u.shape, v.shape, c.shape)
        if not math.prod(shape):
            return torch.zeros(shape, dtype=torch.float64, device=u.device)
        value, unsure = mehler_series((self.f, self.g), (self.kinks_f, self.kinks_g), (u, v), c)
        if bool(unsure.any()):
            few = [t.expand(shape)[unsure] for t in (u, v, c)]
            value[unsure] = self._by_rule(few[0], few[1], few[2], tolerance)
        return value

    def _by_rule(self, u: Tensor, v: Tensor, c: Tensor, tolerance: float) -> Tensor:
        out = torch.empty_like(u)
        constant = u == 0
        if bool(constant.any()):
            at_zero = evaluate(self.f, torch.zeros_like(u[constant]))
            out[constant] = at_zero * gaussian_expectation(self.g, v[constant], kinks=self.kinks_g)
        if not bool(constant.all()):
            out[~constant] = self._certified(u[~constant], v[~constant], c[~constant], tolerance)
        return out

    def _certified(self, u: Tensor, v: Tensor, c: Tensor, tolerance: float) -> Tensor:
        squares = gaussian_expectation(lambda z: self.f(z).square(), u, kinks=self.kinks_f) * gaussian_expectation(
            lambda z: self.g(z).square(), v, kinks=self.kinks_g
        )
        error = math.inf
        for order, check in _ORDERS:
            value, other = self._sum(u, v, c, order), self._sum(u, v, c, check)
            error = float(((value - other).abs() / squares.sqrt().clamp(min=1e-300)).max())
            if error <= tolerance:
                return value
        raise InputError(
            f"the Gaussian expectation of {name_of(self.f)} times {name_of(self.g)} does not converge: two orders "
            f"differ by {error:.1e}, where {tolerance:.0e} is allowed"
        )

    def _sum(self, u: Tensor, v: Tensor, c: Tensor, order: int) -> Tensor:
        """Return the double sum over outer nodes `(pairs, nodes)` for u and inner nodes for v at each of them."""
        slope, spread = c / u, v - c * c / u
        spread = torch.where(spread > 1e-15 * v, spread, 0.0)  # below this, it is rounding of the covariance
        scales = powers_of_two(RADIUS * float(torch.maximum(u, v).max().sqrt()))
        outer, inner, kinks, halo = (
            torch.tensor(values, dtype=torch.float64, device=u.device)
            for values in ([*self.kinks_f, *scales], [*self.kinks_g, *scales], self.kinks_g, _HALO)
        )
        # values of u where the mean of v crosses a point of g; each kink gets a halo as wide as the spread of v
        seen = torch.where(slope.abs() > 1e-12, slope, 1e-12)[:, None]
        uncertain = (spread.sqrt()[:, None] / seen.abs())[..., None] * halo
        crossing = torch.cat([((kinks / seen)[..., None] + uncertain).flatten(1), inner / seen], -1)
        z, weights = panel_nodes(panel_edges(torch.zeros_like(u), u.sqrt(), outer, extra=(crossing,)), order)
        mass = weights * density(z, u, torch.zeros_like(u)) * evaluate(self.f, z)
        mean, variance = (slope[:, None] * z).reshape(-1), spread[:, None].expand_as(z).reshape(-1)
        count = max(1, _CHUNK // ((len(inner) + 17) * order))
        parts = zip(mean.split(count), variance.split(count), strict=True)
        return (mass * torch.cat([self._inner(m, s, inner, order) for m, s in parts]).reshape(z.shape)).sum(-1)

    def _inner(self, mean: Tensor, variance: Tensor, points: Tensor, order: int) -> Tensor:
        value = evaluate(self.g, mean)
        random = variance > 0  # at full correlation u determines v
        m, s = mean[random], variance[random]
        # integrates over the distance from the mean, which v itself can't resolve at a small variance
        zero = torch.zeros_like(m)
        away, weights = panel_nodes(panel_edges(zero, s.sqrt(), points - m[:, None]), order)
        value[random] = (weights * density(away, s, zero) * evaluate(self.g, m[:, None] + away)).sum(-1)
        return value


class _PairExpectation(torch.autograd.Function):
    @staticmethod
    def forward(ctx, integrand, u, v, c, tolerance):  # type: ignore[no-untyped-def]
        ctx.integrand, ctx.tolerance = integrand, tolerance
        ctx.save_for_backward(u, v, c)
        return integrand.at(u, v, c, tolerance)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        own, (u, v, c) = ctx.integrand, ctx.saved_tensors
        df, dg = slope_of(own.f), slope_of(own.g)
        options = {"kinks": (own.kinks_f, own.kinks_g), "tolerance": ctx.tolerance}
        cross = gaussian_pair_expectation(df, dg, u, v, c, **options)
        left = gaussian_pair_expectation(lambda z: z * df(z), own.g, u, v, c, **options)
        right = gaussian_pair_expectation(own.f, lambda z: z * dg(z), u, v, c, **options)
        # a jump of height J at t adds J delta(z - t) to the derivative, so an expectation of the other factor given t
        jumps_f, jumps_g = jumps_of(own.f, own.kinks_f), jumps_of(own.g, own.kinks_g)
        for at, height in jumps_f:
            left = left + height * at * _given(own.g, at, u, v, c, own.kinks_g)
            cross = cross + height * _given(dg, at, u, v, c, own.kinks_g)
        for at, height in jumps_g:
            right = right + height * at * _given(own.f, at, v, u, c, own.kinks_f)
            cross = cross + height * _given(df, at, v, u, c, own.kinks_f)
        for (at_u, height_u), (at_v, height_v) in itertools.product(jumps_f, jumps_g):
            cross = cross + height_u * height_v * _pair_density(at_u, at_v, u, v, c)
        by = [_by_variance(left - c * cross, own.f, own.g, own.kinks_f, own.kinks_g, u, v), cross]
        by.insert(1, _by_variance(right - c * cross, own.g, own.f, own.kinks_g, own.kinks_f, v, u))
        return None, *((grad * part).sum_to_size(t.shape) for part, t in zip(by, (u, v, c), strict=True)), None


def _by_variance(
    twice: Tensor,
    f: Elementwise,
    g: Elementwise,
    kinks_f: tuple[float, ...],
    kinks_g: tuple[float, ...],
    u: Tensor,
    v: Tensor,
) -> Tensor:
    """Return the derivative with respect to the variance of u; at u = 0 its limit $f''(0) E g / 2$."""
    zero = u == 0
    out = twice / (2 * torch.where(zero, 1.0, u))
    if not bool(zero.any()):
        return out
    bend = mean_bend(f, torch.zeros(1, dtype=torch.float64, device=u.device), kinks_f)[0]
    return torch.where(zero, bend / 2 * gaussian_expectation(g, v, kinks=kinks_g), out)


def _given(g: Elementwise, at: float, u: Tensor, v: Tensor, c: Tensor, kinks: tuple[float, ...]) -> Tensor:
    """Return the density of u at a point, times E g(v) given that value of u."""
    random = u > 0  # a constant has no density
    u = torch.where(random, u, 1.0)
    density_u = torch.where(random, torch.exp(-(at**2) / (2 * u)) * torch.rsqrt(2 * torch.pi * u), 0.0)
    return density_u * gaussian_expectation(g, clip(v - c * c / u, low=0.0), c / u * at, kinks=kinks)


def _pair_density(at_u: float, at_v: float, u: Tensor, v: Tensor, c: Tensor) -> Tensor:
    """Return the density of the pair at a point, with the pole at full correlation cut off."""
    random = (u > 0) & (v > 0)
    determinant = torch.where(random, torch.maximum(u * v - c * c, 1e-16 * u * v), 1.0)
    exponent = (v * at_u**2 - 2 * c * at_u * at_v + u * at_v**2) / (2 * determinant)
    return torch.where(random, torch.exp(-exponent) / (2 * torch.pi * determinant.sqrt()), 0.0)
