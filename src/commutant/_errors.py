"""The errors that the library raises on purpose: one sentence, no traceback on the command line."""

from __future__ import annotations

import importlib
from types import ModuleType


class CommutantError(Exception):
    """Base of every error that this library raises about what it was given."""


class InputError(CommutantError, ValueError):
    """An argument is wrong: the message names it, what was given and what was expected."""


class MissingExtraError(CommutantError, ImportError):
    """An optional dependency is not installed: the message says which extra brings it."""


class RunError(CommutantError, RuntimeError):
    """A run on disk can't be used as asked: locked, damaged or not writable."""


def require(module: str, extra: str) -> ModuleType:
    """Import an optional `module`, or say which extra of commutant brings it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"{module} is not installed; it comes with: pip install 'commutant[{extra}]'"
        ) from error
