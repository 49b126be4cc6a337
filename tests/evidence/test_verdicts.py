import json
import math
import shutil
import subprocess
from dataclasses import replace

import pytest
from evidence_toy import LINE, PAPER, claim

from commutant import InputError, RunError
from commutant.evidence import Interval, Task, judge, judge_runs, read_records, record, run_task


def verdict(effects, controls=(), bar=0.5):
    measurements = [{"e": e, **{f"c{i}": c[k] for i, c in enumerate(controls)}} for k, e in enumerate(effects)]
    named = {f"c{i}": (lambda m, i=i: m[f"c{i}"]) for i in range(len(controls))}
    return judge(claim("x", LINE, effect=lambda m: m["e"], at_least=bar, controls=named), measurements, "full")


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
        ([0.8, 0.81], [], "inconclusive"),
        ([1.0, 1.0, 1.0], [], "inconclusive"),
        ([0.0] * 13, [], "inconclusive"),
        ([1.0, 1.0, 1.0 - 1e-12], [], "inconclusive"),
        ([1.0] * 14, [], "holds"),
        ([0.5] * 14, [], "holds"),
        ([0.0] * 14, [], "refuted"),
        ([0.8, 0.82, 0.81], [[0.1, 0.1, 0.1]], "inconclusive"),
        ([0.8, 0.82, 0.81], [[float("nan"), 0.1, 0.2]], "inconclusive"),
        ([float("nan"), 0.9, 0.9], [], "inconclusive"),
    ],
)
def test_outcomes(effects, controls, outcome):
    assert verdict(effects, controls).outcome == outcome


def test_equal_seeds_would_have_shown_what_happens_to_one_in_five():
    """With a success probability of 0.8 per seed and bar 0.95, three, five or ten equal seeds are no evidence."""
    for seeds in (3, 5, 10, 13):
        assert "same value" in verdict([1.0] * seeds, bar=0.95).reason
        assert 0.8**seeds > 0.05
    assert verdict([1.0] * 14, bar=0.95).outcome == "holds"
    assert 0.8**14 < 0.05


def share(shares, trials, bar, controls=()):
    measurements = [
        {"e": e, "n": trials, **{f"c{i}": c[k] for i, c in enumerate(controls)}} for k, e in enumerate(shares)
    ]
    named = {f"c{i}": (lambda m, i=i: m[f"c{i}"]) for i in range(len(controls))}
    options = {"effect": lambda m: m["e"], "at_least": bar, "basis": "share", "cases": lambda m: m["n"]}
    return judge(claim("x", LINE, controls=named, **options), measurements, "full")


def test_shares_have_the_exact_binomial_interval_over_all_trials():
    """Reference values are the published tables of Clopper and Pearson for k = 0 and k = 8 of n = 10."""
    assert share([1.0], 10, 0.5).effect.low == pytest.approx(0.025 ** (1 / 10), rel=1e-9)
    assert share([0.0, 0.0], 5, 0.5).effect.high == pytest.approx(1 - 0.025 ** (1 / 10), rel=1e-9)
    found = share([0.8, 0.8], 5, 0.5).effect
    assert (round(found.low, 4), round(found.high, 4)) == (0.4439, 0.9748)
    assert (found.cases, found.seeds) == (10, 2)
    assert share([1.0] * 3, 1000, 0.995).outcome == "holds"
    assert share([1.0] * 3, 100, 0.995).outcome == "inconclusive"
    assert share([0.9] * 3, 1000, 0.995).outcome == "refuted"
    assert share([1.0] * 3, 1000, 0.995, [[0.0] * 3]).outcome == "holds"
    assert share([1.0] * 3, 1000, 0.995, [[1.0] * 3]).outcome == "confounded"
    assert share([1.2], 10, 0.5).outcome == "inconclusive"
    assert share([1.0], 0, 0.5).outcome == "inconclusive"


def test_shares_that_differ_between_seeds_more_than_their_trials_explain_have_the_wider_interval():
    shares = [1.0, 1.0, 0.7]
    found, seeds = share(shares, 100_000, 0.5).effect, Interval.of(shares)
    assert found.low == seeds.low
    assert found.high == min(1.0, seeds.high)


def test_shares_that_differ_as_their_trials_explain_have_the_binomial_interval():
    """95 and 97 of 100: Student's interval of two seeds is 0.83 to 1.09 and says nothing."""
    found = share([0.95, 0.97], 100, 0.9)
    assert found.outcome == "holds"
    assert (round(found.effect.low, 3), round(found.effect.high, 3)) == (0.923, 0.983)


