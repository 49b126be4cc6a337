"""What a measurement gets to work with: its seed, its settings, and help to survive being killed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import nn

from ..training import Checkpoints, fit
from ._folder import RunFolder

Measurement: TypeAlias = dict[str, float]
"""The figures of one seed at one scale; those whose names start with `_` are for the plot and stay out of records."""


@dataclass
class Context:
    """The surroundings of one measurement.

    Args:
        seed: of everything random.
        settings: of the experiment, at this scale.
        folder: of the run.
        fabric: a launched Lightning Fabric.
        data_dir: a local folder of data sets, or None.
        tensorboard: whether to write TensorBoard logs too.
    """

    seed: int
    settings: dict[str, Any]
    folder: RunFolder
    fabric: Any
    data_dir: str | None = None
    tensorboard: bool = False
    total_arms: int = 1
    _done_arms: int = field(default=0, init=False)
    _started: float = field(default_factory=time.monotonic, init=False)
    _seconds_before: float = field(default=0.0, init=False)
    _writer: Any = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._seconds_before = float((self.folder.read("progress.json") or {}).get("seconds", 0.0))

    @property
    def seconds(self) -> float:
        """Seconds spent on this run, those of killed processes counted in."""
        return self._seconds_before + time.monotonic() - self._started

    @property
    def device(self) -> torch.device:
        """Where models and batches belong."""
        return self.fabric.device

    def generator(self, salt: int = 0) -> torch.Generator:
        """A source of randomness that depends on the seed and the salt alone."""
        return torch.Generator().manual_seed(self.seed * 7_919 + salt)

    def arm(self, name: str, measure: Callable[[], Measurement]) -> Measurement:
        """Measure one arm, once: a run that was killed reads finished arms from disk."""
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
