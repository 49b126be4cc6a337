"""`python -m benchmarks [--record] [NAME ...]`: time the systems beside what their users would pick instead."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from commutant.evidence import environment, write_json

from . import (
    aggregations,
    frames,
    matching,
    particles,
    recurrence_policy,
    recurrences,
    shrinking,
    sparse_recurrences,
    symmetries,
    tangent_kernels,
)


def main() -> None:
    names = [a for a in sys.argv[1:] if not a.startswith("--")]
    console = Console()
    for bench in (
        *aggregations.ALL,
        *recurrences.ALL,
        *recurrence_policy.ALL,
        *sparse_recurrences.ALL,
        *symmetries.ALL,
        *matching.ALL,
        *shrinking.ALL,
        *frames.ALL,
        *particles.ALL,
        *tangent_kernels.ALL,
    ):
        if names and bench.__name__.replace("_", "-") not in names:
            continue
        torch.manual_seed(0)
        found = bench()
        table = Table(title=found["title"], caption=found["reading"])
        for column in ("", *found["columns"]):
            table.add_column(column, justify="right" if column else "left")
        for row in found["rows"]:
            cells = [row[c] if isinstance(row[c], str) else f"{row[c]:.4g}" for c in found["columns"]]
            table.add_row(row["name"], *cells)
        console.print(table)
        if "--record" in sys.argv:
            write_json(Path("results") / "benchmarks" / f"{found['name']}.json", {**found, **environment()})


if __name__ == "__main__":
    main()
