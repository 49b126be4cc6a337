"""Progress bars of `commutant reproduce`, one for each experiment, each with its own time."""

from __future__ import annotations

from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TaskProgressColumn, TextColumn
from rich.progress import Task as Bar
from rich.text import Text

from .._errors import require
from ..evidence import Task, execute


class _Times(ProgressColumn):
    """Time since the first run of the experiment started, and the time left at its mean speed so far."""

    def render(self, task: Bar) -> Text:
        elapsed = task.finished_time if task.finished else task.elapsed
        if elapsed is None:
            return Text("waiting", style="dim")
        if task.finished:
            return Text(f"took {_clock(elapsed)}")
        left = elapsed * (task.remaining or 0.0) / task.completed if task.completed else None
        return Text(f"{_clock(elapsed)}, {'-:--:--' if left is None else _clock(left)} left")


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def run_with_bars(console: Console, tasks: list[Task], jobs: int, backend: str) -> dict[Task, str]:
    """Run the tasks that are not done yet, and return those that failed with the reason."""
    pending = [task for task in tasks if task.result() is None]
    if len(pending) < len(tasks):
        console.print(f"{len(tasks) - len(pending)} of {len(tasks)} runs were done before")
    if not pending:
        return {}
    require("lightning_fabric", "evidence")
    by_experiment: dict[str, list[Task]] = {}
    for task in pending:
        by_experiment.setdefault(_name(task), []).append(task)
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TaskProgressColumn(), _Times())
    with Progress(*columns, console=console) as progress:
        bars = {n: progress.add_task(n, total=len(own), start=False) for n, own in by_experiment.items()}
        done: dict[Task, float] = {}

        def on_progress(task: Task, share: float, _: str | None) -> None:
            done[task] = share
            own = by_experiment[_name(task)]
            bar = bars[_name(task)]
            if progress.tasks[bar].start_time is None:
                progress.start_task(bar)
            progress.update(bar, completed=sum(done.get(each, 0.0) for each in own))

        return execute(pending, jobs=jobs, backend=backend, on_progress=on_progress)


def _name(task: Task) -> str:
    return f"{task.paper.slug}/{task.experiment}"
