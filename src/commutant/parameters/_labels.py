"""What a permutation of groups does to one axis of one tensor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

import torch
from jaxtyping import Int
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
        around |= {f.group: i for f, i in zip(block, indices, strict=True) if f.group is not None}
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


def indices_of(label: AxisLabel, position: Int[Tensor, " entries"]) -> dict[str, Int[Tensor, " entries"]]:
    """The index of every group of an axis of a single block, at the given positions."""
    found: dict[str, Tensor] = {}
    if len(label.blocks) != 1:
        return found
    stride = label.size
    for factor in label.blocks[0]:
        stride //= factor.size
        if factor.group is not None:
            found[factor.group] = position // stride % factor.size
    return found
