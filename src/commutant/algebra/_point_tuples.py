"""Orthonormal bases from tuples of points, weighted so that their average is continuously differentiable."""

from __future__ import annotations

from functools import lru_cache
from itertools import permutations, product

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .._errors import InputError
from ._axes import NOTHING, right_handed, slide, spectrum
from ._exporting import exporting

_THIN = (1e-3, 1e-2)  # mean squared volumes, relative to the variance, between which points cease to count as thin


def tuple_bases(
    rows: Float[Tensor, "some n m"],
    counts: Float[Tensor, "some n"],
    most: int,
    exact: bool,
    generator: torch.Generator | None,
) -> tuple[Float[Tensor, "some frames m m"], Float[Tensor, "some frames"], Float[Tensor, " frames"]]:
    """Return bases from ordered tuples of m - 1 rows by Gram-Schmidt, with their weights and determinants.

    The weight is the product of the squared lengths that Gram-Schmidt divides by, to the powers m - 1, ..., 1. A basis
    is discontinuous where one of these lengths vanishes, and the squares make its contribution to an average
    differentiable there. The first row has the largest power, so that distant points determine the first axis of points
    near a line. Where all weights vanish (for m = 3: points on a line), a basis is taken with all signs and orders of
    its axes. Continuity requires this, and it averages tensors over the directions without extent.

    Args:
        rows: Vectors in the block of axes, `(clouds, n, m)`.
        counts: Weight of each row, `(clouds, n)`.
        most: Number of tuples to draw if `exact` is False.
        exact: Whether to take all tuples.
        generator: Source of drawn tuples; None for the same tuples in each call.

    Raises:
        InputError: If rows span at least two but fewer than m - 1 dimensions, with axes that are not distinct.
    """
    m = rows.shape[2]
    places = _all_tuples(rows.shape[1], m - 1, rows.device) if exact else _drawn_tuples(counts, most, m - 1, generator)
    each = torch.arange(rows.shape[0], device=rows.device)[:, None, None]
    picked = rows[each, places]
    count = counts[each, places].prod(-1)
    if exporting() and m == 3:
        count = count * (places[..., 0] != places[..., 1])
    volume = count
    basis: list[Tensor] = []
    for k in range(m - 1):
        left = picked[:, :, k]
        for q in basis:
            left = left - (left * q).sum(-1, keepdim=True) * q
        square = left.square().sum(-1)
        square = torch.where(square > NOTHING, square, 0.0)
        volume = volume * square ** (m - 1 - k)
        basis.append(left / torch.where(square > 0, square, 1.0).sqrt()[..., None])
    frame = torch.stack(basis, -1)
    frame = torch.cat([frame, completed(basis)[..., None]], -1)
    total = volume.sum(1)
    number = count.sum(1)
    thin = 1 - slide(total / torch.where(number > 0, number, 1.0), *_THIN)
    turns, hands = _turns(m, rows)
    base = turns.new_zeros(len(turns))
    base[:2] = 0.5  # the basis itself, with either sign of the last axis
    if not exporting() and not bool((thin.detach() > 0).any()):
        turns, hands, base = turns[:2], hands[:2], base[:2]
    share = (1 - thin)[:, None] * base + thin[:, None] / len(turns)
    lost = total.detach() <= 0
    if exporting() or bool(lost.any()):
        own = _own_axes(rows, lost)
        frame = torch.cat([frame, own[:, None]], 1)
        volume = torch.cat([volume, lost.to(volume)[:, None]], 1)
        total = volume.sum(1)
    frame = (frame[:, :, None] @ turns).flatten(1, 2)
    weight = ((volume / total[:, None])[..., None] * share[:, None]).flatten(1)
    return frame, weight, hands.repeat(volume.shape[1])


def _own_axes(rows: Float[Tensor, "some n m"], lost: Tensor) -> Float[Tensor, "some m m"]:
    """Return principal axes of rows that span too few dimensions for any tuple."""
    gram = rows.mT @ rows
    size = gram.diagonal(dim1=-2, dim2=-1).sum(-1)
    values, axes = spectrum(gram / torch.where(size > 0, size, 1.0)[:, None, None])
    if exporting():
        return right_handed(axes)
    values = values.detach()[lost]
    close = (values[:, 1:] > NOTHING) & (values[:, :-1] - values[:, 1:] < _THIN[0])
    if bool(close.any()):
        raise InputError(
            f"the points of a cloud span fewer than {rows.shape[2] - 1} dimensions of a block of {rows.shape[2]} axes "
            "that are not distinct, so it has no continuous frame"
        )
    return right_handed(axes)


def _turns(m: int, like: Tensor) -> tuple[Float[Tensor, "elements m m"], Float[Tensor, " elements"]]:
    """Return all signed permutations of m axes (signed cyclic ones for m > 3), the identity first.

    The second one changes only the sign of the last axis.
    """
    signs = torch.tensor(list(product((1.0, -1.0), repeat=m)), dtype=like.dtype)
    orders = permutations(range(m)) if m <= 3 else (tuple((i + k) % m for i in range(m)) for k in range(m))
    axes = torch.stack([torch.eye(m, dtype=like.dtype)[list(order)] for order in orders])
    turns = (axes[:, None] * signs[:, None, :]).flatten(0, 1)
    return turns.to(like.device), torch.linalg.det(turns).round().to(like.device)


def _drawn_tuples(
    counts: Float[Tensor, "some n"], most: int, k: int, generator: torch.Generator | None
) -> Int[Tensor, "some tuples k"]:
    """Draw tuples of points with positive weight, uniformly with replacement."""
    generator = generator or torch.Generator().manual_seed(0)  # makes the result a function of the input
    drawn = torch.rand((most, k), generator=generator, device=generator.device, dtype=torch.float64).to(counts.device)
    there = counts > 0
    order = there.long().argsort(dim=1, descending=True, stable=True)
    places = (drawn * there.sum(1)[:, None, None]).long()
    return order.gather(1, places.flatten(1)).view_as(places)


def _all_tuples(n: int, k: int, device: torch.device) -> Int[Tensor, "1 tuples k"]:
    if exporting():  # the number of points may be symbolic, and tuples with a repeated point have no volume
        one = torch.arange(n, device=device)
        return (one[:, None] if k == 1 else torch.stack(torch.meshgrid(one, one, indexing="ij"), -1).flatten(0, 1))[
            None
        ]
    return _permutations(n, k).to(device)[None]


@lru_cache(maxsize=64)
def _permutations(n: int, k: int) -> Int[Tensor, "tuples k"]:
    return torch.tensor(list(permutations(range(n), k)), dtype=torch.long).reshape(-1, k)


def completed(basis: list[Tensor]) -> Float[Tensor, "... m"]:
    """Return the unit vector that completes m - 1 orthonormal vectors to a basis of determinant one."""
    m = len(basis) + 1
    if m == 2:
        return torch.stack([-basis[0][..., 1], basis[0][..., 0]], -1)
    if m == 3:
        return torch.linalg.cross(basis[0], basis[1])
    frame, every = torch.stack(basis, -1), torch.arange(m, device=basis[0].device)
    return torch.stack([(-1) ** (k + m - 1) * torch.linalg.det(frame[..., every != k, :]) for k in range(m)], -1)
