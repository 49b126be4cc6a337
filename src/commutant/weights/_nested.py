"""Assignments of nested groups, such as heads with their channels."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..parameters import PermutationSpec
from ._pairing import assign, gram, picked

Piece = tuple[tuple[str, ...], Float[Tensor, "..."], Float[Tensor, "..."]]
Scores = Mapping[str, Float[Tensor, "batch flat flat"]]
_ENTRIES = 2**18  # number of entries of the pairs of slices that are compared at a time
_LIKELY = 4  # number of partners of each index whose inner permutations are improved further


@dataclass(frozen=True)
class Nest:
    """Group with all groups nested in it.

    Attributes:
        sizes: Number of entries of each group, outer groups first; the first is the outermost.
        parents: Groups that each group is nested in, the outermost first.
    """

    sizes: dict[str, int]
    parents: dict[str, tuple[str, ...]]

    @property
    def root(self) -> str:
        """Outermost group."""
        return next(iter(self.sizes))

    def inside(self, group: str) -> list[str]:
        """Return the groups directly inside another."""
        return [g for g in self.sizes if self.parents[g][-1:] == (group,)]

    def below(self, group: str) -> list[str]:
        """Return a group and all groups inside it, outer groups first."""
        return [g for g in self.sizes if g == group or group in self.parents[g]]

    def flat(self, group: str) -> int:
        """Return the number of entries of a group times those of all groups around it."""
        return prod(self.sizes[g] for g in (*self.parents[group], group))


def nest_of(spec: PermutationSpec, group: str) -> Nest:
    """Return the nest of an outermost group."""
    nest = Nest({group: spec.sizes[group]}, {group: ()})
    for child in spec.outermost_first():
        around = spec.parents[child]
        if around[:1] == (group,) and around == (*nest.parents.get(around[-1], ()), around[-1]):
            nest.sizes[child], nest.parents[child] = spec.sizes[child], around
    return nest


def pair_up(nest: Nest, pieces: Sequence[Piece], current: Int[Tensor, " n"]) -> dict[str, Int[Tensor, "..."]]:
    """Return the best pairing of the outermost index, each pair with its own best inner permutations.

    The result is optimal where no piece carries two groups of which neither is nested in the other. Elsewhere those
    groups are solved in turn for each pair of the indices around them.

    Args:
        nest: Groups to pair.
        pieces: Parts of weights of both networks: the groups on their leading axes, outer groups first, and the parts.
        current: Pairing that ties go to.
    """
    scores = {g: torch.zeros(2 * (nest.flat(g),), dtype=torch.float64) for g in nest.sizes}
    coupled = []
    for own, x, y in pieces:
        if own == (*nest.parents[own[-1]], own[-1]):
            scores[own[-1]] += gram(x.flatten(0, len(own) - 1), y.flatten(0, len(own) - 1))
        else:
            coupled.append((own, x, y))
    if not coupled:
        return pair_by_scores(nest, scores, current)
    batch = [(own, x[None].double(), y[None].double()) for own, x, y in coupled]
    found = _pair_inner(nest, nest.root, {g: s[None] for g, s in scores.items()}, batch, current)
    return {g: table[0] for g, table in found.items()}


def pair_by_scores(
    nest: Nest, scores: Mapping[str, Float[Tensor, "flat flat"]], current: Int[Tensor, " n"]
) -> dict[str, Int[Tensor, "..."]]:
    """Return the result of `pair_up` for pieces that are given as scores of pairs of indices.

    Args:
        nest: Groups to pair.
        scores: Score of each pair of indices of a group, flattened with the indices around it, of both networks.
        current: Pairing that ties go to.
    """
    found = _batch_by_scores(nest, nest.root, {g: s[None] for g, s in scores.items()}, current)
    return {g: table[0] for g, table in found.items()}


def _batch_by_scores(
    nest: Nest, root: str, scores: Scores, current: Int[Tensor, " n"]
) -> dict[str, Int[Tensor, "batch ..."]]:
    """Apply `pair_by_scores` to a group and all inside it, for a batch of pairs of the indices around them."""
    total, found = dict(scores), dict[str, Tensor]()
    family = nest.below(root)
    for group in reversed(family):
        n = nest.sizes[group]
        blocks = total[group].unflatten(1, (-1, n)).unflatten(3, (-1, n)).transpose(2, 3)
        start = current if group == root else torch.arange(n)
        found[group] = assign(blocks, start.expand(blocks.shape[:-1]))  # (batch, new outer, old outer, n)
        if group != root:
            outer = nest.parents[group][-1]
            total[outer] = total[outer] + picked(blocks, found[group]).sum(-1)
    tables = {root: found[root][:, 0, 0]}
    old, batch = dict(tables), torch.arange(len(tables[root]))[:, None]
    for group in family[1:]:
        around = old[nest.parents[group][-1]]
        own = found[group][batch, torch.arange(around.shape[1]), around]
        old[group] = (around.unsqueeze(-1) * nest.sizes[group] + own).flatten(1)
        sizes = [nest.sizes[p] for p in nest.parents[group] if p == root or root in nest.parents[p]]
        tables[group] = own.view(-1, *sizes, nest.sizes[group])
    return tables


def _pair_level(
    nest: Nest,
    level: Sequence[str],
    scores: Scores,
    pieces: Sequence[Piece],
    start: Mapping[str, Int[Tensor, "batch ..."]],
    sweeps: int,
) -> tuple[Float[Tensor, " batch"], dict[str, Int[Tensor, "batch ..."]]]:
    """Solve the groups of one level, and all inside them, for a batch of pairs of the indices around them.

    Args:
        nest: Groups to pair.
        level: Groups that are nested in the same others.
        scores: Scores as for `pair_by_scores`, by the indices from this level on.
        pieces: Pieces that carry several groups of which none is nested in another, with a leading batch axis.
        start: Tables of the groups that are known.
        sweeps: Number of sweeps over the groups of the level.

    Returns:
        The score of each pair, and its tables.
    """
    families = {group: nest.below(group) for group in level}
    carried = [{group for group in level if not set(own).isdisjoint(families[group])} for own, _, _ in pieces]
    # groups that are alone in some weight come first: they can be solved without the others
    order = sorted(level, key=lambda group: not any(bool(scores[g].any()) for g in families[group]))
    size = pieces[0][1].shape[0]
    tables = dict(start)
    for _ in range(sweeps):
        before = dict(tables)
        for group in order:
            known = {g for g in level if g in tables} | {group}
            mine = [p for p, c in zip(pieces, carried, strict=True) if group in c and c <= known]
            if not mine and not any(bool(scores[g].any()) for g in families[group]):
                mine = [p for p, c in zip(pieces, carried, strict=True) if group in c]
            others = set(tables).difference(families[group])
            placed = [(own, x, _moved(nest, tables, own, y, others)) for own, x, y in mine]
            tables |= _pair_inner(nest, group, scores, placed, torch.arange(nest.sizes[group]))
        if before and all(torch.equal(tables[g], before[g]) for g in tables):
            break
    total = torch.zeros(size, dtype=torch.float64)
    for group in level:
        old: dict[str, Tensor] = {}
        for g in families[group]:
            around = old[nest.parents[g][-1]].unsqueeze(-1) * nest.sizes[g] if g != group else 0
            old[g] = (around + tables[g].flatten(1).unflatten(1, (-1, nest.sizes[g]))).flatten(1)
            total += picked(scores[g], old[g]).sum(-1)
    for own, x, y in pieces:
        total += torch.linalg.vecdot(x.flatten(1), _moved(nest, tables, own, y, tables).flatten(1))
    return total, tables


def _pair_inner(
    nest: Nest, group: str, scores: Scores, pieces: Sequence[Piece], current: Int[Tensor, " n"]
) -> dict[str, Int[Tensor, "batch ..."]]:
    """Solve one group and all inside it, for a batch of pairs; other groups of the pieces stay in place."""
    n, size = nest.sizes[group], len(scores[group])
    own_scores, nested = scores[group], list[Piece]()
    family = nest.below(group)
    for own, x, y in pieces:
        here = [g for g in family if g in own]
        axes = [1 + own.index(g) for g in here]
        x, y = (t.movedim(axes, list(range(1, len(axes) + 1))).flatten(len(axes) + 1) for t in (x, y))
        if here == [group]:
            own_scores = own_scores + x @ y.mT
        else:
            nested.append((tuple(here[1:]), x, y))
    if not nested:
        return _batch_by_scores(nest, group, {**{g: scores[g] for g in family[1:]}, group: own_scores}, current)
    blocks = {
        g: scores[g].unflatten(1, (n, -1)).unflatten(3, (n, -1)).transpose(2, 3).flatten(0, 2) for g in family[1:]
    }
    every = torch.arange(size * n * n)
    total, tables = _pair_chosen(nest, group, blocks, nested, every, {}, sweeps=1)
    likely = torch.zeros(size, n, n, dtype=torch.bool)
    for axis in (1, 2):
        likely.scatter_(axis, total.view(size, n, n).topk(min(n, _LIKELY), axis).indices, True)
    chosen = likely.flatten().nonzero().flatten()
    better, refined = _pair_chosen(
        nest, group, blocks, nested, chosen, {g: t[chosen] for g, t in tables.items()}, sweeps=2
    )
    rises = better > total[chosen]
    total[chosen[rises]] = better[rises]
    for g, table in tables.items():
        table[chosen[rises]] = refined[g][rises]
    found = assign(own_scores + total.view(size, n, n), current.expand(size, n))
    batch, new = torch.arange(size)[:, None], torch.arange(n)
    tables = {g: table.unflatten(0, (size, n, n))[batch, new, found] for g, table in tables.items()}
    return {group: found, **tables}


def _pair_chosen(
    nest: Nest,
    group: str,
    scores: Scores,
    pieces: Sequence[Piece],
    chosen: Int[Tensor, " pairs"],
    start: Mapping[str, Int[Tensor, "pairs ..."]],
    sweeps: int,
) -> tuple[Float[Tensor, " pairs"], dict[str, Int[Tensor, "pairs ..."]]]:
    """Apply `_pair_level` inside some pairs of indices of a group, a few at a time, so that they stay in the cache."""
    n = nest.sizes[group]
    step = max(1, _ENTRIES // max(1, sum(x[0, 0].numel() for _, x, _ in pieces)))
    flat = [(own, x.flatten(0, 1), y.flatten(0, 1)) for own, x, y in pieces]
    parts = []
    for first in range(0, len(chosen), step):
        here = chosen[first : first + step]
        pairs = [(own, x[here // n], y[here // n**2 * n + here % n]) for own, x, y in flat]
        among = {g: score[here] for g, score in scores.items()}
        given = {g: table[first : first + step] for g, table in start.items()}
        parts.append(_pair_level(nest, nest.inside(group), among, pairs, given, sweeps))
    return torch.cat([t for t, _ in parts]), {g: torch.cat([t[g] for _, t in parts]) for g in parts[0][1]}


def _moved(
    nest: Nest, tables: Mapping[str, Tensor], own: Sequence[str], y: Tensor, groups: Collection[str]
) -> Float[Tensor, "..."]:
    """Apply the tables of some groups to a batch of parts."""
    for axis, group in enumerate(own, start=1):
        if group in groups:
            lead = y.shape[:axis]
            around = [
                y.shape[0],
                *(y.shape[1 + i] if g in nest.parents[group] else 1 for i, g in enumerate(own[: axis - 1])),
            ]
            table = tables[group].reshape(*around, -1).expand(*lead, -1)
            first = torch.arange(prod(lead)).view(*lead, 1) * y.shape[axis]
            y = y.flatten(0, axis)[(first + table).flatten()].view(y.shape)
    return y
