"""Recurrences whose time is split over processes give the results of one process, and report a lost rank."""

import sys
import time
from pathlib import Path

import pytest
import torch

import warm
from commutant import InputError
from commutant.sequences import ParaGRU, solve_recurrence
from depth import some

sys.path.insert(0, str(Path(__file__).parent))
import ranks


def spawn(tmp_path, function, size, *rest):
    code = f"import runpy; runpy.run_path({ranks.__file__!r}, run_name='__main__')"
    done = warm.python(code, function, size, tmp_path / "store", tmp_path / "out", *rest)
    assert done.returncode == 0, done.stderr
    return [tmp_path / f"out.{rank}" for rank in range(size)]


@pytest.mark.parametrize("size", some([2, 4]))
def test_ranks_agree_with_one_process(tmp_path, size):
    found = [torch.load(path) for path in spawn(tmp_path, "agree", size)]
    x, weights = ranks.inputs()
    for name, module in ranks.modules().items():
        module.double()
        alone = ranks.run(module, x, weights)
        for split in ranks.SPLITS[size]:
            parts = [rank[name, split] for rank in found]
            where = f"{name}, {split}"
            for i in (0, 1):
                joined = torch.cat([part[0][i] for part in parts], 1)
                torch.testing.assert_close(joined, alone[i], atol=1e-11, rtol=1e-9, msg=lambda m, w=where: f"{w}: {m}")
            for i in range(2, len(alone)):
                torch.testing.assert_close(parts[0][0][i], alone[i], atol=1e-10, rtol=1e-9)
            assert len({part[1] for part in parts}) == 1, "every rank must count the same sweeps"
            assert all(part[1] <= size + 1 for part in parts)
            if name == "bistable" and split == (40, 50):
                assert parts[0][1] == 2, "32 steps from zero do not find the state of a cell that remembers"


def test_gradients_are_finite_where_those_of_one_process_are(tmp_path):
    parts = [torch.load(path) for path in spawn(tmp_path, "overflow", 2)]
    step, x, weights = ranks.expanding()
    x.requires_grad_()
    states, _ = solve_recurrence(step, x, torch.zeros(1, 3), structure="diagonal", method="loop")
    (expected,) = torch.autograd.grad((states * weights).sum(), x)
    assert torch.equal(torch.cat([part[0] for part in parts], 1), states)
    found = torch.cat([part[1] for part in parts], 1)
    assert torch.equal(found.isfinite(), expected.isfinite())
    assert found[:, 45:].isfinite().all()
    finite = expected.isfinite()
    torch.testing.assert_close(found[finite], expected[finite], rtol=1e-4, atol=0)


def test_ddp_on_a_mesh(tmp_path):
    x, weights = ranks.inputs()
    module = ranks.modules()["gru"].double()
    (module(x)[0] * weights).sum().backward()
    for path in spawn(tmp_path, "with_ddp", 4):
        for found, parameter in zip(torch.load(path), module.parameters(), strict=True):
            torch.testing.assert_close(found, parameter.grad, atol=1e-10, rtol=1e-9)


@pytest.mark.parametrize("phase", ["forward", "backward"])
def test_a_lost_rank_is_an_error_and_no_hang(tmp_path, phase):
    started = time.monotonic()
    spawn(tmp_path, "lose", 3, phase)
    while not all((tmp_path / f"out.{rank}").exists() for rank in (0, 2)):
        assert time.monotonic() - started < 60
        time.sleep(0.1)
    time.sleep(0.2)
    for rank in (0, 2):
        assert f"rank {rank} of 3 lost another rank" in (tmp_path / f"out.{rank}").read_text()


def test_errors_across_ranks(tmp_path):
    for rank, path in enumerate(spawn(tmp_path, "errors", 2)):
        said = torch.load(path)
        assert said["gradient"]
        for name, own in (
            ("structure", "is dense"), ("newton", "did not converge"), ("step", "division by zero")
        ):  # fmt: skip
            assert (own if rank == 1 else "rank 1 of the process group failed") in said[name]
        assert "unidirectional" in said["bidirectional"]
        assert "SRU" in said["sru"]
        assert "process group, got str" in said["not a group"]
        assert "cannot run across ranks" in said["loop"]
        assert "[(1, 4), (2, 4)]" in said["batches"]
        assert "no second derivative" in said["second"]


def test_without_a_process_group():
    with pytest.raises(InputError, match="torchrun"):
        ParaGRU(3, 4)(torch.randn(5, 2, 3), process_group=object())