def test_shares_are_of_whole_trials():
    assert share([0.5], 1, 0.1).outcome == "inconclusive"
    assert share([0.5], 2.5, 0.1).outcome == "inconclusive"
    assert share([0.5] * 3, 3, 0.01).reason == "a share is not that of a whole number of trials"
    rounded = share([0.99999994] * 3, 1000, 0.5).effect  # 1 in float32
    assert (rounded.mean, rounded.high) == (1.0, 1.0)


def test_rounding_is_no_spread():
    for values, bar in (([0.0, 1.1e-16, 0.0], -0.02), ([1.0, 1.0, 0.99999994], 0.95), ([1e-320, 2e-320, 3e-320], -1.0)):
        assert "same value" in verdict(values, bar=bar).reason
        assert verdict(values * 5, bar=bar).outcome == "holds"
    assert verdict([-1e-9, -3e-9, -2e-9], bar=-1e-6).outcome == "holds"


@pytest.mark.parametrize(
    "values", [[math.inf, -math.inf, 1.0], [1e308, 1.2e308, 1.1e308], [], [1.7e308, -1.7e308, 1.0]]
)
@pytest.mark.parametrize("bar", [0.0, 1.0])
def test_figures_without_a_mean_or_spread_decide_nothing_false(values, bar):
    found = verdict(values, bar=bar)
    assert found.outcome == ("holds" if values == [1e308, 1.2e308, 1.1e308] else "inconclusive")


@pytest.mark.parametrize("basis", ["share", "identity"])
@pytest.mark.parametrize("cases", [math.nan, math.inf, 0.0, -5.0, 2.5])
def test_cases_that_count_nothing_decide_nothing(basis, cases):
    options = {"effect": lambda m: m["e"], "at_least": 0.5, "basis": basis, "cases": lambda m: cases}
    assert judge(claim("x", LINE, **options), [{"e": 1.0}] * 3, "full").outcome == "inconclusive"
    assert judge(claim("x", LINE, **options), [], "full").outcome == "inconclusive"


def test_an_effect_that_is_undefined_for_a_seed_decides_nothing():
    for effect in (lambda m: math.log(m["e"]), lambda m: 1 / m["e"], lambda m: math.exp(1000 + m["e"])):
        found = judge(claim("x", LINE, effect=effect), [{"e": 1.0}, {"e": 0.0}, {"e": 2.0}], "full")
        assert found.reason == "the figure of a seed is not finite"


@pytest.mark.parametrize("bar", [math.nan, math.inf, -math.inf])
def test_a_bar_that_is_not_finite_is_refused(bar):
    with pytest.raises(InputError, match="bar of claim 'x' must be a finite number"):
        claim("x", LINE, at_least=bar)


def test_an_unknown_basis_is_refused(unchecked):
    with pytest.raises(InputError, match="basis of claim 'x' must be one of seeds, share, identity, got 'shares'"):
        claim("x", LINE, basis="shares", cases=lambda m: 1.0)
    with pytest.raises(InputError, match="basis must be one of seeds, share, identity, got 'shares'"):
        Interval.of([1.0, 1.0, 1.0], "shares", [1.0] * 3)


def identity(values, cases=100.0, bar=0.5):
    options = {"effect": lambda m: m["e"], "at_least": bar, "basis": "identity", "cases": lambda m: cases}
    return judge(claim("x", LINE, **options), [{"e": e} for e in values], "small")


def test_an_identity_is_exact_and_one_case_refutes_it():
    assert identity([7.0]).outcome == "holds"
    assert "exact: no case of 300" in identity([7.0, 7.0, 7.0]).reason
    assert identity([7.0, 7.0, 0.4]).outcome == "refuted"
    assert "at 0.4" in identity([7.0, 7.0, 0.4]).reason
    assert identity([7.0, float("nan")]).outcome == "inconclusive"
    assert identity([7.0], cases=0.0).outcome == "inconclusive"


def test_a_basis_without_its_cases_is_refused():
    with pytest.raises(InputError, match="basis 'share' and no count of cases"):
        claim("x", LINE, basis="share")
    with pytest.raises(InputError, match="only there"):
        claim("x", LINE, cases=lambda m: 1.0)


def test_what_a_run_can_refute_depends_on_its_scale():
    low = [{"e": 0.1}, {"e": 0.12}, {"e": 0.11}]
    stated = claim("x", LINE, effect=lambda m: m["e"], at_least=0.5)
    assert judge(stated, low, "small").outcome == "not reproduced"
    assert judge(stated, low, "small").word == "not reproduced at this scale"
    assert judge(stated, low, "full").outcome == "refuted"
    assert judge(replace(stated, refutable_at=("small",)), low, "small").outcome == "refuted"


