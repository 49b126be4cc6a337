"""How far the large singular directions of two networks point the same way."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .._errors import InputError
from ._given import State, number, state_of


@dataclass(frozen=True)
class Alignment:
    """The alignment R of two networks, of all layers together and of each."""

    total: float
    layers: dict[str, float]


def singular_alignment(a: nn.Module | State, b: nn.Module | State, threshold: float = 0.0) -> Alignment:
    """R of Ito et al. (2025): whether singular vectors of two networks, large ones above all, point the same way.

    `R = sum_l sum_ij (u^a_i . u^b_j) (v^a_i . v^b_j) / sum_l min(k_a, k_b)` over the k singular triples of each layer
    with `s_i >= threshold * s_max`. The sum is the inner product of the truncated polar factors `U V^T`, and computed
    as such: signs and rotations within equal singular values do not matter. One for equal networks, about zero for
    unrelated ones, at most one. Weights with two axes or more count, each as a matrix of its first axis by the rest.

    Args:
        a: module or state dict.
        b: of the same architecture, usually aligned with `a`.
        threshold: relative to the largest singular value of each layer, from 0 (all) to 1.

    Raises:
        InputError: a threshold outside [0, 1], or weights that differ in shape.
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
    """`U V^T` over the singular values that are kept, and how many they are."""
    u, s, vh = torch.linalg.svd(weight, full_matrices=False)
    noise = s[0] * max(weight.shape) * torch.finfo(s.dtype).eps
    kept = (s > noise) & (s >= threshold * s[0])
    return u[:, kept] @ vh[kept], int(kept.sum())
