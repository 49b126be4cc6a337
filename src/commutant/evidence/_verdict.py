"""Verdict on a claim: computed from the measurements of several seeds, never written by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from ._claim import Claim
from ._context import Measurement
from ._interval import Interval

Outcome: TypeAlias = Literal["holds", "refuted", "not reproduced", "inconclusive", "confounded"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


def in_words(outcome: Outcome) -> str:
    """Return an outcome in the words shown to readers."""
    return "not reproduced at this scale" if outcome == "not reproduced" else outcome


@dataclass(frozen=True)
class Verdict:
    """Outcome of a claim, and the intervals that decided it.

    Attributes:
        outcome: One of `OUTCOMES`.
        effect: Interval of the effect.
        bar: Number that the effect must exceed.
        controls: Interval of each control.
        reason: Reason for the outcome, in a sentence.
    """

    outcome: Outcome
    effect: Interval
    bar: float
    controls: dict[str, Interval]
    reason: str

    @property
    def word(self) -> str:
        """Outcome in the words shown to readers."""
        return in_words(self.outcome)


def judge(claim: Claim, measurements: Sequence[Measurement], scale: str) -> Verdict:
    """Compare the intervals of the effect and of every control with the bar.

    - *holds*: the interval of the effect lies at or above the bar, and that of every control below it;
    - *refuted*: the interval lies below the bar, and the run can refute the claim; one case refutes an identity;
    - *not reproduced*: the interval lies below the bar, but a run at this scale can't refute the claim;
    - *confounded*: the effect lies above the bar, but so does a control;
    - *inconclusive*: there is no interval, or an interval needed for the verdict lies across the bar.

    An interval over seeds needs at least 3 seeds, and 14 where all give the same value.

    Args:
        claim: The claim.
        measurements: Measured numbers of each seed.
        scale: Scale of the runs.
    """
    effect, *controls = (
        Interval.of(row, claim.basis, counts(claim, measurements), claim.at_least)
        for row in rows(claim, measurements).values()
    )
    named = dict(zip(claim.controls, controls, strict=True))
    outcome, reason = _decide(claim, effect, named, scale)
    return Verdict(outcome, effect, claim.at_least, named, reason)


def _decide(claim: Claim, effect: Interval, controls: dict[str, Interval], scale: str) -> tuple[Outcome, str]:
    bar = claim.at_least
    if effect.undecided:
        return "inconclusive", effect.undecided
    if effect.high < bar:
        return below_the_bar(claim, scale), f"the whole interval lies below the bar of {bar:g}"
    if effect.low < bar and claim.basis == "identity":
        return "refuted", f"one of {effect.seeds} seeds lies below the bar of {bar:g}, at {effect.low:g}"
    if effect.low < bar:
        return "inconclusive", f"the interval lies across the bar of {bar:g}"
    for name, control in controls.items():
        if not control.undecided and control.low >= bar:
            return "confounded", f"the control “{name}” shows the effect too"
    for name, control in controls.items():
        if control.undecided:
            return "inconclusive", f"the control “{name}” does not decide: {control.undecided}"
        if control.high >= bar:
            return "inconclusive", f"the control “{name}” lies across the bar of {bar:g}"
    if claim.basis == "identity":
        return "holds", f"exact: no case of {effect.cases} lies below the bar of {bar:g}"
    return "holds", f"the whole interval lies above the bar of {bar:g}"


def below_the_bar(claim: Claim, scale: str) -> Outcome:
    """Return the outcome of an effect that lies below the bar."""
    return "refuted" if claim.can_be_refuted(scale) else "not reproduced"


def rows(claim: Claim, measurements: Sequence[Measurement]) -> dict[str, list[float]]:
    """Return the values of the effect, under the name `""`, and of each control, one per seed."""
    return {
        name: [_value(figure, m) for m in measurements] for name, figure in {"": claim.effect, **claim.controls}.items()
    }


def counts(claim: Claim, measurements: Sequence[Measurement]) -> list[float]:
    """Return the number of trials or cases of each seed; empty for the basis `"seeds"`."""
    return [] if claim.cases is None else [_value(claim.cases, m) for m in measurements]


def _value(figure: Callable[[Measurement], float], measurement: Measurement) -> float:
    """Return a figure of a seed; NaN where it is undefined, such as the logarithm of zero."""
    try:
        return float(figure(measurement))
    except (ArithmeticError, ValueError):
        return math.nan
