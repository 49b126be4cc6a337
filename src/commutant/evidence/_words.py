"""Verdicts in words: the same numbers, units and sentences in the terminal, the README, the docs and the report."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ._claim import Claim
from ._interval import Interval
from ._judged import Judged
from ._verdict import OUTCOMES, Outcome, in_words

_DIFFERENCE = re.compile(r".+\b(minus|above|ahead)\b")  # labels of effects whose sign is worth showing


def numbers(values: Sequence[float]) -> list[str]:
    """Format numbers for readers: three digits, and at least two decimals below ten unless all are whole.

    Args:
        values: Numbers to format with the same rule.

    Example:
        >>> numbers([1.0, 0.49867, 12.5]), numbers([4.0, 386.0]), numbers([0.0000213])
        (['1.00', '0.499', '12.5'], ['4', '386'], ['2.1e-5'])
    """
    whole = all(not math.isfinite(v) or v == round(v) for v in values)
    return [_number(value, whole) for value in values]


def _number(value: float, whole: bool) -> str:
    size = abs(value)
    if not math.isfinite(value):
        return str(value)
    if size >= 1e6 or 0 < size < 1e-3:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    if whole or size >= 1000:
        return _fixed(value, 0)
    text = f"{value:.3g}"
    return _fixed(value, 2) if size < 10 and len(text.partition(".")[2]) < 2 else text


def _fixed(value: float, decimals: int) -> str:
    text = f"{value:.{decimals}f}"
    return text if float(text) else text.lstrip("-")


def _with_interval(found: Interval, bar: float) -> list[str]:
    """Return mean, low and high with the same number of decimals, which grows as the interval narrows."""
    values = [found.mean, found.low, found.high]
    width, size = found.high - found.low, max(map(abs, values))
    if found.basis == "identity" or not math.isfinite(width) or width == 0 or not 1e-3 <= size < 1e6:
        return numbers([*values, bar])[:3]
    decimals = max(math.ceil(0.5 - math.log10(width)), 2 if size < 10 else 0)
    return [_fixed(value, decimals) for value in values]


def _signed(claim: Claim, texts: Sequence[str]) -> list[str]:
    """Return numbers of a claim's effect, with a sign if the effect is a difference."""
    difference = _DIFFERENCE.search(claim.effect_label) and claim.unit != "times"
    return [f"+{text}" if difference and text[0] not in "-n" and float(text) > 0 else text for text in texts]


@dataclass(frozen=True)
class Effect:
    """Numbers of a verdict, formatted for readers.

    Attributes:
        mean: Mean effect with its unit.
        interval: Ends of the 95 % interval, or the number of cases of an identity, or "none".
        bar: The bar.
        paper: Effect computed from the numbers in the paper; empty if there is none.
    """

    mean: str
    interval: str
    bar: str
    paper: str


def effect_in_words(judged: Judged) -> Effect:
    """Format the numbers of a verdict for readers.

    Args:
        judged: Claim with its verdict.
    """
    claim, found = judged.claim, judged.verdict.effect
    paper = [] if claim.reported_effect is None else [claim.reported_effect]
    bar, *reported = _signed(claim, numbers([judged.verdict.bar, *paper]))
    mean, low, high = _signed(claim, _with_interval(found, judged.verdict.bar))
    between = str(found)
    if found.basis != "identity" and not found.undecided:
        between = f"{low} to {high}" + (f" over {found.cases} trials" if found.basis == "share" else "")
    return Effect(f"{mean} {claim.unit}".rstrip(), between, bar, "".join(reported))


def sentence(judged: Judged) -> str:
    """Return a verdict in one sentence: the effect with its unit, interval, bar, the paper's effect and the outcome.

    Args:
        judged: Claim with its verdict.

    Example: `"accuracy of ParaGRU minus minGRU: +0.49 accuracy (95 % +0.47 to +0.50; bar +0.30; paper +0.49): holds"`.
    """
    shown, verdict = effect_in_words(judged), judged.verdict
    interval = "no interval" if verdict.effect.undecided else shown.interval
    if verdict.effect.basis != "identity" and not verdict.effect.undecided:
        interval = f"95 % {interval}"
    brackets = [interval, f"bar {shown.bar}", *([f"paper {shown.paper}"] if shown.paper else [])]
    reason = f", because {verdict.reason}" if verdict.outcome in ("inconclusive", "confounded") else ""
    return f"{judged.claim.effect_label}: {shown.mean} ({'; '.join(brackets)}): {verdict.word}{reason}"


def comparison(judged: Judged) -> str:
    """Return our numbers next to those that the paper reports; empty if it reports none.

    Args:
        judged: Claim with its verdict.

    Example: `"ParaGRU: 0.99 (paper 1.00) · linear recurrence: 0.50 (paper 0.51)"`.
    """
    reported = judged.claim.reported
    ours = [judged.figures.get(name, {}).get("mean", math.nan) for name in reported]
    texts = iter(numbers([*ours, *reported.values()]))
    pairs = zip(reported, [next(texts) for _ in ours], texts, strict=True)
    found = []
    for name, here, there in pairs:
        label = judged.claim.labels.get(name, name)
        found.append(f"{label}: paper {there}" if here == "nan" else f"{label}: {here} (paper {there})")
    return " · ".join(found)


def seeds_in_words(judged: Judged) -> str:
    """Return the number of seeds in words, with the pilot that it was planned from, if any.

    Args:
        judged: Claim with its verdict.
    """
    number = len(judged.seeds)
    text = f"{number} seed{'' if number == 1 else 's'}"
    if judged.seeds_from is None:
        return text
    return f"{text}, planned from a pilot of {len(judged.seeds_from['pilot_seeds'])}"


def counted(outcomes: Iterable[Outcome]) -> dict[Outcome, str]:
    """Return how often each outcome occurs, in words, in the order of `OUTCOMES`.

    Args:
        outcomes: Outcomes of claims.

    Example:
        >>> counted(["refuted", "holds", "holds"])
        {'holds': '2 hold', 'refuted': '1 refuted'}
    """
    numbers_of = Counter(outcomes)
    return {
        outcome: f"{number} {'hold' if outcome == 'holds' and number > 1 else in_words(outcome)}"
        for outcome in OUTCOMES
        if (number := numbers_of[outcome])
    }
