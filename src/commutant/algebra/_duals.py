"""Closed forms of dual activations: $E s(u) s(v)$ and $E s'(u) s'(v)$ for a Gaussian pair."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from ._gaussian import geometric_mean
from .arithmetic import clip

_TWO_PI = 2 * math.pi


class ClosedForm(ABC):
    """Base class of closed forms, which are differentiable and broadcast over float64 variances and covariances."""

    @abstractmethod
    def dual(self, u: Tensor, v: Tensor, c: Tensor) -> Tensor:
        """Return $E s(u) s(v)$ for variances u, v and covariance c."""

    @abstractmethod
    def dual_dot(self, u: Tensor, v: Tensor, c: Tensor) -> Tensor:
        """Return $E s'(u) s'(v)$, the derivative of `dual` with respect to the covariance."""

    def both(self, u: Tensor, v: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Return both expectations, with shared terms computed once."""
        return self.dual(u, v, c), self.dual_dot(u, v, c)


@dataclass(frozen=True)
class PiecewiseLinear(ClosedForm):
    """Piecewise linear $s(z) = a_+ z$ above zero and $a_- z$ below: arc-cosine kernels of degree 1 (Cho, Saul 2009)."""

    above: float
    below: float

    def dual(self, u: Tensor, v: Tensor, c: Tensor) -> Tensor:
        return self.both(u, v, c)[0]

    def dual_dot(self, u: Tensor, v: Tensor, c: Tensor) -> Tensor:
        return self.both(u, v, c)[1]

    def both(self, u: Tensor, v: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        if self.above == self.below:
            slope = self.above**2 * torch.ones_like(u * v * c)
            return slope * c, slope
        value, slope = _ArcCosine.apply(u, v, c, self.above, self.below)
        return value, slope


class Erf(ClosedForm):
    """Error function (Williams 1997)."""

    def dual(self, u: Tensor, v: Tensor, c: Tensor) -> Tensor:
        return 2 / math.pi * torch.arcsin(2 * c / ((1 + 2 * u) * (1 + 2 * v)).sqrt())

    def dual_dot(self, u: Tensor, v: Tensor, c: Tensor) -> Tensor:
        return 4 / math.pi / ((1 + 2 * u) * (1 + 2 * v) - 4 * c.square()).sqrt()


@dataclass(frozen=True)
class Wave(ClosedForm):
    """Sine (odd) or cosine (even)."""

    odd: bool

    def dual(self, u: Tensor, v: Tensor, c: Tensor) -> Tensor:
        return self._parts(u, v, c, self.odd)

    def dual_dot(self, u: Tensor, v: Tensor, c: Tensor) -> Tensor:
        return self._parts(u, v, c, not self.odd)

    def _parts(self, u: Tensor, v: Tensor, c: Tensor, odd: bool) -> Tensor:
        half = (u + v) / 2
        # these exponents are at most zero, while exp(-half) * cosh(c) may be zero times infinity
        up, down = torch.exp(c - half), torch.exp(-c - half)
        if odd:
            return torch.where(c.abs() < 1, torch.exp(-half) * torch.sinh(c.clamp(-1, 1)), (up - down) / 2)
        return (up + down) / 2


class Exponential(ClosedForm):
    """Exponential $e^z$."""

    def dual(self, u: Tensor, v: Tensor, c: Tensor) -> Tensor:
        return torch.exp((u + v) / 2 + c)

    def dual_dot(self, u: Tensor, v: Tensor, c: Tensor) -> Tensor:
        return self.dual(u, v, c)


class GELU(ClosedForm):
    """GELU $z \\Phi(z)$, in a form without differences of large numbers such as $(1 + q_u)(1 + q_v) - c^2$."""

    def dual(self, u: Tensor, v: Tensor, c: Tensor) -> Tensor:
        inside, gap, determinant, inverse = self._parts(u, v, c)
        rest = (gap + c.square() * inverse) / (_TWO_PI * determinant.sqrt())
        return c / 4 + c / _TWO_PI * torch.arcsin(inside) + rest

    def dual_dot(self, u: Tensor, v: Tensor, c: Tensor) -> Tensor:
        inside, _, determinant, inverse = self._parts(u, v, c)
        rest = (c.square() * inverse - u - v - 1) / determinant + 2 * inverse
        return 1 / 4 + torch.arcsin(inside) / _TWO_PI + c / (_TWO_PI * determinant.sqrt()) * rest

    def _parts(self, u: Tensor, v: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        gap = u * v - c.square()
        return c / ((1 + u) * (1 + v)).sqrt(), gap, gap + u + v + 1, 1 / (1 + u) + 1 / (1 + v)


class _ArcCosine(torch.autograd.Function):
    """Both expectations of a piecewise linear s, with gradients by Euler's theorem that stay finite.

    The derivative of the second expectation has a pole at full correlation, which is cut off at an angle of 1e-8.
    """

    @staticmethod
    def forward(ctx, u, v, c, above, below):  # type: ignore[no-untyped-def]
        norm = geometric_mean(u, v)
        gap = _gap(norm, u, v, c)
        # twice the angle of a right triangle with these legs, which is exact at both ends, unlike arccos
        low, high = gap.sqrt(), (2 - gap).sqrt_()
        bend = (above - below) ** 2 / math.pi
        slope = torch.atan2(high, low).mul_(bend).add_(above * below)
        value = low.mul_(high).mul_(bend / 2).addcmul_(gap.neg_().add_(1), slope).mul_(norm)
        ctx.save_for_backward(u, v, c, value, slope)
        ctx.slopes = above, below
        ctx.set_materialize_grads(False)
        return value, slope

    @staticmethod
    def backward(ctx, by_value, by_slope):  # type: ignore[no-untyped-def]
        u, v, c, value, slope = ctx.saved_tensors
        scale, by_c = torch.zeros_like(value), torch.zeros_like(value)
        if by_value is not None:
            scale, by_c = by_value * (value - c * slope), by_value * slope
        if by_slope is not None:
            above, below = ctx.slopes
            norm = geometric_mean(u, v)
            gap = _gap(norm, u, v, c)
            sine = (gap * (2 - gap)).clamp(min=1e-16).sqrt()
            pole = by_slope * _over((above - below) ** 2 / _TWO_PI * torch.ones_like(sine), norm * sine)
            scale, by_c = scale - c * pole, by_c + pole
        grads = (_over(scale, 2 * u), _over(scale, 2 * v), by_c)
        return *(grad.sum_to_size(t.shape) for grad, t in zip(grads, (u, v, c), strict=True)), None, None


def _gap(norm: Tensor, u: Tensor, v: Tensor, c: Tensor) -> Tensor:
    """Return $1 - \\rho$ of two inputs, or 1 (a right angle) where one variance is zero."""
    if bool((u > 0).all()) and bool((v > 0).all()):
        return (norm - c).div_(norm).clamp_(0, 2)
    return clip(torch.where(norm > 0, (norm - c) / torch.where(norm > 0, norm, 1.0), 1.0), 0.0, 2.0)


def _over(a: Tensor, b: Tensor) -> Tensor:
    return torch.where(b > 0, a / torch.where(b > 0, b, 1.0), 0.0)
