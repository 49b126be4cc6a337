"""Identity of tensors: which names of a network are the same tensor."""

from __future__ import annotations

from torch import Tensor


def storage_of(value: Tensor) -> tuple[object, ...]:
    """Return a key that is equal for two names of the same tensor: the object, or its memory and layout."""
    if value.numel() == 0 or value.is_meta:
        return (id(value),)
    return (value.device, value.data_ptr(), value.shape, value.stride(), value.dtype)
