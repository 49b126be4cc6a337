"""Dimensions along which a network is cut: groups of channels or heads, and lists of blocks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from ..._errors import InputError
from ...parameters import PermutationSpec
from ._menu import Value, kept


@dataclass(frozen=True)
class Dimension:
    """Groups or blocks that one number of a budget sizes.

    Attributes:
        name: Name in the menu.
        sizes: Full size of each group, or number of blocks of each module that holds some.
        blocks: Names of the blocks of each module that holds some, in order; empty for groups.
        auto: Whether groups that can't be cut are left out without an error.
    """

    name: str
    sizes: dict[str, int]
    blocks: dict[str, tuple[str, ...]]
    auto: bool = False

    def kept(self, value: Value) -> dict[str, int]:
        """Return how many entries of each group, or blocks of each list, a size keeps.

        Args:
            value: Count or share.

        Raises:
            InputError: A count is above the size of a group, or groups of several sizes are given a count.
        """
        if isinstance(value, int):
            what = "blocks" if self.blocks else "entries"
            for where, size in self.sizes.items():
                if value > size:
                    raise InputError(f"{self.name!r} can't keep {value} {what}: {where!r} has {size}")
            if not self.blocks and len(set(self.sizes.values())) > 1:
                raise InputError(
                    f"the groups of {self.name!r} have {sorted(set(self.sizes.values()))} entries: give shares, such "
                    f"as 0.5, instead of the count {value}"
                )
        return {where: kept(value, size) for where, size in self.sizes.items()}


def dimensions(
    model: nn.Module, spec: PermutationSpec, dims: Mapping[str, str | Sequence[str]]
) -> dict[str, Dimension]:
    """Return the dimensions that a user named.

    Args:
        model: Network.
        spec: Its symmetries.
        dims: As for `SortedModule`.

    Raises:
        InputError: A name fits nothing, or a group is in two dimensions.
    """
    if not isinstance(dims, Mapping) or not dims:
        raise InputError(f'dims must name dimensions, such as {{"width": "auto"}}, got {dims!r:.60}')
    found: dict[str, Dimension] = {}
    later = []
    for name, what in dims.items():
        if not isinstance(name, str) or not name.isidentifier():
            raise InputError(f"the name of a dimension must be an identifier such as 'width', got {name!r}")
        if name.startswith("depth"):
            blocks = _blocks(model, name, what)
            found[name] = Dimension(name, {path: len(own) for path, own in blocks.items()}, blocks)
        elif what == "auto":
            later.append(name)
        else:
            found[name] = Dimension(name, {g: spec.sizes[g] for g in _groups(spec, name, what)}, {})
    outer = [g for g in spec.sizes if not spec.parents[g] and spec.sizes[g] > 1]
    heads = {g for g in outer if any(g in own for own in spec.parents.values())}
    for name in sorted(later, key=lambda name: name != "heads"):
        taken = {g for own in found.values() for g in own.sizes}
        groups = [g for g in outer if g not in taken and (name != "heads" or g in heads)]
        found[name] = Dimension(name, {g: spec.sizes[g] for g in groups}, {}, auto=True)
    for group in spec.sizes:
        if len(own := [d.name for d in found.values() if group in d.sizes and not d.blocks]) > 1:
            raise InputError(f"group {group!r} is in two dimensions, {own[0]!r} and {own[1]!r}")
    taken_blocks: dict[str, str] = {}
    for dimension in found.values():
        for path in (b for own in dimension.blocks.values() for b in own):
            if (other := taken_blocks.setdefault(path, dimension.name)) != dimension.name:
                raise InputError(f"block {path!r} is in two dimensions, {other!r} and {dimension.name!r}")
    return {name: found[name] for name in dims}


def _groups(spec: PermutationSpec, name: str, what: Any) -> list[str]:
    """Return the groups that patterns name."""
    found: dict[str, None] = {}
    for pattern in _patterns(name, what):
        own = [g for g in spec.sizes if g == pattern] or [g for g in spec.sizes if fnmatchcase(g, pattern)]
        if not own:
            raise InputError(
                f"{pattern!r} of {name!r} is no group of the network; its groups are {', '.join(spec.sizes) or 'none'}"
            )
        found |= dict.fromkeys(own)
    return list(found)


def _blocks(model: nn.Module, name: str, what: Any) -> dict[str, tuple[str, ...]]:
    """Return the blocks that patterns name, by the module that holds them."""
    found: dict[str, list[str]] = {}
    paths = [path for path, _ in model.named_modules() if path]
    for pattern in _patterns(name, what):
        parts = pattern.split(".")
        own = [p for p in paths if len(q := p.split(".")) == len(parts) and all(map(fnmatchcase, q, parts))]
        if not own:
            near = [p for p in paths if re.fullmatch(r".*\.\d+", p)] or paths
            raise InputError(f"{pattern!r} of {name!r} is no module of the network; some are {', '.join(near[:6])}")
        for path in own:
            holder = found.setdefault(path.rpartition(".")[0], [])
            if path not in holder:
                holder.append(path)
    order = {path: i for i, path in enumerate(paths)}
    return {holder: tuple(sorted(own, key=order.__getitem__)) for holder, own in found.items()}


def _patterns(name: str, what: Any) -> list[str]:
    found = [what] if isinstance(what, str) else what
    if not isinstance(found, Sequence) or not found or not all(isinstance(p, str) for p in found):
        raise InputError(f"dimension {name!r} must be a name, a pattern or a list of them, got {what!r:.60}")
    return list(found)
