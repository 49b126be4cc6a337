"""Checks of features and generators for the aggregations."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .._errors import InputError


def check_features(name: str, x: object, weight: Tensor | None = None) -> None:
    """Check that `x` is a real floating-point tensor of the dtype and device of `weight`.

    Under autocast the dtypes may differ.
    """
    if not isinstance(x, Tensor):
        remedy = "; convert it with torch.as_tensor" if x is not None else ""
        raise InputError(f"{name} must be a tensor, got {type(x).__name__}{remedy}")
    if not x.is_floating_point():
        raise InputError(f"{name} must be floating point, got {x.dtype}; convert it with .float()")
    if weight is None:
        return
    if x.device != weight.device:
        raise InputError(f"{name} is on {x.device} and the weights are on {weight.device}; move one with .to(device)")
    if x.dtype != weight.dtype and not torch.is_autocast_enabled(x.device.type):
        raise InputError(f"{name} is {x.dtype} and the weights are {weight.dtype}; convert one with .to(dtype)")


def first_weight(module: nn.Module) -> Tensor | None:
    """Return the first floating-point parameter of a module, or None."""
    return next((p for p in module.parameters() if p.is_floating_point()), None)
