"""Dual activations in closed form: $E s(u) s(v)$ and $E s'(u) s'(v)$ as functions of two variances and a covariance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ._gaussian import geometric_mean

_TWO_PI = 2 * math.pi


@runtime_checkable
class ClosedForm(Protocol):
    """The two expectations of an activation, by formula, differentiable, broadcast over float64 tensors."""

    def dual(self, u: Tensor, v: Tensor, c: Tensor) -> Tensor:
        """$E s(u) s(v)$."""

    def dual_dot(self, u: Tensor, v: Tensor, c: Tensor) -> Tensor:
        """$E s'(u) s'(v)$, which is the derivative of the former by the covariance."""


@dataclass(frozen=True)
class PiecewiseLinear:
    """$s(z) = a_+ z$ above zero and $a_- z$ below: the arc-cosine kernels of degree one (Cho and Saul 2009)."""

    above: float
    below: float

    def dual(self, u: Tensor, v: Tensor, c: Tensor) -> Tensor:
        if self.above == self.below:
            return self.above**2 * c * torch.ones_like(u * v)
        return _ArcCosine.apply(u, v, c, self.above, self.below)

    def dual_dot(self, u: Tensor, v: Tensor, c: Tensor) -> Tensor:
        if self.above == self.below:
            return self.above**2 * torch.ones_like(u * v * c)
        return _ArcCosineSlope.apply(u, v, c, self.above, self.below)


class Erf:
    """Williams 1997."""

    def dual(self, u: Tensor, v: Tensor, c: Tensor) -> Tensor:
        return 2 / math.pi * torch.arcsin(2 * c / ((1 + 2 * u) * (1 + 2 * v)).sqrt())

    def dual_dot(self, u: Tensor, v: Tensor, c: Tensor) -> Tensor:
        return 4 / math.pi / ((1 + 2 * u) * (1 + 2 * v) - 4 * c.square()).sqrt()


@dataclass(frozen=True)
class Wave:
    """Sine (odd) or cosine (even)."""

    odd: bool

    def dual(self, u: Tensor, v: Tensor, c: Tensor) -> Tensor:
        return self._parts(u, v, c, self.odd)

    def dual_dot(self, u: Tensor, v: Tensor, c: Tensor) -> Tensor:
        return self._parts(u, v, c, not self.odd)

    def _parts(self, u: Tensor, v: Tensor, c: Tensor, odd: bool) -> Tensor:
        half = (u + v) / 2
        # The exponents are at most zero, where exp(-half) * cosh(c) would be zero times infinity.
        up, down = torch.exp(c - half), torch.exp(-c - half)
        if odd:
            return torch.where(c.abs() < 1, torch.exp(-half) * torch.sinh(c.clamp(-1, 1)), (up - down) / 2)
        return (up + down) / 2


class Exponential:
    """$e^z$."""

    def dual(self, u: Tensor, v: Tensor, c: Tensor) -> Tensor:
        return torch.exp((u + v) / 2 + c)

    dual_dot = dual


class GELU:
    """$z \\Phi(z)$. Differences of large numbers, $(1 + q_u)(1 + q_v) - c^2$ and the like, are taken apart first."""

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


def angle(u: Tensor, v: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """The angle between two inputs and its sine, from $1 - \\rho$: exact on the diagonal, where arccos is not.

    A right angle where one variance is zero.
    """
    norm = geometric_mean(u, v)
    gap = torch.where(norm > 0, (norm - c) / torch.where(norm > 0, norm, 1.0), 1.0).clamp(0, 2)
    return 2 * torch.arcsin((gap / 2).sqrt()), (gap * (2 - gap)).sqrt()


class _ArcCosine(torch.autograd.Function):
    """$E s(u) s(v)$ of a piecewise linear s; gradients by Euler's theorem, finite where those of arccos are not."""

    @staticmethod
    def forward(ctx, u, v, c, above, below):  # type: ignore[no-untyped-def]
        theta, sine = angle(u, v, c)
        norm = geometric_mean(u, v) / _TWO_PI
        cosine = torch.cos(theta)
        same, opposite = sine + (math.pi - theta) * cosine, sine - theta * cosine
        value = norm * ((above**2 + below**2) * same - 2 * above * below * opposite)
        ctx.save_for_backward(u, v, c, value)
        ctx.slopes = above, below
        return value

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        u, v, c, value = ctx.saved_tensors
        cross = PiecewiseLinear(*ctx.slopes).dual_dot(u, v, c)
        by = [_over(value - c * cross, 2 * u), _over(value - c * cross, 2 * v), cross]
        grads = [(grad * part).sum_to_size(t.shape) for part, t in zip(by, (u, v, c), strict=True)]
        return *grads, None, None


class _ArcCosineSlope(torch.autograd.Function):
    """$E s'(u) s'(v)$; its slope has a pole at full correlation, which is cut off at an angle of 1e-8."""

    @staticmethod
    def forward(ctx, u, v, c, above, below):  # type: ignore[no-untyped-def]
        theta, sine = angle(u, v, c)
        ctx.save_for_backward(u, v, c, sine)
        ctx.slopes = above, below
        return ((above**2 + below**2) * (math.pi - theta) + 2 * above * below * theta) / _TWO_PI

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        u, v, c, sine = ctx.saved_tensors
        above, below = ctx.slopes
        by_c = _over(
            (above - below) ** 2 / _TWO_PI * torch.ones_like(sine), geometric_mean(u, v) * sine.clamp(min=1e-8)
        )
        by = [_over(-c * by_c, 2 * u), _over(-c * by_c, 2 * v), by_c]
        grads = [(grad * part).sum_to_size(t.shape) for part, t in zip(by, (u, v, c), strict=True)]
        return *grads, None, None


def _over(a: Tensor, b: Tensor) -> Tensor:
    return torch.where(b > 0, a / torch.where(b > 0, b, 1.0), 0.0)
