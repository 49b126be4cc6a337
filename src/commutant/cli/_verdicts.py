"""The page of verdicts that `commutant reproduce` ends with."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, Group
from rich.markup import escape
from rich.padding import Padding
from rich.text import Text

from ..evidence import Claim, Judged, Paper, comparison, counted, seeds, sentence

COLORS = {
    "holds": "green", "refuted": "red", "not reproduced": "dark_orange", "confounded": "magenta",
    "inconclusive": "yellow",
}  # fmt: skip
MEANINGS = {
    "holds": "the whole 95 % interval of the effect lies above the bar, and that of every control below it",
    "refuted": "the whole interval lies below the bar",
    "not reproduced": "the whole interval lies below the bar, but a run this small can't refute the claim",
    "confounded": "the effect is there, but a control that should not show it does",
    "inconclusive": "the interval lies across the bar; more seeds may decide",
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
                console.print(_verdict(found))
        if missing := [claim.name for _, claim, found in own if found is None]:
            console.print(Padding(Text(f"not run: {', '.join(missing)}", style="dim"), (1, 0, 0, 2)))
    counts = counted(found.verdict.outcome for _, _, found in judged if found is not None)
    if counts:
        console.print()
    for outcome, count in counts.items():
        console.print(Text.assemble((count, COLORS[outcome]), f": {MEANINGS[outcome]}"))


def _verdict(judged: Judged) -> Padding:
    color, word = COLORS[judged.verdict.outcome], judged.verdict.word
    found = Text(sentence(judged))
    found.highlight_words([f": {word}"], style=color)
    lines = [Text(judged.claim.statement, style="bold"), found]
    if figures := comparison(judged):
        lines.append(Text(figures))
    lines.append(Text(f"{judged.paper.slug}/{judged.claim.name}, {judged.scale} scale, {seeds(judged)}", style="dim"))
    return Padding(Group(*lines), (0, 0, 0, 2))
