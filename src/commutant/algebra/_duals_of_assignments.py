"""Potentials that prove an assignment optimal."""

from __future__ import annotations

from math import fsum
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from .._errors import InputError
from ._permutations import is_permutation

_ULPS = 8 * np.finfo(np.float64).eps  # gains below this share of the exchanged costs count as rounding
_HIDDEN = 1e-6  # relative rounding error of the potentials above which sums are made exact


def assignment_duals(
    cost: Float[Tensor, "n n"], columns: Int[Tensor, " n"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Return potentials u, v that prove an assignment optimal: `u_i + v_j <= cost_ij`, equal on the assigned pairs.

    The potentials are shortest distances in the graph whose edges lead from an assigned column to the columns that its
    row could take instead. If that graph has a negative cycle, the assignment is not optimal. A cycle counts as
    negative if it gains more than a few units in the last place of the costs that it exchanges, regardless of other
    costs. Exact sums are used if the costs span too many orders of magnitude for float64.

    Args:
        cost: Finite costs to be minimized, `(n, n)`.
        columns: Column of each row, `(n,)`.

    Raises:
        InputError: If the assignment is not optimal, or the shapes or values of the arguments are invalid.
    """
    if not isinstance(cost, Tensor) or not isinstance(columns, Tensor) or cost.is_complex():
        raise InputError("cost must be a real matrix and columns a tensor of one integer per row")
    n = len(cost) if cost.dim() else 0
    if cost.shape != (n, n) or columns.shape != (n,) or not bool(cost.isfinite().all()):
        raise InputError(f"a finite square cost and a column for each row are needed, got {tuple(cost.shape)}")
    if not is_permutation(columns):
        raise InputError("columns must hold each of 0 to n - 1 once")
    if n == 0:
        return cost.new_zeros(0, dtype=torch.float64), cost.new_zeros(0, dtype=torch.float64)
    matrix, taken = cost.detach().double().cpu().numpy(), columns.cpu().numpy().astype(np.int64)
    assigned = matrix[np.arange(n), taken]
    slack = _ULPS * np.abs(matrix) + _ULPS * np.abs(assigned)[:, None]
    # steps from the column of row i to column j; the slack hides gains that are only rounding
    steps = matrix / 2 - assigned[:, None] / 2 + slack / 2  # halves do not overflow
    v, before = _shortest(steps, taken)
    if before is not None and _gains(steps, taken, before):
        raise InputError("the assignment is not optimal: exchanging some pairs lowers its cost")
    rounding = n * _ULPS * float(np.abs(v).max())
    if before is not None or bool(((slack > 0) & (rounding * _ULPS > _HIDDEN * slack)).any()):
        unit, exact = _integers(np.stack([matrix, np.broadcast_to(assigned[:, None], (n, n)), slack]))
        distances, before = _shortest(exact[0] - exact[1] + exact[2], taken)
        if before is not None:
            raise InputError("the assignment is not optimal: exchanging some pairs lowers its cost")
        v = np.array([int(x) / unit for x in distances])
        u = np.array([int(x) / unit for x in exact[1][:, 0] - distances[taken]])
    else:
        v = 2 * v
        u = assigned - v[taken]
    return torch.from_numpy(u).to(cost.device), torch.from_numpy(v).to(cost.device)


def _shortest(steps: NDArray[Any], columns: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[np.int64] | None]:
    """Return distances by Bellman-Ford, and the predecessors of the columns if there is a negative cycle."""
    v = np.zeros_like(steps[0])
    before = np.full(len(columns), -1)
    for _ in range(len(columns) + 1):
        ways = v[columns][:, None] + steps
        found = ways.argmin(0)
        best = ways[found, np.arange(len(columns))]
        shorter = np.asarray(best < v, dtype=bool)
        if not shorter.any():
            return v, None
        v, before = np.where(shorter, best, v), np.where(shorter, found, before)
    return v, before


def _gains(steps: NDArray[np.float64], columns: NDArray[np.int64], before: NDArray[np.int64]) -> bool:
    """Return whether some cycle of predecessors has a negative sum, which is rounded once."""
    seen = np.full(len(columns), -1)
    for start in range(len(columns)):
        at = start
        while seen[at] < 0 and before[at] >= 0:
            seen[at] = start
            at = int(columns[before[at]])
        if seen[at] == start and before[at] >= 0:
            first, terms = at, list[float]()
            while not terms or at != first:
                terms.append(float(steps[before[at], at]))
                at = int(columns[before[at]])
            if fsum(terms) < 0:
                return True
    return False


def _integers(values: NDArray[np.float64]) -> tuple[int, NDArray[Any]]:
    """Return a common denominator and the values times it, exactly, as Python integers."""
    ratios = [float(x).as_integer_ratio() for x in values.ravel()]
    unit = max(below for _, below in ratios)
    out = np.empty(len(ratios), dtype=object)
    out[:] = [above * (unit // below) for above, below in ratios]
    return unit, out.reshape(values.shape)
