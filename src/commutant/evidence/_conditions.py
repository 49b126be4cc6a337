"""What a run depends on besides its settings and its seed: runs under other conditions are never mixed in."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data import data_folder

if TYPE_CHECKING:
    from ._execute import Task

DATA_MARK = "data.json"
"""The file of a run that says which contents of the data folder it read."""
_VERSIONS = ("commutant", "torch")
_DEPTH = 3  # levels of the data folder that count; the layouts that the loaders read have two


def conditions(task: Task) -> dict[str, Any]:
    """Return what `run.json` says of how a task is run."""
    return {
        "precision": task.precision,
        "accelerator": task.accelerator,
        "devices": task.devices,
        "strategy": task.strategy,
    }


def differences(run: dict[str, Any], head: dict[str, Any]) -> list[str]:
    """Say in what the conditions of two runs differ; what one of them does not know is no difference.

    Args:
        run: The `run.json` of a run, finished or not.
        head: The conditions to compare with: those of `conditions`, `versions`, and `data` if it was read.
    """
    found = [
        f"{key} {run[key]}"
        for key in ("precision", "accelerator", "devices", "strategy")
        if key in run and key in head and run[key] != head[key]
    ]
    for name in _VERSIONS:
        ours, theirs = (record.get("versions", {}).get(name) for record in (head, run))
        if ours is not None and theirs is not None and ours != theirs:
            found.append(f"{name} {theirs}")
    if run.get("data") is not None and head.get("data") is not None and run["data"] != head["data"]:
        found.append("other data")
    return found


def data_digest(data_dir: str | None) -> str:
    """Return six hex digits of the names and sizes of the files in the data folder, or `"none"` without one."""
    folder = data_folder(data_dir)
    if folder is None:
        return "none"
    found = []
    for root, folders, files in os.walk(folder):
        if len(Path(root).relative_to(folder).parts) >= _DEPTH - 1:
            folders.clear()
        found += [f"{Path(root, f).relative_to(folder)} {Path(root, f).stat().st_size}" for f in files]
    return hashlib.sha256("\n".join(sorted(found)).encode()).hexdigest()[:6]
