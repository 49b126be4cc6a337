"""A claim with its verdict, computed from finished runs on disk."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .._checks import one_of
from .._errors import RunError
from ._claim import Claim, Paper
from ._conditions import differences, identity
from ._context import Measurement
from ._folder import RunFolder
from ._interval import deviation_of, mean_of
from ._plan import plan_behind
from ._task import run_folder
from ._verdict import Verdict, judge

logger = logging.getLogger("commutant")

_SEED = re.compile(r"seed-(?:0|[1-9]\d*)")


@dataclass(frozen=True)
class Judged:
    """A claim with its verdict, computed from runs on disk or read from a record.

    Attributes:
        paper: Paper that makes the claim.
        claim: The claim.
        scale: Scale of the runs.
        verdict: Verdict with its intervals.
        figures: Mean and standard deviation over seeds of each measured number.
        seeds: Seeds of the runs.
        seconds: Compute time of all seeds.
        made: Versions, hardware, number of threads and date of the runs.
        measurements: Measured numbers of each seed; empty for a record.
        seeds_from: Pilot and power calculation behind the number of seeds; None where the number was given.
        recorded: Whether the verdict was read from a record.
    """

    paper: Paper
    claim: Claim
    scale: str
    verdict: Verdict
    figures: dict[str, dict[str, float]]
    seeds: list[int]
    seconds: float
    made: dict[str, Any]
    measurements: list[Measurement] = field(default_factory=list)
    seeds_from: dict[str, Any] | None = None
    recorded: bool = False


def judge_runs(paper: Paper, claim: Claim, scale: str, runs: Path) -> Judged | None:
    """Judge a claim from its finished runs on disk; return None if there is no run.

    All runs behind one verdict share their conditions (precision, devices, versions, data). The run that finished last
    decides which conditions count, and a warning names the runs that are left out.

    Args:
        paper: Paper that makes the claim.
        claim: The claim.
        scale: Scale of the runs.
        runs: Folder of all runs.

    Raises:
        InputError: The experiment has no such scale.
        RunError: The runs lack a measured number that the claim reads.
    """
    one_of("scale", scale, claim.experiment.settings)
    folder = run_folder(paper, claim.experiment, scale, 0, runs).path.parent
    found = _finished(folder)
    root = f"{paper.slug}/{claim.experiment.name}"
    own = {seed: differences(run, identity(paper, claim.experiment, scale, seed)) for seed, run in found.items()}
    last = max((run for seed, run in found.items() if not own[seed]), key=lambda run: run["finished"], default={})
    left = []
    for seed, run in found.items():
        if reasons := own[seed] or differences(run, {**last, "seed": seed}):
            logger.warning("%s: seed %s is left out, it was run with %s", root, seed, ", ".join(reasons))
        else:
            left.append(run)
    if not left:
        return None
    measurements, seeds = [run["measurement"] for run in left], [run["seed"] for run in left]
    try:
        verdict = judge(claim, measurements, scale)
    except KeyError as error:
        raise RunError(
            f"runs of {root} lack the value {error}: an older version of the library measured them; delete the folder "
            f"{folder} and run again"
        ) from None
    return Judged(
        paper,
        claim,
        scale,
        verdict,
        figures(measurements),
        seeds,
        seconds=sum(float(run["seconds"]) for run in left),
        made={key: left[0][key] for key in ("versions", "hardware", "threads", "date")},
        measurements=measurements,
        seeds_from=plan_behind(claim, seeds, folder),
    )


def _finished(folder: Path) -> dict[int, dict[str, Any]]:
    """Return `run.json` of every finished run by the seed of its folder; folders with other names are not runs."""
    try:
        there = list(folder.iterdir())  # glob shows an unreadable folder as an empty one
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise RunError(f"can't read {folder}: {error.strerror or error}; choose another --runs") from None
    named = [(int(p.name.removeprefix("seed-")), p) for p in there if _SEED.fullmatch(p.name)]
    return {seed: run for seed, path in sorted(named) if (run := RunFolder(path).result()) is not None}


def figures(measurements: Sequence[Measurement]) -> dict[str, dict[str, float]]:
    """Return the mean and standard deviation over seeds of every measured number that is not only for the plot.

    Args:
        measurements: Measured numbers of each seed.
    """
    return {
        key: {
            "mean": mean_of([m[key] for m in measurements]),
            "sd": deviation_of([m[key] for m in measurements]),
        }
        for key in measurements[0]
        if not key.startswith("_")
        and all(key in m for m in measurements)  # a seed measured by an older version may know others
    }
