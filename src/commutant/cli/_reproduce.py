"""`commutant reproduce`: run missing experiments, judge the claims and show the verdicts."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.markup import escape

from .._checks import one_of
from .._errors import InputError, require
from ..data import data_folder
from ..evidence import (
    MOST_SEEDS,
    PILOT_SEEDS,
    Claim,
    Experiment,
    Paper,
    Task,
    judge_runs,
    make_plan,
    pilot_runs,
    read_plan,
    run_folder,
)
from ..papers import module_of, select
from ._progress import run_with_bars
from ._verdicts import show_verdicts


@dataclass(frozen=True)
class _Wanted:
    """An experiment with the claims that were asked for."""

    paper: Paper
    experiment: Experiment
    claims: tuple[Claim, ...]

    @property
    def name(self) -> str:
        return f"{self.paper.slug}/{self.experiment.name}"

    def minutes(self, seeds: int | None) -> float:
        """Minutes on one core at the small scale."""
        return self.experiment.minutes * (seeds or self.experiment.seeds["small"])


def reproduce(
    targets: list[str],
    *,
    scale: str,
    runs: Path,
    seeds: int | Literal["auto"] | None,
    jobs: int | None,
    backend: str,
    minutes: float | None,
    strict: bool,
    options: dict[str, Any],
) -> int:
    """Run the experiments behind the claims, print the verdicts and return the exit code."""
    if options["accelerator"] in ("gpu", "cuda") and not require("torch", "evidence").cuda.is_available():
        raise InputError(f"--accelerator {options['accelerator']} was asked for, but torch sees no GPU; leave it out")
    if minutes is not None and scale != "small":
        raise InputError(f"--minutes relies on the times of the small scale, got --scale {scale}")
    if minutes is not None and seeds == "auto":
        raise InputError("--minutes needs a number of seeds, got --seeds auto")
    chosen = select(targets)
    data_folder(options["data_dir"])  # a folder that does not exist is an error even where no claim reads it
    console = Console()
    cores = _cores()
    if jobs is None:
        jobs = cores if options["accelerator"] == "cpu" and options["devices"] == 1 else 1
    threads = max(1, min(cores // jobs, _allowed_threads(cores)))
    not_after = math.inf if minutes is None else time.time() + 60 * minutes
    wanted, skipped = _runnable(chosen, scale, options["data_dir"])
    if minutes is not None:
        assert seeds != "auto"
        parallel = min(jobs, cores) if options["accelerator"] == "cpu" else jobs
        wanted, too_long = _within(minutes * parallel, wanted, seeds)
        skipped |= too_long

    def task(each: _Wanted, seed: int, folder: Path) -> Task:
        return Task(
            module_of(each.paper.slug), each.experiment.name, scale, seed, str(folder), threads=threads,
            not_after=not_after, **options,
        )  # fmt: skip

    def run(tasks: list[Task]) -> dict[Task, str]:
        return run_with_bars(console, tasks, max(1, min(jobs, len(tasks))), backend)

    failed: dict[Task, str] = {}
    if seeds == "auto":
        failed = _plan(console, wanted, scale, runs, task, run)
        broken = {f"{one.paper.slug}/{one.experiment}" for one in failed}
        wanted = [each for each in wanted if each.name not in broken]
    tasks = [task(each, seed, runs) for each in wanted for seed in range(_number_of_seeds(each, seeds, scale, runs))]
    failed |= run(tasks)
    judged = [(p, c, judge_runs(p, c, scale, runs)) for p, claims in chosen for c in claims]
    show_verdicts(console, judged)
    for name, reason in skipped.items():
        _say(console, "[yellow]skipped[/]", f"{name}: {reason}")
    late = [t for t in tasks if t not in failed and t.result() is None]
    for name in dict.fromkeys(f"{t.paper.slug}/{t.experiment}" for t in late):
        seeds_left = [str(t.seed) for t in late if f"{t.paper.slug}/{t.experiment}" == name]
        reason = f"the {minutes:g} minutes were over before seed {', '.join(seeds_left)} started"
        _say(console, "[yellow]skipped[/]", f"{name}: {reason}")
    for each, error in failed.items():
        _say(console, "[red]failed[/]", f"{each.experiment}, seed {each.seed}: {error}")
    if failed:
        return 2
    if not tasks and minutes is None:
        raise InputError("none of the claims asked for can run here; the lines above say why")
    return int(strict and any(j is not None and j.verdict.outcome == "refuted" for _, _, j in judged))


def _say(console: Console, label: str, text: str) -> None:
    """Print a line; brackets in the text are text, as in pip install 'commutant[graphs]'."""
    console.print(f"{label} {escape(text)}", soft_wrap=True, highlight=False)


def _runnable(
    chosen: list[tuple[Paper, list[Claim]]], scale: str, data_dir: str | None
) -> tuple[list[_Wanted], dict[str, str]]:
    """Return the experiments that can run here, and the reasons why the others can't, by name."""
    wanted, skipped = [], {}
    for paper, claims in chosen:
        for experiment in {c.experiment.name: c.experiment for c in claims}.values():
            one_of("--scale", scale, experiment.settings)
            each = _Wanted(paper, experiment, tuple(c for c in claims if c.experiment is experiment))
            reason = experiment.unavailable(data_dir)
            if reason is None:
                wanted.append(each)
            else:
                skipped[each.name] = reason
    return wanted, skipped


