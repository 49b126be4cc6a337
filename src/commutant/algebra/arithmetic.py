"""Clamping and gated means that are accurate, with right gradients, at the ends of their ranges."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def clip(x: Tensor, low: float = -math.inf, high: float = math.inf) -> Tensor:
    """Return x clamped to [low, high]; exactly at a bound the gradient is 1, as inside.

    Use it where values at a bound are common, such as the correlation of an input with itself: there the gradient of
    `torch.clamp` was 1 and is 0 from torch 2.14 on.
    """
    return torch.where(x < low, low, torch.where(x > high, high, x))


def blend(a: Tensor, b: Tensor, logit: Tensor) -> Tensor:
    """Return (1 - s) a + s b with s = sigmoid(logit), accurate to the size of either term.

    It steps from the part with the larger weight, by the smaller weight. That weight is the sigmoid of a negative
    number, so neither it nor its derivative is rounded off near 1: a gate of 1 - 1e-9 still lets 1e-9 of a large
    input through.
    """
    nearer_a = logit < 0
    near, far = torch.where(nearer_a, a, b), torch.where(nearer_a, b, a)
    return torch.lerp(near, far, torch.sigmoid(torch.where(nearer_a, logit, -logit)))


def both_weights(logit: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return sigmoid(logit), sigmoid(-logit) and the smaller of the two, each to its own size."""
    small = torch.sigmoid(-logit.abs())
    large, low = 1 - small, logit < 0
    return torch.where(low, small, large), torch.where(low, large, small), small
