"""Folder of a run: locked by one process, written one whole file at a time, readable after a kill at any time."""

from __future__ import annotations

import json
import logging
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from types import UnionType
from typing import Any

import torch
from filelock import FileLock, Timeout

from .._errors import RunError

logger = logging.getLogger("commutant")

_NEEDED: dict[str, type | UnionType] = {
    "seed": int, "measurement": dict, "seconds": int | float, "finished": int | float, "versions": dict,
    "hardware": str, "threads": int, "date": str,
}  # fmt: skip
"""Fields that a finished run must hold, with their types."""


class RunFolder:
    """Folder of one run (one experiment, scale and seed).

    `run.json` holds the settings, the machine and the result. `arms/` holds the figures of finished arms,
    `metrics.jsonl` the training curves, and `checkpoint/` the state of unfinished training.

    Args:
        path: Path of the folder; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder, or raise `RunError` if another process holds it; the lock ends with the process."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / ".lock")
            lock.acquire(timeout=0)
        except Timeout:
            raise RunError(f"{self.path} is in use by another process; wait for it or choose another --runs") from None
        except OSError as error:
            raise RunError(f"can't write to {self.path}: {error.strerror or error}; choose another --runs") from None
        try:
            yield
        finally:
            lock.release()

    def set_aside(self, reason: str) -> None:
        """Move the contents into a neighboring folder, so that a run under other conditions is kept and not mixed in.

        Args:
            reason: Conditions of the run that is moved, in words, for the log.
        """
        number = 1
        while (target := self.path.with_name(f"{self.path.name}.set-aside-{number}")).exists():
            number += 1
        logger.warning("%s was run with %s; kept as %s", self.path, reason, target.name)
        try:
            target.mkdir()
            for each in self.path.iterdir():
                if each.name != ".lock":
                    each.rename(target / each.name)
        except OSError as error:
            raise RunError(f"can't write to {target}: {error.strerror or error}; choose another --runs") from None

    def result(self) -> dict[str, Any] | None:
        """Return `run.json` of a finished run, or None; a file that lacks a needed field is set aside."""
        record = self.read("run.json")
        if record is None or record.get("status") != "done":
            return None
        missing = [key for key, kind in _NEEDED.items() if not isinstance(record.get(key), kind)]
        if not missing and not all(isinstance(value, int | float) for value in record["measurement"].values()):
            missing = ["a number for each figure"]
        if missing:
            self._set_aside_file(self.path / "run.json", f"it lacks {missing[0]}")
            return None
        return record

    def read(self, name: str) -> dict[str, Any] | None:
        """Return the contents of a JSON file of the run, or None; a damaged file is set aside with a warning."""
        path = self.path / name
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(record, dict):
                raise ValueError("it holds no JSON object")
            return record
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RunError(f"can't read {path}: {error.strerror or error}; choose another --runs") from None
        except (ValueError, RecursionError) as error:
            self._set_aside_file(path, str(error))
            return None

    def _set_aside_file(self, path: Path, problem: str) -> None:
        logger.warning("%s is damaged (%s); set aside as %s.damaged", path, problem, path.name)
        try:
            path.replace(path.with_name(path.name + ".damaged"))
        except OSError as failure:
            raise RunError(
                f"{path} is damaged ({problem}) and can't be set aside: {failure.strerror or failure}; "
                "choose another --runs"
            ) from None

    def write(self, name: str, record: dict[str, Any]) -> None:
        """Write a JSON file in one step: a failure leaves the file as it was."""
        write_json(self.path / name, record)

    def log(self, arm: str, step: int, values: dict[str, float]) -> None:
        """Append to the training curves; a resumed run repeats the steps after its checkpoint, with equal values."""
        line = json.dumps({"arm": arm, "step": step, **values})
        try:
            with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise RunError(f"can't write to {self.path}: {error.strerror or error}") from None

    def curves(self) -> dict[str, list[tuple[int, float]]]:
        """Return the training loss of every arm, by step."""
        found: dict[str, dict[int, float]] = {}
        path = self.path / "metrics.jsonl"
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []:
            try:
                entry = json.loads(line)
                found.setdefault(entry["arm"], {})[int(entry["step"])] = float(entry["loss"])
            except (ValueError, KeyError, TypeError):
                continue  # the last line of a killed run may be cut
        return {arm: sorted(points.items()) for arm, points in found.items()}


def write_json(path: Path, record: dict[str, Any]) -> None:
    """Write JSON into a temporary file and rename it into place.

    Args:
        path: Path of the file.
        record: Contents.

    Raises:
        RunError: The disk is full or not writable; the file is then as it was.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with scratch.open("w", encoding="utf-8") as file:
            json.dump(record, file, indent=1)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except OSError as error:
        with suppress(OSError):  # an unwritable folder may be unreadable too
            scratch.unlink()
        raise RunError(f"can't write {path}: {error.strerror or error}") from None


@cache
def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a measurement may depend on."""
    found = {"python": platform.python_version()}
    for package in ("commutant", "torch", "torch-geometric", "lightning-fabric", "numpy", "scipy", "scikit-learn"):
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def environment() -> dict[str, Any]:
    """Return the versions, hardware, number of threads and date that are stored with a measurement."""
    return {
        "versions": versions(),
        "hardware": hardware(),
        "threads": torch.get_num_threads(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def hardware() -> str:
    """Return the processor, the number of cores and the accelerators, in words."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.split(":", 1)[1].strip()
            for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
            if line.startswith("model name")
        ]
        model = names[0] if names else model
    gpus = (
        [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    )
    return f"{model}, {os.cpu_count()} cores" + (f", {', '.join(gpus)}" if gpus else ", no GPU")
