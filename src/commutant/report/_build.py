"""Build the site: an index that is a catalogue, and a page a paper."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .._errors import RunError, require
from ..evidence import Experiment, Judged, Paper, RunFolder, figures, judge_runs
from ..laws import Draw, StatedLaw, stated_laws
from ..papers import papers
from ._svg import curves_svg, inline_svg, interval_svg

_SCALES = ("small", "full")


@dataclass(frozen=True)
class LawRow:
    """One stated law with what a check found."""

    subject: str
    title: str
    formula: str
    expected: str
    worst: float
    agrees: bool


def build(runs: Path, output: Path, *, check_laws: bool = True) -> Path:
    """Write the site.

    Args:
        runs: the folder of all runs; claims without a finished run are listed as not run.
        output: the folder of the site.
        check_laws: check the laws that each system states, for its page.

    Returns:
        The path of `index.html`.

    Raises:
        RunError: when the folder can't be written.
    """
    jinja2 = require("jinja2", "evidence")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("commutant.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"figure": _figure, "duration": _duration}
    pages: list[dict[str, Any]] = []
    for paper in papers():
        judged = {
            claim.name: [j for scale in _scales(claim.experiment) if (j := judge_runs(paper, claim, scale, runs))]
            for claim in paper.claims
        }
        pages.append({"paper": paper, "judged": judged, "verdicts": Counter(_outcome(j) for j in judged.values())})
    shared = {
        "style": (Path(__file__).parent / "templates" / "style.css").read_text(encoding="utf-8"),
        "rooms": sorted({page["paper"].room for page in pages}),
    }
    try:
        output.mkdir(parents=True, exist_ok=True)
        for page in pages:
            body = environment.get_template("paper.html").render(
                **shared, **page, **_experiments(page["paper"], runs), laws=_laws(page["paper"]) if check_laws else []
            )
            (output / f"{page['paper'].slug}.html").write_text(body, encoding="utf-8")
        index = output / "index.html"
        index.write_text(environment.get_template("index.html").render(**shared, pages=pages), encoding="utf-8")
    except OSError as error:
        raise RunError(f"can't write the report to {output}: {error.strerror or error}") from None
    return index


def _scales(experiment: Experiment) -> list[str]:
    return [scale for scale in _SCALES if scale in experiment.settings]


def _outcome(judged: list[Judged]) -> str:
    return judged[-1].verdict.outcome if judged else "not run"


def _experiments(paper: Paper, runs: Path) -> dict[str, Any]:
    """For each experiment and scale: its figure, training curves and how it was run."""
    found = []
    for experiment in paper.experiments:
        claim = next(claim for claim in paper.claims if claim.experiment is experiment)
        for scale in _scales(experiment):
            judged = judge_runs(paper, claim, scale, runs)
            if judged is None:
                continue
            root = runs / paper.slug / experiment.name / f"{scale}-{experiment.digest(scale)}"
            curves = RunFolder(root / f"seed-{judged.runs[0]['seed']}").curves()
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
    return {"experiments": found, "figures_of": lambda j: figures(j.measurements), "intervals": interval_svg}


def _laws(paper: Paper) -> list[LawRow]:
    return [_check_law(law) for subject in paper.subjects for law in stated_laws(subject)]


def _check_law(law: StatedLaw) -> LawRow:
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


def _figure(value: float | None) -> str:
    if value is None:
        return "–"
    if not math.isfinite(value):  # one seed has no interval
        return "NaN" if math.isnan(value) else "∞" if value > 0 else "−∞"
    if value != 0 and not 1e-3 <= abs(value) < 1e4:
        mantissa, exponent = f"{value:.1e}".split("e")
        mantissa = mantissa.replace("-", "−")
        return f"{mantissa}·10{str(int(exponent)).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}"
    return f"{value:.3g}".replace("-", "−")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
