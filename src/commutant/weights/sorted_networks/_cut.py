"""Cuts of a module to a sub-network: sliced tensors, sizes in attributes, and fewer blocks."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..._errors import InputError
from ...parameters import PermutationSpec, prefix, prefix_positions
from .._resizing import declare


@dataclass(frozen=True)
class Size:
    """Whole number, or tuple with one, in an attribute of a module that follows the width of a group.

    Attributes:
        module: Name of the module.
        attribute: Name of the attribute.
        group: Group that it is a multiple of.
    """

    module: str
    attribute: str
    group: str


class Skipped(nn.Module):
    """Block that was cut away: it returns its first argument."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the first argument.

        Args:
            args: What the block would have read.
            kwargs: What it would have read by name.
        """
        return first_of(args, kwargs)


def first_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Return the first argument of a call.

    Args:
        args: Positional arguments.
        kwargs: Keyword arguments.
    """
    return args[0] if args else next(iter(kwargs.values()))


@dataclass(eq=False)
class _Slice:
    """Tensor that is cut: the module that holds it, and its name there and in the state dict."""

    part: nn.Module
    name: str
    key: str

    @property
    def held(self) -> dict[str, Any]:
        return self.part._parameters if self.name in self.part._parameters else self.part._buffers


class Cut:
    """Sub-network that keeps the first entries of some groups, and all blocks but some.

    The module's own code runs: its tensors are replaced by slices for the time of a call, so that gradients reach the
    parameters of full size, and so are attributes that hold sizes.

    Args:
        model: Module to cut.
        spec: Symmetries of the module.
        widths: Number of entries to keep, by group.
        gone: Names of the blocks to leave out.
        sizes: Attributes that follow widths.
    """

    def __init__(
        self,
        model: nn.Module,
        spec: PermutationSpec,
        widths: Mapping[str, int],
        gone: Sequence[str] = (),
        sizes: Sequence[Size] = (),
    ) -> None:
        self.model, self.spec = model, spec
        self.widths = {g: n for g, n in widths.items() if n < spec.sizes[g]}
        self.gone = tuple(gone)
        self._blocks = _without(model, gone)
        self._attributes: list[tuple[nn.Module, str, Any]] = []
        self._slices: list[_Slice] = []
        with self._shortened():
            for path, part in model.named_modules():
                for name in (*part._parameters, *part._buffers):
                    key = f"{path}.{name}" if path else name
                    if any(g in self.widths for label in spec.axes.get(key, ()) for g in label.groups()):
                        self._slices.append(_Slice(part, name, key))
        if self.widths:
            self._attributes = self._followed(sizes)

    @property
    def full(self) -> bool:
        """True if nothing is left out."""
        return not self.widths and not self.gone

    def _followed(self, sizes: Sequence[Size]) -> list[tuple[nn.Module, str, Any]]:
        """Return the attributes that hold sizes, with their values in the sub-network."""
        found = []
        with self.applied(lambda key, value: prefix(value.detach().to("meta"), self.spec.axes[key], self.widths)):
            twin = copied(self.model, lambda value: value.detach().to("meta"))
            parts = list(self.model.named_modules())
        for path, part in parts:
            other = twin.get_submodule(path)
            for size in (s for s in sizes if s.module == path and s.group in self.widths):
                full, old = self.spec.sizes[size.group], getattr(part, size.attribute)
                setattr(other, size.attribute, scaled(old, full, self.widths[size.group]))
            declare(other)
            for name, value in vars(part).items():
                new = vars(other).get(name)
                if _is_size(value) and type(new) is type(value) and new != value:
                    found.append((part, name, new))
        return found

    @contextlib.contextmanager
    def _shortened(self) -> Iterator[None]:
        saved = [(part, part.__dict__["_modules"]) for part, _ in self._blocks]
        try:
            for part, left in self._blocks:
                part.__dict__["_modules"] = left
            yield
        finally:
            for part, modules in saved:
                part.__dict__["_modules"] = modules

    @contextlib.contextmanager
    def applied(
        self, slice_of: Callable[[str, Tensor], Tensor] | None = None, instead: Mapping[str, Tensor] | None = None
    ) -> Iterator[None]:
        """Turn the module, which must be whole, into the sub-network, and back on exit.

        Args:
            slice_of: Function from the name and the full tensor of an entry to its slice; by default the prefix.
            instead: Buffers to use in place of slices, by name, in modules that are in evaluation mode.
        """
        instead = instead or {}
        saved: list[tuple[_Slice, Tensor]] = []
        made: dict[int, Tensor] = {}  # tied tensors stay tied
        sizes = [(part, name, vars(part)[name]) for part, name, _ in self._attributes]
        with self._shortened():
            known = {place.key for place in self._slices}
            places = [(k, *k.rpartition(".")) for k in instead if k not in known]
            more = [_Slice(self.model.get_submodule(path), name, key) for key, path, _, name in places]
            try:
                for part, name, value in self._attributes:
                    vars(part)[name] = value
                for place in (*self._slices, *more):
                    full = place.held[place.name]
                    if full is None:
                        continue
                    saved.append((place, full))
                    if place.key in instead and not place.part.training:
                        place.held[place.name] = instead[place.key]
                    elif place.key in known:
                        if id(full) not in made:
                            made[id(full)] = (slice_of or self.sliced)(place.key, full)
                        place.held[place.name] = made[id(full)]
                yield
            finally:
                for place, full in reversed(saved):
                    own = place.held[place.name]
                    if own is not full and place.part.training and place.name in place.part._buffers and not slice_of:
                        self._written_back(place.key, full, own)
                    place.held[place.name] = full
                for part, name, size in sizes:
                    vars(part)[name] = size

    def sliced(self, key: str, value: Tensor) -> Tensor:
        """Return the part of an entry of the state dict that the sub-network holds.

        Args:
            key: Name of the entry.
            value: Tensor of full size.
        """
        return prefix(value, self.spec.axes[key], self.widths) if key in self.spec.axes else value

    def _written_back(self, key: str, full: Tensor, own: Tensor) -> None:
        """Write a buffer that training has updated, such as a running mean, into the one of full size."""
        if own.untyped_storage().data_ptr() != full.untyped_storage().data_ptr():
            kept = [prefix_positions(label, self.widths) for label in self.spec.axes[key]]
            shape = [[-1 if i == j else 1 for j in range(len(kept))] for i in range(len(kept))]
            full[tuple(k.view(s).to(full.device) for k, s in zip(kept, shape, strict=True))] = own.detach()

    def extracted(self, of: Callable[[Tensor], Tensor], instead: Mapping[str, Tensor] | None = None) -> Any:
        """Return the sub-network as a module of its own.

        Args:
            of: Function from each slice to the tensor that the module shall hold.
            instead: Buffers to use in place of slices, by name.
        """
        with self.applied(instead=instead):
            small = copied(self.model, lambda value: of(value.detach()))
        frozen = {k: p.requires_grad for k, p in self.model.named_parameters(remove_duplicate=False)}
        for key, value in small.named_parameters(remove_duplicate=False):
            value.requires_grad_(frozen[key])
        for part in small.modules():
            declare(part)
        return small


