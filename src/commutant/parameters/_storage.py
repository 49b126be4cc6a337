"""Which names of a network are one tensor."""

from __future__ import annotations

from torch import Tensor


def storage_of(value: Tensor) -> tuple[object, ...]:
    """What tells whether two names are the same tensor: the object, or the place in memory and how it is read."""
    if value.numel() == 0 or value.is_meta:
        return (id(value),)
    return (value.device, value.data_ptr(), value.shape, value.stride(), value.dtype)
