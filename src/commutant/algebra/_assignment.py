"""Linear assignment, and Frank-Wolfe over permutation matrices for nonlinear objectives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np
import scipy
import torch
from jaxtyping import Float, Int
from torch import Tensor

from .._errors import InputError


def linear_assignment(cost: Float[Tensor, "*batch n m"], *, maximize: bool = False) -> Int[Tensor, "*batch n"]:
    """Return the assignment of rows to columns with the smallest (or largest) sum of entries.

    The solver is exact and runs in float64 on the CPU.

    Args:
        cost: Cost matrices, `(*batch, n, m)`; +inf (-inf with `maximize`) forbids a pair.
        maximize: Whether to maximize the sum.

    Returns:
        Column of each row, `(*batch, n)`, on the device of the cost; -1 for unassigned rows if n > m. If several
        assignments are optimal, one of them is returned.

    Raises:
        InputError: If a matrix holds NaN or has no feasible assignment; the message names its batch index.

    Example:
        >>> linear_assignment(torch.tensor([[4.0, 1.0], [2.0, 3.0]]))
        tensor([1, 0])
    """
    if not isinstance(cost, Tensor) or cost.dim() < 2 or cost.is_complex():
        given = f"{cost.dtype} of shape {tuple(cost.shape)}" if isinstance(cost, Tensor) else type(cost).__name__
        raise InputError(f"cost must be a real tensor of shape (..., n, m), got {given}")
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


def birkhoff_ascent(
    value: Callable[..., Float[Tensor, ""]],
    start: Sequence[Float[Tensor, "_ _"]],
    *,
    steps: int = 100,
    tolerance: float = 1e-6,
    patience: int = 5,
) -> tuple[list[Int[Tensor, " _"]], list[Float[Tensor, "_ _"]]]:
    """Maximize a smooth function of doubly stochastic matrices by Frank-Wolfe, then round each to a permutation.

    Each step moves toward the permutation matrices that maximize the linearized function, found by linear assignment. A
    line search sets its length. For quadratic functions, such as quadratic assignment, this is the FAQ
    algorithm.

    Args:
        value: Differentiable function with one argument for each matrix.
        start: Doubly stochastic matrices, each `(n, n)` with its own n, such as the matrix with all entries `1/n`.
        steps: Largest number of steps.
        tolerance: Relative gain below which a step counts as idle.
        patience: Number of consecutive idle steps that end the search.

    Returns:
        Permutations (`p[i]` is the column of row i), and the matrices before rounding.
    """
    current = [s.detach().double() for s in start]
    for matrix in current:
        if matrix.dim() != 2 or matrix.shape[0] != matrix.shape[1] or not bool(matrix.isfinite().all()):
            raise InputError(f"start must hold finite square matrices, got shape {tuple(matrix.shape)}")
    idle, best = 0, float(value(*current))
    if best != best:
        raise InputError("the value at the start is NaN; pass a start at which the function is finite")
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
    """Return the best step length in [0, 1] along the directions, and the value there."""

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
