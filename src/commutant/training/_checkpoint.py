"""Checkpoints that a killed process cannot damage: renamed into place, verified by hash, never unpickled."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .._errors import InputError, RunError

logger = logging.getLogger("commutant")

_FILES = ("model.safetensors", "optimizer.safetensors", "state.json")
_STEP = re.compile(r"step-\d+")  # folders of other names belong to the user
_KEEP = 2  # the last checkpoint, and the one before in case the last is damaged


class Checkpoints:
    """Checkpoints of one training run, in one folder.

    Each checkpoint is a folder `step-N` with tensors in two safetensors files, all else in `state.json`, and the
    SHA-256 of these three files in `hashes.json`. It is written under another name and then renamed. The last two
    checkpoints are kept.

    Args:
        folder: Folder of the checkpoints, created by the first `save`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, extra: dict[str, Any]) -> None:
        """Write the state after `step` steps.

        Args:
            step: Number of steps done.
            model: Module to save.
            optimizer: Optimizer to save.
            extra: Further data that JSON can represent.

        Raises:
            RunError: If the disk is full or not writable; earlier checkpoints stay.
        """
        target = self.folder / f"step-{step:09d}"
        if target.exists():
            return
        try:
            self._write(target, step, model, optimizer, extra)
        except (OSError, SafetensorError) as error:
            said = getattr(error, "strerror", None) or error
            raise RunError(f"can't write checkpoint {target} ({said}); free space or choose another folder") from None
        for old in self._steps()[:-_KEEP]:
            shutil.rmtree(old, ignore_errors=True)

    def _write(
        self, target: Path, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, extra: dict[str, Any]
    ) -> None:
        scratch = self.folder / f".writing-{os.getpid()}"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        tensors, plain = _flatten_optimizer(optimizer)
        save_file(_own_storage(model.state_dict()), scratch / "model.safetensors")
        save_file(_own_storage(tensors), scratch / "optimizer.safetensors")
        state = {"step": step, "optimizer": plain, "extra": extra}
        (scratch / "state.json").write_text(json.dumps(state), encoding="utf-8")
        hashes = {name: _sha256(scratch / name) for name in _FILES}
        (scratch / "hashes.json").write_text(json.dumps(hashes), encoding="utf-8")
        _sync(scratch)
        scratch.rename(target)

    def load(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, expect: dict[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Restore the newest intact checkpoint, and log a warning for each damaged one.

        A checkpoint is read, verified and compared completely before the model or optimizer changes.

        Args:
            model: Module to restore.
            optimizer: Optimizer to restore.
            expect: Values that `extra["settings"]` must hold, by name.

        Returns:
            The number of steps done (0 without an intact checkpoint) and the saved `extra`.

        Raises:
            InputError: For an intact checkpoint of another model, another optimizer or other settings.
        """
        for folder in reversed(self._steps()):
            try:
                hashes = json.loads((folder / "hashes.json").read_text(encoding="utf-8"))
                for name in _FILES:
                    if _sha256(folder / name) != hashes[name]:
                        raise ValueError(f"{name} does not match its hash")
                state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
                weights = load_file(folder / "model.safetensors")
                optimizer_state = _optimizer_state(load_file(folder / "optimizer.safetensors"), state["optimizer"])
                step, extra = int(state["step"]), state["extra"]
            except (OSError, ValueError, KeyError, RuntimeError, TypeError, SafetensorError) as error:
                logger.warning("checkpoint %s is damaged (%s); trying the one before", folder, error)
                continue
            other = (
                _differs(extra.get("settings", {}), expect or {})
                or _other_weights(model, weights)
                or _other_groups(optimizer, state)
            )
            if other:
                raise InputError(
                    f"checkpoint {folder} belongs to another training run: {other}; choose another folder or delete it"
                )
            model.load_state_dict(weights)
            optimizer.load_state_dict(optimizer_state)
            return step, extra
        return 0, {}

    def remove(self) -> None:
        """Delete all checkpoints."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _steps(self) -> list[Path]:
        return sorted(p for p in self.folder.glob("step-*") if _STEP.fullmatch(p.name))


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


def _optimizer_state(tensors: dict[str, Tensor], plain: dict[str, Any]) -> dict[str, Any]:
    state: dict[int, dict[str, Any]] = {int(i): dict(entries) for i, entries in plain["numbers"].items()}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    groups = [{k: tuple(v) if k == "betas" else v for k, v in group.items()} for group in plain["param_groups"]]
    return {"state": state, "param_groups": groups}


def _own_storage(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors, because safetensors refuses shared memory; tied weights are written under each of their names."""
    return {k: v.detach().clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}


def _differs(found: dict[str, Any], expect: dict[str, Any]) -> str:
    other = [f"{k} was {found.get(k)!r} and is {v!r}" for k, v in expect.items() if found.get(k) != v]
    return ", ".join(other)


def _other_weights(model: nn.Module, weights: dict[str, Tensor]) -> str:
    wanted, there = model.state_dict(), weights
    for what, of in (("shape", lambda tensor: tuple(tensor.shape)), ("dtype", lambda tensor: tensor.dtype)):
        for name in sorted(wanted.keys() | there.keys()):
            given, expected = (None if name not in side else of(side[name]) for side in (there, wanted))
            if given != expected:
                return f"{name} has {what} {given}, the model has {expected}"
    return ""


def _other_groups(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> str:
    wanted = [len(group["params"]) for group in optimizer.param_groups]
    there = [len(group["params"]) for group in state["optimizer"]["param_groups"]]
    if wanted != there:
        return f"its optimizer has groups of {there} parameters, this optimizer of {wanted}"
    for own, other in zip(optimizer.param_groups, state["optimizer"]["param_groups"], strict=True):
        if odd := sorted((own.keys() ^ other.keys()) - {"initial_lr"}):
            return f"its optimizer is of another kind, as {odd[0]!r} is an option of only one of the two"
    return ""


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _sync(folder: Path) -> None:
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
