"""Linear assignment, its dual certificate, and Frank-Wolfe over permutation matrices for what is not linear."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np
import scipy
import torch
from jaxtyping import Float, Int
from torch import Tensor

from .._errors import InputError
from ._permutations import is_permutation


def linear_assignment(cost: Float[Tensor, "*batch n m"], *, maximize: bool = False) -> Int[Tensor, "*batch n"]:
    """The assignment of rows to columns with the least (or greatest) sum of entries; exact, in float64.

    Args:
        cost: `(*batch, n, m)`; +inf (with `maximize` -inf) forbids a pair. Read on the CPU, where the solver runs.
        maximize: the greatest sum instead.

    Returns:
        The column of each row, `(*batch, n)`, on the device of the cost; -1 for rows left over where n > m. Among equal
        optima any one.

    Raises:
        InputError: NaN, or no assignment without a forbidden pair; names the batch index.

    Example:
        >>> linear_assignment(torch.tensor([[4.0, 1.0], [2.0, 3.0]]))
        tensor([1, 0])
    """
    flat = cost.detach().double().cpu().reshape(prod(cost.shape[:-2]), *cost.shape[-2:]).numpy()
    found = np.full(flat.shape[:2], -1, dtype=np.int64)
    for i, matrix in enumerate(flat):
        try:
            rows, columns = scipy.optimize.linear_sum_assignment(matrix, maximize=maximize)
        except ValueError as error:
            where = f" of batch entry {i}" if cost.dim() > 2 else ""
            why = "holds NaN" if np.isnan(matrix).any() else f"has no assignment ({error})"
            raise InputError(f"the cost matrix{where} {why}") from None
        found[i, rows] = columns
    return torch.from_numpy(found).reshape(cost.shape[:-1]).to(cost.device)


def assignment_duals(
    cost: Float[Tensor, "n n"], columns: Int[Tensor, " n"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Potentials u, v that prove an assignment optimal: `u_i + v_j <= cost_ij`, with equality on the assigned pairs.

    They are shortest distances in the graph in which an assigned column leads on to the columns that its row could take
    instead; where that graph has a cycle of negative length the assignment is not optimal.

    Args:
        cost: square, finite, to be minimised.
        columns: the column of each row.

    Raises:
        InputError: the assignment is not optimal.
    """
    matrix = cost.detach().double()
    n = matrix.shape[0]
    if matrix.shape != (n, n) or columns.shape != (n,) or not bool(matrix.isfinite().all()):
        raise InputError(f"a finite square cost and a column for each row are needed, got {tuple(cost.shape)}")
    if not is_permutation(columns):
        raise InputError("the columns must be each of 0 to n - 1 once")
    if n == 0:
        return matrix.new_zeros(0), matrix.new_zeros(0)
    steps = matrix - matrix.gather(1, columns[:, None])  # from the column of row i to column j
    v = torch.zeros(n, dtype=torch.float64, device=cost.device)
    for _ in range(n + 1):
        shorter = torch.minimum(v, (v[columns][:, None] + steps).amin(0))
        if torch.equal(shorter, v):
            break
        moved, v = float((v - shorter).max()), shorter
    else:
        if moved > 1e-9 * float(matrix.abs().max()):
            raise InputError("the assignment is not optimal: exchanging some pairs lowers its cost")
    return matrix.gather(1, columns[:, None])[:, 0] - v[columns], v


