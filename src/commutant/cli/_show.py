"""`commutant papers` and `commutant doctor`."""

from __future__ import annotations

import os
import re
from importlib import metadata

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..evidence import environment
from ..papers import papers

_FOR_DEVELOPERS = ("dev", "docs", "all")


def show_papers() -> None:
    """Print every paper with its claims."""
    console = Console()
    for paper in papers():
        title = escape(f"{paper.title} ({paper.venue} {paper.year})")
        console.print(f"[bold]{paper.slug}[/]  {title}", highlight=False)
        for claim in paper.claims:
            console.print(f"  [cyan]{claim.name}[/]  {escape(claim.statement)}", highlight=False)


def show_doctor() -> None:
    """Print versions, devices, extras and the data folder."""
    found = environment()
    table = Table(box=None, pad_edge=False, show_header=False)
    for package, version in found["versions"].items():
        table.add_row(package, version)
    table.add_row("hardware", found["hardware"])
    table.add_row("CUDA", torch.version.cuda or "not in this build of torch")
    for extra, missing in _extras().items():
        state = "installed" if not missing else f"missing {', '.join(missing)}: pip install 'commutant[{extra}]'"
        table.add_row(f"extra {extra}", escape(state))
    data = os.environ.get("COMMUTANT_DATA")
    table.add_row(
        "data folder",
        escape(data) if data else "none (COMMUTANT_DATA or --data-dir); bundled and generated data are used",
    )
    Console().print(table)


def _extras() -> dict[str, list[str]]:
    """Return the extras for users, each with its missing packages."""
    wanted: dict[str, list[str]] = {}
    for line in metadata.requires("commutant") or []:
        found = re.match(r"""(?P<package>[\w.-]+).*;.*extra == ['"](?P<extra>[\w-]+)['"]""", line)
        if found and found["extra"] not in _FOR_DEVELOPERS and found["package"] != "commutant":
            wanted.setdefault(found["extra"], []).append(found["package"])
    return {extra: [package for package in packages if not _installed(package)] for extra, packages in wanted.items()}


def _installed(package: str) -> bool:
    try:
        return bool(metadata.version(package))
    except metadata.PackageNotFoundError:
        return False
