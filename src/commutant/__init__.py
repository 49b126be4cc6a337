"""Symmetry of data and of weights in PyTorch, stated as laws and tested.

Import names from the rooms: `from commutant.sets import LCMAggregation`, or `import commutant` and then
`commutant.sets.LCMAggregation`. Rooms load when they are first used, so `import commutant` alone does not load torch.

Rooms:
"""

import importlib as _importlib
import pkgutil as _pkgutil
from pathlib import Path as _Path
from typing import Any as _Any

from ._errors import CommutantError as CommutantError
from ._errors import InputError as InputError
from ._errors import MissingExtraError as MissingExtraError
from ._errors import RunError as RunError

__version__ = "0.1.0"

_ROOMS = [found.name for found in _pkgutil.iter_modules(__path__) if found.ispkg and not found.name.startswith("_")]


def _headline(room: str) -> str:
    """Return the first sentence of a room's docstring, without importing it."""
    try:
        with (_Path(__file__).parent / room / "__init__.py").open(encoding="utf-8") as source:
            return source.readline().strip().strip('"')
    except OSError:  # installed without sources, or in an archive
        return ""


if __doc__ is not None:  # python -OO has none
    __doc__ += "\n".join(f"    {room:<13} {_headline(room)}" for room in _ROOMS) + "\n"


def __getattr__(name: str) -> _Any:
    """Import a room on first use."""
    if name in _ROOMS:
        return _importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"commutant has no {name!r}; its rooms are {', '.join(_ROOMS)}")


def __dir__() -> list[str]:
    """Return the public names and the rooms."""
    public = [name for name in globals() if not name.startswith("_") and name != "annotations"]
    return sorted([*public, *_ROOMS, "__version__"])
