"""Permutations as index tensors: `x[p]` is the permuted x, whose row i is row p[i] of x."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .._checks import one_of
from .._errors import InputError

Distance = Literal["kendall", "cayley", "hamming", "footrule", "spearman", "ulam", "chebyshev"]


def _check_indices(*permutations: object) -> None:
    for p in permutations:
        if not isinstance(p, Tensor) or not p.dim() or p.is_floating_point() or p.is_complex() or p.dtype == torch.bool:
            given = f"{p.dtype} of shape {tuple(p.shape)}" if isinstance(p, Tensor) else type(p).__name__
            raise InputError(f"a permutation must be an integer tensor of shape (..., n), got {given}")


def compose(p: Int[Tensor, "*batch n"], q: Int[Tensor, "*batch n"]) -> Int[Tensor, "*batch n"]:
    """Return the permutation `p[q]`, which applies p and then q: `x[p][q] == x[compose(p, q)]`.

    Its matrix is the matrix of q times the matrix of p.

    Args:
        p: Permutations to apply first, `(*batch, n)`.
        q: Permutations to apply second, `(*batch, n)`.

    Example:
        >>> p, q, x = torch.tensor([1, 2, 0]), torch.tensor([0, 2, 1]), torch.tensor([10, 20, 30])
        >>> bool((x[p][q] == x[compose(p, q)]).all())
        True
    """
    _check_indices(p, q)
    if p.shape != q.shape:
        raise InputError(f"p and q must be permutations of the same shape, got {tuple(p.shape)} and {tuple(q.shape)}")
    return p.gather(-1, q.long())


def inverse(p: Int[Tensor, "*batch n"]) -> Int[Tensor, "*batch n"]:
    """Return the inverse permutation, such that `x[p][inverse(p)] == x`.

    Args:
        p: Permutations, `(*batch, n)`. If a row is not a permutation, the inverse has -1 at its missing values.
    """
    _check_indices(p)
    places = torch.arange(p.shape[-1], device=p.device, dtype=p.dtype).expand_as(p)
    return torch.full_like(p, -1).scatter(-1, p.long(), places)


def power(p: Int[Tensor, "*batch n"], exponent: int) -> Int[Tensor, "*batch n"]:
    """Return p applied `exponent` times.

    Args:
        p: Permutations, `(*batch, n)`.
        exponent: Exponent; negative values use the inverse.
    """
    if not isinstance(exponent, int):
        raise InputError(f"exponent must be an integer, got {exponent!r}")
    _check_indices(p)
    base = inverse(p) if exponent < 0 else p
    result = torch.arange(p.shape[-1], device=p.device, dtype=p.dtype).expand_as(p).clone()
    left = abs(exponent)
    while left:
        if left & 1:
            result = compose(result, base)
        base, left = compose(base, base), left >> 1
    return result


def permutation_matrix(p: Int[Tensor, "*batch n"], dtype: torch.dtype = torch.float32) -> Float[Tensor, "*batch n n"]:
    """Return the matrix P with `P[i, p[i]] = 1`, such that `P @ x == x[p]`.

    Args:
        p: Permutations, `(*batch, n)`.
        dtype: Dtype of the matrix.
    """
    _check_indices(p)
    try:
        return torch.nn.functional.one_hot(p.long(), p.shape[-1]).to(dtype)
    except RuntimeError as error:
        raise InputError(f"the entries of a permutation must lie in 0..{p.shape[-1] - 1} ({error})") from error


def cycle_lengths(p: Int[Tensor, "*batch n"]) -> Int[Tensor, "*batch n"]:
    """Return the length of the cycle of each element, by pointer doubling in O(n log n).

    Args:
        p: Permutations, `(*batch, n)`.
    """
    _check_indices(p)
    if not is_permutation(p):
        raise InputError(f"p must be a permutation to have cycles: each of 0 to {p.shape[-1] - 1} once in each row")
    p = p.long()
    least, jump = torch.arange(p.shape[-1], device=p.device).expand_as(p).clone(), p
    reach = 1
    while reach < p.shape[-1]:
        least = torch.minimum(least, least.gather(-1, jump))
        jump, reach = compose(jump, jump), 2 * reach
    counts = torch.zeros_like(p).scatter_add(-1, least, torch.ones_like(p))
    return counts.gather(-1, least)


def cycle_count(p: Int[Tensor, "*batch n"]) -> Int[Tensor, "*batch"]:
    """Return the number of cycles, including fixed points.

    Args:
        p: Permutations, `(*batch, n)`.
    """
    return (1.0 / cycle_lengths(p).double()).sum(-1).round().long()


def parity(p: Int[Tensor, "*batch n"]) -> Int[Tensor, "*batch"]:
    """Return 0 for even permutations and 1 for odd ones.

    Args:
        p: Permutations, `(*batch, n)`.
    """
    cycles = cycle_count(p)
    return (p.shape[-1] - cycles) % 2


def is_permutation(p: Int[Tensor, "*batch n"]) -> bool:
    """Return whether every row holds each of 0 to n - 1 once.

    Args:
        p: Integers, `(*batch, n)`.
    """
    _check_indices(p)
    return bool((p.sort(-1).values == torch.arange(p.shape[-1], device=p.device)).all())


def permutation_distance(
    p: Int[Tensor, "*batch n"], q: Int[Tensor, "*batch n"], kind: Distance = "kendall"
) -> Int[Tensor, "*batch"]:
    """Return the distance of two permutations, which is the same for `p[t]` and `q[t]` with any permutation t.

    Args:
        p: Permutations, `(*batch, n)`.
        q: Permutations, `(*batch, n)`.
        kind: Distance: `kendall` for the number of pairs in opposite order, which is the number of adjacent swaps;
            `cayley` for the number of swaps; `hamming` for the number of different entries; `footrule` for the sum of
            |p - q|; `spearman` for the sum of (p - q)^2, whose square root is a metric; `ulam` for n minus the length
            of the longest increasing subsequence; `chebyshev` for the largest |p - q|.

    Raises:
        InputError: For rows that are not permutations, different shapes, or an unknown kind.
    """
    _check_indices(p, q)
    one_of("kind", kind, get_args(Distance))
    if p.shape != q.shape or not (is_permutation(p) and is_permutation(q)):
        raise InputError(f"p and q must be permutations of the same shape, got {tuple(p.shape)} and {tuple(q.shape)}")
    p, q = p.long(), q.long()  # sums and squares leave the range of smaller integers
    if kind == "kendall":
        before = (p.unsqueeze(-1) < p.unsqueeze(-2)) != (q.unsqueeze(-1) < q.unsqueeze(-2))
        return before.sum((-1, -2)) // 2
    if kind == "cayley":
        return p.shape[-1] - cycle_count(compose(p, inverse(q)))
    if kind == "hamming":
        return (p != q).sum(-1)
    if kind == "ulam":
        return p.shape[-1] - _longest_increasing(compose(p, inverse(q)))
    gap = (p - q).abs()
    if kind == "chebyshev":
        return gap.amax(-1) if p.shape[-1] else gap.sum(-1)
    return (gap if kind == "footrule" else gap**2).sum(-1)


def _longest_increasing(p: Int[Tensor, "*batch n"]) -> Int[Tensor, "*batch"]:
    """Return the length of the longest increasing subsequence, by batched patience sorting."""
    n = p.shape[-1]
    tops = torch.full_like(p, n)
    for i in range(n):
        pile = torch.searchsorted(tops, p[..., i : i + 1].contiguous())
        tops = tops.scatter(-1, pile, p[..., i : i + 1])
    return (tops < n).sum(-1)
