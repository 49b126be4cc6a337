"""Verdicts in words: numbers, units, the paper's figures next to ours, and how often each verdict occurs."""

from dataclasses import replace

import pytest
from evidence_toy import LINE, PAPER, claim

from commutant.evidence import Judged, comparison, counted, effect_in_words, judge, numbers, seeds_in_words, sentence

MADE = {"versions": {}, "hardware": "a machine", "threads": 1, "date": "2026-01-01"}


def judged(values, scale="small", figures=None, seeds_from=None, label="accuracy of A minus B", **options):
    options = {"effect": lambda m: m["e"], **options}
    stated = replace(claim("x", LINE, **options), effect_label=label)
    verdict = judge(stated, [{"e": value} for value in values], scale)
    means = {name: {"mean": mean, "sd": 0.0} for name, mean in (figures or {}).items()}
    return Judged(PAPER, stated, scale, verdict, means, list(range(len(values))), 0.0, MADE, seeds_from=seeds_from)


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([1.0, 0.5], ["1.00", "0.50"]),
        ([0.995, 12.34, 1234.5], ["0.995", "12.3", "1234"]),
        ([7.0, 386.0], ["7", "386"]),
        ([2.13e-5, -3e8], ["2.1e-5", "-3.0e8"]),
        ([float("nan"), float("inf")], ["nan", "inf"]),
        ([-0.0, 0.5], ["0.00", "0.50"]),
    ],
)
def test_numbers(values, texts):
    assert numbers(values) == texts


def test_a_sentence_has_the_unit_the_interval_the_bar_and_the_papers_figure():
    found = judged([0.48, 0.49, 0.5], at_least=0.3, reported_effect=0.49, unit="accuracy")
    assert sentence(found) == (
        "accuracy of A minus B: +0.49 accuracy (95 % +0.47 to +0.51; bar +0.30; paper +0.49): holds"
    )
    assert effect_in_words(found).mean == "+0.49 accuracy"


def test_an_effect_that_is_no_difference_has_no_sign():
    found = judged([5.1, 5.2, 5.3], at_least=2.0, unit="times", label="time of the loop over time of the scan")
    assert sentence(found) == "time of the loop over time of the scan: 5.20 times (95 % 4.95 to 5.45; bar 2): holds"


def test_an_open_verdict_says_why():
    assert sentence(judged([0.1, 0.9, 0.5], at_least=0.5)).endswith(
        "): inconclusive, because the interval lies across the bar of 0.5"
    )
    assert "(no interval; bar" in sentence(judged([0.1], at_least=0.5))


def test_a_small_run_does_not_refute_what_needs_the_full_scale():
    assert sentence(judged([0.1, 0.12, 0.11], at_least=0.5)).endswith(": not reproduced at this scale")
    assert sentence(judged([0.1, 0.12, 0.11], "full", at_least=0.5)).endswith(": refuted")
    assert sentence(judged([0.1, 0.12, 0.11], at_least=0.5, refutable_at=("small", "full"))).endswith(": refuted")
    exact = judged([0.1, 0.12], at_least=0.5, basis="identity", cases=lambda m: 10.0)
    assert sentence(exact) == "accuracy of A minus B: +0.11 (exact, 20 cases; bar +0.50): refuted"


def test_the_papers_figures_stand_next_to_ours():
    found = judged([0.5], figures={"a": 0.9863}, labels={"a": "ParaGRU"})
    found = replace(found, claim=replace(found.claim, reported={"a": 1.0, "b": 0.51}))
    assert comparison(found) == "ParaGRU: 0.986 (paper 1.00) · b: paper 0.51"
    assert comparison(judged([0.5])) == ""


def test_seeds_in_words():
    assert seeds_in_words(judged([0.5])) == "1 seed"
    assert (
        seeds_in_words(judged([0.5] * 3, seeds_from={"pilot_seeds": [1000, 1001]}))
        == "3 seeds, planned from a pilot of 2"
    )


def test_verdicts_are_counted_in_order():
    assert list(counted(["inconclusive", "not reproduced", "holds", "holds"]).values()) == [
        "2 hold",
        "1 not reproduced at this scale",
        "1 inconclusive",
    ]
