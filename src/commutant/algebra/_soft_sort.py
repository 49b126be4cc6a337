"""Sorting and ranking with gradients."""

from __future__ import annotations

from math import prod

import numpy as np
import scipy
import torch
from jaxtyping import Float, Int
from torch import Tensor

from .._errors import InputError


def soft_sort_matrix(scores: Float[Tensor, "*batch n"], temperature: float = 1.0) -> Float[Tensor, "*batch n n"]:
    """SoftSort: row i is `softmax(-|i-th largest score - scores| / temperature)` (Prillo and Eisenschlos, 2020).

    Rows sum to one, columns do not; the largest entry of row i stands at the i-th largest score at any temperature.

    Example:
        >>> soft_sort_matrix(torch.tensor([1.0, 3.0, 2.0]), 0.1).argmax(-1)
        tensor([1, 2, 0])
    """
    _check(scores, temperature)
    wide = scores.double()
    ordered = wide.sort(dim=-1, descending=True, stable=True).values
    return (-(ordered.unsqueeze(-1) - wide.unsqueeze(-2)).abs() / temperature).softmax(-1).to(scores.dtype)


def neural_sort_matrix(scores: Float[Tensor, "*batch n"], temperature: float = 1.0) -> Float[Tensor, "*batch n n"]:
    """NeuralSort: row i is `softmax(((n + 1 - 2 i) s_j - sum_k |s_j - s_k|) / temperature)` (Grover et al., 2019).

    Rows sum to one, columns do not; the largest entry of row i stands at the i-th largest score.
    """
    _check(scores, temperature)
    n, wide = scores.shape[-1], scores.double()  # terms of the size of n times the scores cancel
    spread = (wide.unsqueeze(-1) - wide.unsqueeze(-2)).abs().sum(-1)
    scale = n + 1 - 2 * torch.arange(1, n + 1, device=scores.device, dtype=torch.float64)
    logits = (scale.unsqueeze(-1) * wide.unsqueeze(-2) - spread.unsqueeze(-2)) / temperature
    return logits.softmax(-1).to(scores.dtype)


def soft_rank(scores: Float[Tensor, "*batch n"], strength: float = 1.0) -> Float[Tensor, "*batch n"]:
    """Ranks from 1 (smallest) to n: `scores / strength` projected onto the permutahedron (Blondel et al., 2020).

    They always sum to `n (n + 1) / 2`. The projection is piecewise linear: once the strength is below the smallest gap
    between scores the ranks are exact and their gradient is zero.

    Example:
        >>> soft_rank(torch.tensor([8.0, 0.0, 5.0, 3.0, 2.0, 1.0, 6.0, 7.0, 9.0]))
        tensor([8., 1., 5., 4., 3., 2., 6., 7., 9.])
    """
    _check(scores, strength)
    n = scores.shape[-1]
    ordered, order = scores.double().sort(dim=-1, descending=True, stable=True)
    # Only gaps count, and ones above n all part the ranks: no digit is lost to large scores over a small strength.
    gaps = ((ordered[..., :-1] - ordered[..., 1:]) / strength).clamp(max=n + 1)
    s = torch.nn.functional.pad(gaps.flip(-1).cumsum(-1).flip(-1), (0, min(n, 1)))
    w = torch.arange(n, 0, -1, device=scores.device, dtype=torch.float64).expand_as(s)
    blocks = _pooled(s - w)
    projected = (_mean(w, blocks) + s - _mean(s, blocks)).to(scores.dtype)
    return torch.empty_like(projected).scatter(-1, order, projected)


def soft_sort(scores: Float[Tensor, "*batch n"], strength: float = 1.0) -> Float[Tensor, "*batch n"]:
    """The scores in ascending order, as a projection onto the permutahedron of the scores (Blondel et al., 2020)."""
    _check(scores, strength)
    s = (-scores).sort(dim=-1, descending=True, stable=True).values
    w = torch.arange(scores.shape[-1], 0, -1, device=scores.device, dtype=torch.float64).expand_as(s) / strength
    blocks = _pooled(w - s)
    return (_mean(w, blocks) - w - _mean(s.double(), blocks)).to(scores.dtype)


def _pooled(y: Float[Tensor, "*batch n"]) -> Int[Tensor, "*batch n"]:
    """The block of each entry in the closest non-increasing sequence: entries of a block take their mean."""
    flat = y.detach().double().cpu().reshape(prod(y.shape[:-1]), y.shape[-1]).numpy()
    block = np.zeros(flat.shape, dtype=np.int64)
    for i, row in enumerate(flat):
        if len(row):
            found = scipy.optimize.isotonic_regression(row, increasing=False)
            block[i] = np.repeat(np.arange(len(found.weights)), np.diff(found.blocks))
    return torch.from_numpy(block).reshape(y.shape).to(y.device)


def _mean(values: Float[Tensor, "*batch n"], block: Int[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
    """The mean over the block of each entry; of a block of one the entry, exactly."""
    total = torch.zeros_like(values).scatter_add(-1, block, values)
    count = torch.zeros_like(values).scatter_add(-1, block, torch.ones_like(values))
    return (total / count.clamp(min=1)).gather(-1, block)


def _check(scores: Tensor, temperature: float) -> None:
    if not isinstance(scores, Tensor) or not scores.is_floating_point() or not scores.dim():
        given = (
            f"{scores.dtype} of shape {tuple(scores.shape)}" if isinstance(scores, Tensor) else type(scores).__name__
        )
        raise InputError(f"scores must be floating point of shape (..., n), got {given}")
    if not scores.isfinite().all():
        raise InputError("scores hold NaN or infinities")
    if not temperature > 0:
        raise InputError(f"the temperature or strength must be positive, got {temperature}")
