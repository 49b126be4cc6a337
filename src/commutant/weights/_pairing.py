"""Scores of pairs of units, and their assignments."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..algebra import linear_assignment

TOLERANCE = 1e-9  # relative gain below which a change is noise
_APART = 2.0**24  # ratio of scores from which the larger ones are assigned first
_SAFE = 2.0**40  # products of entries from 1 / _SAFE to _SAFE neither overflow nor underflow in float32


def gram(x: Float[Tensor, "*outer n rest"], y: Float[Tensor, "*outer m rest"]) -> Float[Tensor, "*outer n m"]:
    """Return all inner products of rows, in chunks of the last axis that are summed in float64.

    Rows with very large or very small entries are scaled first, so that products neither overflow nor underflow.
    """
    found = torch.zeros(*x.shape[:-1], y.shape[-2], dtype=torch.float64)
    if not x.shape[-1]:
        return found
    wide = torch.float64 if torch.float64 in (x.dtype, y.dtype) else torch.float32
    (x, left), (y, right) = (_scaled(t, wide) for t in (x, y))
    step = max(1, 2**22 // max(1, x.shape[-2]))
    for start in range(0, x.shape[-1], step):
        a, b = (t[..., start : start + step].to(wide) for t in (x, y))
        if a.shape[-1] == 1:  # biases and gains: faster than a matrix product
            found.addcmul_(a.double(), b.double().mT)
        else:
            found += a @ b.mT
    if left is not None:
        found *= left
    if right is not None:
        found *= right.mT
    return found


def _scaled(x: Tensor, wide: torch.dtype) -> tuple[Tensor, Float[Tensor, "*outer n 1"] | None]:
    """Return rows scaled to entries of at most one, and their factors; None for factors if no row needs scaling."""
    if x.numel() == 0:
        return x, None
    largest = x.abs().amax(-1, keepdim=True).double()
    usual = ((largest <= _SAFE) & (largest >= 1 / _SAFE)) | (largest == 0)
    if bool(usual.all()):
        return x, None
    factor = torch.where(usual, 1.0, largest)
    return (x.double() / factor).to(wide), factor


def assign(scores: Float[Tensor, "*outer n n"], current: Int[Tensor, "*outer n"]) -> Int[Tensor, "*outer n"]:
    """Return the best assignment for each matrix; the current one where no other is better."""
    best = _solved(scores)
    gain = (picked(scores, best) - picked(scores, current)).sum(-1)
    moved = best != current  # rows that stay must not set the noise level
    noise = TOLERANCE * ((picked(scores, best).abs() + picked(scores, current).abs()) * moved).sum(-1)
    return torch.where((gain > noise).unsqueeze(-1), best, current)


def _solved(scores: Float[Tensor, "*outer n n"]) -> Int[Tensor, "*outer n"]:
    """Return the best assignments; rows far larger than others come first, as their rounding would hide these."""
    best = linear_assignment(scores, maximize=True)
    largest = scores.abs().amax(-1) if scores.shape[-1] else scores.sum(-1)
    apart = (largest.amin(-1) < largest.amax(-1) / _APART) if scores.shape[-1] else largest.sum(-1) > 0
    for place in apart.nonzero().tolist():
        matrix, table = scores[tuple(place)], best[tuple(place)]
        rows = torch.arange(len(table))
        while len(rows):
            part = matrix[rows][:, table[rows]]
            sizes = part.abs().amax(1)
            small = sizes < sizes.max() / _APART
            if not bool(small.any()):
                break
            rows, columns = rows[small], table[rows[small]]
            table[rows] = columns[linear_assignment(matrix[rows][:, columns], maximize=True)]
    return best


def picked(scores: Float[Tensor, "*outer n n"], table: Int[Tensor, "*outer n"]) -> Float[Tensor, "*outer n"]:
    """Return the score of each row under an assignment."""
    return scores.gather(-1, table.unsqueeze(-1)).squeeze(-1)


def dot(x: Tensor, y: Tensor) -> float:
    """Return the inner product in float64, in chunks that stay in the cache."""
    parts = zip(x.flatten().split(2**18), y.flatten().split(2**18), strict=True)
    return sum(float(torch.dot(a.double(), b.double())) for a, b in parts)
