"""Permutations as index tensors: `x[p]` is the permuted x, so row i of the new is row p[i] of the old."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .._errors import InputError

Distance = Literal["kendall", "cayley", "hamming", "footrule", "spearman", "ulam", "chebyshev"]


def _check_indices(*permutations: object) -> None:
    for p in permutations:
        if not isinstance(p, Tensor) or not p.dim() or p.is_floating_point() or p.is_complex() or p.dtype == torch.bool:
            given = f"{p.dtype} of shape {tuple(p.shape)}" if isinstance(p, Tensor) else type(p).__name__
            raise InputError(f"a permutation must be an integer tensor of shape (..., n), got {given}")


def compose(p: Int[Tensor, "*batch n"], q: Int[Tensor, "*batch n"]) -> Int[Tensor, "*batch n"]:
    """The permutation `p[q]`: first p is applied, then q, so that `x[p][q] == x[compose(p, q)]`.

    Its matrix is that of q times that of p. Shapes `(*batch, n)`.

    Example:
        >>> p, q, x = torch.tensor([1, 2, 0]), torch.tensor([0, 2, 1]), torch.tensor([10, 20, 30])
        >>> bool((x[p][q] == x[compose(p, q)]).all())
        True
    """
    _check_indices(p, q)
    if p.shape != q.shape:
        raise InputError(f"two permutations of one shape are needed, got shapes {tuple(p.shape)} and {tuple(q.shape)}")
    return p.gather(-1, q.long())


def inverse(p: Int[Tensor, "*batch n"]) -> Int[Tensor, "*batch n"]:
    """The permutation that undoes p: `x[p][inverse(p)] == x`; -1 for what p lacks, where it is no permutation."""
    _check_indices(p)
    places = torch.arange(p.shape[-1], device=p.device, dtype=p.dtype).expand_as(p)
    return torch.full_like(p, -1).scatter(-1, p.long(), places)


def power(p: Int[Tensor, "*batch n"], exponent: int) -> Int[Tensor, "*batch n"]:
    """p applied `exponent` times; its inverse where the exponent is negative."""
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
    """The matrix P with `P[i, p[i]] = 1`, so that `P @ x == x[p]`."""
    _check_indices(p)
    try:
        return torch.nn.functional.one_hot(p.long(), p.shape[-1]).to(dtype)
    except RuntimeError as error:
        raise InputError(f"the entries of a permutation must lie in 0..{p.shape[-1] - 1} ({error})") from error


def cycle_lengths(p: Int[Tensor, "*batch n"]) -> Int[Tensor, "*batch n"]:
    """For each element the length of the cycle that it is in, by pointer doubling in O(n log n)."""
    _check_indices(p)
    if not is_permutation(p):
        raise InputError(f"cycles are those of permutations: each row must hold each of 0 to {p.shape[-1] - 1} once")
    p = p.long()
    least, jump = torch.arange(p.shape[-1], device=p.device).expand_as(p).clone(), p
    reach = 1
    while reach < p.shape[-1]:
        least = torch.minimum(least, least.gather(-1, jump))
        jump, reach = compose(jump, jump), 2 * reach
    counts = torch.zeros_like(p).scatter_add(-1, least, torch.ones_like(p))
    return counts.gather(-1, least)


def cycle_count(p: Int[Tensor, "*batch n"]) -> Int[Tensor, "*batch"]:
    """The number of cycles, fixed points included."""
    return (1.0 / cycle_lengths(p).double()).sum(-1).round().long()


def parity(p: Int[Tensor, "*batch n"]) -> Int[Tensor, "*batch"]:
    """0 for even permutations, 1 for odd ones."""
    cycles = cycle_count(p)
    return (p.shape[-1] - cycles) % 2


def is_permutation(p: Int[Tensor, "*batch n"]) -> bool:
    """Whether every row holds each of 0 to n - 1 once."""
    _check_indices(p)
    return bool((p.sort(-1).values == torch.arange(p.shape[-1], device=p.device)).all())


def permutation_distance(
    p: Int[Tensor, "*batch n"], q: Int[Tensor, "*batch n"], kind: Distance = "kendall"
) -> Int[Tensor, "*batch"]:
    """How far apart two permutations are; none of these changes when both are composed with a third, `p[t]` and `q[t]`.

    Args:
        p: permutations `(*batch, n)`.
        q: permutations `(*batch, n)`.
        kind: `kendall`: pairs in opposite order, the number of adjacent swaps; `cayley`: swaps; `hamming`: places that
            differ; `footrule`: sum of |p - q|; `spearman`: sum of (p - q)^2, whose square root is a metric; `ulam`: n
            minus the longest increasing subsequence; `chebyshev`: the largest |p - q|.

    Raises:
        InputError: rows that are no permutations, shapes that differ, or an unknown kind.
    """
    _check_indices(p, q)
    if p.shape != q.shape or not (is_permutation(p) and is_permutation(q)):
        raise InputError(f"two permutations of one shape are needed, got shapes {tuple(p.shape)} and {tuple(q.shape)}")
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
    if kind in ("footrule", "spearman"):
        return (gap if kind == "footrule" else gap**2).sum(-1)
    raise InputError(
        f"unknown distance {kind!r}; expected kendall, cayley, hamming, footrule, spearman, ulam or chebyshev"
    )


def _longest_increasing(p: Int[Tensor, "*batch n"]) -> Int[Tensor, "*batch"]:
    """By patience sorting, batched: the tops of the piles stay sorted."""
    n = p.shape[-1]
    tops = torch.full_like(p, n)
    for i in range(n):
        pile = torch.searchsorted(tops, p[..., i : i + 1].contiguous())
        tops = tops.scatter(-1, pile, p[..., i : i + 1])
    return (tops < n).sum(-1)
