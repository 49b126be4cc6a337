"""Clamping, gated means and precision of sums, accurate at the ends of their ranges."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def clip(x: Tensor, low: float = -math.inf, high: float = math.inf) -> Tensor:
    """Return x clamped to [low, high], with gradient 1 at the bounds as inside.

    Use it where values at a bound are common, such as the correlation of an input with itself. At a bound, the gradient
    of `torch.clamp` is 1 before torch 2.14 and 0 from then on.

    Args:
        x: Values.
        low: Lower bound.
        high: Upper bound.
    """
    return torch.where(x < low, low, torch.where(x > high, high, x))


def promote_half(x: Tensor) -> Tensor:
    """Return half-precision values in float32, in which they are summed; others unchanged.

    Args:
        x: Values.
    """
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def blend(a: Tensor, b: Tensor, logit: Tensor) -> Tensor:
    """Return (1 - s) a + s b with s = sigmoid(logit), accurate relative to each term.

    The result is the term of larger weight plus a step of the smaller weight. The smaller weight is the sigmoid of a
    negative number, so neither it nor its derivative is rounded to zero. For example, a gate of 1 - 1e-9 still passes
    1e-9 of a large input.

    Args:
        a: Value at s = 0.
        b: Value at s = 1.
        logit: Logit of the gate s.
    """
    nearer_a = logit < 0
    near, far = torch.where(nearer_a, a, b), torch.where(nearer_a, b, a)
    return torch.lerp(near, far, torch.sigmoid(torch.where(nearer_a, logit, -logit)))


def both_weights(logit: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return sigmoid(logit), sigmoid(-logit) and the smaller of the two, each with full relative accuracy.

    Args:
        logit: Logits.
    """
    small = torch.sigmoid(-logit.abs())
    large, low = 1 - small, logit < 0
    return torch.where(low, small, large), torch.where(low, large, small), small
