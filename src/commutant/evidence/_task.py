"""One run: its folder, its conditions, and whether it is done."""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._errors import InputError
from ._claim import Experiment, Paper
from ._conditions import accelerator_here, differences, full_precision_name, identity
from ._contents import data_digest
from ._folder import RunFolder, versions


@dataclass(frozen=True)
class Task:
    """One run: an experiment at one scale with one seed, and how to run it.

    Args:
        module: Name of the importable module whose `PAPER` holds the experiment.
        experiment: Name of the experiment.
        scale: Name of the scale.
        seed: Seed of everything random.
        runs: Folder of all runs.
        accelerator: Accelerator for Lightning Fabric.
        devices: Number of devices for Lightning Fabric.
        strategy: Strategy for Lightning Fabric.
        precision: Precision for Lightning Fabric.
        data_dir: Local folder of data sets.
        tensorboard: Whether to write TensorBoard logs too.
        threads: Number of torch threads of the process; 0 leaves the choice to torch.
        not_after: Deadline, in seconds of `time.time`, after which the run is not started.
    """

    module: str
    experiment: str
    scale: str
    seed: int
    runs: str
    accelerator: str = "cpu"
    devices: int = 1
    strategy: str = "auto"
    precision: str = "32-true"
    data_dir: str | None = None
    tensorboard: bool = False
    threads: int = 1
    not_after: float = math.inf

    @property
    def paper(self) -> Paper:
        """Paper that the task belongs to."""
        paper = getattr(importlib.import_module(self.module), "PAPER", None)
        if not isinstance(paper, Paper):
            raise InputError(f"module {self.module} defines no PAPER")
        return paper

    @property
    def folder(self) -> RunFolder:
        """Folder of the run."""
        return run_folder(self.paper, self.paper.experiment(self.experiment), self.scale, self.seed, Path(self.runs))

    def conditions(self) -> dict[str, Any]:
        """Return the fields of `run.json` that say what the task runs, and how."""
        return {
            **identity(self.paper, self.paper.experiment(self.experiment), self.scale, self.seed),
            "precision": full_precision_name(self.precision),
            "accelerator": accelerator_here(self.accelerator),
            "devices": self.devices,
            "strategy": self.strategy,
        }

    def result(self) -> dict[str, Any] | None:
        """Return `run.json` of the finished run, or None if no run finished under the conditions of this task."""
        found = self.folder.result()
        return found if found is not None and not self.other_conditions(found) else None

    def other_conditions(self, run: dict[str, Any]) -> list[str]:
        """Return the conditions of a run in this task's folder that differ from those of the task, in words."""
        head = {**self.conditions(), "versions": versions()}
        if run.get("data") is not None:
            head["data"] = data_digest(self.data_dir)
        return differences(run, head)


def run_folder(paper: Paper, experiment: Experiment, scale: str, seed: int, runs: Path) -> RunFolder:
    """Return the folder of one run.

    Args:
        paper: Paper that makes the claim.
        experiment: Experiment that is run.
        scale: Name of the scale.
        seed: Seed of the run.
        runs: Folder of all runs.
    """
    where = f"{scale}-{experiment.digest(scale)}"
    return RunFolder(runs / paper.slug / experiment.name / where / f"seed-{seed}")
