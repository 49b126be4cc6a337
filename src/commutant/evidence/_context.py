"""Environment of a measurement: its seed, its settings, and support for resuming after a kill."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import nn

from ..training import Checkpoints, fit
from ._contents import DATA_MARK, data_digest
from ._folder import RunFolder

Measurement: TypeAlias = dict[str, float]
"""Measured numbers of one seed at one scale, by name; names that start with `_` are only for the plot."""


class Context:
    """Environment of one measurement: seed, settings, folders and devices.

    Args:
        seed: Seed of everything random.
        settings: Settings of the experiment at this scale.
        folder: Folder of the run.
        fabric: A launched Lightning Fabric.
        data_dir: Local folder of data sets, or None.
        tensorboard: Whether to write TensorBoard logs too.
    """

    def __init__(
        self,
        seed: int,
        settings: dict[str, Any],
        folder: RunFolder,
        fabric: Any,
        data_dir: str | None = None,
        tensorboard: bool = False,
    ) -> None:
        self.seed, self.settings, self.folder, self.fabric = seed, settings, folder, fabric
        self.tensorboard = tensorboard
        self.total_arms = 1
        self._data_dir = data_dir
        self._done_arms = 0
        self._started = time.monotonic()
        self._seconds_before = float((folder.read("progress.json") or {}).get("seconds", 0.0))
        self._writer: Any = None

    @property
    def data_dir(self) -> str | None:
        """Local folder of data sets; reading this property notes the contents of the folder in the run."""
        if self.fabric.global_rank == 0 and not (self.folder.path / DATA_MARK).exists():
            self.folder.write(DATA_MARK, {"data": data_digest(self._data_dir)})
        return self._data_dir

    @property
    def seconds(self) -> float:
        """Seconds spent on this run, including those of killed processes."""
        return self._seconds_before + time.monotonic() - self._started

    @property
    def device(self) -> torch.device:
        """Device of models and batches."""
        return self.fabric.device

    def generator(self, salt: int = 0) -> torch.Generator:
        """Return a generator that depends only on the seed and the salt."""
        return torch.Generator().manual_seed(self.seed * 7_919 + salt)

    def arm(self, name: str, measure: Callable[[], Measurement]) -> Measurement:
        """Measure one arm, or read its numbers from disk if an earlier process has finished it."""
        stored = self.folder.read(f"arms/{name}.json")
        if stored is None:
            stored = measure()
            self.fabric.barrier()
            if self.fabric.global_rank == 0:
                self.folder.write(f"arms/{name}.json", stored)
                Checkpoints(self.folder.path / "checkpoint" / name).remove()
        self._done_arms += 1
        self._report(0.0)
        return {key: float(value) for key, value in stored.items()}

    def arms(self, measures: Mapping[str, Callable[[], Measurement]]) -> Measurement:
        """Measure every arm once and return all their numbers together.

        Args:
            measures: For each arm, by its name on disk, the function that measures it.
        """
        self.total_arms = len(measures)
        found: Measurement = {}
        for name, measure in measures.items():
            found |= self.arm(name, measure)
        return found

    def train(self, name: str, make: Callable[[], nn.Module], draw: Any, loss: Any, **settings: Any) -> nn.Module:
        """Build and train the model of an arm, resuming where a killed run stopped; see `commutant.training.fit`."""
        torch.manual_seed(self.seed * 7_919 + 1)
        model = make()
        started = time.monotonic()

        def on_progress(done: int, steps: int, loss_value: float | None) -> None:
            if self.fabric.global_rank:
                return
            self._report(done / steps)
            if loss_value is not None:
                seconds = time.monotonic() - started
                self.folder.log(name, done, {"loss": loss_value, "seconds": round(seconds, 3)})
                self._tensorboard(name, done, loss_value)

        folder = self.folder.path / "checkpoint" / name
        fitted = fit(
            model, draw, loss, seed=self.seed, folder=folder, fabric=self.fabric, on_progress=on_progress, **settings
        )
        return fitted.model

    def _report(self, within: float) -> None:
        if self.fabric.global_rank == 0:
            done = min(1.0, (self._done_arms + within) / max(1, self.total_arms))
            self.folder.write("progress.json", {"done": done, "seconds": round(self.seconds, 2)})

    def _tensorboard(self, arm: str, step: int, loss: float) -> None:
        if not self.tensorboard:
            return
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self.folder.path / "tensorboard"))
        self._writer.add_scalar(f"{arm}/loss", loss, step)
        self._writer.flush()
