"""Checks of arguments that all rooms share."""

from __future__ import annotations

import math
from numbers import Integral, Real

from torch import Tensor

from ._errors import InputError


def check_size(name: str, given: object) -> None:
    """Refuse what is no positive integer."""
    if not isinstance(given, int) or isinstance(given, bool) or given < 1:
        raise InputError(f"{name} must be at least 1, an integer, got {given!r}")


def check_tolerance(given: object) -> None:
    """Refuse what is neither None nor a finite number of at least zero."""
    if given is not None and not (isinstance(given, int | float) and 0 <= given < math.inf):
        raise InputError(f"tolerance must be a finite number that is not negative, got {given!r}")


def is_real(value: object) -> bool:
    """Return whether a value is one real number."""
    scalar = isinstance(value, Tensor) and not value.ndim and not value.is_complex()
    return scalar or (isinstance(value, Real) and not isinstance(value, bool))


def is_whole(value: object) -> bool:
    """Return whether a value is a whole number of Python or NumPy."""
    return isinstance(value, Integral) and not isinstance(value, bool)
