"""Doubly stochastic matrices as mixtures of permutations."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .._errors import InputError
from ._assignment import linear_assignment


def birkhoff_decomposition(
    matrix: Float[Tensor, "n n"], tolerance: float | None = None
) -> tuple[Float[Tensor, " terms"], Int[Tensor, "terms n"]]:
    """Decompose a doubly stochastic matrix into a mixture of permutations (Birkhoff and von Neumann).

    The algorithm is greedy: it subtracts the permutation with the largest product of entries until nothing is left.
    There are at most `(n - 1)^2 + 1` terms.

    Args:
        matrix: Doubly stochastic matrix, `(n, n)`.
        tolerance: Largest entry that may remain; row and column sums may deviate from one by n times this. By default,
            sums may deviate by 1e-5, like those of `sinkhorn`, or by the resolution of a lower precision. The largest
            remaining entry is then 1e-10, or the deviation of the sums if that is larger.

    Returns:
        Weights that sum to one, `(terms,)`, and permutations, `(terms, n)`.

    Raises:
        InputError: If the matrix is not doubly stochastic.
    """
    if not isinstance(matrix, Tensor) or not matrix.is_floating_point():
        given = str(matrix.dtype) if isinstance(matrix, Tensor) else type(matrix).__name__
        raise InputError(f"the matrix must be a real floating point tensor, got {given}")
    if matrix.dim() != 2 or matrix.shape[0] != matrix.shape[1] or not bool(matrix.isfinite().all()):
        raise InputError(f"matrix must be a finite square matrix, got shape {tuple(matrix.shape)}")
    if tolerance is not None and not 0 <= tolerance < 1:
        raise InputError(f"tolerance must lie in [0, 1], got {tolerance}")
    left = matrix.detach().double().clone()
    n = len(left)
    if not n:
        return left.new_ones(1), torch.zeros(1, 0, dtype=torch.long)
    off = max(float((left.sum(k) - 1).abs().max()) for k in (0, 1))
    slack = max(1e-5, 4 * torch.finfo(matrix.dtype).eps) if tolerance is None else max(tolerance, 1e-12) * n
    if bool((left < -slack).any()) or off > slack:
        raise InputError(
            f"the matrix is not doubly stochastic: its smallest entry is {float(left.min()):.2g} and its sums deviate "
            f"from one by {off:.2g}, where {slack:.2g} is allowed; normalize it with sinkhorn, or pass tolerance"
        )
    least = max(1e-10, off) if tolerance is None else tolerance
    weights, permutations = [], []
    for _ in range((n - 1) ** 2 + 1):
        cost = torch.where(left > least, -left.clamp(min=1e-300).log(), torch.inf)
        try:
            columns = linear_assignment(cost)
        except InputError:
            break
        weight = left.gather(1, columns[:, None]).min()
        weights.append(weight)
        permutations.append(columns)
        left[torch.arange(n, device=left.device), columns] -= weight
        if float(left.max()) <= least:
            break
    if not weights:
        raise InputError(f"no permutation has all its entries above the tolerance of {least}")
    total = torch.stack(weights)
    return total / total.sum(), torch.stack(permutations)
