"""The page of verdicts that `commutant reproduce` ends with."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence

from rich.console import Console, Group
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ..evidence import Claim, Judged, Paper, comparison, counted, seeds_in_words, sentence

COLORS = {
    "holds": "green", "refuted": "red", "not reproduced": "dark_orange", "confounded": "magenta",
    "inconclusive": "yellow",
}  # fmt: skip
MEANINGS = {
    "holds": "the whole 95 % interval of the effect lies above the bar, and that of every control below it",
    "refuted": "the whole interval lies below the bar",
    "not reproduced": "the whole interval lies below the bar, but a run this small can't refute the claim",
    "confounded": "the effect lies above the bar, but so does a control that should not",
    "inconclusive": "the interval of the effect or of a control lies across the bar; more seeds may decide",
}


def show_verdicts(console: Console, judged: Sequence[tuple[Paper, Claim, Judged | None]]) -> None:
    """Print each claim with its verdict in a sentence, grouped by paper, and the verdicts counted."""
    for slug in dict.fromkeys(paper.slug for paper, _, _ in judged):
        own = [entry for entry in judged if entry[0].slug == slug]
        paper = own[0][0]
        if not any(found for _, _, found in own):
            continue
        console.print(f"\n[bold]{escape(paper.title)}[/] ({escape(paper.venue)} {paper.year})", highlight=False)
        for _, _, found in own:
            if found is not None:
                console.print()
                console.print(_verdict(found, console.width))
        if missing := [claim.name for _, claim, found in own if found is None]:
            console.print(Padding(Text(f"not run: {', '.join(missing)}", style="dim"), (1, 0, 0, 2)))
    counts = counted(found.verdict.outcome for _, _, found in judged if found is not None)
    if counts:
        console.print()
    for outcome, count in counts.items():
        console.print(Text.assemble((count, COLORS[outcome]), f": {MEANINGS[outcome]}"))


def _verdict(judged: Judged, width: int) -> Table:
    color = COLORS[judged.verdict.outcome]
    found = _wrapped(sentence(judged), width)
    found.highlight_regex(r": " + r"\s+".join(judged.verdict.word.split()) + r"\b", color)
    lines = [_wrapped(judged.claim.statement, width, "bold"), found]
    if figures := comparison(judged):
        lines.append(_wrapped(figures, width))
    run = f"{judged.paper.slug}/{judged.claim.name}: {judged.scale} scale, {seeds_in_words(judged)}"
    table = Table.grid(padding=(0, 1))
    table.add_row(Text("●", style=color), Group(*lines, _wrapped(run, width, "dim")))
    return table


def _wrapped(text: str, width: int, style: str = "") -> Text:
    """Break a text into lines, but not between a word and the number that follows it, nor before a percent sign."""
    joined = re.sub(r" (?=%|[-+]?\d)", "\N{NO-BREAK SPACE}", text)
    lines = textwrap.wrap(joined, width - 2, break_on_hyphens=False)
    return Text("\n".join(lines).replace("\N{NO-BREAK SPACE}", " "), style=style)
