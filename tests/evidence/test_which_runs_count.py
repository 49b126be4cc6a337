"""Runs on disk count if they are whole and share data, seed and conditions."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from evidence_toy import PAPER
from test_runs import figures, task

from commutant import RunError
from commutant.evidence import RunFolder, judge_runs, run_task


def test_contents_of_data_count_and_hidden_or_unreadable_files_do_not(tmp_path):
    data = tmp_path / "data" / "sets"
    data.mkdir(parents=True)
    large = bytearray(3 << 20)
    (data / "large.bin").write_bytes(large)
    (data / "labels.txt").write_text("0 1")
    run = task(tmp_path, experiment="reader", data_dir=str(data.parent))
    assert run_task(run) is None
    (data / ".note").write_text("x")
    (data / "gone").symlink_to(tmp_path / "nowhere")
    assert run.result() is not None
    (data / "labels.txt").write_text("1 0")
    assert run.result() is None
    (data / "labels.txt").write_text("0 1")
    assert run.result() is not None
    large[-1] = 1
    (data / "large.bin").write_bytes(large)
    assert run.result() is None


def test_a_copied_run_is_no_further_seed(tmp_path, caplog):
    """A folder that was copied by hand is not further evidence."""
    runs = [task(tmp_path, experiment="reader", seed=seed) for seed in range(2)]
    for run in runs:
        assert run_task(run) is None
    root = runs[0].folder.path.parent
    for name in ("seed-2", "seed-03"):
        shutil.copytree(root / "seed-1", root / name)
    judged = judge_runs(PAPER, PAPER.claims[2], "small", tmp_path / "runs")
    assert judged.seeds == [0, 1]
    assert "seed 2 is left out, it was run with seed 1" in caplog.text
    third = task(tmp_path, experiment="reader", seed=2)
    assert third.result() is None
    assert run_task(third) is None
    assert third.result()["seed"] == 2
    found = runs[0].folder.result()
    runs[0].folder.write("run.json", {**found, "settings": {"steps": 1}})
    assert runs[0].result() is None


@pytest.mark.parametrize(
    "edit",
    [{"measurement": {"there": "1"}}, {"measurement": None}, {"seconds": "long"}, {"finished": None}, {"seed": "0"}],
)
def test_a_run_that_was_edited_into_nonsense_is_named_and_run_again(tmp_path, caplog, edit):
    run = task(tmp_path, experiment="reader")
    assert run_task(run) is None
    found = run.folder.result()
    run.folder.write("run.json", {**found, **edit})
    assert judge_runs(PAPER, PAPER.claims[2], "small", tmp_path / "runs") is None
    assert "is damaged (it lacks" in caplog.text
    assert run_task(run) is None
    assert figures(run) == found["measurement"]


def test_names_of_one_condition_are_one_condition(tmp_path):
    run = task(tmp_path, experiment="reader")
    assert run_task(run) is None
    assert replace(run, precision="32").result() is not None
    assert (replace(run, accelerator="auto").result() is None) == (torch.cuda.is_available())
    assert replace(run, precision="bf16").result() is None


def test_runs_that_can_not_be_listed_are_an_error(tmp_path, monkeypatch):
    """Claims whose runs can't be read must not look as if they had not been run."""

    def locked(path):
        raise PermissionError(13, "Permission denied", str(path))

    assert judge_runs(PAPER, PAPER.claims[2], "small", tmp_path / "runs") is None
    monkeypatch.setattr(Path, "iterdir", locked)
    with pytest.raises(RunError, match=r"can't read .*: Permission denied; choose another --runs"):
        judge_runs(PAPER, PAPER.claims[2], "small", tmp_path / "runs")


@pytest.mark.parametrize("name", ["file/record.json", 300 * "x"])
def test_a_place_that_can_not_be_written_is_named(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="can't write"):
        RunFolder(tmp_path).write(name, {})
