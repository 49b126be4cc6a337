"""Assignments of groups that stand inside each other: heads with their channels, and deeper."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..parameters import PermutationSpec
from ._pairing import assign, gram, picked

Piece = tuple[tuple[str, ...], Float[Tensor, "..."], Float[Tensor, "..."]]
_ENTRIES = 2**24  # of the pairs of slices that are compared at a time


@dataclass(frozen=True)
class Nest:
    """A group with all groups that stand inside it.

    Attributes:
        sizes: entries of each group, outer groups first; the first is the outermost.
        parents: all groups that each one stands inside, the outermost first.
    """

    sizes: dict[str, int]
    parents: dict[str, tuple[str, ...]]

    @property
    def root(self) -> str:
        """The outermost group."""
        return next(iter(self.sizes))

    def inside(self, group: str) -> list[str]:
        """The groups directly inside another."""
        return [g for g in self.sizes if self.parents[g][-1:] == (group,)]

    def below(self, group: str) -> list[str]:
        """A group and all groups inside it, outer groups first."""
        return [g for g in self.sizes if g == group or group in self.parents[g]]

    def flat(self, group: str) -> int:
        """Entries of a group together with those of all groups around it."""
        return prod(self.sizes[g] for g in (*self.parents[group], group))


def nest_of(spec: PermutationSpec, group: str) -> Nest:
    """Return the nest of a group that stands inside no other."""
    nest = Nest({group: spec.sizes[group]}, {group: ()})
    for child in spec.outermost_first():
        around = spec.parents[child]
        if around[:1] == (group,) and around == (*nest.parents.get(around[-1], ()), around[-1]):
            nest.sizes[child], nest.parents[child] = spec.sizes[child], around
    return nest


def pair_up(nest: Nest, pieces: Sequence[Piece], current: Int[Tensor, " n"]) -> dict[str, Int[Tensor, "..."]]:
    """Return the best pairing of the outermost index, each pair with its own best permutations of what is inside.

    Exact where no piece carries two groups of which neither stands inside the other. Elsewhere those groups are solved
    in turn for each pair of the indices around them.

    Args:
        nest: the groups.
        pieces: parts of weights of both networks: the groups on their leading axes, outer groups first, and the parts.
        current: the pairing that ties go to.
    """
    if all(own == (*nest.parents[own[-1]], own[-1]) for own, _, _ in pieces):
        scores = {g: torch.zeros(2 * (nest.flat(g),), dtype=torch.float64) for g in nest.sizes}
        for own, x, y in pieces:
            scores[own[-1]] += gram(x.flatten(0, len(own) - 1), y.flatten(0, len(own) - 1))
        return pair_by_scores(nest, scores, current)
    batch = [(own, x[None].double(), y[None].double()) for own, x, y in pieces]
    return {g: table[0] for g, table in _pair_inner(nest, nest.root, batch, current).items()}


def pair_by_scores(
    nest: Nest, scores: Mapping[str, Float[Tensor, "flat flat"]], current: Int[Tensor, " n"]
) -> dict[str, Int[Tensor, "..."]]:
    """Return `pair_up` where it is known what each pair of indices of a group adds by itself.

    Args:
        nest: the groups.
        scores: for each group, by its index together with the indices around it, of both networks.
        current: the pairing that ties go to.
    """
    total, found = dict(scores), dict[str, Tensor]()
    for group in reversed(nest.sizes):
        n = nest.sizes[group]
        blocks = total[group].unflatten(0, (-1, n)).unflatten(2, (-1, n)).permute(0, 2, 1, 3)
        start = current.expand(1, 1, n) if group == nest.root else torch.arange(n).expand(blocks.shape[:-1])
        found[group] = assign(blocks, start)  # (new outer, old outer, n)
        if group != nest.root:
            outer = nest.parents[group][-1]
            total[outer] = total[outer] + picked(blocks, found[group]).sum(-1)
    old, tables = {nest.root: found[nest.root][0, 0]}, {nest.root: found[nest.root][0, 0]}
    for group in list(nest.sizes)[1:]:
        around = old[nest.parents[group][-1]]
        own = found[group][torch.arange(len(around)), around]
        old[group] = (around[:, None] * nest.sizes[group] + own).flatten()
        tables[group] = own.view(*(nest.sizes[p] for p in nest.parents[group]), -1)
    return tables


def _pair_level(nest: Nest, level: Sequence[str], pieces: Sequence[Piece]) -> tuple[Tensor, dict[str, Tensor]]:
    """Solve the groups of one level, and all inside them, for a batch of pairs of the indices around them.

    Returns:
        The score of each pair, and the tables with the batch as their leading axis.
    """
    families = {group: set(nest.below(group)) for group in level}
    carried = [{group for group in level if families[group] & set(own)} for own, _, _ in pieces]
    # first those that stand alone in some weight: they can be told without the others
    order = sorted(
        (group for group in level if any(group in c for c in carried)),
        key=lambda group: all(len(c) > 1 for c in carried if group in c),
    )
    size = pieces[0][1].shape[0]
    tables: dict[str, Tensor] = {
        g: torch.arange(nest.sizes[g]).expand(size, *(nest.sizes[p] for p in _between(nest, g, level)), -1)
        for g in nest.sizes
        if any(g in family for family in families.values())
    }
    for sweep in range(3 if any(len(c) > 1 for c in carried) else 1):
        before = dict(tables)
        for number, group in enumerate(order):
            known = set(order if sweep else order[: number + 1])
            mine = [p for p, c in zip(pieces, carried, strict=True) if group in c and c <= known]
            mine = mine or [p for p, c in zip(pieces, carried, strict=True) if group in c]
            others = set(tables) - families[group]
            placed = [(own, x, _moved(nest, tables, own, y, others)) for own, x, y in mine]
            tables |= _pair_inner(nest, group, placed)
        if all(torch.equal(tables[g], before[g]) for g in tables):
            break
    score = torch.zeros(size, dtype=torch.float64)
    for own, x, y in pieces:
        score += torch.linalg.vecdot(x.flatten(1), _moved(nest, tables, own, y, tables).flatten(1))
    return score, tables


def _between(nest: Nest, group: str, level: Sequence[str]) -> list[str]:
    """The groups of a level, or inside it, that another group stands inside."""
    return [p for p in nest.parents[group] if any(p == g or g in nest.parents[p] for g in level)]


def _pair_inner(
    nest: Nest, group: str, pieces: Sequence[Piece], current: Int[Tensor, " n"] | None = None
) -> dict[str, Tensor]:
    """Solve one group, and all inside it, for a batch of pairs; other groups of the pieces stay as they are."""
    n, size = nest.sizes[group], pieces[0][1].shape[0]
    inside = nest.inside(group)
    family = nest.below(group)
    scores = torch.zeros(size, n, n, dtype=torch.float64)
    nested: list[Piece] = []
    for own, x, y in pieces:
        here = [g for g in family if g in own]
        axes = [1 + own.index(g) for g in here]
        x, y = (t.movedim(axes, list(range(1, len(axes) + 1))).flatten(len(axes) + 1) for t in (x, y))
        if here == [group]:
            scores += gram(x, y)
        else:
            nested.append((tuple(here[1:]), x, y))
    tables: dict[str, Tensor] = {}
    if nested:
        parts = [_pair_level(nest, inside, chunk) for chunk in _all_pairs(nested)]
        scores += torch.cat([score for score, _ in parts]).view(size, n, n)
        tables = {g: torch.cat([t[g] for _, t in parts]).unflatten(0, (size, n, n)) for g in parts[0][1]}
    elif inside:
        tables = {g: torch.arange(nest.sizes[g]).expand(size, n, n, *(nest.sizes[p] for p in _between(nest, g, inside)), -1)
                  for g in family[1:]}  # fmt: skip
    start = torch.arange(n) if current is None else current
    found = assign(scores, start.expand(size, n))
    batch, new = torch.arange(size)[:, None], torch.arange(n)
    return {group: found, **{g: table[batch, new, found] for g, table in tables.items()}}


def _all_pairs(pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
    """Pair every index of the target with every index of the source, within each batch entry, a chunk at a time."""
    size, n = pieces[0][1].shape[:2]
    step = max(1, _ENTRIES // max(1, n * sum(x[0, 0].numel() for _, x, _ in pieces)))
    for start in range(0, size * n, step):
        rows = torch.arange(start, min(start + step, size * n))
        yield [
            (
                own,
                x.flatten(0, 1)[rows].unsqueeze(1).expand(-1, n, *x.shape[2:]).flatten(0, 1),
                y[rows // n].flatten(0, 1),
            )
            for own, x, y in pieces
        ]


def _moved(
    nest: Nest, tables: Mapping[str, Tensor], own: Sequence[str], y: Tensor, groups: Collection[str]
) -> Float[Tensor, "..."]:
    """Apply the tables of some groups to a batch of parts."""
    for axis, group in enumerate(own, start=1):
        if group in groups:
            shape = [y.shape[0], *(y.shape[1 + i] if g == group or g in nest.parents[group] else 1
                                   for i, g in enumerate(own)), *[1] * (y.dim() - 1 - len(own))]  # fmt: skip
            y = y.gather(axis, tables[group].reshape(shape).expand(y.shape))
    return y
