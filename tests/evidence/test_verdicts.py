import math

import pytest
from evidence_toy import LINE, PAPER, claim

from commutant import RunError
from commutant.evidence import Interval, Task, judge, judge_runs, run_task


def verdict(effects, controls=(), bar=0.5):
    measurements = [{"e": e, **{f"c{i}": c[k] for i, c in enumerate(controls)}} for k, e in enumerate(effects)]
    named = {f"c{i}": (lambda m, i=i: m[f"c{i}"]) for i in range(len(controls))}
    return judge(claim("x", LINE, effect=lambda m: m["e"], at_least=bar, controls=named), measurements)


@pytest.mark.parametrize(
    ("effects", "controls", "outcome"),
    [
        ([0.8, 0.82, 0.81], [], "holds"),
        ([0.1, 0.12, 0.11], [], "refuted"),
        ([0.1, 0.9, 0.5], [], "inconclusive"),
        ([0.8], [], "inconclusive"),
        ([0.8, 0.82, 0.81], [[0.1, 0.1, 0.12]], "holds"),
        ([0.8, 0.82, 0.81], [[0.7, 0.72, 0.71]], "confounded"),
        ([0.8, 0.82, 0.81], [[0.1, 0.9, 0.5]], "inconclusive"),
        ([0.1, 0.12, 0.11], [[0.7, 0.72, 0.71]], "refuted"),
        ([0.5, 0.5, 0.5], [], "holds"),
        ([float("nan"), 0.9, 0.9], [], "inconclusive"),
    ],
)
def test_outcomes(effects, controls, outcome):
    assert verdict(effects, controls).outcome == outcome


def test_the_interval_is_students():
    interval = Interval.of([1.0, 2.0, 3.0])
    assert interval.mean == 2.0
    assert interval.high - interval.mean == pytest.approx(4.302653 / math.sqrt(3), rel=1e-5)


def test_reasons_name_the_control():
    assert "c0" in verdict([0.8, 0.82, 0.81], [[0.7, 0.72, 0.71]]).reason


def test_a_record_holds_the_figures_that_every_seed_has():
    from commutant.evidence._record import figures

    assert figures([{"a": 1.0, "b": 2.0, "_plot": 5.0}, {"a": 3.0, "_plot": 5.0}]) == {
        "a": {"mean": 2.0, "sd": 2.0**0.5}
    }


def test_runs_of_an_older_measure_are_named(tmp_path):
    assert run_task(Task("evidence_toy", "line", "small", 0, str(tmp_path))) is None
    newer = claim("line", LINE, effect=lambda m: m["a figure of today"])
    with pytest.raises(RunError, match=r"lack the figure 'a figure of today'.*delete that folder"):
        judge_runs(PAPER, newer, "small", tmp_path)
