"""Conditions of a run besides its settings and its seed: runs under other conditions are never mixed in."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..data import data_folder

if TYPE_CHECKING:
    from ._claim import Experiment, Paper
    from ._execute import Task

DATA_MARK = "data.json"
"""The file of a run that says which contents of the data folder it read."""
_VERSIONS = ("commutant", "torch")
_WHAT = ("paper", "experiment", "scale", "seed")
_HOW = ("precision", "accelerator", "devices", "strategy")
_PRECISIONS = {"64": "64-true", "32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed"}  # Fabric's short names
_PIECE = 1 << 19  # bytes read at either end of a data file
_DEPTH = 3  # levels of the data folder that count; the layouts that the loaders read have two


def conditions(task: Task) -> dict[str, Any]:
    """Return what `run.json` says of what a task runs, and how."""
    experiment = task.paper.experiment(task.experiment)
    return {
        **identity(task.paper, experiment, task.scale, task.seed),
        "precision": _PRECISIONS.get(str(task.precision), task.precision),
        "accelerator": _accelerator(task.accelerator),
        "devices": task.devices,
        "strategy": task.strategy,
    }


def identity(paper: Paper, experiment: Experiment, scale: str, seed: int) -> dict[str, Any]:
    """Return what a run is of; a run that was copied into the folder of another differs in it."""
    settings = json.loads(json.dumps(experiment.settings[scale]))  # as it is read from a file: lists, no tuples
    return {"paper": paper.slug, "experiment": experiment.name, "scale": scale, "seed": seed, "settings": settings}


def _accelerator(name: str) -> str:
    """Return the name of what `"auto"` stands for here: the same folder may be used from machines that differ."""
    if name == "auto":
        name = "gpu" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    return "gpu" if name == "cuda" else name


def differences(run: dict[str, Any], head: dict[str, Any]) -> list[str]:
    """Say in what the conditions of two runs differ; what one of them does not know is no difference.

    Args:
        run: The `run.json` of a run, finished or not.
        head: The conditions to compare with: those of `conditions`, `versions`, and `data` if it was read.
    """
    found = [f"{key} {run[key]}" for key in (*_WHAT, *_HOW) if key in run and key in head and run[key] != head[key]]
    if "settings" in run and "settings" in head and run["settings"] != head["settings"]:
        found.append("other settings")
    for name in _VERSIONS:
        ours, theirs = (record.get("versions", {}).get(name) for record in (head, run))
        if ours is not None and theirs is not None and ours != theirs:
            found.append(f"{name} {theirs}")
    if run.get("data") is not None and head.get("data") is not None and run["data"] != head["data"]:
        found.append("other data")
    return found


def data_digest(data_dir: str | None) -> str:
    """Return six hex digits of the names, sizes and contents of the files in the data folder, or `"none"` without one.

    Of a file larger than 1 MiB the first and the last half count. Hidden files and what cannot be read are left out.
    """
    folder = data_folder(data_dir)
    if folder is None:
        return "none"
    found = []
    for root, folders, files in os.walk(folder):
        deepest = len(Path(root).relative_to(folder).parts) >= _DEPTH - 1
        folders[:] = [] if deepest else [name for name in folders if not name.startswith(".")]
        for path in (Path(root, name) for name in files if not name.startswith(".")):
            with suppress(OSError):
                state = path.stat()
                found.append(f"{path.relative_to(folder)} {_contents(path, state.st_size, state.st_mtime_ns)}")
    return hashlib.sha256("\n".join(sorted(found)).encode(errors="surrogateescape")).hexdigest()[:6]


@cache
def _contents(path: Path, size: int, _changed: int) -> str:
    """Return size and hash of a file; it is read again only after it changed."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        digest.update(file.read(_PIECE))
        file.seek(max(_PIECE, size - _PIECE))
        digest.update(file.read(_PIECE))
    return f"{size} {digest.hexdigest()}"
