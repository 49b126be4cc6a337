"""Alignment of the singular vectors of two networks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .._errors import InputError
from ._given import State, number, state_of


@dataclass(frozen=True)
class Alignment:
    """Alignment R of two networks.

    Attributes:
        total: Alignment of all layers together.
        layers: Alignment of each layer, by the name of its weight.
    """

    total: float
    layers: dict[str, float]


def singular_alignment(a: nn.Module | State, b: nn.Module | State, threshold: float = 0.0) -> Alignment:
    """Return the alignment R of the singular vectors of two networks (Ito et al., 2025).

    `R = sum_l sum_ij (u^a_i . u^b_j) (v^a_i . v^b_j) / sum_l min(k_a, k_b)` over the k singular triples of each layer
    with `s_i >= threshold * s_max`. The sum is computed as the inner product of the truncated polar factors `U V^T`, so
    signs and rotations within equal singular values do not matter. R is 1 for equal networks, about 0 for unrelated
    ones, and never above 1. Only weights with at least two axes count, each reshaped to a matrix of its first axis by
    the rest.

    Args:
        a: Module or state dict.
        b: Module or state dict of the same architecture, usually aligned with `a`.
        threshold: Smallest singular value that counts, relative to the largest of its layer, from 0 (all) to 1.

    Raises:
        InputError: The threshold is outside [0, 1], or weights differ in shape.
    """
    threshold = number(threshold, "threshold")
    if not 0 <= threshold <= 1:
        raise InputError(f"threshold must be from 0 to 1, got {threshold}")
    first, second = state_of(a), state_of(b)
    layers, total, count = {}, 0.0, 0
    if odd := sorted(set(first) ^ set(second)):
        raise InputError(f"{odd[0]!r} is in one of the networks only")
    for key, x in first.items():
        if not x.is_floating_point() or x.dim() < 2 or x.numel() == 0:
            continue
        y = second.get(key)
        if y is None or y.shape != x.shape:
            other = "is not there" if y is None else f"has shape {tuple(y.shape)}"
            raise InputError(f"{key!r} has shape {tuple(x.shape)} in the first network; in the second it {other}")
        if not (x.isfinite().all() and y.isfinite().all()):
            raise InputError(f"{key!r} holds NaN or infinities")
        (p, k), (q, m) = (_polar(w.flatten(1).double(), threshold) for w in (x, y))
        found = float((p * q).sum())
        kept = min(k, m)
        layers[key] = found / kept if kept else 0.0
        total, count = total + found, count + kept
    if not layers:
        raise InputError("the networks have no weight with two axes")
    return Alignment(total / max(1, count), layers)


def _polar(weight: Float[Tensor, "rows columns"], threshold: float) -> tuple[Float[Tensor, "rows columns"], int]:
    """Return `U V^T` over the singular values that are kept, and their number."""
    u, s, vh = torch.linalg.svd(weight, full_matrices=False)
    noise = s[0] * max(weight.shape) * torch.finfo(s.dtype).eps
    kept = (s > noise) & (s >= threshold * s[0])
    return u[:, kept] @ vh[kept], int(kept.sum())
