"""Constraints of pointer decoding: which positions may follow the choices made so far."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from .._checks import whole


@runtime_checkable
class Constraint(Protocol):
    """Function from the choices so far to the choices that may follow.

    A function of your own has this signature; it must be vectorized over sets and hypotheses.
    """

    def __call__(
        self, prefix: Int[Tensor, "batch hypotheses steps"], valid: Bool[Tensor, "batch n"]
    ) -> Bool[Tensor, "batch hypotheses n+1"]:
        """Return which choices may follow, `(batch, hypotheses, n + 1)`; the last column is the stop.

        Args:
            prefix: Choices so far, `(batch, hypotheses, steps)`, -1 after the stop. Rows that have stopped may be
                answered in any way.
            valid: Whether a position holds an element, `(batch, n)`.
        """
        ...


class Tour:
    """Constraint to sequences that visit each element once and then stop."""

    def __call__(
        self, prefix: Int[Tensor, "batch hypotheses steps"], valid: Bool[Tensor, "batch n"]
    ) -> Bool[Tensor, "batch hypotheses n+1"]:
        """Return the elements not yet visited, or the stop after all of them."""
        left = valid[:, None] & ~_visited(prefix, valid.shape[1])
        return _with_stop(left, ~left.any(-1))

    def max_steps(self, n: int) -> int:
        """Return the largest number of choices, without the stop."""
        return n


class Subset:
    """Constraint to sequences of k different elements, in any order.

    Args:
        k: Number of elements.
    """

    def __init__(self, k: int) -> None:
        whole("k", k)
        self.k = k

    def __call__(
        self, prefix: Int[Tensor, "batch hypotheses steps"], valid: Bool[Tensor, "batch n"]
    ) -> Bool[Tensor, "batch hypotheses n+1"]:
        """Return the elements not yet chosen, or the stop after k choices or after all elements."""
        left = valid[:, None] & ~_visited(prefix, valid.shape[1])
        full = (prefix >= 0).sum(-1) >= self.k
        return _with_stop(left & ~full[..., None], full | ~left.any(-1))

    def max_steps(self, n: int) -> int:
        """Return the largest number of choices, without the stop."""
        return min(self.k, n)


class ClosedPolygon:
    """Constraint to polygons with at least three different vertices; the first one is repeated before the stop.

    For fewer than three elements, all of them are visited.
    """

    def __call__(
        self, prefix: Int[Tensor, "batch hypotheses steps"], valid: Bool[Tensor, "batch n"]
    ) -> Bool[Tensor, "batch hypotheses n+1"]:
        """Return new vertices, the first vertex from the fourth step on, or the stop after it."""
        n, steps = valid.shape[1], prefix.shape[-1]
        left = valid[:, None] & ~_visited(prefix, n)
        least = valid.sum(1).clamp(max=3)[:, None]
        if steps == 0:
            return _with_stop(left, ~left.any(-1))
        first = prefix[..., :1].clamp(min=0)
        closed = (prefix[..., 1:] == first).any(-1)
        closing = torch.zeros_like(left).scatter(-1, first, (~closed & (steps >= least))[..., None])
        return _with_stop((left & ~closed[..., None]) | closing, closed)

    def max_steps(self, n: int) -> int:
        """Return the largest number of choices, without the stop."""
        return n + 1


class Triangles:
    """Constraint to lists of different triangles, each with three increasing indices; stops only between triangles."""

    def __call__(
        self, prefix: Int[Tensor, "batch hypotheses steps"], valid: Bool[Tensor, "batch n"]
    ) -> Bool[Tensor, "batch hypotheses n+1"]:
        """Return the indices that continue the triangle and can still make it a new one."""
        n, steps = valid.shape[1], prefix.shape[-1]
        known, begun = prefix[..., : steps - steps % 3].unflatten(-1, (-1, 3)), steps % 3
        place = torch.arange(n, device=valid.device)
        last = prefix[..., -1:] if begun else prefix.new_full((*prefix.shape[:2], 1), -1)
        after = _later(valid)[:, None]  # how many valid positions follow each one
        fits = valid[:, None] & (place > last) & (after >= 2 - begun)
        fits = fits & (self._uses(prefix, known, valid, begun) < self._ways(after, begun))
        return _with_stop(fits, ~fits.any(-1) if begun else torch.ones_like(fits[..., 0]))

    @staticmethod
    def _uses(prefix: Tensor, known: Tensor, valid: Tensor, begun: int) -> Tensor:
        """Return how many known triangles start with the begun one followed by each index."""
        given = prefix[..., prefix.shape[-1] - begun :]
        same = (known[..., :begun] == given[..., None, :]).all(-1) & (known[..., 0] >= 0)
        counts = torch.zeros(*prefix.shape[:2], valid.shape[1], dtype=torch.int64, device=valid.device)
        return counts.scatter_add(-1, known[..., begun].clamp(min=0), same.long())

    @staticmethod
    def _ways(after: Tensor, begun: int) -> Tensor:
        """Return how many triangles there are for each next index."""
        if begun == 0:
            return after * (after - 1) // 2
        return after if begun == 1 else torch.ones_like(after)

    def max_steps(self, n: int) -> int:
        """Return the largest number of choices of a triangulation, without the stop."""
        return 3 * max(0, 2 * n - 5)


def _visited(prefix: Tensor, n: int) -> Tensor:
    """Return whether each position occurs in a prefix, `(batch, hypotheses, n)`."""
    counts = torch.zeros(*prefix.shape[:2], n + 1, dtype=torch.bool, device=prefix.device)
    return counts.scatter(-1, torch.where(prefix < 0, n, prefix), True)[..., :n]


def _later(valid: Tensor) -> Tensor:
    """Return the number of valid positions after each position."""
    return valid.sum(-1, keepdim=True) - valid.cumsum(-1)


def _with_stop(points: Tensor, stop: Tensor) -> Tensor:
    return torch.cat([points, stop.expand(points.shape[:2])[..., None]], -1)
