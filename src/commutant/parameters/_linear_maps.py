"""Matrices along a group's axes, on parts of weights: where permutations are not all that may act."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING

from jaxtyping import Float, Int
from torch import Tensor

from .._errors import InputError
from ._given import check_state
from ._labels import multiply_along, positions_by_group, stretch_of

if TYPE_CHECKING:
    from ._spec import PermutationSpec

Part = tuple[str, int, int]
"""`(entry, axis, stretch)`: query, key and value in one weight are three stretches of one axis."""


def part_index(spec: PermutationSpec, part: Part, group: str) -> Int[Tensor, "outer channels copies"]:
    """The positions of each channel along the axis of a part, for each index of the groups around it."""
    label = spec.axes[part[0]][part[1]]
    index = positions_by_group(label, (*spec.parents[group], group))
    index = index.reshape(-1, *index.shape[-2:])
    return index[:, :, stretch_of(label, index[0, 0]) == part[2]]


def part_rows(spec: PermutationSpec, value: Tensor, part: Part, group: str) -> Float[Tensor, "outer channels rest"]:
    """What of a tensor belongs to each channel, in float64."""
    return value.detach().cpu().double().movedim(part[1], 0)[part_index(spec, part, group)].flatten(2)


def parts_of_axis(spec: PermutationSpec, key: str, axis: int, group: str) -> list[Part]:
    """The stretches of an axis that carry a group."""
    label = spec.axes[key][axis]
    index = positions_by_group(label, (*spec.parents[group], group))
    return [(key, axis, stretch) for stretch in stretch_of(label, index.flatten()).unique().tolist()]


def act_linearly(
    spec: PermutationSpec,
    state: Mapping[str, Tensor],
    group: str,
    maps: Mapping[Part, Float[Tensor, "outer channels channels"] | Float[Tensor, "outer channels"]],
) -> dict[str, Tensor]:
    """Parameters with a matrix applied along some parts that carry a group: `new[i] = sum_j P[i, j] old[j]`.

    Computed in float64, in the types of the parameters; entries that are tied stay tied.

    Args:
        spec: of the network.
        state: stays as it is.
        group: whose channels are mixed.
        maps: for each part, a matrix, or the diagonal of one, for each index of the groups that this one depends on
            (one if it depends on none).

    Raises:
        InputError: a group that the spec lacks, a part that does not carry it, or a map of another shape.
    """
    check_state(state)
    if group not in spec.sizes:
        raise InputError(f"the spec has no group {group!r}; its groups are {', '.join(spec.sizes) or 'none'}")
    result = dict(state)
    *parents, size = spec.shape(group)
    for part, matrix in maps.items():
        if (part[0], part[1]) not in spec.uses(group):
            raise InputError(f"the part {part} does not carry group {group!r}")
        if matrix.shape[:2] != (prod(parents), size) or matrix.shape[2:] not in ((), (size,)):
            wanted = f"({prod(parents)}, {size}, {size}) or ({prod(parents)}, {size})"
            raise InputError(f"the map of {part} must have shape {wanted}, got {tuple(matrix.shape)}")
        key = spec.name_in(result, part[0])
        value = result[key]
        moved = multiply_along(value.double(), part[1], part_index(spec, part, group), matrix.to(value.device))
        result[key] = moved.to(value.dtype)
    for key, first in spec.ties.items():
        if key in result and spec.name_in(result, first) in result:
            result[key] = result[spec.name_in(result, first)]
    return result
