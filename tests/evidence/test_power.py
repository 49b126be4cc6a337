"""Number of seeds from a pilot: the power calculation against simulated runs, and the plan on disk."""

import json
import math

import pytest
import torch
from evidence_toy import LINE, NOISE, PAPER, claim

from commutant import InputError
from commutant.cli import _reproduce
from commutant.evidence import (
    MOST_SEEDS,
    Task,
    judge,
    judge_runs,
    make_plan,
    pilot_runs,
    power,
    read_plan,
    read_records,
    record,
    run_folder,
    seeds_needed,
)

RUNS = 2000
PILOT = [1.0, 1.4, 0.6, 1.2, 0.8]  # mean 1, standard deviation 0.1 ** 0.5


def stated(bar, controls=(), **options):
    named = {name: (lambda m, name=name: m[name]) for name in controls}
    return claim("x", LINE, effect=lambda m: m["e"], at_least=bar, controls=named, **options)


def pilot(effects, **controls):
    return [{"e": e, **{name: row[k] for name, row in controls.items()}} for k, e in enumerate(effects)]


def share_decided(of, draws, outcome):
    found = [judge(of, each, "full").outcome == outcome for each in draws]
    return sum(found) / len(found), 3.5 * math.sqrt(0.25 / len(found))


@pytest.mark.parametrize(("bar", "outcome"), [(0.7, "holds"), (1.25, "refuted"), (0.5, "holds")])
@pytest.mark.parametrize("seeds", [4, 9])
def test_power_is_the_share_of_simulated_runs_that_give_the_verdict(bar, outcome, seeds, unchecked):
    generator = torch.Generator().manual_seed(seeds)
    draws = 1 + math.sqrt(0.1) * torch.randn(RUNS, seeds, generator=generator, dtype=torch.float64)
    found, error = share_decided(stated(bar), [pilot(row) for row in draws.tolist()], outcome)
    assert abs(found - power(stated(bar), pilot(PILOT), seeds)) < error


def test_power_with_a_control_is_a_lower_bound(unchecked):
    of, seeds = stated(0.7, ["c"]), 10
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(RUNS, seeds, 2, generator=generator, dtype=torch.float64) * math.sqrt(0.1)
    draws = [pilot((1 + row[:, 0]).tolist(), c=(0.45 + row[:, 1]).tolist()) for row in drawn]
    found, error = share_decided(of, draws, "holds")
    bound = power(of, pilot(PILOT, c=[e - 0.55 for e in PILOT]), seeds)
    assert found > bound - error
    assert found < bound + 0.15
    assert bound < power(stated(0.7), pilot(PILOT), seeds)


@pytest.mark.parametrize(("bar", "outcome"), [(0.8, "holds"), (0.97, "refuted")])
def test_power_of_shares_is_exact_binomial(bar, outcome, unchecked):
    of = stated(bar, basis="share", cases=lambda m: 50.0)
    even = pilot([0.9, 0.9, 0.9, 0.9, 0.9])
    generator = torch.Generator().manual_seed(1)
    right = (torch.rand(RUNS, 6, 50, generator=generator) < 0.9).double().mean(-1)
    # seeds that happen to spread more have a wider interval, which the even pilot does not foresee
    found, error = share_decided(of, [pilot(row) for row in right.tolist()], outcome)
    assert found < power(of, even, 6) + error
    assert found > power(of, even, 6) - 0.15
    assert power(of, pilot([0.99, 0.8, 0.9, 0.85, 0.96]), 6) < power(of, even, 6)


