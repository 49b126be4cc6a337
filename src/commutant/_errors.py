"""Errors of the library, each with a message of one sentence."""

from __future__ import annotations

import importlib
from types import ModuleType


class CommutantError(Exception):
    """Base class of all errors that this library raises about its inputs and surroundings."""


class InputError(CommutantError, ValueError):
    """Error for a wrong argument, whose message names the argument, what was given and what was expected."""


class MissingExtraError(CommutantError, ImportError):
    """Error for a missing optional dependency, whose message names the extra that installs it."""


class RunError(CommutantError, RuntimeError):
    """Error for a run on disk that can't be used because it is locked, damaged or not writable."""


def require(module: str, extra: str) -> ModuleType:
    """Import an optional module.

    Args:
        module: Name of the module.
        extra: Extra of commutant that installs it.

    Raises:
        MissingExtraError: If the module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"{module} is not installed; it comes with: pip install 'commutant[{extra}]'"
        ) from error
