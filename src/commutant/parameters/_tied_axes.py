"""Groups of permutations and the axes on which they act: the data of a permutation spec."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import lgamma, log, prod
from typing import TypeVar

import torch
from jaxtyping import Int
from torch import Tensor

from .._errors import InputError
from ._checkpoint import Checkpoint
from ._derive import moving
from ._given import check_state, check_tensors
from ._labels import AxisLabel
from ._trace import Trace

Spec = TypeVar("Spec", bound="TiedAxes")


@dataclass(frozen=True)
class TiedAxes:
    """Base of `PermutationSpec`: its attributes, documented there, and methods that need nothing but them."""

    axes: dict[str, tuple[AxisLabel, ...]]
    sizes: dict[str, int]
    parents: dict[str, tuple[str, ...]]
    frozen: dict[tuple[str, int], str]
    unknown_ops: dict[str, str]
    error: float | None = None
    how: str = "by hand"
    buffers: frozenset[str] = frozenset()
    ties: dict[str, str] = field(default_factory=dict)
    reads: dict[str, tuple[AxisLabel, ...]] = field(default_factory=dict, repr=False)
    summed: frozenset[tuple[str, int]] = frozenset()
    idle: dict[str, tuple[str, ...]] = field(default_factory=dict)
    equal_parts: tuple[tuple[AxisLabel, ...], ...] = ()
    graph: Trace | None = field(default=None, repr=False, compare=False)
    other_graphs: tuple[Trace, ...] = field(default=(), repr=False, compare=False)

    @property
    def graphs(self) -> tuple[Trace, ...]:
        """Traces of all examples."""
        return () if self.graph is None else (self.graph, *self.other_graphs)

    @property
    def log_order(self) -> float:
        """Decimal logarithm of the number of permutations."""
        total = sum(prod(self.shape(group)[:-1]) * lgamma(size + 1) for group, size in self.sizes.items())
        return total / log(10)

    def without(self: Spec, groups: Sequence[str], why: str = "frozen by hand") -> Spec:
        """Return the spec with some groups frozen.

        Args:
            groups: Names of the groups to freeze.
            why: Reason to record in `frozen` for each axis that no longer carries a group.

        Raises:
            InputError: The spec lacks one of the groups.
        """
        gone = {groups} if isinstance(groups, str) else set(groups)
        if unknown := gone - self.sizes.keys():
            raise InputError(
                f"the spec has no group {min(unknown)!r}; its groups are {', '.join(self.sizes) or 'none'}"
            )
        axes, reads = (
            {key: tuple(label.without(gone) for label in labels) for key, labels in found.items()}
            for found in (self.axes, self.reads)
        )
        parts = (tuple(label.without(gone) for label in labels) for labels in self.equal_parts)
        frozen = self.frozen | {
            (key, i): why
            for key, labels in self.axes.items()
            for i, label in enumerate(labels)
            if any(label.groups()) and not any(axes[key][i].groups())
        }
        sizes = {g: n for g, n in self.sizes.items() if g not in gone}
        parents = {g: tuple(p for p in self.parents[g] if p not in gone) for g in sizes}
        idle = {key: own for key, groups in self.idle.items() if (own := tuple(g for g in groups if g not in gone))}
        return replace(self, axes=axes, sizes=sizes, parents=parents, frozen=frozen, error=None, reads=reads, idle=idle,
                       equal_parts=moving(parts))  # fmt: skip

    def outermost_first(self) -> list[str]:
        """Return the names of the groups, each after the groups that it depends on."""
        return sorted(self.sizes, key=lambda g: len(self.parents[g]))

    def shape(self, group: str) -> tuple[int, ...]:
        """Return the shape of the table of a group: the sizes of its parents, then its own size.

        Args:
            group: Name of the group.
        """
        return (*(self.sizes[p] for p in self.parents[group]), self.sizes[group])

    def identity_tables(self) -> dict[str, Int[Tensor, "..."]]:
        """Return the table of the identity for every group."""
        return {g: torch.arange(n).expand(self.shape(g)).clone() for g, n in self.sizes.items()}

    def uses(self, group: str) -> list[tuple[str, int]]:
        """Return the axes `(entry of the state dict, number)` that carry a group.

        Args:
            group: Name of the group.
        """
        return [(k, i) for k, labels in self.axes.items() for i, label in enumerate(labels) if group in label.groups()]

    def name_in(self, state: Collection[str], key: str) -> str:
        """Return the name under which a checkpoint holds an entry: its own, or that of an entry tied to it.

        Args:
            state: Names in the checkpoint.
            key: Name of the entry in the spec.
        """
        if key in state:
            return key
        first = self.ties.get(key, key)
        return next((k for k in (first, *(k for k, v in self.ties.items() if v == first)) if k in state), key)

    def check(self, state: Mapping[str, Tensor]) -> None:
        """Check that parameters have the names and shapes of this network.

        Args:
            state: State dict or checkpoint of the network.

        Raises:
            InputError: A key or shape differs; the message names the first one.
        """
        check_state(state)
        missing = sorted(k for k in self.axes if self.name_in(state, k) not in state)
        if missing:
            raise InputError(f"the parameters lack {missing[0]!r} ({len(missing)} missing), which the spec has")
        if extra := sorted(set(state) - set(self.axes)):
            raise InputError(f"the parameters have {extra[0]!r} ({len(extra)} more), which the spec lacks")
        if not isinstance(state, Checkpoint):
            check_tensors(state)
        shapes = state.shapes if isinstance(state, Checkpoint) else {k: tuple(v.shape) for k, v in state.items()}
        for key, shape in shapes.items():
            wanted = tuple(label.size for label in self.axes[key])
            if shape != wanted:
                raise InputError(f"{key!r} must have shape {wanted}, got {shape}")
