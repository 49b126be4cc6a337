"""From the figures of several seeds to a verdict: computed, never written."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ._claim import Claim
from ._context import Measurement

Outcome: TypeAlias = Literal["holds", "refuted", "inconclusive", "confounded"]


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its two-sided 95 % interval (Student's t)."""

    mean: float
    low: float
    high: float
    seeds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Interval:
        """The interval of a mean; of one value it is the whole line."""
        from scipy.special import stdtrit

        mean = statistics.fmean(values)
        if not all(math.isfinite(v) for v in values):
            return cls(mean, -math.inf, math.inf, len(values))
        if len(values) < 2:
            return cls(mean, -math.inf, math.inf, len(values))
        half = float(stdtrit(len(values) - 1, 0.975)) * statistics.stdev(values) / math.sqrt(len(values))
        return cls(mean, mean - half, mean + half, len(values))


@dataclass(frozen=True)
class Verdict:
    """What the seeds say about a claim."""

    outcome: Outcome
    effect: Interval
    bar: float
    controls: dict[str, Interval]
    reason: str


def judge(claim: Claim, measurements: Sequence[Measurement]) -> Verdict:
    """Compare the 95 % interval of the effect with the bar, and every control with it too.

    - *holds*: the interval lies at or above the bar, and that of every control below it;
    - *refuted*: the interval lies below the bar;
    - *confounded*: the effect is there, but a control shows it as well;
    - *inconclusive*: an interval that decides lies across the bar.
    """
    effect = Interval.of([claim.effect(m) for m in measurements])
    controls = {name: Interval.of([control(m) for m in measurements]) for name, control in claim.controls.items()}
    bar = claim.at_least

    def verdict(outcome: Outcome, reason: str) -> Verdict:
        return Verdict(outcome, effect, bar, controls, reason)

    if effect.high < bar:
        return verdict("refuted", f"the whole interval lies below the bar of {bar:g}")
    if effect.low < bar:
        few = "a single seed gives no interval" if effect.seeds < 2 else f"the interval lies across the bar of {bar:g}"
        return verdict("inconclusive", few)
    for name, control in controls.items():
        if control.low >= bar:
            return verdict("confounded", f"the control “{name}” shows the effect too")
    for name, control in controls.items():
        if control.high >= bar:
            return verdict("inconclusive", f"the control “{name}” lies across the bar of {bar:g}")
    return verdict("holds", f"the whole interval lies above the bar of {bar:g}")
