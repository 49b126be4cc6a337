"""Subsets of ground sets of different sizes: overlap, largest scores, and subsets as users give them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .._errors import InputError


def jaccard(
    found: Bool[Tensor, " elements"], wanted: Bool[Tensor, " elements"], sizes: Int[Tensor, " sets"]
) -> Float[Tensor, " sets"]:
    r"""Return the Jaccard coefficient $|A \cap B| / |A \cup B|$ of two subsets of each ground set.

    It lies in 0..1, and is 1 if and only if the subsets are equal, so also if both are empty.

    Args:
        found: Whether each element is in the first subset, sorted by set, `(elements,)`.
        wanted: Whether it is in the second.
        sizes: Number of elements of each ground set.

    Raises:
        InputError: If the subsets are not boolean, or their length is not the sum of the sizes.

    Example:
        >>> jaccard(torch.tensor([True, True, False]), torch.tensor([True, False, False]), torch.tensor([3]))
        tensor([0.5000])
    """
    count = int(sizes.sum())
    for name, subset in (("found", found), ("wanted", wanted)):
        if subset.dtype != torch.bool or subset.shape != (count,):
            raise InputError(f"{name} must be boolean of shape ({count},), got {subset.dtype} {tuple(subset.shape)}")
    owner = torch.repeat_interleave(sizes)
    both, either = (
        torch.zeros(len(sizes), device=sizes.device).index_add(0, owner, part.float())
        for part in (found & wanted, found | wanted)
    )
    return torch.where(either > 0, both / either.clamp(min=1), 1.0)


def largest_of_each_set(
    scores: Float[Tensor, " elements"], sizes: Int[Tensor, " sets"], count: Int[Tensor, " sets"]
) -> Bool[Tensor, " elements"]:
    """Return whether each element has one of the largest scores of its set; of equal scores the first are taken.

    Args:
        scores: Scores of the elements, sorted by set.
        sizes: Number of elements of each set.
        count: Number of elements to take from each set.
    """
    owner = torch.repeat_interleave(sizes)
    order = scores.argsort(descending=True, stable=True)
    order = order[owner[order].argsort(stable=True)]
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device) - (sizes.cumsum(0) - sizes)[owner]
    return rank < count[owner]


def read_subsets(subsets: Any, sizes: Tensor, estimator: str) -> Tensor:
    """Return whether each element is chosen, `(elements,)`.

    Args:
        subsets: A subset for each set: booleans, one for each element, or positions of the chosen elements.
        sizes: Number of elements of each set.
        estimator: Name of the estimator, for messages.

    Raises:
        InputError: If the number of subsets is not that of the sets, or a subset does not fit its set.
    """
    if subsets is None:
        raise InputError(f"{estimator} requires subsets to be passed, but y is None")
    if type(subsets).__name__ == "Series":
        subsets = list(subsets)
    if not isinstance(subsets, Sequence | np.ndarray | Tensor) or isinstance(subsets, str):
        raise InputError(f"subsets must be a list with a subset for each set, got {type(subsets).__name__}")
    if len(subsets) != len(sizes):
        raise InputError(f"sets and subsets must have equal lengths, got {len(sizes)} sets and {len(subsets)} subsets")
    return torch.cat([_mask(part, size, i) for i, (part, size) in enumerate(zip(subsets, sizes.tolist(), strict=True))])


def _mask(subset: Any, size: int, position: int) -> Tensor:
    """Return one subset as booleans."""
    name = f"subset {position}"
    try:
        found = subset.detach().cpu().numpy() if isinstance(subset, Tensor) else np.asarray(subset)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must hold booleans or positions of elements: {error}".splitlines()[0]) from error
    if found.ndim != 1:
        raise InputError(f"{name} must have one axis, got shape {found.shape}")
    if found.dtype == bool:
        if len(found) != size:
            raise InputError(f"{name} has {len(found)} booleans, and set {position} has {size} elements")
        return torch.from_numpy(found.copy())
    if not len(found):
        return torch.zeros(size, dtype=torch.bool)
    if found.dtype.kind not in "iu":
        raise InputError(f"{name} must hold booleans or positions of elements, got {found.dtype}")
    if found.min() < 0 or found.max() >= size:
        raise InputError(f"{name} must hold positions 0..{size - 1} of elements, got {found.min()}..{found.max()}")
    if len(found) == size > 1 and found.max() <= 1:
        raise InputError(
            f"{name} holds {size} zeros and ones, which may be a mask or positions; pass booleans, a mask by "
            ".astype(bool) and positions by np.isin(np.arange(size), positions)"
        )
    if len(np.unique(found)) < len(found):
        raise InputError(f"{name} holds a position twice")
    mask = torch.zeros(size, dtype=torch.bool)
    mask[torch.from_numpy(found.astype(np.int64))] = True
    return mask
