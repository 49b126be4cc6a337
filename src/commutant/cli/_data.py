"""Command `commutant data`."""

from __future__ import annotations

from itertools import groupby

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from .._errors import InputError
from ..data import DataSet, catalog, data_folder

_HERE = ("embedded", "data folder", "cache")
_MOST_NAMES = 30  # a longer row of names is shortened


def show_data(data_dir: str | None) -> None:
    """Print the data sets by kind, with the place of each and where it comes from."""
    console = Console(highlight=False)
    folder = data_folder(data_dir)
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for heading, width in (("data set", 31), ("here", 17), ("comes from", 30)):  # the widest words of each
        table.add_column(heading, header_style="dim", width=width, overflow="fold")
    for kind, members in groupby(catalog(data_dir), key=lambda data: data.kind):
        table.add_row(f"[bold]{kind}[/]")
        for names, data in _grouped(list(members)):
            color = "green" if data.state in _HERE else "yellow" if data.state.startswith("online") else "dim"
            shown = names if len(names) <= _MOST_NAMES else [*names[:3], f"... ({len(names)} tables)", names[-1]]
            table.add_row(
                Padding(escape(", ".join(shown)), (0, 0, 0, 2)),
                f"[{color}]{escape(data.state)}[/]",
                escape(data.origin),
            )
    console.print(table)
    named = f"{folder}" if folder else "none (name one with --data-dir or COMMUTANT_DATA)"
    console.print(f"\nDATA_DIR is the data folder: {escape(named)}", soft_wrap=True)
    console.print("online (EXTRA): needs a connection and the packages of commutant\\[EXTRA]")
    console.print("[bold]commutant data NAME[/] loads and checks a data set, with a download if it is online")


def fetch_data(names: list[str], data_dir: str | None) -> None:
    """Load data sets by name, downloading those that are only online, and print the location of each."""
    known = {data.name: data for data in catalog(data_dir)}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(f"unknown data set {unknown[0]!r}; `commutant data` lists the known ones")
    for name in names:
        known[name].load()
        now = next(data for data in catalog(data_dir) if data.name == name)
        print(f"{name}: loaded and checked ({now.state}, {now.origin})")


def _grouped(members: list[DataSet]) -> list[tuple[list[str], DataSet]]:
    """Return neighbors of the same place and kind of origin as one row."""
    rows = []
    for _, group in groupby(members, key=lambda data: (data.state, _family(data.origin))):
        same = list(group)
        first = same[0] if len(same) == 1 else same[0]._replace(origin=_family(same[0].origin))
        rows.append(([data.name for data in same], first))
    return rows


def _family(origin: str) -> str:
    for family in ("OpenML", "TU collection"):
        if origin.startswith(family):
            return family
    return origin
