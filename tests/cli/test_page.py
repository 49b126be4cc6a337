"""The page of verdicts in a narrow terminal, and progress bars that show their own time."""

import io
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import Progress

from commutant.cli._progress import _Times
from commutant.cli._verdicts import COLORS, MEANINGS, show_verdicts
from commutant.evidence import OUTCOMES, read_records
from commutant.papers import papers

RESULTS = Path(__file__).parents[2] / "results"


@pytest.mark.parametrize("width", [80, 120])
def test_the_page_fits_and_says_everything(width):
    recorded = {(j.paper.slug, j.claim.name): j for j in read_records(RESULTS, papers())}
    recorded.pop(("lcm", "real-input"))
    console = Console(width=width, file=io.StringIO())
    show_verdicts(console, [(p, c, recorded.get((p.slug, c.name))) for p in papers() for c in p.claims])
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert not [line for line in lines if line.strip().startswith("%")]  # 95 and its percent sign stay together
    text = " ".join(" ".join(lines).split())
    for judged in recorded.values():
        assert judged.claim.statement in text
        assert f"{judged.paper.slug}/{judged.claim.name}: {judged.scale} scale" in text
    assert "not run: real-input" in text
    assert "not reproduced at this scale: the whole interval lies below the bar" in text


def test_every_outcome_has_a_color_and_a_meaning():
    assert set(OUTCOMES) == set(COLORS) == set(MEANINGS)


def test_a_bar_counts_the_time_of_its_own_experiment():
    now = 0.0
    progress = Progress(get_time=lambda: now)
    for _ in range(2):
        progress.add_task("x", total=4, start=False)
    bars = progress.tasks
    progress.start_task(bars[0].id)
    now = 60.0
    progress.update(bars[0].id, completed=1)
    progress.start_task(bars[1].id)
    now = 90.0
    assert _Times().render(bars[0]).plain == "0:01:30, 0:04:30 left"
    assert _Times().render(bars[1]).plain == "0:00:30, -:--:-- left"
    progress.update(bars[0].id, completed=4)
    now = 200.0
    assert _Times().render(bars[0]).plain == "took 0:01:30"
