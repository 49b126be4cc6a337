"""The training loop, whose result depends only on its seed, even if it was interrupted."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .._errors import InputError, require
from ._checkpoint import Checkpoints

Draw = Callable[[torch.Generator, int], Any]
Loss = Callable[[nn.Module, Any], Tensor]


@dataclass(frozen=True)
class Fit:
    """Result of a training run.

    Attributes:
        model: Trained module, in evaluation mode.
        steps: Number of optimizer steps.
        losses: Pairs of a step and the mean loss since the pair before.
    """

    model: nn.Module
    steps: int
    losses: list[tuple[int, float]]


def fit(
    model: nn.Module,
    draw: Draw,
    loss: Loss,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    folder: Path | None = None,
    warmup: int = 0,
    clip: float | None = 1.0,
    weight_decay: float = 0.0,
    checkpoint_every: int = 500,
    fabric: Any = None,
    on_progress: Callable[[int, int, float | None], None] | None = None,
) -> Fit:
    """Train with AdamW and a cosine schedule on batches drawn step by step.

    Every step draws its batch and its random numbers from (seed, step, rank). A training run that was killed and
    restarted therefore takes the same steps as an uninterrupted one. On CPU, the results are identical to the last bit.

    Args:
        model: Module to train, in place.
        draw: Function `(generator, samples) -> batch`; on several devices, each rank draws its part of the batch.
        loss: Function `(model, batch) -> scalar`.
        steps: Number of optimizer steps.
        batch_size: Number of samples per step, over all ranks.
        learning_rate: Peak learning rate of the schedule.
        seed: Seed of everything random.
        folder: Folder of the checkpoints, or None to save and resume nothing.
        warmup: Number of steps of linear warm-up before the cosine.
        clip: Largest gradient norm, or None.
        weight_decay: Weight decay of AdamW.
        checkpoint_every: Number of steps between checkpoints.
        fabric: Launched `lightning_fabric.Fabric`; by default one on the CPU.
        on_progress: Function called with (steps done, steps, mean loss or None).

    Returns:
        The trained model and its losses.

    Raises:
        InputError: If the loss is not finite (the message names the steps), or if `folder` holds checkpoints of another
            training run.
    """
    if fabric is None:
        fabric = require("lightning_fabric", "evidence").Fabric(accelerator="cpu", devices=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=weight_decay)
    checkpoints = None if folder is None else Checkpoints(folder)
    kept = {
        "seed": seed, "steps": steps, "batch_size": batch_size, "learning_rate": learning_rate, "warmup": warmup,
        "clip": clip, "weight_decay": weight_decay, "ranks": fabric.world_size,
        "precision": fabric.strategy.precision.precision,
    }  # fmt: skip
    start, extra = (0, {}) if checkpoints is None else checkpoints.load(model, optimizer, expect=kept)
    losses = [(int(step), float(value)) for step, value in extra.get("losses", [])]
    fabric_model, fabric_optimizer = fabric.setup(model, optimizer)
    share = max(1, batch_size // fabric.world_size)
    fabric_model.train()
    total, since, last = 0.0, 0, time.monotonic()
    for step in range(start, steps):
        key = (seed * 1_000_003 + step) * 1_009 + fabric.global_rank
        batch = draw(torch.Generator().manual_seed(key), share)
        torch.manual_seed(key + 500_000_009)
        for group in fabric_optimizer.param_groups:
            group["lr"] = learning_rate * _schedule(step, steps, warmup)
        fabric_optimizer.zero_grad()
        value = loss(fabric_model, batch)
        fabric.backward(value)
        if clip is not None:
            fabric.clip_gradients(fabric_model, fabric_optimizer, max_norm=clip, error_if_nonfinite=False)
        fabric_optimizer.step()
        total, since = total + float(value.detach()), since + 1
        done = step + 1
        if done % checkpoint_every == 0 or done == steps:
            if not math.isfinite(total):
                raise InputError(
                    f"loss must be finite, but is not between steps {done - since} and {done}; lower the learning rate "
                    f"or check the data"
                )
            losses.append((done, total / since))
            total, since = 0.0, 0
            if checkpoints is not None and fabric.global_rank == 0:
                checkpoints.save(done, model, optimizer, {"losses": losses, "settings": kept})
            if on_progress is not None:
                on_progress(done, steps, losses[-1][1])
            last = time.monotonic()
        elif on_progress is not None and time.monotonic() - last > 0.5:
            on_progress(done, steps, None)
            last = time.monotonic()
    fabric.barrier()
    return Fit(model.eval(), steps, losses)


def _schedule(step: int, steps: int, warmup: int) -> float:
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
