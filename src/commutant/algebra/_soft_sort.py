"""Differentiable sorting and ranking."""

from __future__ import annotations

from math import prod

import numpy as np
import scipy
import torch
from jaxtyping import Float, Int
from torch import Tensor

from .._checks import positive
from .._errors import InputError


def soft_sort_matrix(scores: Float[Tensor, "*batch n"], temperature: float = 1.0) -> Float[Tensor, "*batch n n"]:
    """Return the SoftSort matrix, whose row i is `softmax(-|i-th largest score - scores| / temperature)`.

    Rows sum to one, but columns do not. The largest entry of row i is at the i-th largest score, at any temperature.
    Prillo and Eisenschlos, 2020.

    Args:
        scores: Scores, `(*batch, n)`.
        temperature: Positive temperature, in units of the scores.

    Example:
        >>> soft_sort_matrix(torch.tensor([1.0, 3.0, 2.0]), 0.1).argmax(-1)
        tensor([1, 2, 0])
    """
    _check(scores, temperature)
    wide = scores.double()
    ordered = wide.sort(dim=-1, descending=True, stable=True).values
    return (-(ordered.unsqueeze(-1) - wide.unsqueeze(-2)).abs() / temperature).softmax(-1).to(scores.dtype)


def neural_sort_matrix(scores: Float[Tensor, "*batch n"], temperature: float = 1.0) -> Float[Tensor, "*batch n n"]:
    """Return the NeuralSort matrix, whose row i is `softmax(((n + 1 - 2 i) s_j - sum_k |s_j - s_k|) / temperature)`.

    Rows sum to one, but columns do not. The largest entry of row i is at the i-th largest score. Grover et al., 2019.

    Args:
        scores: Scores, `(*batch, n)`.
        temperature: Positive temperature, in units of the scores.
    """
    _check(scores, temperature)
    n, wide = scores.shape[-1], scores.double()  # terms as large as n times the scores cancel
    spread = (wide.unsqueeze(-1) - wide.unsqueeze(-2)).abs().sum(-1)
    scale = n + 1 - 2 * torch.arange(1, n + 1, device=scores.device, dtype=torch.float64)
    logits = (scale.unsqueeze(-1) * wide.unsqueeze(-2) - spread.unsqueeze(-2)) / temperature
    return logits.softmax(-1).to(scores.dtype)


def soft_rank(scores: Float[Tensor, "*batch n"], strength: float = 1.0) -> Float[Tensor, "*batch n"]:
    """Return soft ranks from 1 (smallest) to n: the projection of `scores / strength` onto the permutahedron.

    The ranks always sum to `n (n + 1) / 2`. The projection is piecewise linear: for a strength below the smallest gap
    between scores, the ranks are exact and their gradient is zero. Blondel et al., 2020.

    Args:
        scores: Scores, `(*batch, n)`.
        strength: Positive strength of the regularization, in units of the scores.

    Example:
        >>> soft_rank(torch.tensor([8.0, 0.0, 5.0, 3.0, 2.0, 1.0, 6.0, 7.0, 9.0]))
        tensor([8., 1., 5., 4., 3., 2., 6., 7., 9.])
    """
    _check(scores, strength, "strength")
    n = scores.shape[-1]
    ordered, order = scores.double().sort(dim=-1, descending=True, stable=True)
    # only gaps matter, and all gaps above n separate ranks, so clamping keeps digits if scores / strength is large
    gaps = ((ordered[..., :-1] - ordered[..., 1:]) / strength).clamp(max=n + 1)
    s = torch.nn.functional.pad(gaps.flip(-1).cumsum(-1).flip(-1), (0, min(n, 1)))
    w = torch.arange(n, 0, -1, device=scores.device, dtype=torch.float64).expand_as(s)
    blocks = _pooled(s - w)
    projected = (_mean(w, blocks) + s - _mean(s, blocks)).to(scores.dtype)
    return torch.empty_like(projected).scatter(-1, order, projected)


def soft_sort(scores: Float[Tensor, "*batch n"], strength: float = 1.0) -> Float[Tensor, "*batch n"]:
    """Return the scores in ascending order, softly, as a projection onto the permutahedron of the scores.

    Blondel et al., 2020.

    Args:
        scores: Scores, `(*batch, n)`.
        strength: Positive strength of the regularization, in units of the inverse scores.
    """
    _check(scores, strength, "strength")
    s = (-scores).sort(dim=-1, descending=True, stable=True).values
    w = torch.arange(scores.shape[-1], 0, -1, device=scores.device, dtype=torch.float64).expand_as(s) / strength
    blocks = _pooled(w - s)
    return (_mean(w, blocks) - w - _mean(s.double(), blocks)).to(scores.dtype)


def _pooled(y: Float[Tensor, "*batch n"]) -> Int[Tensor, "*batch n"]:
    """Return the block of each entry in the closest non-increasing sequence, where each block takes its mean."""
    flat = y.detach().double().cpu().reshape(prod(y.shape[:-1]), y.shape[-1]).numpy()
    block = np.zeros(flat.shape, dtype=np.int64)
    for i, row in enumerate(flat):
        if len(row):
            found = scipy.optimize.isotonic_regression(row, increasing=False)
            block[i] = np.repeat(np.arange(len(found.weights)), np.diff(found.blocks))
    return torch.from_numpy(block).reshape(y.shape).to(y.device)


def _mean(values: Float[Tensor, "*batch n"], block: Int[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
    """Return the mean over the block of each entry, exact for blocks of one entry."""
    total = torch.zeros_like(values).scatter_add(-1, block, values)
    count = torch.zeros_like(values).scatter_add(-1, block, torch.ones_like(values))
    return (total / count.clamp(min=1)).gather(-1, block)


def _check(scores: Tensor, given: float, name: str = "temperature") -> None:
    if not isinstance(scores, Tensor) or not scores.is_floating_point() or not scores.dim():
        kind = f"{scores.dtype} of shape {tuple(scores.shape)}" if isinstance(scores, Tensor) else type(scores).__name__
        raise InputError(f"scores must be floating point of shape (..., n), got {kind}")
    if not scores.isfinite().all():
        raise InputError("scores must be finite, got NaN or infinities")
    positive(name, given)