def _cores() -> int:
    """Return the number of cores on which this process may run."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _allowed_threads(cores: int) -> int:
    """Return the number of threads that the environment allows a process, as clusters set it, or all cores."""
    said = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()  # OpenMP takes one number for each level
    return int(said) if said.isdigit() and int(said) else cores


def _within(minutes: float, wanted: list[_Wanted], seeds: int | None) -> tuple[list[_Wanted], dict[str, str]]:
    """Return the cheapest experiments that fit into a time budget, and the reasons why the others don't."""
    chosen, skipped = [], {}
    for each in sorted(wanted, key=lambda each: (each.minutes(seeds), each.name)):
        cost = each.minutes(seeds)
        minutes -= cost
        if minutes >= 0:
            chosen.append(each)
        else:
            skipped[each.name] = (
                f"about {_in_words(cost)} of computing; run: commutant reproduce "
                f"{each.paper.slug}/{each.claims[0].name}"
            )
    return chosen, skipped


def _in_words(minutes: float) -> str:
    return f"{minutes:.0f} minutes" if minutes >= 1.5 else "a minute"


def _number_of_seeds(each: _Wanted, seeds: int | str | None, scale: str, runs: Path) -> int:
    """Return the number of seeds that was given or planned, or else the default of the experiment."""
    if isinstance(seeds, int):
        return seeds
    plan = read_plan(_statistical(each), _folder(each, scale, runs)) if seeds == "auto" else None
    return each.experiment.seeds[scale] if plan is None else int(plan["seeds"])


def _statistical(each: _Wanted) -> list[Claim]:
    """Return the claims whose verdict depends on the number of seeds."""
    return [claim for claim in each.claims if claim.basis != "identity"]


def _folder(each: _Wanted, scale: str, runs: Path) -> Path:
    return run_folder(each.paper, each.experiment, scale, 0, runs).path.parent


def _plan(
    console: Console,
    wanted: list[_Wanted],
    scale: str,
    runs: Path,
    task: Callable[[_Wanted, int, Path], Task],
    run: Callable[[list[Task]], dict[Task, str]],
) -> dict[Task, str]:
    """Fix the number of seeds of each experiment from a pilot, and return the runs of pilots that failed."""
    pilots = {
        each.name: [task(each, seed, pilot_runs(runs)) for seed in PILOT_SEEDS]
        for each in wanted
        if _statistical(each) and read_plan(_statistical(each), _folder(each, scale, runs)) is None
    }
    if pilots:
        console.print(f"pilot: {len(PILOT_SEEDS)} runs of each experiment with seeds that the verdict does not use")
    failed = run([each for tasks in pilots.values() for each in tasks])
    for each in wanted:
        own, folder = _statistical(each), _folder(each, scale, runs)
        if not own or any(one in failed for one in pilots.get(each.name, [])):
            continue
        if each.name in pilots:
            found = {one.seed: one.result() for one in pilots[each.name]}
            make_plan(own, {seed: run["measurement"] for seed, run in found.items() if run is not None}, folder)
        plan = read_plan(own, folder)
        assert plan is not None
        for claim in own:
            _say(console, "planned", _plan_in_words(f"{each.paper.slug}/{claim.name}", plan, claim.name))
    return failed


def _plan_in_words(name: str, plan: dict[str, Any], claim: str) -> str:
    entry = plan["claims"][claim]
    pilot = (
        f"pilot of {len(entry['pilot_seeds'])}: mean {entry['mean']:.3g}, sd {entry['sd']:.3g}, bar {entry['bar']:g}"
    )
    chance = f"a verdict is expected with {100 * entry['power']:.0f} % probability"
    most = ", the largest number that is planned" if plan["seeds"] == MOST_SEEDS else ""
    return f"{name}: {plan['seeds']} seeds{most}; {chance} ({pilot})"
