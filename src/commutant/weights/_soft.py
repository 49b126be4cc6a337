"""Action of matrices instead of permutations on parameters, linear in each matrix, so that gradients reach it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from .._errors import InputError
from ..parameters import AxisLabel, Permutation, PermutationSpec, multiply_along, positions_by_group

Matrices = Mapping[str, Float[Tensor, "*outer n n"]]


def matrices_of(permutation: Permutation) -> dict[str, Float[Tensor, "*outer n n"]]:
    """Return the permutation of each group as a matrix, with a one in row i at the column that entry i comes from."""
    return {g: torch.nn.functional.one_hot(t, t.shape[-1]).double() for g, t in permutation.tables.items()}


def apply_softly(spec: PermutationSpec, matrices: Matrices, labels: Sequence[AxisLabel], value: Tensor) -> Tensor:
    """Return a tensor with `new[i] = sum_j P[i, j] old[j]` along every group that its axes carry.

    Raises:
        InputError: A group depends on a group on another axis.
    """
    for axis, label in enumerate(labels):
        here = set(label.groups())
        for group in spec.outermost_first():
            if group not in here or group not in matrices:
                continue
            outer = spec.parents[group]
            if not set(outer) <= here:
                raise InputError(f"group {group!r} depends on {outer[0]!r}, which is on another axis of one weight")
            index = positions_by_group(label, (*outer, group))
            value = multiply_along(value, axis, index, matrices[group].to(value))
    return value