class Applied:
    """Cut that is applied to its module, until its context is left.

    Args:
        cut: Cut.
        instead: Buffers to use in place of slices, by name.
    """

    def __init__(self, cut: Cut, instead: dict[str, Tensor] | None) -> None:
        self.cut, self.instead = cut, instead
        self.context = cut.applied(instead=instead)
        self.context.__enter__()


def _is_size(value: Any) -> bool:
    return type(value) is int or (type(value) is tuple and all(type(part) is int for part in value))


def scaled(value: Any, full: int, width: int) -> Any:
    """Return a size in an attribute for another width; None for what is no multiple of the full one.

    Args:
        value: Whole number, or tuple of which the first multiple is scaled.
        full: Full width.
        width: Other width.
    """
    if type(value) is int:
        return value // full * width if value > 1 and value % full == 0 else None
    if not _is_size(value):
        return None
    place = next((i for i, part in enumerate(value) if part > 1 and part % full == 0), None)
    return None if place is None else (*value[:place], value[place] // full * width, *value[place + 1 :])


def copied(model: nn.Module, of: Callable[[Tensor], Tensor] = Tensor.clone) -> Any:
    """Return a copy of a module with other tensors; tied ones stay tied.

    Args:
        model: Module to copy.
        of: Function from each parameter and buffer, detached, to the one of the copy.

    Raises:
        InputError: The module holds something that can't be copied.
    """
    memo: dict[int, Any] = {}
    for part in model.modules():
        for parameter in part._parameters.values():
            if parameter is not None and id(parameter) not in memo:
                memo[id(parameter)] = nn.Parameter(of(parameter.detach()), parameter.requires_grad)
        for buffer in part._buffers.values():
            if buffer is not None and id(buffer) not in memo:
                memo[id(buffer)] = of(buffer.detach())
    try:
        return copy.deepcopy(model, memo)
    except Exception as error:
        line = str(error).splitlines()[0][:120] if str(error) else ""
        raise InputError(
            f"{type(model).__name__} can't be copied: {type(error).__name__}: {line}; remove what its forward passes "
            "store, such as activations"
        ) from error


def _without(model: nn.Module, gone: Sequence[str]) -> list[tuple[nn.Module, dict[str, nn.Module | None]]]:
    """Return each module that holds blocks to leave out, with the submodules that it shall hold instead.

    Blocks at the end of a list and all blocks of a sequence are removed; elsewhere, another module takes their place.
    """
    found: dict[str, set[str]] = {}
    for path in gone:
        parent, _, name = path.rpartition(".")
        found.setdefault(parent, set()).add(name)
    result = []
    for parent, names in found.items():
        holder = model.get_submodule(parent)
        held = holder._modules
        last = set(list(held)[len(held) - len(names) :])
        removed = isinstance(holder, nn.Sequential) or (isinstance(holder, nn.ModuleList) and names == last)
        left = {n: (Skipped() if n in names else m) for n, m in held.items() if not (removed and n in names)}
        result.append((holder, left))
    return result
