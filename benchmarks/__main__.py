"""Time the systems beside what their users would pick instead."""

from __future__ import annotations

import argparse
import difflib
import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from commutant.evidence import environment, write_json

HERE = Path(__file__).parent


def benchmarks() -> dict[str, Callable[[], dict[str, Any]]]:
    """Return every benchmark by name: the functions in the list `ALL` of each file beside this one."""
    names = [info.name for info in pkgutil.iter_modules([str(HERE)]) if not info.name.startswith("_")]
    modules = [importlib.import_module(f"benchmarks.{name}") for name in names]
    return {b.__name__.replace("_", "-"): b for module in modules for b in getattr(module, "ALL", ())}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="benchmarks to run; all by default")
    parser.add_argument("--record", action="store_true", help="write results/benchmarks/NAME.json")
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    arguments = parser.parse_args()
    known = benchmarks()
    for name in arguments.names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1) or ["--list"]
            parser.error(f"unknown benchmark {name!r}; try {near[0]}")
    if arguments.list:
        print("\n".join(known))
        return
    console = Console()
    for name in arguments.names or known:
        torch.manual_seed(0)
        found = known[name]()
        table = Table(title=found["title"], caption=found["reading"])
        for column in ("", *found["columns"]):
            table.add_column(column, justify="right" if column else "left")
        for row in found["rows"]:
            cells = [row[c] if isinstance(row[c], str) else f"{row[c]:.4g}" for c in found["columns"]]
            table.add_row(row["name"], *cells)
        console.print(table)
        if arguments.record:
            write_json(HERE.parent / "results" / "benchmarks" / f"{found['name']}.json", {**found, **environment()})


if __name__ == "__main__":
    main()
