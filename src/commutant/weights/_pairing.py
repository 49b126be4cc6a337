"""Assignments of units, and of heads together with the units inside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product as pairs_of

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..algebra import linear_assignment

TOLERANCE = 1e-9  # relative gain below which a change is noise
Piece = tuple[tuple[str, ...], Float[Tensor, "outer ..."], Float[Tensor, "outer ..."]]


def pair_up(
    children: Mapping[str, int], pieces: Sequence[Piece], current: Int[Tensor, " outer"]
) -> tuple[Int[Tensor, " outer"], dict[str, Int[Tensor, "outer _"]]]:
    """The best pairing of outer indices, each pair with its own best inner permutations.

    Args:
        children: the groups inside, and their sizes.
        pieces: which of them stand in a piece of weight, and that piece of both networks: the outer index first, then
            the inner ones.
        current: the pairing that ties go to.
    """
    if any(len(own) > 1 for own, _, _ in pieces):
        return _coupled(children, pieces, current)
    size = len(current)
    scores = {c: torch.zeros(size, n, size, n, dtype=torch.float64) for c, n in children.items()}
    alone = torch.zeros(size, size, dtype=torch.float64)
    for own, x, y in pieces:
        if own:
            found = gram(x.flatten(0, 1), y.flatten(0, 1))
            scores[own[0]] += found.view(scores[own[0]].shape)
        else:
            alone += gram(x, y)
    return pair_by_scores(scores, alone, current)


def pair_by_scores(
    scores: Mapping[str, Float[Tensor, "outer _ outer _"]],
    alone: Float[Tensor, "outer outer"],
    current: Int[Tensor, " outer"],
) -> tuple[Int[Tensor, " outer"], dict[str, Int[Tensor, "outer _"]]]:
    """`pair_up` where it is known what each pair of inner indices adds, and each pair of outer ones by itself."""
    total, inner = alone.clone(), {}
    for child, table in scores.items():
        blocks = table.permute(0, 2, 1, 3)  # (new outer, old outer, new inner, old inner)
        inner[child] = assign(blocks, torch.arange(blocks.shape[-1]).expand(blocks.shape[:-1]))
        total += picked(blocks, inner[child]).sum(-1)
    outer = assign(total, current)
    return outer, {child: table[torch.arange(len(current)), outer] for child, table in inner.items()}


def _coupled(
    children: Mapping[str, int], pieces: Sequence[Piece], current: Int[Tensor, " outer"]
) -> tuple[Int[Tensor, " outer"], dict[str, Int[Tensor, "outer _"]]]:
    """`pair_up` where several groups stand in one piece: for each pair of outer indices they are solved in turn."""
    size = len(current)
    # first those that stand alone in some weight: they can be told without the others
    order = sorted(children, key=lambda c: all(len(own) > 1 for own, _, _ in pieces if c in own))
    scores = torch.zeros(size, size, dtype=torch.float64)
    tables = {c: torch.arange(children[c]).repeat(size, size, 1) for c in order}
    for new, old in pairs_of(range(size), repeat=2):
        chosen = {c: tables[c][new, old] for c in order}
        for sweep in range(3):
            for i, child in enumerate(order):
                known = set(order[: i + 1]) if sweep == 0 else set(order)
                mine = [t for t in pieces if child in t[0] and set(t[0]) <= known]
                total = torch.zeros(2 * (children[child],), dtype=torch.float64)
                for own, x, y in mine or [t for t in pieces if child in t[0]]:
                    total += _inner_scores(x[new], y[old], own, child, chosen)
                chosen[child] = assign(total, chosen[child])
        for own, x, y in pieces:
            part = y[old]
            for axis, child in enumerate(own):
                part = part.index_select(axis, chosen[child])
            scores[new, old] += dot(x[new], part)
        for child in order:
            tables[child][new, old] = chosen[child]
    outer = assign(scores, current)
    return outer, {c: tables[c][torch.arange(size), outer] for c in order}


def _inner_scores(x: Tensor, y: Tensor, own: Sequence[str], child: str, chosen: Mapping[str, Tensor]) -> Tensor:
    """For one pair of outer indices: the scores of a child, the other children in place."""
    for axis, other in enumerate(own):
        if other != child:
            y = y.index_select(axis, chosen[other])
    at = list(own).index(child)
    return gram(x.movedim(at, 0).flatten(1), y.movedim(at, 0).flatten(1))


def gram(x: Float[Tensor, "*outer n rest"], y: Float[Tensor, "*outer n rest"]) -> Float[Tensor, "*outer n n"]:
    """All inner products of rows, by stretches of the last axis, summed in float64."""
    found = torch.zeros(*x.shape[:-1], y.shape[-2], dtype=torch.float64)
    step = max(1, 2**22 // max(1, x.shape[-2]))
    for start in range(0, x.shape[-1], step):
        a, b = (t[..., start : start + step] for t in (x, y))
        wide = torch.float64 if torch.float64 in (a.dtype, b.dtype) else torch.float32
        a, b = a.to(wide), b.to(wide)
        found += (a @ b.mT).double()
    return found


def assign(scores: Float[Tensor, "*outer n n"], current: Int[Tensor, "*outer n"]) -> Int[Tensor, "*outer n"]:
    """The best assignment of each matrix; the current one where no other is better."""
    best = linear_assignment(scores, maximize=True)
    gain = (picked(scores, best) - picked(scores, current)).sum(-1)
    moved = best != current  # rows that stay may be large: they say nothing of how exact the others are
    noise = TOLERANCE * ((picked(scores, best).abs() + picked(scores, current).abs()) * moved).sum(-1)
    return torch.where((gain > noise).unsqueeze(-1), best, current)


def picked(scores: Float[Tensor, "*outer n n"], table: Int[Tensor, "*outer n"]) -> Float[Tensor, "*outer n"]:
    return scores.gather(-1, table.unsqueeze(-1)).squeeze(-1)


def dot(x: Tensor, y: Tensor) -> float:
    """The inner product, in float64; by stretches that stay in the cache."""
    parts = zip(x.flatten().split(2**18), y.flatten().split(2**18), strict=True)
    return sum(float(torch.dot(a.double(), b.double())) for a, b in parts)
