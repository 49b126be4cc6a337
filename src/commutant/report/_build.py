"""Pages of the site: an index of all papers, and a page for each paper."""

from __future__ import annotations

import math
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .._errors import RunError, require
from ..evidence import (
    OUTCOMES,
    Experiment,
    Judged,
    Paper,
    RunFolder,
    comparison,
    counted,
    effect_in_words,
    judge_runs,
    numbers,
    read_records,
    run_folder,
    seeds_in_words,
)
from ..laws import Draw, StatedLaw, stated_laws
from ..papers import papers
from ._svg import curves_svg, inline_svg, interval_svg

_SCALES = ("small", "full")


@dataclass(frozen=True)
class LawRow:
    """Result of checking one stated law."""

    subject: str
    title: str
    formula: str
    expected: str
    worst: float
    agrees: bool


def build(runs: Path, output: Path, *, results: Path = Path("results"), check_laws: bool = True) -> Path:
    """Write the site.

    Args:
        runs: Folder of all runs.
        output: Folder of the site.
        results: Folder of records. A claim without a finished run at a scale is shown from its record, marked as such;
            a claim without either is listed as not run. The folder need not exist.
        check_laws: Whether to check the laws that each system states, for its page.

    Returns:
        The path of `index.html`.

    Raises:
        InputError: A record is damaged.
        RunError: The folder can't be written.
    """
    jinja2 = require("jinja2", "evidence")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("commutant.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"figure": _figure, "duration": _duration, "typeset": _typeset}
    pages: list[dict[str, Any]] = []
    for paper in papers():
        judged = _judged(paper, runs, results)
        verdicts = {
            k.replace(" ", "-"): v for k, v in counted(j[-1].verdict.outcome for j in judged.values() if j).items()
        }
        if missing := sum(not found for found in judged.values()):
            verdicts["not-run"] = f"{missing} not run"
        recorded = sum(bool(found) and found[-1].recorded for found in judged.values())
        pages.append({"paper": paper, "judged": judged, "verdicts": verdicts, "recorded": recorded})
    shared = {
        "style": (Path(__file__).parent / "templates" / "style.css").read_text(encoding="utf-8"),
        "rooms": sorted({page["paper"].room for page in pages}),
        "outcomes": OUTCOMES,
        "effect": effect_in_words,
        "comparison": comparison,
        "seeds": seeds_in_words,
        "interval_svg": interval_svg,
    }
    try:
        output.mkdir(parents=True, exist_ok=True)
        for page in pages:
            body = environment.get_template("paper.html").render(
                **shared,
                **page,
                experiments=_experiments(page["paper"], runs),
                laws=_laws(page["paper"]) if check_laws else [],
            )
            (output / f"{page['paper'].slug}.html").write_text(body, encoding="utf-8")
        index = output / "index.html"
        index.write_text(environment.get_template("index.html").render(**shared, pages=pages), encoding="utf-8")
    except OSError as error:
        raise RunError(f"can't write the report to {output}: {error.strerror or error}") from None
    return index


def _judged(paper: Paper, runs: Path, results: Path) -> dict[str, list[Judged]]:
    """Return the verdicts on each claim by name, one per scale: from runs if there are any, else from the record."""
    recorded = {(found.claim.name, found.scale): found for found in read_records(results, [paper])}
    return {
        claim.name: [
            found
            for scale in _scales(claim.experiment)
            if (found := judge_runs(paper, claim, scale, runs) or recorded.get((claim.name, scale)))
        ]
        for claim in paper.claims
    }


def _scales(experiment: Experiment) -> list[str]:
    return [scale for scale in _SCALES if scale in experiment.settings]


def _experiments(paper: Paper, runs: Path) -> list[dict[str, Any]]:
    """Return the figure, the training curves and the conditions of each experiment that was run, at each scale."""
    found = []
    for experiment in paper.experiments:
        claim = next(claim for claim in paper.claims if claim.experiment is experiment)
        for scale in _scales(experiment):
            judged = judge_runs(paper, claim, scale, runs)
            if judged is None:
                continue
            curves = RunFolder(run_folder(paper, experiment, scale, judged.seeds[0], runs).path).curves()
            name = f"{experiment.name}-{scale}"
            found.append(
                {
                    "experiment": experiment,
                    "scale": scale,
                    "judged": judged,
                    "figure": inline_svg(experiment.figure(judged.measurements), f"{name}: {experiment.figure_caption}")
                    if experiment.figure
                    else None,
                    "curves": curves_svg(curves, f"{name}-curves: training loss by step") if curves else None,
                }
            )
    return found


def _laws(paper: Paper) -> list[LawRow]:
    return [_check_law(law) for subject in paper.subjects for law in stated_laws(subject)]


def _check_law(law: StatedLaw) -> LawRow:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about the drawn inputs, such as ambiguous axes
        reports = [
            law.check(Draw(torch.Generator().manual_seed(seed), size=3 + 4 * seed, width=2 + 3 * seed, dtype=dtype))
            for seed in range(3)
            for dtype in (torch.float32, torch.float64)
        ]
    worst = max(reports, key=lambda report: report.worst)
    return LawRow(
        subject=law.subject.__qualname__,
        title=law.title,
        formula=reports[0].formula,
        expected="holds" if law.holds else "must fail",
        worst=worst.worst,
        agrees=all(report.passed == law.holds for report in reports),
    )


def _figure(value: float) -> str:
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "∞" if value > 0 else "−∞"
    return _typeset(numbers([value])[0])


def _typeset(text: str) -> str:
    """Return a text with numbers such as -1.2e-5 as −1.2·10⁻⁵."""
    powers = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    text = re.sub(r"(\d)e(-?\d+)\b", lambda m: f"{m[1]}·10{m[2].translate(powers)}", text)
    return re.sub(r"(?<![\w.])-(?=\d)", "−", text)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
