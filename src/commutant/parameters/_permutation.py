"""An element of a network's permutation group, and its action on parameters."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, overload

import torch
from jaxtyping import Int
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .._errors import InputError
from ._given import check_state, check_tensors, kind_of
from ._labels import AxisLabel, indices_of, old_positions
from ._storage import storage_of

if TYPE_CHECKING:
    from ._spec import PermutationSpec

State = Mapping[str, Tensor]
M = TypeVar("M", bound=nn.Module)


class Permutation:
    """A permutation of every group of a `PermutationSpec`: `table[i]` is the old place of the new entry i.

    The table of a group whose permutation depends on the index in outer groups (channels within heads) has the sizes of
    those groups as leading axes.

    Args:
        spec: whose groups are permuted.
        tables: an integer tensor of shape `(*sizes of the parents, size)` for each group; groups left out stay.

    Raises:
        InputError: a table of an unknown group, of a wrong shape, or one that is no permutation.
    """

    def __init__(self, spec: PermutationSpec, tables: Mapping[str, Int[Tensor, "..."]] | None = None) -> None:
        if not hasattr(spec, "identity_tables"):
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
                raise InputError(f"the table of group {name!r} is no permutation of 0 to {wanted.shape[-1] - 1}")
            self.tables[name] = table.long().cpu()

    @overload
    def apply(self, parameters: M) -> M: ...
    @overload
    def apply(self, parameters: State) -> dict[str, Tensor]: ...
    def apply(self, parameters: M | State) -> M | dict[str, Tensor]:
        """A permuted copy of a module, or of a state dict in its own format.

        Raises:
            InputError: keys or shapes that are not those of the spec.
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
        """One tensor of the state dict, permuted."""
        return self.apply_to_labels(self.spec.axes[key], value)

    def apply_to_labels(self, labels: tuple[AxisLabel, ...], value: Tensor) -> Tensor:
        """A tensor whose axes have the given labels, permuted."""
        return self._moved(labels, value, {})

    def _moved(self, labels: tuple[AxisLabel, ...], value: Tensor, order: dict[AxisLabel, Tensor | None]) -> Tensor:
        """A permuted copy; `order` holds the order of the axes met so far, None for one that stays as it is."""
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
        """Where a permutation along one axis depends on the index along another."""
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
    def random(cls, spec: PermutationSpec, generator: torch.Generator | None = None) -> Permutation:
        """Every table drawn uniformly."""
        if isinstance(spec, type) or not hasattr(spec, "sizes"):
            raise InputError(
                f"spec must be a PermutationSpec, got {type(spec).__name__}; "
                "PermutationSpec.from_module(model, example) makes one"
            )
        if generator is not None and not isinstance(generator, torch.Generator):
            raise InputError(f"generator must be a torch.Generator, got {generator!r}")
        tables = {g: torch.rand(spec.shape(g), generator=generator).argsort(-1) for g in spec.sizes}
        return cls(spec, tables)

    def compose(self, then: Permutation) -> Permutation:
        """First this one, then another: `a.compose(b).apply(x) == b.apply(a.apply(x))`."""
        self._same_spec(then)
        tables = {}
        for name, table in then.tables.items():
            # the new place under `then`, in coordinates of this one's result
            outer = {p: _spread(then, p, name) for p in self.spec.parents[name]}
            tables[name] = self.tables[name][(*outer.values(), table)]
        return Permutation(self.spec, tables)

    def inverse(self) -> Permutation:
        """The permutation that undoes this one."""
        tables = {name: table.argsort(-1) for name, table in self.tables.items()}
        result: dict[str, Tensor] = {}
        for name in self.spec.outermost_first():
            back = Permutation(self.spec, result)
            outer = [_spread(back, p, name)[..., 0] for p in self.spec.parents[name]]
            result[name] = tables[name][tuple(outer)] if outer else tables[name]
        return Permutation(self.spec, result)

    def _same_spec(self, other: Permutation) -> None:
        if not isinstance(other, Permutation):
            raise InputError(f"a permutation is composed with a Permutation, got {kind_of(other)}")
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
        """Write the tables as a safetensors file, a tensor for each group."""
        save_file({name: table.contiguous() for name, table in self.tables.items()}, str(path))

    @classmethod
    def load(cls, spec: PermutationSpec, path: str | Path) -> Permutation:
        """Read what `save` wrote."""
        try:
            return cls(spec, load_file(str(path)))
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path} can't be read as a permutation: {error}") from None


def crossing(labels: tuple[AxisLabel, ...], parents: Mapping[str, tuple[str, ...]]) -> bool:
    """Whether a group on one axis depends on a group that stands on another axis."""
    for label in labels:
        own = set(label.groups())
        if any(p not in own and any(p in set(x.groups()) for x in labels) for g in own for p in parents[g]):
            return True
    return False


def _spread(permutation: Permutation, parent: str, child: str) -> Tensor:
    """The old index of a parent at every new place of a child's table."""
    spec = permutation.spec
    names = (*spec.parents[child], child)
    shape = [spec.sizes[n] for n in names]
    grid = {n: torch.arange(s).view([-1 if i == k else 1 for k in range(len(shape))]).expand(shape)
            for i, (n, s) in enumerate(zip(names, shape, strict=True))}  # fmt: skip
    table = permutation.tables[parent]
    return table[(*(grid[p] for p in spec.parents[parent]), grid[parent])]
