"""Checkpoints that a killed process can't damage: written beside, verified by hash, never unpickled."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

logger = logging.getLogger("commutant")

_KEEP = 2  # generations: the last one, and the one before in case the last is damaged


class Checkpoints:
    """The checkpoints of one training, in one folder.

    Each is a folder `step-N` with the tensors in safetensors files, the rest in `state.json`, and the SHA-256 of both.
    It is written under another name and renamed into place; the last two are kept.

    Args:
        folder: made when first written to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, extra: dict[str, Any]) -> None:
        """Write the state after `step` steps."""
        target = self.folder / f"step-{step:09d}"
        if target.exists():
            return
        scratch = self.folder / f".writing-{os.getpid()}"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        tensors, plain = _flatten_optimizer(optimizer)
        save_file({k: v.detach().contiguous() for k, v in model.state_dict().items()}, scratch / "model.safetensors")
        save_file(tensors, scratch / "optimizer.safetensors")
        hashes = {name: _sha256(scratch / name) for name in ("model.safetensors", "optimizer.safetensors")}
        state = {"step": step, "optimizer": plain, "extra": extra, "sha256": hashes}
        (scratch / "state.json").write_text(json.dumps(state))
        _sync(scratch)
        scratch.rename(target)
        for old in self._steps()[:-_KEEP]:
            shutil.rmtree(old, ignore_errors=True)

    def load(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, dict[str, Any]]:
        """Restore the newest checkpoint that is whole; name the damaged ones and pass them over.

        Returns:
            The number of steps done (0 where there is no good checkpoint) and what was saved as `extra`.
        """
        for folder in reversed(self._steps()):
            try:
                state = json.loads((folder / "state.json").read_text())
                for name, digest in state["sha256"].items():
                    if _sha256(folder / name) != digest:
                        raise ValueError(f"{name} does not match its hash")
                weights = load_file(folder / "model.safetensors")
                moments = load_file(folder / "optimizer.safetensors")
                model.load_state_dict(weights)
                _restore_optimizer(optimizer, moments, state["optimizer"])
                return int(state["step"]), state["extra"]
            except (OSError, ValueError, KeyError, RuntimeError, TypeError) as error:
                logger.warning("checkpoint %s is damaged (%s); going back to the one before", folder, error)
        return 0, {}

    def remove(self) -> None:
        """Delete all checkpoints, once the result they led to is stored."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _steps(self) -> list[Path]:
        return sorted(self.folder.glob("step-*")) if self.folder.is_dir() else []


def _flatten_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    state = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, dict[str, Any]] = {}
    for index, entries in state["state"].items():
        for name, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{name}"] = value.detach().contiguous()
            else:
                numbers.setdefault(str(index), {})[name] = value
    return tensors, {"numbers": numbers, "param_groups": state["param_groups"]}


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], plain: dict[str, Any]) -> None:
    state: dict[int, dict[str, Any]] = {int(i): dict(entries) for i, entries in plain["numbers"].items()}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    groups = [{k: tuple(v) if k == "betas" else v for k, v in group.items()} for group in plain["param_groups"]]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _sync(folder: Path) -> None:
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
