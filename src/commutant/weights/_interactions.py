"""Interactions between the coordinates of an interaction basis: strengths, and what is left without some."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .._checks import whole
from .._errors import InputError
from ._activation_moments import counted, slopes_of
from ._basis import Basis
from ._given import batches_of
from ._sections import OUTPUT, Trace, chunks, influences_other_rows, pulled_back


def edges_of(basis: Any, batches: Iterable[Any]) -> dict[str, Tensor]:
    """Return the strengths of all interactions, as `InteractionBasis.edges` does.

    Args:
        basis: Fitted bases.
        batches: Batches of data.
    """
    places, names = basis.places, (*basis.sections, OUTPUT)
    totals = {n: torch.zeros(0, dtype=torch.float64) for n in basis.sections}
    counts = dict.fromkeys(totals, 0)
    empty = True
    for batch in batches_of(batches):
        trace, empty = places.trace(batch), False
        for place, name in enumerate(basis.sections):
            before, after = basis.bases[name], basis.bases[names[place + 1]]
            slopes = slopes_of(trace, place) if name in basis.closed else None
            found = (
                _derived(basis, trace, place, before, after)
                if slopes is None
                else _elementwise(basis, trace, place, slopes, before, after)
            )
            totals[name] = found if not totals[name].numel() else totals[name] + found
            counts[name] += len(counted(places.rows(place, trace.reads[place]), trace.valid))
    if empty:
        raise InputError("no batch was given")
    return {name: total / counts[name] for name, total in totals.items()}


def _elementwise(basis: Any, trace: Trace, place: int, slopes: Tensor, before: Basis, after: Basis) -> Tensor:
    """Return the sum of squares for a linear layer and slopes of an elementwise activation."""
    rows = counted(basis.places.rows(place, trace.reads[place]), trace.valid).detach()
    weight = basis.places.modules[place].weight.detach().double().cpu()  # type: ignore[operator,union-attr]
    hidden, out = (weight @ before.inverse.mT).to(rows), after.directions.mT.to(rows)
    own = basis.transform(rows, basis.sections[place]).double().square()
    total = torch.zeros(len(out), hidden.shape[1], dtype=torch.float64)
    if bool((slopes == slopes[:1]).all()):  # all samples have the same derivatives
        one = ((out * slopes[0]) @ hidden).double().square()
        return (one * own.sum(0)).cpu()
    for part in chunks(len(rows), out.numel() + total.numel()):
        each = (out * slopes[part.start : part.stop, None]) @ hidden  # (rows, outputs, inputs)
        total += torch.einsum("xij,xj->ij", each.double().square(), own[part.start : part.stop]).cpu()
    return total


def _derived(basis: Any, trace: Trace, place: int, before: Basis, after: Basis) -> Tensor:
    """Return the sum of squares by one backward pass for each coordinate and position, or each random sum of them."""
    places, start, arrival = basis.places, trace.reads[place], trace.arrivals[place + 1]
    together = influences_other_rows(arrival, start)
    rows = places.rows(place + 1, arrival, together)
    batch, positions = rows.shape[:2]
    directions, inverse = after.directions.to(rows), before.inverse.to(rows)
    own = basis.transform(places.rows(place, start.detach(), together), basis.sections[place])
    if trace.valid is not None and trace.valid.numel() == own.shape[0] * own.shape[1]:
        own = own * trace.valid.reshape(own.shape[0], own.shape[1], 1)
    counts = trace.valid is not None and trace.valid.numel() == batch * positions
    repeats = positions if basis.sources is None else basis.sources
    total = torch.zeros(directions.shape[1], inverse.shape[0], dtype=torch.float64)
    for part in chunks(directions.shape[1] * repeats, start.numel() + arrival.numel()):
        which = torch.arange(part.start, part.stop, device=rows.device)
        coordinate, repeat = which // repeats, which % repeats
        if basis.sources is None:
            at = nn.functional.one_hot(repeat, positions).to(rows)[:, None].expand(-1, batch, -1)
        else:
            signs = torch.randint(2, (len(part), batch, positions), generator=basis.generator)
            at = (signs.mul(2).sub(1) / repeats**0.5).to(rows)
        if counts:
            at = at * trace.valid.reshape(1, batch, positions)  # type: ignore[union-attr]
        weights = at[..., None] * directions.mT[coordinate][:, None, None]
        (found,) = pulled_back(arrival, [start], places.shaped(place + 1, weights, arrival))
        moved = torch.stack([places.rows(place, g, together) for g in found]) @ inverse.mT
        squares = (moved * own).sum(2).double().square().sum(1).cpu()  # (sums, inputs)
        total.index_add_(0, coordinate.cpu(), squares)
    return total


class _Arrived(Exception):
    """Ends a forward pass at a place.

    Args:
        value: Activation that arrived there.
    """

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = value


@contextlib.contextmanager
def ablated(
    basis: Any,
    nodes: Mapping[str, int | Tensor] | None = None,
    edges: Mapping[str, Tensor] | None = None,
) -> Iterator[nn.Module]:
    """Remove coordinates or interactions while the context lasts, as `InteractionBasis.ablate` does.

    Args:
        basis: Fitted bases.
        nodes: Coordinates to keep at some places.
        edges: Interactions to keep of some sections.
    """
    places, names = basis.places, (*basis.sections, OUTPUT)
    kept_at = {n: _nodes(basis, n, kept) for n, kept in (nodes or {}).items()}
    masks_at = {n: _mask(basis, n, mask) for n, mask in (edges or {}).items()}
    keep, masks = ({names.index(n): m for n, m in given.items()} for given in (kept_at, masks_at))
    call: list[Any] = [(), {}]
    reads: dict[int, Tensor] = {}
    inner: list[tuple[int, Tensor]] = []

    def projected(place: int, x: Tensor, kept: Tensor | None) -> Tensor:
        if kept is None or bool(kept.all()):
            return x
        name, axis = names[place], places.axis(place, x)
        rows = basis.transform(x.movedim(axis, -1), name) * kept.to(x)
        return basis.inverse_transform(rows, name).movedim(-1, axis)

    def joined(place: int, arrival: Tensor) -> Tensor:
        """Return what arrives after a section, computed anew for each set of its inputs."""
        mask, name = masks[place], names[place + 1]
        axis, moved = places.axis(place + 1, arrival), arrival.movedim(places.axis(place + 1, arrival), -1)
        found = basis.transform(moved, name)
        kinds, group = mask.unique(dim=0, return_inverse=True)
        for i, kind in enumerate(kinds):
            if not bool(kind.all()):
                inner.append((place, projected(place, reads[place], kind)))
                before = list(seen)
                try:
                    places.model(*call[0], **call[1])
                except _Arrived as end:
                    again = basis.transform(end.value.movedim(axis, -1), name)
                finally:
                    inner.pop()
                    seen[:] = before
                found = torch.where((group == i).to(found.device), again, found)
        return basis.inverse_transform(found, name).movedim(-1, axis)

    def on_read(place: int, x: Tensor) -> Tensor:
        if inner:
            at, value = inner[-1]
            if place == at + 1:
                raise _Arrived(x)
            return value if place == at else x
        if place - 1 in masks:
            x = joined(place - 1, x)
        reads[place] = projected(place, x, keep.get(place))
        return reads[place]

    def begin(module: nn.Module, args: Any, kwargs: Any) -> None:
        if not inner:
            call[:] = args, kwargs

    def finish(module: nn.Module, args: Any, output: Any) -> Any:
        last = len(basis.sections) - 1
        value = places.selected(output)
        if inner:
            raise _Arrived(value)
        if last not in masks:
            return None
        found = joined(last, value)
        if isinstance(output, Tensor) and places.outputs is None:
            return found
        if places.outputs is None:
            output.logits = found
            return output
        raise InputError("edges of the last section can't be removed if outputs selects a part of the output")

    with places.reading(on_read) as seen:
        handles = [
            places.model.register_forward_pre_hook(begin, with_kwargs=True),
            places.model.register_forward_hook(finish),
        ]
        try:
            yield places.model
        finally:
            for handle in handles:
                handle.remove()


def _nodes(basis: Any, name: str, kept: Any) -> Tensor:
    size = _size(basis, name, "nodes")
    if isinstance(kept, Tensor):
        if kept.dtype != torch.bool or tuple(kept.shape) != (size,):
            raise InputError(f"nodes of {name!r} must be boolean ({size},), got {kept.dtype} {tuple(kept.shape)}")
        return kept
    whole(f"nodes of {name!r}", kept, 0)
    if kept > size:
        raise InputError(f"nodes of {name!r} must be at most {size}, got {kept}")
    return torch.arange(size) < kept


def _mask(basis: Any, name: str, mask: Any) -> Tensor:
    names = (*basis.sections, OUTPUT)
    size = _size(basis, name, "edges")
    shape = len(basis.bases[names[names.index(name) + 1]].strengths), size
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or tuple(mask.shape) != shape:
        given = f"{mask.dtype} {tuple(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
        raise InputError(f"edges of {name!r} must be boolean {shape}, got {given}")
    return mask


def _size(basis: Any, name: str, what: str) -> int:
    if name not in basis.sections:
        raise InputError(f"{what} must be given by the name of a section, {', '.join(basis.sections)}; got {name!r}")
    return len(basis.bases[name].strengths)
