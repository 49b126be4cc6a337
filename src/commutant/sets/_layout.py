"""Which set each element of a ragged batch belongs to."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .._checks import check_features, first_weight
from .._errors import InputError
from ..algebra import ReductionPlan
from ..algebra.plans import check_positions, lazy_plan


def check_layout(x: Tensor, index: Tensor | None, ptr: Tensor | None) -> None:
    """Check that `index` and `ptr` hold positions on the device of the elements.

    Args:
        x: Elements.
        index: Index of the set of each element, or None.
        ptr: Start of each set, or None.
    """
    for name, given in (("index", index), ("ptr", ptr)):
        if given is not None:
            check_positions(name, given)
            if given.device != x.device:
                raise InputError(f"{name} is on {given.device} and x is on {x.device}; move them to one device")
    if index is not None and ptr is not None and ptr.numel():
        told = torch.repeat_interleave(ptr.diff().clamp(min=0))
        if index.shape != told.shape or not bool((index == told).all()):
            raise InputError("index and ptr describe different sets; pass one of them")


def encoded(encoder: nn.Module, x: Tensor, features: int, weight: Tensor) -> Tensor:
    """Return encoded elements, `(elements, features)`, after a check of what the encoder returns.

    Args:
        encoder: Module from elements to features.
        x: Elements, `(elements, ...)`.
        features: Number of features that it should return.
        weight: Weight of the layer that reads the features.
    """
    check_features("x", x, first_weight(encoder))
    if x.dim() < 1:
        raise InputError("x must have an axis of elements, got a single number")
    try:
        found = encoder(x)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise InputError(f"the encoder fails on x of shape {tuple(x.shape)}: {error}".splitlines()[0]) from error
    if not isinstance(found, Tensor) or found.shape != (x.shape[0], features):
        given = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise InputError(f"the encoder must return shape {(x.shape[0], features)}, got {given}")
    if found.dtype != weight.dtype and not torch.is_autocast_enabled(found.device.type):
        raise InputError(
            f"the encoder returns {found.dtype}, and the next layer has {weight.dtype}; convert one of them"
        )
    return found


def layout_of(
    x: Tensor, index: Tensor | None = None, ptr: Tensor | None = None, num_sets: int | None = None
) -> ReductionPlan:
    """Return the sizes of the sets, and the order that sorts the elements by set.

    Args:
        x: Elements along the leading axis.
        index: Index of the set of each element, `(elements,)`.
        ptr: Start of each set, `(sets + 1,)`; `index` is then ignored, as PyG passes both. Without `index` and `ptr`,
            all elements are one set.
        num_sets: Number of sets; by default inferred.
    """
    if x.dim() < 1:
        raise InputError("x must have an axis of elements, got a single number")
    check_layout(x, index, ptr)
    if ptr is not None:
        index = None
    elif index is None:
        ptr = torch.tensor([0, len(x)], device=x.device)
    return lazy_plan(num_elements=len(x), index=index, ptr=ptr, num_sets=num_sets)
