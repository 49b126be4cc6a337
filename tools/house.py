"""The rooms of the house, found and not listed: everything that goes over all rooms asks here.

python -m tools.house     the packages whose annotations are checked at run time, as pytest's option wants them
"""

from __future__ import annotations

import pkgutil
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "commutant"
BESIDE = ("cli",)  # a room that nobody imports from


def rooms() -> list[str]:
    """Return the names of all rooms."""
    return [m.name for m in pkgutil.iter_modules([str(SOURCE)]) if m.ispkg and not m.name.startswith("_")]


def documented() -> list[str]:
    """Return the names of all modules that users import from: rooms, and public modules in rooms."""
    found = []
    for room in rooms():
        if room in BESIDE:
            continue
        inner = [m.name for m in pkgutil.iter_modules([str(SOURCE / room)]) if not m.ispkg and m.name[0] != "_"]
        found += [room, *(f"{room}.{name}" for name in inner)]
    return found


def papers() -> list[str]:
    """Return the slugs of all papers."""
    found = pkgutil.iter_modules([str(SOURCE / "papers")])
    return [m.name.replace("_", "-") for m in found if m.ispkg and not m.name.startswith("_")]


def checked() -> list[str]:
    """Return the packages whose annotations are checked in tests: all but kernels, whose source Triton compiles."""
    found = []
    for room in rooms():
        compiled = {path.stem for path in (SOURCE / room).glob("*.py") if "triton.jit" in path.read_text("utf-8")}
        files = sorted(path.stem for path in (SOURCE / room).glob("*.py"))
        found += [f"{room}.{name}" for name in files if name not in {*compiled, "__init__"}] if compiled else [room]
    return [f"commutant.{name}" for name in found]


if __name__ == "__main__":
    print(",".join([*checked(), "beartype.beartype"]))
