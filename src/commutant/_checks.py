"""Argument checks shared by all subpackages."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Integral, Real

import torch
from torch import Tensor, nn

from ._errors import InputError


def one_of(name: str, given: object, options: Iterable[object]) -> None:
    """Check that an argument is one of its options."""
    known = list(options)
    if not any(given is option or (type(given) is type(option) and given == option) for option in known):
        raise InputError(f"{name} must be one of {', '.join(map(str, known))}, got {_short(given)}")


def _short(given: object) -> str:
    if isinstance(given, Tensor):
        return f"a tensor of shape {tuple(given.shape)}"
    return f"{given!r:.60}"


def whole(name: str, given: object, least: int = 1) -> None:
    """Check that an argument is a whole number of at least `least`."""
    if not is_whole(given) or given < least:  # type: ignore[operator]
        raise InputError(f"{name} must be a whole number of at least {least}, got {given!r}")


def finite(name: str, given: object) -> None:
    """Check that an argument is a finite real number."""
    if not is_real(given) or not math.isfinite(given):  # type: ignore[arg-type]
        raise InputError(f"{name} must be a finite number, got {given!r}")


def positive(name: str, given: object) -> None:
    """Check that an argument is a finite real number above zero."""
    if not is_real(given) or not 0 < given < math.inf:  # type: ignore[operator]
        raise InputError(f"{name} must be a positive number, got {given!r}")


def check_tolerance(given: object) -> None:
    """Check that a tolerance is None or a finite non-negative number."""
    if given is not None and not (isinstance(given, int | float) and 0 <= given < math.inf):
        raise InputError(f"tolerance must be None or a finite non-negative number, got {given!r}")


def check_generator(given: object) -> None:
    """Check that a generator is a `torch.Generator` or None."""
    if not isinstance(given, torch.Generator | None):
        raise InputError(f"generator must be a torch.Generator or None, got {given!r:.60}")


def is_real(value: object) -> bool:
    """Return whether a value is a real scalar."""
    scalar = isinstance(value, Tensor) and not value.ndim and not value.is_complex()
    return scalar or (isinstance(value, Real) and not isinstance(value, bool))


def is_whole(value: object) -> bool:
    """Return whether a value is an integer of Python or NumPy."""
    return isinstance(value, Integral) and not isinstance(value, bool)


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
