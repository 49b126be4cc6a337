"""The record: one small JSON file a claim and scale, from which every published table is made."""

from __future__ import annotations

import json
import logging
import math
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._errors import InputError, RunError
from ._claim import Claim, Paper
from ._conditions import differences, identity
from ._context import Measurement
from ._execute import run_folder
from ._folder import RunFolder, write_json
from ._verdict import Interval, Verdict, deviation_of, judge, mean_of

logger = logging.getLogger("commutant")

_SEED = re.compile(r"seed-(?:0|[1-9]\d*)")


@dataclass(frozen=True)
class Judged:
    """A claim with the runs behind it."""

    claim: Claim
    scale: str
    verdict: Verdict
    measurements: list[Measurement]
    runs: list[dict[str, Any]]
    """The `run.json` of each seed."""

    @property
    def seconds(self) -> float:
        """Compute time of all seeds."""
        return sum(float(run["seconds"]) for run in self.runs)


def judge_runs(paper: Paper, claim: Claim, scale: str, runs: Path) -> Judged | None:
    """Judge a claim from its finished runs on disk; None where there is none.

    Runs of one verdict share their conditions (precision, devices, versions, data): those of the run that finished
    last decide, and a warning names the others.

    Raises:
        InputError: for a scale that the experiment does not have.
        RunError: for runs that lack a figure which the claim reads.
    """
    if scale not in claim.experiment.settings:
        raise InputError(f"unknown scale {scale!r}; expected one of {', '.join(claim.experiment.settings)}")
    found = _finished(run_folder(paper, claim.experiment, scale, 0, runs).path.parent)
    if not found:
        return None
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
    measurements = [record["measurement"] for record in left]
    try:
        verdict = judge(claim, measurements)
    except KeyError as error:
        raise RunError(
            f"runs of {root} lack the figure {error}: an older version of the library measured them; delete the folder "
            f"{run_folder(paper, claim.experiment, scale, 0, runs).path.parent} and run again"
        ) from None
    return Judged(claim, scale, verdict, measurements, left)


def _finished(root: Path) -> dict[int, dict[str, Any]]:
    """Return the `run.json` of every finished run by the seed of its folder; folders of other names are not runs."""
    try:
        there = list(root.iterdir())  # glob shows an unreadable folder as an empty one
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise RunError(f"can't read {root}: {error.strerror or error}; choose another --runs") from None
    named = [(int(p.name.removeprefix("seed-")), p) for p in there if _SEED.fullmatch(p.name)]
    return {seed: run for seed, path in sorted(named) if (run := RunFolder(path).result()) is not None}


def figures(measurements: Sequence[Measurement]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation over seeds of every figure that is not for the plot alone."""
    return {
        key: {
            "mean": mean_of([m[key] for m in measurements]),
            "sd": deviation_of([m[key] for m in measurements]),
        }
        for key in measurements[0]
        if not key.startswith("_")
        and all(key in m for m in measurements)  # a seed measured by an older version may know others
    }


def record(paper: Paper, judged: Judged, results: Path) -> Path:
    """Write the record of a judged claim.

    Returns:
        The file written, `results/PAPER/CLAIM.SCALE.json`.
    """
    claim, verdict, first = judged.claim, judged.verdict, judged.runs[0]
    path = results / paper.slug / f"{claim.name}.{judged.scale}.json"
    write_json(
        path,
        {
            "paper": paper.slug,
            "claim": claim.name,
            "scale": judged.scale,
            "statement": claim.statement,
            "source": claim.source,
            "verdict": verdict.outcome,
            "reason": verdict.reason,
            "effect": {"label": claim.effect_label, **_interval(verdict.effect)},
            "basis": claim.basis,
            "cases": verdict.effect.cases,
            "bar": verdict.bar,
            "reported_effect": claim.reported_effect,
            "controls": {name: _interval(control) for name, control in verdict.controls.items()},
            "figures": {k: {n: _round(x) for n, x in v.items()} for k, v in figures(judged.measurements).items()},
            "reported": claim.reported,
            "seeds": [run["seed"] for run in judged.runs],
            "changes": claim.experiment.changes[judged.scale],
            "data": claim.experiment.data[judged.scale],
            "seconds": round(judged.seconds, 1),
            "versions": first["versions"],
            "hardware": first["hardware"],
            "threads": first["threads"],
            "date": first["date"],
            "commit": _commit(),
        },
    )
    return path


def read_records(results: Path) -> list[dict[str, Any]]:
    """All records of claims, by paper, claim and scale."""
    found = []
    for path in sorted(results.glob("*/*.json")):
        if path.parent.name == "benchmarks":
            continue
        try:
            found.append(json.loads(path.read_text(encoding="utf-8")))
        except ValueError as error:
            raise InputError(f"record {path} is damaged: {error}") from None
    return found


def _interval(interval: Interval) -> dict[str, float | None]:
    return {"mean": _round(interval.mean), "low": _round(interval.low), "high": _round(interval.high)}


def _round(value: float) -> float | None:  # JSON knows no infinity
    return float(f"{value:.4g}") if math.isfinite(value) else None


def _commit() -> str | None:
    """Return the commit of the library's own sources, where they lie in a repository that tracks them."""
    source = Path(__file__)
    try:
        tracked = ["git", "-C", str(source.parent), "ls-files", "--error-unmatch", source.name]
        if subprocess.run(tracked, capture_output=True, timeout=10).returncode:
            return None
        head = ["git", "-C", str(source.parent), "rev-parse", "--short", "HEAD"]
        done = subprocess.run(head, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
