"""Plan of the number of seeds: fixed before the run, from a pilot with other seeds, and kept next to the runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ._claim import Claim
from ._context import Measurement
from ._folder import RunFolder
from ._interval import deviation_of, mean_of
from ._power import power, seeds_needed
from ._verdict import rows

PILOT_SEEDS = range(1000, 1005)
"""Seeds of a pilot; no run that counts uses them."""
_FILE = "seeds.json"


def pilot_runs(runs: Path) -> Path:
    """Return the folder of the runs of pilots, apart from the runs that count."""
    return runs / "pilot"


def read_plan(claims: Sequence[Claim], folder: Path) -> dict[str, Any] | None:
    """Return the plan of an experiment, or None if it does not cover the claims at their bars.

    Args:
        claims: Claims of one experiment.
        folder: Folder of the runs of the experiment at one scale.
    """
    plan = RunFolder(folder).read(_FILE)
    covered = plan is not None and all(_entry(plan, claim) is not None for claim in claims)
    return plan if covered else None


def make_plan(claims: Sequence[Claim], pilot: Mapping[int, Measurement], folder: Path) -> dict[str, Any]:
    """Choose the number of seeds of an experiment from a pilot, write the plan and return it.

    The number is the largest that any of the claims needs, including the claims of an earlier plan.

    Args:
        claims: Claims of one experiment, about seeds or shares.
        pilot: Measured numbers of each seed of the pilot.
        folder: Folder of the runs of the experiment at one scale.

    Raises:
        InputError: A measured number of the pilot is not finite.
    """
    measurements = list(pilot.values())
    plan = RunFolder(folder).read(_FILE) or {"claims": {}}
    for claim in claims:
        effects, seeds = rows(claim, measurements)[""], seeds_needed(claim, measurements)
        plan["claims"][claim.name] = {
            "pilot_seeds": list(pilot),
            "mean": mean_of(effects),
            "sd": deviation_of(effects),
            "bar": claim.at_least,
            "needed": seeds,
            "power": round(power(claim, measurements, seeds), 4),
        }
    plan["seeds"] = max(entry["needed"] for entry in plan["claims"].values())
    RunFolder(folder).write(_FILE, plan)
    return plan


def plan_behind(claim: Claim, seeds: Sequence[int], folder: Path) -> dict[str, Any] | None:
    """Return the entry of a plan for a claim, or None if the seeds that were run are not the planned ones."""
    plan = RunFolder(folder).read(_FILE)
    entry = None if plan is None else _entry(plan, claim)
    if plan is None or entry is None or list(seeds) != list(range(plan["seeds"])):
        return None
    return {**entry, "seeds": plan["seeds"]}


def _entry(plan: dict[str, Any], claim: Claim) -> dict[str, Any] | None:
    entry = plan["claims"].get(claim.name)
    return entry if entry is not None and entry["bar"] == claim.at_least else None
