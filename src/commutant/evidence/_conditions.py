"""Conditions of a run: runs under different conditions are never mixed."""

from __future__ import annotations

import json
from typing import Any

import torch

from ._claim import Experiment, Paper

_VERSIONS = ("commutant", "torch")
_WHAT = ("paper", "experiment", "scale", "seed")
_HOW = ("precision", "accelerator", "devices", "strategy")
_PRECISIONS = {"64": "64-true", "32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed"}  # Fabric's short names


def identity(paper: Paper, experiment: Experiment, scale: str, seed: int) -> dict[str, Any]:
    """Return the fields of `run.json` that say what was run; a run copied into another folder differs in them."""
    settings = json.loads(json.dumps(experiment.settings[scale]))  # as read from a file: lists instead of tuples
    return {"paper": paper.slug, "experiment": experiment.name, "scale": scale, "seed": seed, "settings": settings}


def full_precision_name(precision: object) -> object:
    """Return Fabric's full name of a precision; `"32"` and `"32-true"` are the same condition."""
    return _PRECISIONS.get(str(precision), precision)


def accelerator_here(name: str) -> str:
    """Return the accelerator used on this machine, with `"auto"` resolved; machines that share a folder may differ."""
    if name == "auto":
        name = "gpu" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    return "gpu" if name == "cuda" else name


def differences(run: dict[str, Any], head: dict[str, Any]) -> list[str]:
    """Return the conditions of a run that differ from the expected ones, in words.

    A field that is missing on either side counts as equal.

    Args:
        run: `run.json` of a run, finished or not.
        head: Expected conditions: those of `Task.conditions`, and `versions` and `data` where known.
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
