"""What a permutation of groups does to one axis of one tensor."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import prod

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Factor:
    """One factor of a product: entries that a group permutes, that stay, or that are a direct sum themselves."""

    size: int
    group: str | None = None
    label: AxisLabel | None = None


@dataclass(frozen=True)
class AxisLabel:
    """An axis as a direct sum of blocks; each block is a row-major product of factors, the first outermost."""

    blocks: tuple[tuple[Factor, ...], ...]

    @property
    def size(self) -> int:
        """Entries along the axis."""
        return sum(prod(factor.size for factor in block) for block in self.blocks)

    def groups(self) -> Iterator[str]:
        """The groups that act on the axis, each as often as it occurs."""
        for block in self.blocks:
            for factor in block:
                if factor.group is not None:
                    yield factor.group
                elif factor.label is not None:
                    yield from factor.label.groups()

    def stretches(self) -> list[AxisLabel]:
        """The blocks, those of inner sums too, as labels of their own."""
        found = []
        for block in self.blocks:
            inner = [f.label.stretches() if f.label else [AxisLabel(((f,),))] for f in block]
            found += [AxisLabel((tuple(f for part in chosen for f in part.blocks[0]),)) for chosen in product(*inner)]
        return found

    def without(self, groups: Collection[str]) -> AxisLabel:
        """The label with some groups held in place."""
        return AxisLabel(
            tuple(
                tuple(
                    Factor(f.size, None if f.group in groups else f.group, f.label.without(groups) if f.label else None)
                    for f in block
                )
                for block in self.blocks
            )
        )

    def __str__(self) -> str:
        return " + ".join(" x ".join(_show(factor) for factor in block) for block in self.blocks)


def _show(factor: Factor) -> str:
    return f"({factor.label})" if factor.label else factor.group or str(factor.size)


Tables = Mapping[str, Int[Tensor, "..."]]


def old_positions(
    label: AxisLabel,
    position: Int[Tensor, " entries"],
    tables: Tables,
    parents: Mapping[str, tuple[str, ...]],
    outer: Mapping[str, Int[Tensor, " entries"]],
) -> Int[Tensor, " entries"]:
    """Where the entries at some new positions of an axis were before.

    Args:
        label: of the axis.
        position: new positions along it.
        tables: the permutation of each group, of shape `(*sizes of its parents, size)`.
        parents: the groups on whose new index a group's permutation depends.
        outer: the index of every group, at each of the positions, in the axes and blocks around this one.
    """
    result = torch.empty_like(position)
    offset = 0
    for block in label.blocks:
        size = prod(factor.size for factor in block)
        here = (position >= offset) & (position < offset + size)
        inside, stride = position[here] - offset, size
        indices = []
        for factor in block:
            stride //= factor.size
            indices.append(inside // stride % factor.size)
        around = {name: index[here] for name, index in outer.items()}
        around |= _inside(block, indices)
        old = torch.zeros_like(inside)
        for factor, index in zip(block, indices, strict=True):
            if factor.label is not None:
                index = old_positions(factor.label, index, tables, parents, around)
            elif factor.group in tables:
                assert factor.group is not None
                index = tables[factor.group][(*(around[p] for p in parents.get(factor.group, ())), index)]
            old = old * factor.size + index
        result[here] = old + offset
        offset += size
    return result


def _inside(block: Sequence[Factor], indices: Sequence[Int[Tensor, " entries"]]) -> dict[str, Tensor]:
    """The index of each group of a block, those of inner sums too; where a group is not, zero stands for it."""
    found: dict[str, Tensor] = {}
    for factor, index in zip(block, indices, strict=True):
        if factor.group is not None:
            found[factor.group] = index
        elif factor.label is not None:
            for group in set(factor.label.groups()):
                found[group] = _coordinate(factor.label, index, group).clamp(min=0)
    return found


def positions_by_group(
    label: AxisLabel, groups: Sequence[str], without: Sequence[str] = ()
) -> Int[Tensor, "*sizes rest"]:
    """The positions of an axis by their index in some of its groups; what else they differ in comes last.

    Positions that lack one of the groups, or carry one of `without`, are left out.
    """
    return _positions(label, tuple(groups), tuple(without))


@lru_cache(maxsize=4096)
def _positions(label: AxisLabel, groups: tuple[str, ...], without: tuple[str, ...]) -> Int[Tensor, "*sizes rest"]:
    position = torch.arange(label.size)
    found = [_coordinate(label, position, group) for group in groups]
    inside = torch.ones_like(position, dtype=torch.bool)
    for coordinate in found:
        inside &= coordinate >= 0
    for group in without:
        inside &= _coordinate(label, position, group) < 0
    position, found = position[inside], [c[inside] for c in found]
    sizes = [int(c.max()) + 1 if c.numel() else 0 for c in found]
    flat = torch.zeros_like(position)
    for size, coordinate in zip(sizes, found, strict=True):
        flat = flat * size + coordinate
    return position[flat.argsort(stable=True)].view(*sizes, -1)


def _coordinate(label: AxisLabel, position: Int[Tensor, " entries"], group: str) -> Int[Tensor, " entries"]:
    """The index of each position in a group, or -1."""
    result = torch.full_like(position, -1)
    offset = 0
    for block in label.blocks:
        size = prod(factor.size for factor in block)
        here = (position >= offset) & (position < offset + size)
        inside, stride = position[here] - offset, size
        for factor in block:
            stride //= factor.size
            index = inside // stride % factor.size
            if factor.group == group:
                result[here] = index
            elif factor.label is not None and group in factor.label.groups():
                result[here] = _coordinate(factor.label, index, group)
        offset += size
    return result


def multiply_along(
    value: Tensor,
    axis: int,
    index: Int[Tensor, "*outer n copies"],
    matrix: Float[Tensor, "*outer n n"] | Float[Tensor, "*outer n"],
) -> Tensor:
    """A tensor with `new[i] = sum_j P[i, j] old[j]`, entry i being what is at positions `index[..., i, :]` of an axis.

    Of a diagonal matrix the diagonal is enough. Linear in the matrix and in the tensor, so that gradients reach both.
    """
    front = value.movedim(axis, 0)
    rows = front[index]
    flat = rows.flatten(index.dim() - 1)
    moved = matrix @ flat if matrix.dim() == index.dim() else matrix.unsqueeze(-1) * flat
    return front.index_put((index,), moved.view(rows.shape)).movedim(0, axis)


def stretch_of(label: AxisLabel, position: Int[Tensor, " entries"]) -> Int[Tensor, " entries"]:
    """Which of the label's stretches each position lies in, as a number."""
    result = torch.zeros_like(position)
    offset = first = 0
    for block in label.blocks:
        size = prod(factor.size for factor in block)
        here = (position >= offset) & (position < offset + size)
        inside, stride, number, count = position[here] - offset, size, torch.zeros_like(position[here]), 1
        for factor in block:
            stride //= factor.size
            if factor.label is not None:
                own = len(factor.label.stretches())
                number = number * own + stretch_of(factor.label, inside // stride % factor.size)
                count *= own
        result[here] = first + number
        offset, first = offset + size, first + count
    return result


def indices_of(label: AxisLabel, position: Int[Tensor, " entries"]) -> dict[str, Int[Tensor, " entries"]]:
    """The index of every group of an axis of a single block, at the given positions."""
    found: dict[str, Tensor] = {}
    if len(label.blocks) != 1:
        return found
    stride = label.size
    for factor in label.blocks[0]:
        stride //= factor.size
        found |= _inside((factor,), [position // stride % factor.size])
    return found
