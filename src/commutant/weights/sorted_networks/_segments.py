"""Symmetries that keep every sub-network: permutations inside the segments between consecutive widths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from math import prod

from ...parameters import AxisLabel, Factor, PermutationSpec
from ._module import SortedModule, check_nested


def segment_spec(nested: SortedModule) -> PermutationSpec:
    """Return the permutation symmetries that all sub-networks of a sorted network have in common.

    A group of n channels with widths w1 < w2 < ... becomes the groups `name[0:w1]`, `name[w1:w2]`, and so on. Use it in
    place of `nested.spec` to align or to merge two sorted networks, so that they agree at every width: a permutation
    across segments keeps the full network and changes the others.

    Args:
        nested: Sorted network.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from commutant.weights import Menu
        >>> model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 3))
        >>> nested = SortedModule(model, torch.randn(5, 8), {"width": "auto"}, Menu.product(width=[16, 32, 64]))
        >>> segment_spec(nested).sizes
        {'0[0:16]': 16, '0[16:32]': 16, '0[32:64]': 32}
    """
    check_nested(nested)
    spec = nested.spec
    found = [nested.left_by(budget)[0] for budget in nested.menu]
    bounds = {g: sorted({0, spec.sizes[g], *(own[g] for own in found if g in own)}) for g in spec.sizes}
    cut = {g: [(f"{g}[{a}:{b}]", b - a) for a, b in pairwise(own)] for g, own in bounds.items() if len(own) > 2}
    lost = {
        g
        for g, parents in spec.parents.items()
        for labels in spec.axes.values()
        for label in labels
        for block in label.stretches()
        if g in block.groups() and not {p for p in parents if p in cut} <= set(block.groups())
    }
    inside = {g: tuple(p for p in own if p in cut) for g, own in spec.parents.items()}

    def split(label: AxisLabel, names: Mapping[str, str]) -> AxisLabel:
        return AxisLabel(tuple(split_block(block, names) for block in label.blocks))

    def split_block(block: Sequence[Factor], names: Mapping[str, str]) -> tuple[Factor, ...]:
        done: list[Factor] = []
        for i, factor in enumerate(block):
            group = factor.group
            if group in cut and group not in lost:
                assert group is not None
                parts = []
                for name, size in cut[group]:
                    own = {**names, group: names.get(group, group) + name[len(group) :]}
                    own |= {g: g + own[group][len(group) :] for g, parents in inside.items() if group in parents}
                    parts.append((Factor(size, own[group]), *split_block(block[i + 1 :], own)))
                return (*done, Factor(prod(f.size for f in block[i:]), None, AxisLabel(tuple(parts))))
            kept = None if group is None or group in lost else names.get(group, group)
            done.append(Factor(factor.size, kept, split(factor.label, names) if factor.label else None))
        return tuple(done)

    axes, reads = (
        {key: tuple(split(label, {}) for label in labels) for key, labels in own.items()}
        for own in (spec.axes, spec.reads)
    )
    sizes: dict[str, int] = {}
    parents: dict[str, tuple[str, ...]] = {}
    for labels in axes.values():
        for label in labels:
            for block in label.stretches():
                around: list[tuple[str, int]] = []
                for factor in block.blocks[0]:
                    if factor.group is not None:
                        sizes.setdefault(factor.group, factor.size)
                        origin = _origin(factor.group, spec)
                        wanted = [name for name, _ in around if _origin(name, spec) in spec.parents[origin]]
                        parents.setdefault(factor.group, tuple(wanted))
                        around.append((factor.group, factor.size))
    return replace(spec, axes=axes, sizes=sizes, parents=parents, reads=reads, error=None, idle={}, equal_parts=())


def _origin(name: str, spec: PermutationSpec) -> str:
    """Return the group that a segment is part of."""
    return next(g for g in sorted(spec.sizes, key=len, reverse=True) if name == g or name.startswith(g + "["))
