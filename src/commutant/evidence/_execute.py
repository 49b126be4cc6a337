"""Execution of tasks: in this process, in others, on a Ray or Dask cluster, or on several devices."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import torch

from .._errors import CommutantError, InputError, RunError, require
from ._contents import DATA_MARK
from ._context import Context
from ._folder import RunFolder, environment
from ._task import Task

logger = logging.getLogger("commutant")

_ATTEMPTS = 3  # of a task whose worker dies


def run_task(task: Task) -> str | None:
    """Run one task to its end in this process; return the error in one sentence, or None."""
    try:
        if task.threads and "LOCAL_RANK" not in os.environ:
            torch.set_num_threads(task.threads)
        folder = task.folder
        if task.result() is not None or time.time() > task.not_after:
            return None
        if task.devices > 1 and "LOCAL_RANK" not in os.environ:
            return _run_on_devices(task)
        fabric = require("lightning_fabric", "evidence").Fabric(
            accelerator=task.accelerator, devices=task.devices, strategy=task.strategy, precision=task.precision
        )
        with _quiet_fabric():
            fabric.launch()
        with folder.locked() if fabric.global_rank == 0 else contextlib.nullcontext():
            _measure(task, folder, fabric)
        return None
    except CommutantError as error:
        return str(error)
    except Exception as error:  # one run that fails leaves the others to go on
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {' '.join(str(error).split())} (at {place.filename}:{place.lineno})"


def _measure(task: Task, folder: RunFolder, fabric: Any) -> None:
    experiment = task.paper.experiment(task.experiment)
    head = {"format": 1, **task.conditions()}
    if fabric.global_rank == 0:
        before = {**(folder.read("run.json") or {}), **(folder.read(DATA_MARK) or {})}
        if other := task.other_conditions(before):
            folder.set_aside(", ".join(other))
        folder.write("run.json", {**head, "status": "running", "started": time.time(), **environment()})
    fabric.barrier()
    context = Context(
        seed=task.seed,
        settings=experiment.settings[task.scale],
        folder=folder,
        fabric=fabric,
        data_dir=task.data_dir,
        tensorboard=task.tensorboard,
    )
    measurement = experiment.measure(context)
    if fabric.global_rank == 0:
        record = {**head, **(folder.read(DATA_MARK) or {"data": None}), "status": "done", **environment()}
        record |= {"finished": time.time(), "seconds": round(context.seconds, 1), "measurement": measurement}
        folder.write("run.json", record)


def _run_on_devices(task: Task) -> str | None:
    """Run a task with torchrun, one process per device."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={task.devices}"]
    command += ["-m", "commutant.evidence", json.dumps(asdict(task))]
    environ = {**os.environ, "OMP_NUM_THREADS": str(max(1, task.threads))}
    done = subprocess.run(command, capture_output=True, text=True, env=environ)
    if done.returncode == 0:
        return None
    said = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("commutant: ")]
    return (
        said[-1].removeprefix("commutant: ") if said else f"a process of {task.devices} failed:\n{done.stderr[-2000:]}"
    )


@contextlib.contextmanager
def _quiet_fabric() -> Iterator[None]:
    """Silence the announcement of devices that Fabric makes on every launch."""
    loggers = [logging.getLogger(name) for name in ("lightning.fabric", "lightning_fabric")]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)


def execute(
    tasks: Sequence[Task],
    *,
    jobs: int = 1,
    backend: str = "loky",
    on_progress: Callable[[Task, float, str | None], None] | None = None,
) -> dict[Task, str]:
    """Run tasks in the given order until each has finished, has failed or is past its start deadline.

    Finished runs are on disk and never run again. When a worker dies (killed, out of memory, lost node), its unfinished
    tasks are retried and resume from their checkpoints.

    Args:
        tasks: Tasks to run.
        jobs: Number of tasks run at the same time.
        backend: A joblib backend: `"loky"` (processes on this machine), `"ray"` or `"dask"` (the connected cluster, or
            a local one).
        on_progress: Function called with (task, share done, error or None) from another thread, for the first time
            when the task starts.

    Returns:
        The tasks that failed, each with the reason in a sentence.
    """
    for attempt in range(_ATTEMPTS):
        pending = [task for task in tasks if task.result() is None]
        if not pending:
            break
        with _watch(pending, on_progress):
            try:
                errors = _run_all(pending, jobs, backend)
            except Exception as error:
                if not _is_worker_death(error) or attempt == _ATTEMPTS - 1:
                    raise
                logger.warning("a worker died (%s); its unfinished runs go on in another", type(error).__name__)
                continue
        failed = {task: error for task, error in zip(pending, errors, strict=True) if error is not None}
        if on_progress is not None:
            for task in pending:
                if task in failed or task.result() is not None:
                    on_progress(task, 1.0, failed.get(task))
        return failed
    return {}


def _run_all(pending: list[Task], jobs: int, backend: str) -> list[str | None]:
    if jobs == 1 and backend == "loky":
        return [run_task(task) for task in pending]
    joblib = require("joblib", "evidence")
    if backend == "ray":
        require("ray.util.joblib", "sweep").register_ray()
    elif backend == "dask":
        distributed = require("distributed", "sweep")
        try:
            distributed.get_client()
        except ValueError:
            distributed.Client(n_workers=jobs, threads_per_worker=1, dashboard_address=None)
    elif backend != "loky":
        raise InputError(f"backend must be 'loky', 'ray' or 'dask', got {backend!r}")
    with joblib.parallel_config(backend=backend, n_jobs=jobs), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="A worker stopped while some jobs were given")  # loky's own recycling
        return list(joblib.Parallel(batch_size=1, pre_dispatch="all")(joblib.delayed(run_task)(t) for t in pending))


def _is_worker_death(error: BaseException) -> bool:
    names = {c.__name__ for c in type(error).__mro__}
    return bool(
        names
        & {
            "TerminatedWorkerError",
            "BrokenProcessPool",
            "RayActorError",
            "WorkerCrashedError",
            "KilledWorker",
            "RayError",
            "ActorDiedError",
        }
    )


@contextlib.contextmanager
def _watch(tasks: list[Task], on_progress: Callable[[Task, float, str | None], None] | None) -> Iterator[None]:
    """Report the progress that the runs leave on disk; this works for any backend that shares the file system."""
    if on_progress is None:
        yield
        return
    stop = threading.Event()
    earlier = {task: _started(task) for task in tasks}  # of runs that were interrupted

    def poll() -> None:
        while not stop.wait(0.5):
            for task in tasks:
                with contextlib.suppress(OSError, ValueError, KeyError, RunError):
                    if _started(task) != earlier[task]:
                        on_progress(task, min(_share_done(task), 0.999), None)

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _started(task: Task) -> object:
    """Return the time at which a run last started; None if it never did, and the time of its end once it is done."""
    try:
        run = json.loads((task.folder.path / "run.json").read_text(encoding="utf-8"))
        return run.get("started", run.get("finished"))
    except (OSError, ValueError, AttributeError):
        return None


def _share_done(task: Task) -> float:
    if task.result() is not None:
        return 1.0
    path = task.folder.path / "progress.json"
    return float(json.loads(path.read_text(encoding="utf-8"))["done"]) if path.exists() else 0.0


def main(argument: str) -> int:
    """Run one task of a multi-process launch: `python -m commutant.evidence '{...}'`."""
    error = run_task(Task(**json.loads(argument)))
    if error is not None:
        raise RunError(error)
    return 0