def test_the_number_is_the_smallest_with_nine_in_ten():
    for bar in (0.4, 0.7, 0.85, 1.3):
        number = seeds_needed(stated(bar), pilot(PILOT))
        assert power(stated(bar), pilot(PILOT), number) >= 0.9
        assert number == 3 or power(stated(bar), pilot(PILOT), number - 1) < 0.9
    assert seeds_needed(stated(0.99), pilot(PILOT)) == MOST_SEEDS
    assert power(stated(0.99), pilot(PILOT), MOST_SEEDS) < 0.9
    assert seeds_needed(stated(0.5), pilot([1.0] * 5)) == 14
    far = pilot(PILOT, c=[0.69, 0.71, 0.7, 0.68, 0.715])
    assert seeds_needed(stated(0.7, ["c"]), far) > seeds_needed(stated(0.7), far)
    assert seeds_needed(stated(1.3, ["c"]), far) == seeds_needed(stated(1.3), far)  # below the bar no control counts


def test_a_pilot_that_is_not_finite_is_refused():
    with pytest.raises(InputError, match="pilot of claim 'x' has a value that is not finite; give a number of seeds"):
        seeds_needed(stated(0.5), pilot([1.0, float("nan"), 1.0]))


def test_a_plan_is_kept_until_a_bar_changes(tmp_path):
    first = make_plan([stated(0.7)], dict(enumerate(pilot(PILOT))), tmp_path)
    assert read_plan([stated(0.7)], tmp_path) == first
    assert read_plan([stated(0.6)], tmp_path) is None
    assert read_plan([stated(0.7), claim("y", LINE)], tmp_path) is None
    assert first["seeds"] == first["claims"]["x"]["needed"] == seeds_needed(stated(0.7), pilot(PILOT))


@pytest.fixture
def toy(monkeypatch):
    chosen = PAPER.claims[4]
    monkeypatch.setattr(_reproduce, "select", lambda targets: [(PAPER, [chosen])])
    monkeypatch.setattr(_reproduce, "module_of", lambda slug: "evidence_toy")
    return chosen


def reproduce(runs, seeds):
    options = {"accelerator": "cpu", "devices": 1, "data_dir": None, "tensorboard": False}
    return _reproduce.reproduce(
        [], scale="small", runs=runs, seeds=seeds, jobs=1, backend="loky", minutes=None, strict=True, options=options
    )


def test_seeds_are_fixed_by_a_pilot_of_other_seeds_and_recorded(tmp_path, toy, capsys):
    runs = tmp_path / "runs"
    assert reproduce(runs, "auto") == 0
    said = capsys.readouterr().out
    folder = run_folder(PAPER, NOISE, "small", 0, runs).path.parent
    plan = json.loads((folder / "seeds.json").read_text())
    entry = plan["claims"]["noise"]
    assert entry["pilot_seeds"] == [1000, 1001, 1002, 1003, 1004]
    assert f"planned toy/noise: {plan['seeds']} seeds; a verdict is expected with" in " ".join(said.split())
    tested = [Task("evidence_toy", "noise", "small", s, str(pilot_runs(runs))).result() for s in entry["pilot_seeds"]]
    assert plan["seeds"] == seeds_needed(toy, [run["measurement"] for run in tested])
    judged = judge_runs(PAPER, toy, "small", runs)
    assert judged.seeds == list(range(plan["seeds"]))  # the pilot is not mixed in
    assert judged.verdict.outcome == "holds"
    record(judged, tmp_path / "results")
    (found,) = read_records(tmp_path / "results", [PAPER])
    assert found.seeds_from == judged.seeds_from == {**entry, "seeds": plan["seeds"]}
    before = (folder / "seeds.json").stat().st_mtime_ns
    assert reproduce(runs, "auto") == 0  # the plan stands
    assert (folder / "seeds.json").stat().st_mtime_ns == before
    assert reproduce(runs, plan["seeds"] + 1) == 0
    assert judge_runs(PAPER, toy, "small", runs).seeds_from is None  # not the planned number


def test_minutes_and_auto_exclude_each_other(tmp_path, toy):
    options = {"accelerator": "cpu", "devices": 1, "data_dir": None}
    with pytest.raises(InputError, match="--minutes needs a number of seeds, got --seeds auto"):
        _reproduce.reproduce(
            [], scale="small", runs=tmp_path, seeds="auto", jobs=1, backend="loky", minutes=1.0, strict=False,
            options=options,
        )  # fmt: skip
