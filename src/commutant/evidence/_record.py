"""Record of a verdict: one small JSON file for each claim and scale, from which every published table is made."""

from __future__ import annotations

import json
import logging
import math
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .._errors import InputError
from ._claim import Claim, Paper
from ._folder import write_json
from ._interval import Interval
from ._judged import Judged
from ._verdict import Outcome, Verdict, below_the_bar

logger = logging.getLogger("commutant")


def record(judged: Judged, results: Path) -> Path:
    """Write the record of a judged claim.

    Args:
        judged: The claim with its verdict.
        results: Folder of all records.

    Returns:
        The file written, `results/PAPER/CLAIM.SCALE.json`.
    """
    claim, verdict, scale = judged.claim, judged.verdict, judged.scale
    path = results / judged.paper.slug / f"{claim.name}.{scale}.json"
    write_json(
        path,
        {
            "paper": judged.paper.slug,
            "claim": claim.name,
            "scale": scale,
            "statement": claim.statement,
            "source": claim.source,
            "verdict": verdict.outcome,
            "reason": verdict.reason,
            "effect": {"label": claim.effect_label, **_ends(verdict.effect)},
            "basis": claim.basis,
            "cases": verdict.effect.cases,
            "bar": verdict.bar,
            "reported_effect": claim.reported_effect,
            "controls": {name: _ends(control) for name, control in verdict.controls.items()},
            "figures": {k: {n: _round(x) for n, x in v.items()} for k, v in judged.figures.items()},
            "reported": claim.reported,
            "seeds": judged.seeds,
            **({} if judged.seeds_from is None else {"seeds_from": judged.seeds_from}),
            "changes": claim.experiment.changes[scale],
            "data": claim.experiment.data[scale],
            "seconds": round(judged.seconds, 1),
            **judged.made,
            "commit": _commit(),
        },
    )
    return path


def read_records(results: Path, papers: Sequence[Paper]) -> list[Judged]:
    """Return the recorded verdicts of papers, in the order of their claims.

    Numbers come from the record, and texts from the current definition of the claim. Whether an effect below the bar
    reads *refuted* or *not reproduced* follows `Claim.refutable_at` at the time of reading, so no record has to be
    edited.

    Args:
        results: Folder of all records; it need not exist.
        papers: Papers whose records to read. A record of an unknown claim is left out with a warning.

    Raises:
        InputError: A record is damaged.
    """
    found = []
    for paper in papers:
        claims = {claim.name: claim for claim in paper.claims}
        order = list(claims)
        here = []
        for path in sorted((results / paper.slug).glob("*.json")):
            name = path.name.removesuffix(".json").rpartition(".")[0]
            if name in claims:
                here.append(_read(path, paper, claims[name]))
            else:
                logger.warning("%s is left out: paper %s has no claim %r", path, paper.slug, name)
        found += sorted(here, key=lambda judged: order.index(judged.claim.name))
    return found


def _read(path: Path, paper: Paper, claim: Claim) -> Judged:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return Judged(
            paper,
            claim,
            stored["scale"],
            _verdict(stored, claim),
            {name: {k: _number(v) for k, v in figure.items()} for name, figure in stored["figures"].items()},
            stored["seeds"],
            seconds=float(stored["seconds"]),
            made={key: stored[key] for key in ("versions", "hardware", "threads", "date")},
            seeds_from=stored.get("seeds_from"),
            recorded=True,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"record {path} is damaged ({type(error).__name__}: {error}); record the claim anew") from None


def _verdict(stored: dict[str, Any], claim: Claim) -> Verdict:
    outcome: Outcome = stored["verdict"]
    if outcome in ("refuted", "not reproduced"):
        outcome = below_the_bar(claim, stored["scale"])

    def interval(ends: dict[str, Any], cases: int) -> Interval:
        mean, low, high = (_number(ends[end]) for end in ("mean", "low", "high"))
        undecided = "" if math.isfinite(low) and math.isfinite(high) else stored["reason"]
        if undecided:
            low, high = -math.inf, math.inf
        return Interval(mean, low, high, len(stored["seeds"]), stored.get("basis", "seeds"), cases, undecided)

    effect = interval(stored["effect"], stored.get("cases", 0))
    controls = {name: interval(ends, effect.cases) for name, ends in stored["controls"].items()}
    return Verdict(outcome, effect, stored["bar"], controls, stored["reason"])


def _number(value: float | None) -> float:  # JSON knows no infinity
    return math.nan if value is None else float(value)


def _ends(interval: Interval) -> dict[str, float | None]:
    return {"mean": _round(interval.mean), "low": _round(interval.low), "high": _round(interval.high)}


def _round(value: float) -> float | None:
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
