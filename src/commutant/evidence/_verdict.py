"""From the figures of several seeds to a verdict: computed, never written."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from .._errors import InputError
from ._claim import BASES, Basis, Claim
from ._context import Measurement

Outcome: TypeAlias = Literal["holds", "refuted", "inconclusive", "confounded"]

MIN_SEEDS = 3
"""Seeds that an interval over seeds needs: two have a spread that says nearly nothing."""
MIN_EQUAL_SEEDS = 14
"""Seeds that a verdict needs where all give the same value: 0.8 ** 14 < 0.05, so what happens to one seed in five
would have been seen."""
_ROUNDING = 1e-6  # relative difference that rounding in float32 explains: values count as equal, a count as whole


@dataclass(frozen=True)
class Interval:
    """The mean of an effect and the interval that decides about it.

    Attributes:
        mean: Mean over seeds.
        low: Lower end; minus infinity where the seeds give no interval.
        high: Upper end.
        seeds: Number of seeds.
        basis: What the interval is, see `Claim.basis`.
        cases: Number of trials or cases over all seeds; 0 for the basis `"seeds"`.
        undecided: Why there is no interval, in a sentence; empty where there is one.
    """

    mean: float
    low: float
    high: float
    seeds: int
    basis: Basis = "seeds"
    cases: int = 0
    undecided: str = ""

    @classmethod
    def of(
        cls, values: Sequence[float], basis: Basis = "seeds", cases: Sequence[float] = (), bar: float = 0.0
    ) -> Interval:
        """Return the interval of the values of several seeds.

        - `"seeds"`: two-sided 95 % interval of the mean (Student's t);
        - `"share"`: two-sided 95 % Clopper-Pearson interval over all trials, widened to Student's where the seeds
          spread more than their trials explain (Pearson's chi-squared above its expectation);
        - `"identity"`: smallest and largest value.

        Args:
            values: One value a seed.
            basis: What the interval is.
            cases: Number of trials (of a share) or cases (of an identity) of each seed.
            bar: Number that the interval is compared with; seeds that differ by its rounding count as equal.

        Raises:
            InputError: for an unknown basis.
        """
        if basis not in BASES:
            raise InputError(f"unknown basis {basis!r}; expected one of {', '.join(BASES)}")
        mean, total = mean_of(values), round(math.fsum(cases)) if _finite(cases) else 0
        problem = _no_interval(values, basis, cases, bar)
        if problem:
            return cls(mean, -math.inf, math.inf, len(values), basis, total, problem)
        if basis == "identity":
            return cls(mean, min(values), max(values), len(values), basis, total)
        if basis == "seeds":
            return cls(mean, *_student(values), len(values), basis, total)
        successes = [round(v * n) for v, n in zip(values, cases, strict=True)]
        low, high = _clopper_pearson(sum(successes), total)
        if _spreads(successes, cases):
            wide = _student(values)
            low, high = max(0.0, min(low, wide[0])), min(1.0, max(high, wide[1]))
        return cls(sum(successes) / total, low, high, len(values), basis, total)

    def __str__(self) -> str:
        if self.undecided:
            return "none"
        if self.basis == "identity":
            return f"exact, {self.cases} case{'' if self.cases == 1 else 's'}"
        return f"{self.low:.3g} … {self.high:.3g}"


def _no_interval(values: Sequence[float], basis: Basis, cases: Sequence[float], bar: float) -> str:
    """Say why the values give no interval; an empty string where they do."""
    if not values:
        return "there are no seeds"
    if not _finite((*values, *cases)):
        return "the figure of a seed is not finite"
    if basis != "seeds":
        if len(cases) != len(values) or not all(n >= 1 for n in cases):
            return "a seed has no cases"
        if not all(n == round(n) for n in cases):
            return "the number of cases of a seed is not whole"
        if basis == "share" and not all(-_ROUNDING <= v <= 1 + _ROUNDING for v in values):
            return "a share lies outside 0 to 1"
        counts = [v * n for v, n in zip(values, cases, strict=True)]
        if basis == "share" and not all(abs(k - round(k)) <= _ROUNDING * n for k, n in zip(counts, cases, strict=True)):
            return "a share is not that of a whole number of trials"
        return ""
    if len(values) < MIN_SEEDS:
        return f"a verdict needs at least {MIN_SEEDS} seeds, there {_are(len(values))}"
    size = max(abs(bar), *map(abs, values))
    if max(values) - min(values) <= _ROUNDING * size and len(values) < MIN_EQUAL_SEEDS:
        return (
            f"all {len(values)} seeds give the same value, which says nothing about the spread; "
            f"without spread a verdict needs {MIN_EQUAL_SEEDS} seeds"
        )
    return ""


def _finite(values: Sequence[float]) -> bool:
    return all(math.isfinite(v) for v in values)


def mean_of(values: Sequence[float]) -> float:
    """Return the mean; NaN where there is none."""
    return math.fsum(v / len(values) for v in values) if values and _finite(values) else math.nan


def _are(number: int) -> str:
    return "is 1" if number == 1 else f"are {number}"


def deviation_of(values: Sequence[float]) -> float:
    """Return the standard deviation; 0 for one value, NaN where a value is not finite."""
    if not _finite(values):
        return math.nan
    try:
        return statistics.stdev(values) if len(values) > 1 else 0.0
    except OverflowError:
        return math.inf


def _student(values: Sequence[float]) -> tuple[float, float]:
    from scipy.special import stdtrit

    mean, n = mean_of(values), len(values)
    half = float(stdtrit(n - 1, 0.975)) * deviation_of(values) / math.sqrt(n)
    return mean - half, mean + half


def _spreads(successes: Sequence[int], trials: Sequence[float]) -> bool:
    """Whether the shares of the seeds differ by more than trials with one common probability do on average."""
    share = sum(successes) / math.fsum(trials)
    if share in (0.0, 1.0):
        return False
    deviations = ((k - n * share) ** 2 / n for k, n in zip(successes, trials, strict=True))
    return math.fsum(deviations) > (len(successes) - 1) * share * (1 - share)


def _clopper_pearson(successes: int, trials: int) -> tuple[float, float]:
    from scipy.special import betaincinv

    failures = trials - successes
    low = float(betaincinv(successes, failures + 1, 0.025)) if successes > 0 else 0.0
    high = float(betaincinv(successes + 1, failures, 0.975)) if failures > 0 else 1.0
    return low, high


@dataclass(frozen=True)
class Verdict:
    """What the seeds say about a claim."""

    outcome: Outcome
    effect: Interval
    bar: float
    controls: dict[str, Interval]
    reason: str


def judge(claim: Claim, measurements: Sequence[Measurement]) -> Verdict:
    """Compare the interval of the effect with the bar, and the interval of every control too.

    - *holds*: the interval lies at or above the bar, and that of every control below it;
    - *refuted*: the interval lies below the bar; an identity is refuted by one case;
    - *confounded*: the effect is there, but a control shows it as well;
    - *inconclusive*: there is no interval, or one that decides lies across the bar.

    An interval over seeds needs at least 3 seeds, and 14 where all give the same value.
    """
    cases = [] if claim.cases is None else [_value(claim.cases, m) for m in measurements]

    def interval(figure: Callable[[Measurement], float]) -> Interval:
        return Interval.of([_value(figure, m) for m in measurements], claim.basis, cases, claim.at_least)

    effect, controls = interval(claim.effect), {name: interval(control) for name, control in claim.controls.items()}
    bar = claim.at_least

    def verdict(outcome: Outcome, reason: str) -> Verdict:
        return Verdict(outcome, effect, bar, controls, reason)

    if effect.undecided:
        return verdict("inconclusive", effect.undecided)
    if effect.high < bar:
        return verdict("refuted", f"the whole interval lies below the bar of {bar:g}")
    if effect.low < bar and claim.basis == "identity":
        return verdict("refuted", f"one of {effect.seeds} seeds lies below the bar of {bar:g}, at {effect.low:g}")
    if effect.low < bar:
        return verdict("inconclusive", f"the interval lies across the bar of {bar:g}")
    for name, control in controls.items():
        if not control.undecided and control.low >= bar:
            return verdict("confounded", f"the control “{name}” shows the effect too")
    for name, control in controls.items():
        if control.undecided:
            return verdict("inconclusive", f"the control “{name}” does not decide: {control.undecided}")
        if control.high >= bar:
            return verdict("inconclusive", f"the control “{name}” lies across the bar of {bar:g}")
    if claim.basis == "identity":
        return verdict("holds", f"exact: no case of {effect.cases} lies below the bar of {bar:g}")
    return verdict("holds", f"the whole interval lies above the bar of {bar:g}")


def _value(figure: Callable[[Measurement], float], measurement: Measurement) -> float:
    """Return a figure of a seed; NaN where it is undefined, such as the logarithm of zero."""
    try:
        return float(figure(measurement))
    except (ArithmeticError, ValueError):
        return math.nan
