"""Number of seeds that a verdict needs, from a pilot run with other seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .._errors import InputError
from ._claim import Claim
from ._context import Measurement
from ._interval import MIN_EQUAL_SEEDS, MIN_SEEDS, all_equal, deviation_of, mean_of, spreads
from ._verdict import counts, rows

POWER = 0.9
"""Probability of reaching a verdict, for which the number of seeds is chosen."""
MOST_SEEDS = 64
"""Largest number of seeds that a plan may ask for."""


def seeds_needed(claim: Claim, pilot: Sequence[Measurement]) -> int:
    """Return the smallest number of seeds that gives a verdict with a probability of 90 %; 64 if none does.

    Args:
        claim: A claim about seeds or a share.
        pilot: Measured numbers of each seed of the pilot.

    Raises:
        InputError: A measured number of the pilot is not finite.
    """
    enough = (n for n in range(MIN_SEEDS, MOST_SEEDS + 1) if power(claim, pilot, n) >= POWER)
    return next(enough, MOST_SEEDS)


def power(claim: Claim, pilot: Sequence[Measurement], seeds: int) -> float:
    """Return a lower bound on the probability that a number of further seeds gives a verdict.

    The true effect and its spread are taken to be those of the pilot. A verdict needs the 95 % interval of the effect
    to lie on one side of the bar. If that side is above, the interval of each control must lie on one side as well. The
    bound is one minus the sum of the probabilities that an interval lies across the bar.

    - `"seeds"`: noncentral t distribution of the mean over its standard error;
    - `"share"`: binomial distribution of the number of successes, and noncentral t too where the seeds of the pilot
      spread more than their trials explain.

    Args:
        claim: A claim about seeds or a share.
        pilot: Measured numbers of each seed of the pilot.
        seeds: Number of seeds of the run.

    Raises:
        InputError: A measured number of the pilot is not finite.
    """
    values, trials = rows(claim, pilot), counts(claim, pilot)
    if not all(map(math.isfinite, [*trials, *(value for row in values.values() for value in row)])):
        raise InputError(f"the pilot of claim {claim.name!r} has a value that is not finite; give a number of seeds")
    if mean_of(values[""]) < claim.at_least:
        values = {"": values[""]}
    missed = sum(1 - _chance(row, trials, claim.at_least, seeds) for row in values.values())
    return max(0.0, 1 - missed)


def _chance(values: Sequence[float], trials: Sequence[float], bar: float, seeds: int) -> float:
    """Return the probability that the interval lies on the side of the bar where the pilot's mean lies."""
    if not trials:
        return _student(values, bar, seeds)
    chance = _binomial(mean_of(values), round(mean_of(trials) * seeds), bar)
    if spreads([round(v * n) for v, n in zip(values, trials, strict=True)], trials):
        chance += _student(values, bar, seeds) - 1
    return max(0.0, chance)


def _student(values: Sequence[float], bar: float, seeds: int) -> float:
    from scipy.special import nctdtr, stdtrit

    if all_equal(values, bar):
        return float(seeds >= MIN_EQUAL_SEEDS)
    if seeds < MIN_SEEDS:
        return 0.0
    shift = abs(mean_of(values) - bar) / deviation_of(values) * math.sqrt(seeds)
    return 1 - float(nctdtr(seeds - 1, shift, stdtrit(seeds - 1, 0.975)))


def _binomial(share: float, trials: int, bar: float) -> float:
    """Return the probability that the Clopper-Pearson interval lies on the side of the bar where the share lies."""
    from scipy.stats import binom

    if share < bar:
        return float(binom.cdf(binom.ppf(0.025, trials, bar) - 1, trials, share)) if bar <= 1 else 1.0
    return float(binom.sf(binom.isf(0.025, trials, bar), trials, share)) if bar > 0 else 1.0
