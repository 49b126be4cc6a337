"""Sorting and ranking with gradients."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import isotonic_regression
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
    ordered = scores.sort(dim=-1, descending=True, stable=True).values
    return (-(ordered.unsqueeze(-1) - scores.unsqueeze(-2)).abs() / temperature).softmax(-1)


def neural_sort_matrix(scores: Float[Tensor, "*batch n"], temperature: float = 1.0) -> Float[Tensor, "*batch n n"]:
    """NeuralSort: row i is `softmax(((n + 1 - 2 i) s_j - sum_k |s_j - s_k|) / temperature)` (Grover et al., 2019).

    Rows sum to one, columns do not; the largest entry of row i stands at the i-th largest score.
    """
    _check(scores, temperature)
    n = scores.shape[-1]
    spread = (scores.unsqueeze(-1) - scores.unsqueeze(-2)).abs().sum(-1)
    scale = n + 1 - 2 * torch.arange(1, n + 1, device=scores.device, dtype=scores.dtype)
    return ((scale.unsqueeze(-1) * scores.unsqueeze(-2) - spread.unsqueeze(-2)) / temperature).softmax(-1)


def soft_rank(scores: Float[Tensor, "*batch n"], strength: float = 1.0) -> Float[Tensor, "*batch n"]:
    """Ranks from 1 (smallest) to n: `scores / strength` projected onto the permutahedron (Blondel et al., 2020).

    They always sum to `n (n + 1) / 2`. The projection is piecewise linear: once the strength is below the smallest gap
    between scores the ranks are exact and their gradient is zero.

    Example:
        >>> soft_rank(torch.tensor([8.0, 0.0, 5.0, 3.0, 2.0, 1.0, 6.0, 7.0, 9.0]))
        tensor([8., 1., 5., 4., 3., 2., 6., 7., 9.])
    """
    _check(scores, strength)
    z = scores / strength
    s, order = z.sort(dim=-1, descending=True, stable=True)
    w = torch.arange(scores.shape[-1], 0, -1, device=scores.device, dtype=scores.dtype).expand_as(s)
    projected = s - _Isotonic.apply(s - w)[0]
    return torch.empty_like(projected).scatter(-1, order, projected)


def soft_sort(scores: Float[Tensor, "*batch n"], strength: float = 1.0) -> Float[Tensor, "*batch n"]:
    """The scores in ascending order, as a projection onto the permutahedron of the scores (Blondel et al., 2020)."""
    _check(scores, strength)
    s = (-scores).sort(dim=-1, descending=True, stable=True).values
    w = torch.arange(scores.shape[-1], 0, -1, device=scores.device, dtype=scores.dtype).expand_as(s) / strength
    return _Isotonic.apply(w - s)[0] - w  # type: ignore[no-any-return]


class _Isotonic(torch.autograd.Function):
    """The closest non-increasing sequence; its derivative averages over the blocks that were pooled."""

    @staticmethod
    def forward(y: Tensor) -> tuple[Tensor, Tensor]:
        flat = y.detach().double().cpu().reshape(prod(y.shape[:-1]), y.shape[-1]).numpy()
        fitted, block = np.empty_like(flat), np.zeros(flat.shape, dtype=np.int64)
        for i, row in enumerate(flat):
            if len(row):
                found = isotonic_regression(row, increasing=False)
                fitted[i] = found.x
                block[i] = np.repeat(np.arange(len(found.weights)), np.diff(found.blocks))
        blocks = torch.from_numpy(block).reshape(y.shape).to(y.device)
        return torch.from_numpy(fitted).reshape(y.shape).to(y), blocks

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Any) -> Tensor:
        (block,) = ctx.saved_tensors
        total = torch.zeros_like(gradient).scatter_add(-1, block, gradient)
        count = torch.zeros_like(gradient).scatter_add(-1, block, torch.ones_like(gradient))
        return (total / count.clamp(min=1)).gather(-1, block)


def _check(scores: Tensor, temperature: float) -> None:
    if scores.isnan().any():
        raise InputError("scores hold NaN")
    if not temperature > 0:
        raise InputError(f"the temperature or strength must be positive, got {temperature}")
