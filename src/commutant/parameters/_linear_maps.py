"""Linear maps along the axes of a group, applied to parts of weights."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from jaxtyping import Float, Int
from torch import Tensor

from .._errors import InputError
from ._given import check_state
from ._labels import multiply_along, positions_by_group, stretch_of
from ._tied_axes import TiedAxes

Part = tuple[str, int, int]
"""`(entry, axis, stretch)`: query, key and value in one weight are three stretches of one axis."""


def part_index(spec: TiedAxes, part: Part, group: str) -> Int[Tensor, "outer channels copies"]:
    """Return the positions of each channel along the axis of a part, for each index of the parent groups."""
    label = spec.axes[part[0]][part[1]]
    index = positions_by_group(label, (*spec.parents[group], group))
    index = index.reshape(-1, *index.shape[-2:])
    return index[:, :, stretch_of(label, index[0, 0]) == part[2]]


def part_rows(spec: TiedAxes, value: Tensor, part: Part, group: str) -> Float[Tensor, "outer channels rest"]:
    """Return the entries of a tensor that belong to each channel, in float64.

    Args:
        spec: Spec of the network.
        value: Tensor of the state dict that the part is in.
        part: Part of the tensor, `(entry, axis, stretch)`.
        group: Name of the group whose channels are the rows.
    """
    return value.detach().cpu().double().movedim(part[1], 0)[part_index(spec, part, group)].flatten(2)


def parts_of_axis(spec: TiedAxes, key: str, axis: int, group: str) -> list[Part]:
    """Return the parts of an axis that carry a group."""
    label = spec.axes[key][axis]
    index = positions_by_group(label, (*spec.parents[group], group))
    return [(key, axis, stretch) for stretch in stretch_of(label, index.flatten()).unique().tolist()]


def act_linearly(
    spec: TiedAxes,
    state: Mapping[str, Tensor],
    group: str,
    maps: Mapping[Part, Float[Tensor, "outer channels channels"] | Float[Tensor, "outer channels"]],
) -> dict[str, Tensor]:
    """Return parameters with a matrix applied along parts that carry a group: `new[i] = sum_j P[i, j] old[j]`.

    The product is computed in float64 and returned in the dtype of the parameter. Tied entries stay tied.

    Args:
        spec: Spec of the network.
        state: Parameters of the network; not modified.
        group: Name of the group whose channels are mixed.
        maps: Matrix, or diagonal of a matrix, for each part and each index of the parents of the group, of shape
            `(outer, channels, channels)` or `(outer, channels)`. `outer` is 1 for a group without parents.

    Raises:
        InputError: The spec lacks the group, a part does not carry it, or a map has the wrong shape.
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