def birkhoff_ascent(
    value: Callable[..., Float[Tensor, ""]],
    start: Sequence[Float[Tensor, "_ _"]],
    *,
    steps: int = 100,
    tolerance: float = 1e-6,
    patience: int = 5,
) -> tuple[list[Int[Tensor, " _"]], list[Float[Tensor, "_ _"]]]:
    """Frank-Wolfe: climb a smooth function of doubly stochastic matrices, then round each to a permutation.

    Every step goes towards the permutation matrices that the gradient likes best (a linear assignment for each matrix),
    as far as a line search says. For quadratic functions, such as quadratic assignment, this is the FAQ algorithm.

    Args:
        value: of the matrices, one argument for each; differentiable.
        start: doubly stochastic matrices, each n x n for its own n, such as the centre `1/n`.
        steps: at most.
        tolerance: relative gain below which a step counts as idle.
        patience: idle steps before the search ends.

    Returns:
        The permutations (`p[i]` is the column of row i), and the matrices before rounding.
    """
    current = [s.detach().double() for s in start]
    idle, best = 0, float(value(*current))
    for _ in range(steps):
        with torch.enable_grad():
            leaves = [m.clone().requires_grad_() for m in current]
            gradients = torch.autograd.grad(value(*leaves), leaves)
        corners = [_corner(g) for g in gradients]
        directions = [c - m for c, m in zip(corners, current, strict=True)]

        length, reached = _line_search(value, current, directions)
        if reached > best:
            current = [m + length * d for m, d in zip(current, directions, strict=True)]
        idle = 0 if reached > best + tolerance * abs(best) else idle + 1
        best = max(best, reached)
        if idle >= patience:
            break
    return [linear_assignment(m, maximize=True) for m in current], current


def _line_search(
    value: Callable[..., Float[Tensor, ""]], start: Sequence[Tensor], directions: Sequence[Tensor]
) -> tuple[float, float]:
    """How far to go along the directions, at most the whole way, and the value there."""

    def lost(t: float) -> float:
        with torch.no_grad():
            return -float(value(*[m + t * d for m, d in zip(start, directions, strict=True)]))

    search = scipy.optimize.minimize_scalar(
        lost, bounds=(0, 1), method="bounded", options={"maxiter": 20, "xatol": 1e-3}
    )
    whole = lost(1.0)
    return (1.0, -whole) if whole <= search.fun else (float(search.x), -float(search.fun))


def _corner(gradient: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    columns = linear_assignment(gradient, maximize=True)
    return torch.nn.functional.one_hot(columns, gradient.shape[1]).to(gradient)


def birkhoff_decomposition(
    matrix: Float[Tensor, "n n"], tolerance: float = 1e-10
) -> tuple[Float[Tensor, " terms"], Int[Tensor, "terms n"]]:
    """A doubly stochastic matrix as a mixture of permutations (Birkhoff and von Neumann).

    Greedily: the permutation whose smallest entry is largest by product, taken off until nothing is left; at most
    `(n - 1)^2 + 1` terms.

    Args:
        matrix: doubly stochastic to `tolerance`.
        tolerance: what may be left, and how far row and column sums may be from one.

    Returns:
        Weights that sum to one, and as many permutations.

    Raises:
        InputError: the matrix is not doubly stochastic.
    """
    if matrix.dim() != 2 or matrix.shape[0] != matrix.shape[1] or not bool(matrix.isfinite().all()):
        raise InputError(f"a finite square matrix is needed, got shape {tuple(matrix.shape)}")
    left = matrix.detach().double().clone()
    if not len(left):
        return left.new_ones(1), torch.zeros(1, 0, dtype=torch.long)
    ones = torch.ones(left.shape[0], dtype=torch.float64, device=left.device)
    slack = max(tolerance, 1e-12) * max(1, left.shape[0])
    off = max(float((left.sum(k) - ones).abs().max()) for k in (0, 1))
    if bool((left < -slack).any()) or off > slack:
        raise InputError("the matrix is not doubly stochastic: entries below zero, or sums that are not one")
    weights, permutations = [], []
    for _ in range((left.shape[0] - 1) ** 2 + 1):
        cost = torch.where(left > tolerance, -left.clamp(min=1e-300).log(), torch.inf)
        try:
            columns = linear_assignment(cost)
        except InputError:
            break
        weight = left.gather(1, columns[:, None]).min()
        weights.append(weight)
        permutations.append(columns)
        left[torch.arange(left.shape[0]), columns] -= weight
        if float(left.max()) <= tolerance:
            break
    if not weights:
        raise InputError(f"no permutation has all its entries above the tolerance of {tolerance}")
    total = torch.stack(weights)
    return total / total.sum(), torch.stack(permutations)
