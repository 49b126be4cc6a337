"""Checks of arguments that all rooms share: each refuses a wrong value in one sentence."""

from __future__ import annotations

from ._errors import InputError


def check_size(name: str, given: object) -> None:
    """Refuse what is no positive integer."""
    if not isinstance(given, int) or isinstance(given, bool) or given < 1:
        raise InputError(f"{name} must be at least 1, an integer, got {given!r}")
