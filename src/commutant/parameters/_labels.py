"""Labels of the axes of tensors: how permutations of groups act along one axis."""

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
    """Factor of a product of axes: permuted by a group, fixed, or itself a direct sum.

    Attributes:
        size: Number of entries.
        group: Name of the group that permutes the entries, if any.
        label: Label of the entries where they are a direct sum themselves.
    """

    size: int
    group: str | None = None
    label: AxisLabel | None = None


@dataclass(frozen=True)
class AxisLabel:
    """Label of an axis: a direct sum of blocks, each a row-major product of factors, the first outermost.

    Attributes:
        blocks: Factors of each block.
    """

    blocks: tuple[tuple[Factor, ...], ...]

    @property
    def size(self) -> int:
        """Number of entries along the axis."""
        return sum(prod(factor.size for factor in block) for block in self.blocks)

    def groups(self) -> Iterator[str]:
        """Yield the groups that act on the axis, each as often as it occurs."""
        for block in self.blocks:
            for factor in block:
                if factor.group is not None:
                    yield factor.group
                elif factor.label is not None:
                    yield from factor.label.groups()

    def stretches(self) -> list[AxisLabel]:
        """Return the blocks as separate labels, with inner sums expanded."""
        found = []
        for block in self.blocks:
            inner = [f.label.stretches() if f.label else [AxisLabel(((f,),))] for f in block]
            found += [AxisLabel((tuple(f for part in chosen for f in part.blocks[0]),)) for chosen in product(*inner)]
        return found

    def without(self, groups: Collection[str]) -> AxisLabel:
        """Return the label with some groups removed.

        Args:
            groups: Names of the groups to remove.
        """
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
    """Return the old positions of the entries at some new positions of an axis.

    Args:
        label: Label of the axis.
        position: New positions along the axis.
        tables: Permutation of each group, of shape `(*sizes of its parents, size)`.
        parents: Groups on whose new index each group's permutation depends.
        outer: Index of every group at each of the positions, in the axes and blocks around this one.
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
    """Return the index of each group of a block, inner sums included; zero at positions that lack the group."""
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
    """Return the positions of an axis by their index in some of its groups.

    Positions with the same indices are listed along the last axis of the result. Positions that lack one of the groups,
    or carry one of `without`, are left out.

    Args:
        label: Label of the axis.
        groups: Names of the groups, one for each leading axis of the result.
        without: Names of groups whose positions are left out.
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
    """Return the index of each position in a group, or -1 where the position lacks it."""
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
    """Return a tensor multiplied by a matrix along an axis: `new[i] = sum_j P[i, j] old[j]`.

    Entry i is at the positions `index[..., i, :]` of the axis. The result is linear in the matrix and in the tensor, so
    that gradients reach both.

    Args:
        value: Tensor to multiply.
        axis: Axis along which the matrix acts.
        index: Positions of each entry along the axis, as from `positions_by_group`.
        matrix: Matrix P, or the diagonal of one, for each outer index.
    """
    front = value.movedim(axis, 0)
    rows = front[index]
    flat = rows.flatten(index.dim() - 1)
    moved = matrix @ flat if matrix.dim() == index.dim() else matrix.unsqueeze(-1) * flat
    return front.index_put((index,), moved.view(rows.shape)).movedim(0, axis)


def stretch_of(label: AxisLabel, position: Int[Tensor, " entries"]) -> Int[Tensor, " entries"]:
    """Return the number of the stretch that each position lies in, as `AxisLabel.stretches` counts them."""
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
    """Return the index of every group at the given positions; nothing for an axis of several blocks."""
    found: dict[str, Tensor] = {}
    if len(label.blocks) != 1:
        return found
    stride = label.size
    for factor in label.blocks[0]:
        stride //= factor.size
        found |= _inside((factor,), [position // stride % factor.size])
    return found
