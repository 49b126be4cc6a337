"""The rooms of the house, found and not listed: everything that goes over all rooms asks here.

python -m tools.house     the packages whose annotations are checked at run time, as pytest's option wants them
"""

from __future__ import annotations

import ast
import pkgutil
from collections.abc import Collection
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


def cycles(room: str) -> list[list[str]]:
    """Return the sets of modules of a room that import each other in a circle, imports inside functions included.

    Imports for type checkers alone (`if TYPE_CHECKING:`) do not count.
    """
    folder = SOURCE.joinpath(*room.split("."))
    paths = {path.relative_to(SOURCE).with_suffix(""): path for path in folder.rglob("*.py")}
    modules = {".".join(p for p in short.parts if p != "__init__"): path for short, path in paths.items()}
    reached = {name: _imports(name, path, modules) for name, path in modules.items()}
    for middle in modules:  # the transitive closure
        for found in reached.values():
            if middle in found:
                found |= reached[middle]
    circles = {tuple(sorted(n for n in reached[name] if name in reached[n])) for name in modules}
    return [list(circle) for circle in sorted(circles) if circle]


def _imports(name: str, path: Path, modules: Collection[str]) -> set[str]:
    """Return those of some modules of commutant that a file imports anywhere, by their names inside the package."""
    package = name.split(".") if path.stem == "__init__" else name.split(".")[:-1]
    found = set()
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
        elif isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("commutant.") for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*base, *([node.module] if node.module else [])]).removeprefix("commutant.")
            inner = {alias.name: f"{base}.{alias.name}" for alias in node.names}
            found |= {full if full in modules else base for full in inner.values()}
        else:
            waiting += ast.iter_child_nodes(node)
    return found & set(modules)


if __name__ == "__main__":
    print(",".join([*checked(), "beartype.beartype"]))
