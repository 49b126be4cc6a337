"""Interval of an effect over seeds, trials or cases."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from .._checks import one_of
from ._claim import BASES, Basis

MIN_SEEDS = 3
"""Number of seeds that an interval over seeds needs; the spread of two says nearly nothing."""
MIN_EQUAL_SEEDS = 14
"""Number of seeds that a verdict needs where all give the same value: 0.8 ** 14 < 0.05, so that a failure of one seed
in five would have been seen."""
_ROUNDING = 1e-6  # relative difference explained by float32: values count as equal, and a count as whole


@dataclass(frozen=True)
class Interval:
    """Mean of an effect and the interval that decides its verdict.

    Attributes:
        mean: Mean over seeds.
        low: Lower end; minus infinity if the seeds give no interval.
        high: Upper end.
        seeds: Number of seeds.
        basis: Meaning of the interval, see `Claim.basis`.
        cases: Number of trials or cases over all seeds; 0 for the basis `"seeds"`.
        undecided: Reason why there is no interval, in a sentence; empty if there is one.
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
            values: One value per seed.
            basis: Meaning of the interval.
            cases: Number of trials (of a share) or cases (of an identity) of each seed.
            bar: Number that the interval is compared with; seeds that differ by its rounding count as equal.

        Raises:
            InputError: The basis is unknown.
        """
        one_of("basis", basis, BASES)
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
        if spreads(successes, cases):
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
    """Return the reason why the values give no interval; empty where they do."""
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
    if all_equal(values, bar) and len(values) < MIN_EQUAL_SEEDS:
        return (
            f"all {len(values)} seeds give the same value, which says nothing about the spread; "
            f"without spread a verdict needs {MIN_EQUAL_SEEDS} seeds"
        )
    return ""


def all_equal(values: Sequence[float], bar: float) -> bool:
    """Return whether values differ by no more than rounding, relative to the largest of them and of the bar."""
    return max(values) - min(values) <= _ROUNDING * max(abs(bar), *map(abs, values))


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
    """Return the two-sided 95 % interval of the mean."""
    from scipy.special import stdtrit

    mean, n = mean_of(values), len(values)
    half = float(stdtrit(n - 1, 0.975)) * deviation_of(values) / math.sqrt(n)
    return mean - half, mean + half


def spreads(successes: Sequence[int], trials: Sequence[float]) -> bool:
    """Return whether shares differ between seeds by more than trials with one common probability do on average."""
    share = sum(successes) / math.fsum(trials)
    if share in (0.0, 1.0):
        return False
    deviations = ((k - n * share) ** 2 / n for k, n in zip(successes, trials, strict=True))
    return math.fsum(deviations) > (len(successes) - 1) * share * (1 - share)


def _clopper_pearson(successes: int, trials: int) -> tuple[float, float]:
    """Return the two-sided 95 % interval of a probability."""
    from scipy.special import betaincinv

    failures = trials - successes
    low = float(betaincinv(successes, failures + 1, 0.025)) if successes > 0 else 0.0
    high = float(betaincinv(successes + 1, failures, 0.975)) if failures > 0 else 1.0
    return low, high
