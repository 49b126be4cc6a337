"""The record: one small JSON file a claim and scale, from which every published table is made."""

from __future__ import annotations

import json
import math
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._errors import InputError, RunError
from ._claim import Claim, Paper
from ._context import Measurement
from ._execute import run_folder
from ._folder import write_json
from ._verdict import Interval, Verdict, judge


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
    """Judge a claim from its finished runs on disk; None where there is none."""
    found = []
    root = run_folder(paper, claim.experiment, scale, 0, runs).path.parent
    for path in sorted(root.glob("seed-*"), key=lambda p: int(p.name.removeprefix("seed-"))):
        seed = int(path.name.removeprefix("seed-"))
        record = run_folder(paper, claim.experiment, scale, seed, runs).result()
        if record is not None:
            found.append(record)
    if not found:
        return None
    measurements = [record["measurement"] for record in found]
    try:
        verdict = judge(claim, measurements)
    except KeyError as error:
        raise RunError(
            f"runs of {paper.slug}/{claim.experiment.name} in {root} lack the figure {error}: an older version of the "
            "library measured them; delete that folder and run again"
        ) from None
    return Judged(claim, scale, verdict, measurements, found)


def figures(measurements: Sequence[Measurement]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation over seeds of every figure that is not for the plot alone."""
    return {
        key: {
            "mean": statistics.fmean(m[key] for m in measurements),
            "sd": statistics.stdev([m[key] for m in measurements]) if len(measurements) > 1 else 0.0,
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
            found.append(json.loads(path.read_text()))
        except ValueError as error:
            raise InputError(f"record {path} is damaged: {error}") from None
    return found


def _interval(interval: Interval) -> dict[str, float | None]:
    return {"mean": _round(interval.mean), "low": _round(interval.low), "high": _round(interval.high)}


def _round(value: float) -> float | None:  # JSON knows no infinity
    return float(f"{value:.4g}") if math.isfinite(value) else None


def _commit() -> str | None:
    try:
        done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
