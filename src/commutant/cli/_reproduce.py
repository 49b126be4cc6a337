"""`commutant reproduce`: run what is missing, judge, show."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from .._errors import InputError, require
from ..data import data_folder
from ..evidence import Claim, Experiment, Judged, Paper, Task, execute, judge_runs
from ..papers import module_of, select

OUTCOMES = {"holds": "green", "refuted": "red", "confounded": "magenta", "inconclusive": "yellow"}


def reproduce(
    targets: list[str],
    *,
    scale: str,
    runs: Path,
    seeds: int | None,
    jobs: int | None,
    backend: str,
    minutes: float | None,
    strict: bool,
    options: dict[str, Any],
) -> int:
    """Run the experiments behind the claims and print the verdicts."""
    if options["accelerator"] in ("gpu", "cuda") and not require("torch", "evidence").cuda.is_available():
        raise InputError(f"--accelerator {options['accelerator']} was asked for, but torch sees no GPU; leave it out")
    chosen = select(targets)
    data_folder(options["data_dir"])  # a folder that does not exist is an error even where no claim reads it
    console = Console()
    tasks, skipped = [], {}
    if jobs is None:
        jobs = (os.cpu_count() or 1) if options["accelerator"] == "cpu" and options["devices"] == 1 else 1
    threads = max(1, (os.cpu_count() or 1) // jobs)
    if minutes is not None and scale != "small":
        raise InputError(f"--minutes goes by what the small scale takes, got --scale {scale}")
    cores = min(jobs, os.cpu_count() or 1) if options["accelerator"] == "cpu" else jobs
    not_after = math.inf if minutes is None else time.time() + 60 * minutes
    left_out = {} if minutes is None else _too_dear(chosen, minutes * cores, seeds, options["data_dir"])
    for paper, claims in chosen:
        for experiment in {c.experiment.name: c.experiment for c in claims}.values():
            if scale not in experiment.settings:
                raise InputError(f"unknown scale {scale!r}; expected one of {', '.join(experiment.settings)}")
            reason = experiment.unavailable(options["data_dir"])
            if reason is not None:
                skipped[f"{paper.slug}/{experiment.name}"] = reason
                continue
            if experiment in left_out.get(paper.slug, ()):
                claim = next(c.name for c in claims if c.experiment is experiment)
                skipped[f"{paper.slug}/{experiment.name}"] = (
                    f"about {_in_words(_cost(experiment, seeds))} of computing; run: commutant "
                    f"reproduce {paper.slug}/{claim}"
                )
                continue
            for seed in range(seeds or experiment.seeds[scale]):
                module = module_of(paper.slug)
                tasks.append(
                    Task(
                        module, experiment.name, scale, seed, str(runs), threads=threads, not_after=not_after, **options
                    )
                )
    if minutes is not None:
        tasks.sort(key=lambda task: _cost(task.paper.experiment(task.experiment), seeds))
    jobs = max(1, min(jobs, len(tasks)))
    failed = _run(console, tasks, jobs, backend)
    judged = [(p, c.name, judge_runs(p, c, scale, runs)) for p, claims in chosen for c in claims]
    _show(console, judged)
    for name, reason in skipped.items():
        _say(console, "[yellow]skipped[/]", f"{name}: {reason}")
    late = [t for t in tasks if t not in failed and t.result() is None]
    for name in dict.fromkeys(f"{t.paper.slug}/{t.experiment}" for t in late):
        seeds_left = [str(t.seed) for t in late if f"{t.paper.slug}/{t.experiment}" == name]
        reason = f"the {minutes:g} minutes were over before seed {', '.join(seeds_left)} started"
        _say(console, "[yellow]skipped[/]", f"{name}: {reason}")
    for task, error in failed.items():
        _say(console, "[red]failed[/]", f"{task.experiment}, seed {task.seed}: {error}")
    if failed:
        return 2
    if not tasks and minutes is None:
        raise InputError("none of the claims asked for can run here; the lines above say why")
    return int(strict and any(j is not None and j.verdict.outcome == "refuted" for _, _, j in judged))


def _say(console: Console, label: str, text: str) -> None:
    """Print a line; brackets in the text are text, as in pip install 'commutant[graphs]'."""
    console.print(f"{label} {escape(text)}", soft_wrap=True, highlight=False)


def _in_words(minutes: float) -> str:
    return f"{minutes:.0f} minutes" if minutes >= 1.5 else "a minute"


def _cost(experiment: Experiment, seeds: int | None) -> float:
    """Minutes on one core."""
    return experiment.minutes * (seeds or experiment.seeds["small"])


def _too_dear(
    chosen: list[tuple[Paper, list[Claim]]], minutes: float, seeds: int | None, data_dir: str | None
) -> dict[str, list[Experiment]]:
    """What is left out, by paper, when the cheapest go first and all shall end in time."""
    there = [
        (_cost(e, seeds), paper.slug, e.name, e)
        for paper, claims in chosen
        for e in {c.experiment.name: c.experiment for c in claims}.values()
        if e.unavailable(data_dir) is None
    ]
    left_out: dict[str, list[Experiment]] = {}
    for cost, slug, _, experiment in sorted(there, key=lambda t: t[:3]):
        minutes -= cost
        if minutes < 0:
            left_out.setdefault(slug, []).append(experiment)
    return left_out


def _run(console: Console, tasks: list[Task], jobs: int, backend: str) -> dict[Task, str]:
    pending = [task for task in tasks if task.result() is None]
    if len(pending) < len(tasks):
        console.print(f"{len(tasks) - len(pending)} of {len(tasks)} runs were done before")
    if not pending:
        return {}
    require("lightning_fabric", "evidence")
    names = list(dict.fromkeys(task.experiment for task in pending))
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    ) as progress:
        bars = {n: progress.add_task(n, total=sum(t.experiment == n for t in pending)) for n in names}
        done: dict[Task, float] = {}

        def on_progress(task: Task, share: float, _: str | None) -> None:
            done[task] = share
            total = sum(value for other, value in done.items() if other.experiment == task.experiment)
            progress.update(bars[task.experiment], completed=total)

        return execute(pending, jobs=jobs, backend=backend, on_progress=on_progress)


def _show(console: Console, judged: list[tuple[Paper, str, Judged | None]]) -> None:
    """A table a paper, narrow enough for a terminal of 80 columns."""
    for slug in dict.fromkeys(paper.slug for paper, _, _ in judged):
        table = Table(box=None, pad_edge=False, header_style="bold", title=f"[bold]{slug}[/]", title_justify="left")
        table.add_column("claim", no_wrap=True)
        table.add_column("verdict", no_wrap=True)
        for column in ("effect", "95 % interval", "bar", "paper"):
            table.add_column(column, justify="right", no_wrap=True)
        for paper, name, found in judged:
            if paper.slug != slug:
                continue
            if found is None:
                table.add_row(name, "[dim]not run[/]", "", "", "", "")
                continue
            verdict, effect, reported = found.verdict, found.verdict.effect, found.claim.reported_effect
            table.add_row(
                name,
                f"[{OUTCOMES[verdict.outcome]}]{verdict.outcome}[/]",
                f"{effect.mean:.3g}",
                str(effect),
                f"{verdict.bar:g}",
                "" if reported is None else f"{reported:.3g}",
            )
        console.print(table)
        for paper, name, found in judged:
            if paper.slug == slug and found is not None and found.verdict.outcome == "inconclusive":
                _say(console, f"[yellow]{name}[/]", f"is inconclusive: {found.verdict.reason}")
