"""Elements of the permutation group of a network, and their action on parameters."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import TypeVar, overload

import torch
from jaxtyping import Int
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .._checks import check_generator
from .._errors import InputError
from ._given import check_state, check_tensors, kind_of
from ._labels import AxisLabel, indices_of, old_positions
from ._storage import storage_of
from ._tied_axes import TiedAxes

State = Mapping[str, Tensor]
M = TypeVar("M", bound=nn.Module)


class Permutation:
    """Permutation of every group of a `PermutationSpec`: `table[i]` is the old position of new entry i.

    Where the permutation of a group depends on the index in outer groups (channels within heads), its table has the
    sizes of those groups as leading axes.

    Args:
        spec: Spec whose groups are permuted.
        tables: Integer tensor of shape `(*sizes of the parents, size)` for each group. Groups left out stay in place.

    Raises:
        InputError: A table belongs to no group, has the wrong shape, or is not a permutation.
    """

    def __init__(self, spec: TiedAxes, tables: Mapping[str, Int[Tensor, "..."]] | None = None) -> None:
        if not isinstance(spec, TiedAxes):
            raise InputError(f"spec must be a PermutationSpec, got {kind_of(spec)}")
        check_state(tables or {}, "tables")
        check_tensors(tables or {})
        self.spec = spec
        self.tables = dict(spec.identity_tables())
        for name, table in (tables or {}).items():
            if name not in self.tables:
                raise InputError(f"the spec has no group {name!r}; its groups are {', '.join(self.tables) or 'none'}")
            wanted = self.tables[name]
            whole = not (table.is_floating_point() or table.is_complex() or table.dtype is torch.bool)
            if table.shape != wanted.shape or not whole:
                raise InputError(
                    f"the table of group {name!r} must be integers of shape {tuple(wanted.shape)}, got "
                    f"{table.dtype} of shape {tuple(table.shape)}"
                )
            if not torch.equal(table.long().sort(-1).values.cpu(), wanted):
                raise InputError(f"the table of group {name!r} is not a permutation of 0 to {wanted.shape[-1] - 1}")
            self.tables[name] = table.long().cpu()

    @overload
    def apply(self, parameters: M) -> M: ...
    @overload
    def apply(self, parameters: State) -> dict[str, Tensor]: ...
    def apply(self, parameters: M | State) -> M | dict[str, Tensor]:
        """Return a permuted copy of a module or of a state dict.

        Args:
            parameters: Module or state dict with the names and shapes of the spec; not modified.

        Raises:
            InputError: Keys or shapes differ from the spec.
        """
        if isinstance(parameters, nn.Module):
            moved = copy.deepcopy(parameters)
            state = {k: v for k, v in parameters.state_dict().items() if isinstance(v, Tensor)}
            moved.load_state_dict(self.apply(state), strict=False)
            return moved
        self.spec.check(parameters)
        shared: dict[tuple[object, ...], Tensor] = {}
        result = {}
        order: dict[AxisLabel, Tensor | None] = {}
        for key, value in parameters.items():
            place = storage_of(value)
            if place not in shared:
                shared[place] = self._moved(self.spec.axes[key], value, order)
            result[key] = shared[place]
        return result

    def apply_to(self, key: str, value: Tensor) -> Tensor:
        """Return a permuted copy of one tensor of the state dict.

        Args:
            key: Name of the entry of the state dict.
            value: Tensor of the shape of that entry.
        """
        return self.apply_to_labels(self.spec.axes[key], value)

    def apply_to_labels(self, labels: tuple[AxisLabel, ...], value: Tensor) -> Tensor:
        """Return a permuted copy of a tensor whose axes have the given labels.

        Args:
            labels: Label of each axis.
            value: Tensor with these axes.
        """
        return self._moved(labels, value, {})

    def _moved(self, labels: tuple[AxisLabel, ...], value: Tensor, order: dict[AxisLabel, Tensor | None]) -> Tensor:
        """Return a permuted copy; `order` caches the order along each label, None where the axis stays in place."""
        if crossing(labels, self.spec.parents):
            return self._apply_jointly(labels, value)
        given = value
        for axis, label in enumerate(labels):
            if not any(label.groups()):
                continue
            if label not in order:
                places = torch.arange(label.size)
                old = old_positions(label, places, self.tables, self.spec.parents, {})
                order[label] = None if torch.equal(old, places) else old
            if (index := order[label]) is not None:
                value = value.index_select(axis, index.to(value.device))
        return value.clone() if value is given and any(any(label.groups()) for label in labels) else value

    def _apply_jointly(self, labels: tuple[AxisLabel, ...], value: Tensor) -> Tensor:
        """Return a permuted copy where the permutation along one axis depends on the index along another."""
        axes = [i for i, label in enumerate(labels) if any(label.groups())]
        front = list(range(len(axes)))
        moved = value.movedim(axes, front)
        sizes = moved.shape[: len(axes)]
        flat = torch.arange(prod(sizes))
        strides = [prod(sizes[i + 1 :]) for i in front]
        places = [flat // s % n for s, n in zip(strides, sizes, strict=True)]
        outer = {k: v for i, place in zip(axes, places, strict=True) for k, v in indices_of(labels[i], place).items()}
        old = torch.zeros_like(flat)
        for i, place, stride in zip(axes, places, strides, strict=True):
            old += stride * old_positions(labels[i], place, self.tables, self.spec.parents, outer)
        moved = moved.flatten(0, len(axes) - 1)[old.to(value.device)].unflatten(0, sizes)
        return moved.movedim(front, axes).contiguous()

    @classmethod
    def random(cls, spec: TiedAxes, generator: torch.Generator | None = None) -> Permutation:
        """Draw every table uniformly.

        Args:
            spec: Spec whose groups are permuted.
            generator: Random generator; the default generator of torch if None.
        """
        if not isinstance(spec, TiedAxes):
            raise InputError(
                f"spec must be a PermutationSpec, got {kind_of(spec)}; "
                "PermutationSpec.from_module(model, example) makes one"
            )
        check_generator(generator)
        tables = {g: torch.rand(spec.shape(g), generator=generator).argsort(-1) for g in spec.sizes}
        return cls(spec, tables)

    def compose(self, then: Permutation) -> Permutation:
        """Return this permutation followed by another: `a.compose(b).apply(x) == b.apply(a.apply(x))`.

        Args:
            then: Permutation to apply second.

        Raises:
            InputError: The permutations belong to different specs.
        """
        self._same_spec(then)
        tables = {}
        for name, table in then.tables.items():
            # parents may move too: look up the row of the parents' old positions
            outer = {p: _spread(then, p, name) for p in self.spec.parents[name]}
            tables[name] = self.tables[name][(*outer.values(), table)]
        return Permutation(self.spec, tables)

    def inverse(self) -> Permutation:
        """Return the inverse permutation."""
        tables = {name: table.argsort(-1) for name, table in self.tables.items()}
        result: dict[str, Tensor] = {}
        for name in self.spec.outermost_first():
            back = Permutation(self.spec, result)
            outer = [_spread(back, p, name)[..., 0] for p in self.spec.parents[name]]
            result[name] = tables[name][tuple(outer)] if outer else tables[name]
        return Permutation(self.spec, result)

    def _same_spec(self, other: Permutation) -> None:
        if not isinstance(other, Permutation):
            raise InputError(f"a permutation can only be composed with a Permutation, got {kind_of(other)}")
        if self.spec.sizes != other.spec.sizes or self.spec.parents != other.spec.parents:
            raise InputError("the two permutations belong to different specs")

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Permutation)
            and self.tables.keys() == other.tables.keys()
            and all(torch.equal(table, other.tables[name]) for name, table in self.tables.items())
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        identity = self.spec.identity_tables()
        moved = sum(int((t != identity[n]).any()) for n, t in self.tables.items())
        return f"Permutation({len(self.tables)} groups, {moved} of them moved)"

    def save(self, path: str | Path) -> None:
        """Write the tables to a safetensors file, one tensor for each group.

        Args:
            path: File to write.
        """
        save_file({name: table.contiguous() for name, table in self.tables.items()}, str(path))

    @classmethod
    def load(cls, spec: TiedAxes, path: str | Path) -> Permutation:
        """Read a permutation that `save` wrote.

        Args:
            spec: Spec whose groups are permuted.
            path: Safetensors file.

        Raises:
            InputError: The file can't be read, or its tables do not fit the spec.
        """
        try:
            return cls(spec, load_file(str(path)))
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path} can't be read as a permutation: {error}") from None


def crossing(labels: tuple[AxisLabel, ...], parents: Mapping[str, tuple[str, ...]]) -> bool:
    """Return whether a group on one axis depends on a group on another axis."""
    for label in labels:
        own = set(label.groups())
        if any(p not in own and any(p in set(x.groups()) for x in labels) for g in own for p in parents[g]):
            return True
    return False


def _spread(permutation: Permutation, parent: str, child: str) -> Tensor:
    """Return the old index of a parent at every position of a child's table."""
    spec = permutation.spec
    names = (*spec.parents[child], child)
    shape = [spec.sizes[n] for n in names]
    grid = {n: torch.arange(s).view([-1 if i == k else 1 for k in range(len(shape))]).expand(shape)
            for i, (n, s) in enumerate(zip(names, shape, strict=True))}  # fmt: skip
    table = permutation.tables[parent]
    return table[(*(grid[p] for p in spec.parents[parent]), grid[parent])]
