"""Expectation of the product of two rectified Gaussian variables whose means are not zero."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

_PANELS, _ORDER = 8, 9  # panels shrink fourfold towards the end, where the integrand varies at high correlation


def relu_pair_expectation(
    mean_u: Float[Tensor, "..."], mean_v: Float[Tensor, "..."], correlation: Float[Tensor, "..."]
) -> Float[Tensor, "..."]:
    r"""Return $E \max(u, 0) \max(v, 0)$ in float64 for Gaussian variables of variance one.

    With the means a and b, the correlation $\rho$, $q = \sqrt{1 - \rho^2}$, the normal density $\varphi$ and the normal
    distribution function $\Phi$ in one and two variables, the expectation is

    $$(ab + \rho)\, \Phi_2(a, b; \rho) + a\, \varphi(b)\, \Phi\!\left(\tfrac{a - \rho b}{q}\right) + b\, \varphi(a)\,
    \Phi\!\left(\tfrac{b - \rho a}{q}\right) + q^2 \varphi_2(a, b; \rho).$$

    $\Phi_2$ is integrated over the angle $\arcsin \rho$ (Plackett 1954); the absolute error is about 1e-8.

    Args:
        mean_u: Mean a of u.
        mean_v: Mean b of v.
        correlation: Correlation, between -1 and 1; an excess due to rounding is clamped.

    Example:
        >>> zero = torch.zeros(1, dtype=torch.float64)
        >>> float(relu_pair_expectation(zero, zero, zero)) * 2 * math.pi
        1.0
    """
    a, b, rho = torch.broadcast_tensors(mean_u.double(), mean_v.double(), correlation.double().clamp(-1, 1))
    root = (1 - rho * rho).sqrt()
    q = root.clamp(min=1e-150)  # at full correlation the arguments below become infinite, with the right limits
    both = (a * b + rho) * _both_below(a, b, rho)
    crossed = a * _density(b) * torch.special.ndtr((a - rho * b) / q) + b * _density(a) * torch.special.ndtr(
        (b - rho * a) / q
    )
    return both + crossed + root / (2 * math.pi) * torch.exp(-(a * a - 2 * rho * a * b + b * b) / (2 * q * q))


def _density(z: Tensor) -> Tensor:
    return torch.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def _both_below(a: Tensor, b: Tensor, rho: Tensor) -> Tensor:
    """Return the probability that two correlated standard normal variables lie below a and b."""
    nodes, weights = _rule()
    angle = torch.asin(rho)
    total = torch.zeros_like(angle)
    half, product = (a * a + b * b) / 2, a * b
    for node, weight in zip(nodes, weights, strict=True):
        sine = torch.sin(angle * node)
        total = total + weight * torch.exp((product * sine - half) / (1 - sine * sine).clamp(min=1e-300))
    return torch.special.ndtr(a) * torch.special.ndtr(b) + angle * total / (2 * math.pi)


def _rule() -> tuple[list[float], list[float]]:
    x, w = np.polynomial.legendre.leggauss(_ORDER)
    edges = [1 - 4.0**-k for k in range(_PANELS)] + [1.0]
    panels = list(pairwise(edges))
    nodes = np.concatenate([(high - low) / 2 * x + (high + low) / 2 for low, high in panels])
    return nodes.tolist(), np.concatenate([(high - low) / 2 * w for low, high in panels]).tolist()
