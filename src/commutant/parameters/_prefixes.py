"""Nested slices: the first entries of groups, along every axis that carries them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import torch
from jaxtyping import Int
from torch import Tensor

from .._errors import InputError
from ._labels import AxisLabel, positions_by_group


def prefix_positions(label: AxisLabel, widths: Mapping[str, int]) -> Int[Tensor, " kept"]:
    """Return the positions of an axis whose index in each of some groups is below a width, in order.

    Positions that lack a group are kept.

    Args:
        label: Label of the axis.
        widths: Width by group; other groups keep all entries.

    Raises:
        InputError: A width is below one or above the size of its group.

    Example:
        >>> from commutant.parameters import Factor
        >>> gates = AxisLabel(((Factor(3), Factor(4, "units")),))  # three gates, as in a GRU
        >>> prefix_positions(gates, {"units": 2})
        tensor([0, 1, 4, 5, 8, 9])
    """
    return _positions(label, _kept(label, widths)).clone()


def _kept(label: AxisLabel, widths: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted((g, widths[g]) for g in set(label.groups()) & set(widths)))


@lru_cache(maxsize=4096)
def _positions(label: AxisLabel, widths: tuple[tuple[str, int], ...]) -> Int[Tensor, " kept"]:
    with torch.inference_mode(False):
        keep = torch.ones(label.size, dtype=torch.bool)
        for group, width in widths:
            index = positions_by_group(label, [group])
            if not isinstance(width, int) or not 1 <= width <= len(index):
                raise InputError(f"the width of {group!r} must be a whole number from 1 to {len(index)}, got {width!r}")
            keep[index[width:].flatten()] = False
        return keep.nonzero().flatten()


def prefix(value: Tensor, labels: Sequence[AxisLabel], widths: Mapping[str, int]) -> Tensor:
    """Return the part of a tensor at the first entries of some groups.

    The result is a view where the entries are the first ones of each axis, and a copy elsewhere; gradients reach the
    given tensor. Slices are nested: cutting to `a` and then to `b` is cutting to the smaller of the two, group by
    group.

    Args:
        value: Tensor, such as a weight or the running mean of a norm.
        labels: Label of each axis.
        widths: Number of entries to keep, by group, at least one and at most the size of the group.

    Raises:
        InputError: The tensor has other sizes than the labels, or a width is out of range.

    Example:
        >>> from commutant.parameters import Factor
        >>> weight = torch.arange(6).view(2, 3)
        >>> prefix(weight, [AxisLabel(((Factor(2),),)), AxisLabel(((Factor(3, "h"),),))], {"h": 2})
        tensor([[0, 1],
                [3, 4]])
    """
    if tuple(value.shape) != tuple(label.size for label in labels):
        raise InputError(
            f"the tensor must have shape {tuple(label.size for label in labels)} as its labels, got "
            f"{tuple(value.shape)}"
        )
    for axis, label in enumerate(labels):
        kept = _positions(label, _kept(label, widths))
        if len(kept) == label.size:
            continue
        first = int(kept[-1]) == len(kept) - 1
        value = value.narrow(axis, 0, len(kept)) if first else value.index_select(axis, kept.to(value.device))
    return value
