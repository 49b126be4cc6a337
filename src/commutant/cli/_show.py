"""`commutant papers` and `commutant doctor`."""

from __future__ import annotations

import importlib.util
import os

import torch
from rich.console import Console
from rich.table import Table

from ..evidence import environment
from ..papers import papers

_EXTRAS = {
    "graphs": ("torch_geometric", "networkx"),
    "evidence": ("lightning_fabric", "joblib", "sklearn", "jinja2", "matplotlib"),
    "sweep": ("ray", "distributed"),
    "tensorboard": ("tensorboard",),
}


def show_papers() -> None:
    """Every paper with its claims."""
    console = Console()
    for paper in papers():
        console.print(f"[bold]{paper.slug}[/]  {paper.title} ({paper.venue} {paper.year})", highlight=False)
        for claim in paper.claims:
            console.print(f"  [cyan]{claim.name}[/]  {claim.statement}", highlight=False)


def show_doctor() -> None:
    """What is installed, which devices there are, where data is looked for."""
    found = environment()
    table = Table(box=None, pad_edge=False, show_header=False)
    for package, version in found["versions"].items():
        table.add_row(package, version)
    table.add_row("hardware", found["hardware"])
    table.add_row("CUDA", torch.version.cuda or "not in this build of torch")
    for extra, modules in _EXTRAS.items():
        missing = [m for m in modules if importlib.util.find_spec(m) is None]
        state = "installed" if not missing else f"missing {', '.join(missing)}: pip install 'commutant[{extra}]'"
        table.add_row(f"extra {extra}", state)
    data = os.environ.get("COMMUTANT_DATA")
    table.add_row("data folder", data or "none (COMMUTANT_DATA or --data-dir); bundled and generated data are used")
    Console().print(table)