def test_a_record_follows_what_its_claim_says_about_refutation_today(tmp_path, caplog):
    for seed in range(3):
        assert run_task(Task("evidence_toy", "line", "small", seed, str(tmp_path))) is None
    high = replace(PAPER.claims[0], at_least=100.0)
    path = record(judge_runs(PAPER, high, "small", tmp_path), tmp_path / "results")
    assert json.loads(path.read_text())["verdict"] == "not reproduced"
    for scales, outcome in ((("full",), "not reproduced"), (("small",), "refuted")):
        paper = replace(PAPER, claims=(replace(high, refutable_at=scales),))
        (found,) = read_records(tmp_path / "results", [paper])
        assert found.verdict.outcome == outcome
        assert found.verdict.effect.mean == pytest.approx(found.figures["narrow"]["mean"], rel=1e-3)
    assert read_records(tmp_path / "results", [replace(PAPER, claims=())]) == []
    assert "is left out: paper toy has no claim 'line'" in caplog.text
    path.write_text(path.read_text().replace('"versions"', '"vresions"'))
    with pytest.raises(InputError, match=r"damaged \(KeyError: 'versions'\); record the claim anew"):
        read_records(tmp_path / "results", [PAPER])


def test_the_interval_is_students():
    interval = Interval.of([1.0, 2.0, 3.0])
    assert interval.mean == 2.0
    assert interval.high - interval.mean == pytest.approx(4.302653 / math.sqrt(3), rel=1e-5)


def test_reasons_name_the_control():
    assert "c0" in verdict([0.8, 0.82, 0.81], [[0.7, 0.72, 0.71]]).reason


def test_a_record_holds_the_figures_that_every_seed_has():
    from commutant.evidence import figures

    assert figures([{"a": 1.0, "b": 2.0, "_plot": 5.0}, {"a": 3.0, "_plot": 5.0}]) == {
        "a": {"mean": 2.0, "sd": 2.0**0.5}
    }


def test_figures_have_no_mean_where_there_is_none():
    from commutant.evidence import figures

    for values in ([math.inf, -math.inf], [math.nan, 1.0]):
        assert all(math.isnan(value) for value in figures([{"a": v} for v in values])["a"].values())
    assert figures([{"a": 1.79e308}, {"a": -1.79e308}])["a"] == {"mean": 0.0, "sd": math.inf}
    assert figures([{"a": 1.7e308}] * 2)["a"] == {"mean": 1.7e308, "sd": 0.0}


def test_a_figure_that_is_not_finite_is_recorded_as_none(tmp_path):
    for seed in range(2):
        assert run_task(Task("evidence_toy", "line", "small", seed, str(tmp_path))) is None
    folder = Task("evidence_toy", "line", "small", 1, str(tmp_path)).folder
    run = folder.result()
    folder.write("run.json", {**run, "measurement": {**run["measurement"], "wide": math.nan}})
    judged = judge_runs(PAPER, PAPER.claims[0], "small", tmp_path)
    found = json.loads(record(judged, tmp_path / "results").read_text())
    assert found["figures"]["wide"] == {"mean": None, "sd": None}
    assert found["figures"]["narrow"]["sd"] is not None


def test_folders_that_are_no_runs_are_passed_over(tmp_path):
    task = Task("evidence_toy", "line", "small", 0, str(tmp_path))
    assert run_task(task) is None
    for name in ("seed-0-old", "seed-", "seed-0.set-aside-1", "seed-x"):
        shutil.copytree(task.folder.path, task.folder.path.with_name(name))
    assert len(judge_runs(PAPER, PAPER.claims[0], "small", tmp_path).seeds) == 1


def test_an_unknown_scale_is_named(tmp_path):
    with pytest.raises(InputError, match="scale must be one of small, got 'foo'"):
        judge_runs(PAPER, PAPER.claims[0], "foo", tmp_path)


def test_the_commit_of_a_record_is_that_of_the_library(tmp_path, monkeypatch):
    """The commit is not that of the repository in which somebody runs the command."""
    from commutant.evidence._record import _commit

    def git(*arguments):
        command = ["git", "-c", "user.name=x", "-c", "user.email=x@x", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.strip()

    git("init")
    git("commit", "--allow-empty", "-m", "another project")
    monkeypatch.chdir(tmp_path)
    assert _commit() != git("rev-parse", "--short", "HEAD")


def test_runs_of_an_older_measure_are_named(tmp_path):
    assert run_task(Task("evidence_toy", "line", "small", 0, str(tmp_path))) is None
    newer = claim("line", LINE, effect=lambda m: m["a figure of today"])
    with pytest.raises(RunError, match=r"lack the value 'a figure of today'.*delete the folder"):
        judge_runs(PAPER, newer, "small", tmp_path)
