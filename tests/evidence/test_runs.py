"""Runs survive kills, damage, races and full disks, with the same result."""

import errno
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from evidence_toy import PAPER
from torch.distributed.run import parse_args

import warm
from commutant import InputError, RunError
from commutant.evidence import RunFolder, Task, execute, judge_runs, read_records, record, run_task, write_json
from commutant.training import fit
from depth import some


def task(tmp_path, **options):
    options = {"module": "evidence_toy", "experiment": "line", "scale": "small", "seed": 0, **options}
    return Task(runs=str(tmp_path / "runs"), **options)


def figures(task):
    return task.folder.result()["measurement"]


def start(task, pause="0.004"):
    code = "import runpy; runpy.run_module('commutant.evidence', run_name='__main__')"
    return warm.Started(code, json.dumps(asdict(task)), TOY_PAUSE=pause)


@pytest.fixture
def workers(deep, monkeypatch):
    """Fork the workers of joblib from a process that holds torch; at full depth they start as users have them."""
    if not deep:
        monkeypatch.setattr("joblib.externals.loky.backend.context._DEFAULT_START_METHOD", "forkserver")


def test_a_run_is_a_function_of_its_seed(tmp_path):
    first, again, other = task(tmp_path / "a"), task(tmp_path / "b"), task(tmp_path / "b", seed=1)
    for each in (first, again, other):
        assert run_task(each) is None
    assert figures(first) == figures(again)
    assert figures(first) != figures(other)
    run = first.folder.result()
    assert run["hardware"]
    assert run["versions"]["torch"] == torch.__version__
    assert run["seconds"] >= 0
    assert set(first.folder.curves()) == {"narrow", "wide"}
    assert not list((first.folder.path / "checkpoint").glob("*/*"))


def test_what_is_too_late_is_not_started_and_not_a_failure(tmp_path):
    late, in_time = task(tmp_path, not_after=0.0), task(tmp_path, seed=1, not_after=time.time() + 600)
    seen = []
    assert execute([late, in_time], on_progress=lambda t, share, error: seen.append((t.seed, share))) == {}
    assert late.folder.result() is None
    assert not late.folder.path.exists()
    assert in_time.folder.result() is not None
    assert (1, 1.0) in seen
    assert (0, 1.0) not in seen


def test_killed_twenty_times_at_random_moments_the_result_is_the_same_to_the_last_bit(tmp_path, deep):
    undisturbed, disturbed = task(tmp_path / "a"), task(tmp_path / "b")
    assert run_task(undisturbed) is None
    rng = random.Random(0)
    checkpoints = disturbed.folder.path / "checkpoint"
    for kill in range(20) if deep else (1, 2):
        before = (disturbed.folder.read("run.json") or {}).get("started")
        reached = set(checkpoints.glob("*/step-*"))
        process = start(disturbed, pause="0.05")
        while (disturbed.folder.read("run.json") or {}).get("started") == before:
            assert process.poll() is None, process.err()
            time.sleep(0.01)
        while kill % 3 == 2 and set(checkpoints.glob("*/step-*")) <= reached:  # every third gets on a little
            assert process.poll() is None, process.err()
            time.sleep(0.005)
        time.sleep(rng.uniform(0.0, 0.2))
        assert process.poll() is None
        process.kill()
        process.wait()
    assert list((disturbed.folder.path / "checkpoint").glob("*/step-*"))
    assert run_task(disturbed) is None
    assert figures(disturbed) == figures(undisturbed)
    assert disturbed.folder.curves() == undisturbed.folder.curves()


def test_a_second_process_says_so_and_stops(tmp_path):
    running = task(tmp_path)
    process = start(running, pause="0.2")
    try:
        while not (running.folder.path / "run.json").exists():
            time.sleep(0.02)
        assert "in use by another process" in run_task(running)
        second = start(running)
        assert second.wait(60) == 2
        said = second.err()
        assert "in use by another process" in said
        assert "Traceback" not in said
    finally:
        process.kill()
        process.wait()


def test_damaged_files_are_named_and_passed_over(tmp_path, caplog):
    good, bad = task(tmp_path / "a"), task(tmp_path / "b")
    assert run_task(good) is None
    process = start(bad, pause="0.05")
    checkpoints = bad.folder.path / "checkpoint" / "narrow"
    while len(list(checkpoints.glob("step-*"))) < 2:
        time.sleep(0.02)
    process.kill()
    process.wait()
    newest = max(checkpoints.glob("step-*"))
    (newest / "model.safetensors").write_bytes((newest / "model.safetensors").read_bytes()[:-7])
    (bad.folder.path / "run.json").write_text('{"status": "do')
    (bad.folder.path / "metrics.jsonl").open("a").write('{"arm": "nar')
    assert run_task(bad) is None
    assert "damaged" in caplog.text
    assert newest.name in caplog.text
    assert figures(bad) == figures(good)
    (bad.folder.path / "run.json").write_text("[]")
    assert bad.folder.result() is None
    assert "run.json" in caplog.text
    assert run_task(bad) is None
    assert figures(bad) == figures(good)


def test_runs_under_other_conditions_are_kept_and_not_mixed_in(tmp_path, caplog):
    single, double = task(tmp_path), task(tmp_path, precision="bf16-mixed")
    assert run_task(single) is None
    first = figures(single)
    assert double.result() is None
    assert run_task(double) is None
    assert double.result() is not None
    assert "precision 32-true" in caplog.text
    assert figures(double) != first
    aside = RunFolder(double.folder.path.with_name("seed-0.set-aside-1"))
    assert aside.result()["measurement"] == first
    assert run_task(task(tmp_path, seed=1)) is None
    judged = judge_runs(PAPER, PAPER.claims[0], "small", tmp_path / "runs")
    assert judged.seeds == [1]
    assert "seed 0 is left out, it was run with precision bf16-mixed" in caplog.text


@pytest.mark.parametrize("package", ["torch", "commutant"])
def test_runs_of_other_versions_are_not_counted_as_done(tmp_path, package):
    run = task(tmp_path)
    assert run_task(run) is None
    found = run.folder.result()
    run.folder.write("run.json", {**found, "versions": {**found["versions"], package: "0.0.1"}})
    assert run.result() is None
    assert execute([run]) == {}
    assert run.result()["versions"] == found["versions"]


def test_a_killed_run_goes_on_only_under_its_own_conditions(tmp_path):
    process = start(task(tmp_path), pause="0.05")
    folder = task(tmp_path).folder
    while not list((folder.path / "checkpoint").glob("*/step-*")):
        assert process.poll() is None, process.err()
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert run_task(task(tmp_path, precision="bf16-mixed")) is None
    assert run_task(task(tmp_path / "fresh", precision="bf16-mixed")) is None
    assert figures(task(tmp_path)) == figures(task(tmp_path / "fresh"))


def test_a_run_that_read_data_counts_for_those_data_alone(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "sets").mkdir(parents=True)
        (tmp_path / name / "sets" / "x.npz").write_bytes(name.encode() * (1 if name == "a" else 2))
    shutil.copytree(tmp_path / "a", tmp_path / "copy")
    reads, generated = (task(tmp_path, experiment=e, data_dir=str(tmp_path / "a")) for e in ("reader", "line"))
    for each in (reads, generated):
        assert run_task(each) is None
    assert replace(reads, data_dir=str(tmp_path / "copy")).result() is not None
    assert replace(reads, data_dir=str(tmp_path / "b")).result() is None
    assert replace(reads, data_dir=None).result() is None
    assert replace(generated, data_dir=str(tmp_path / "b")).result() is not None


def test_a_run_that_fails_leaves_the_others_to_go_on(tmp_path):
    tasks = [task(tmp_path, experiment="failing", seed=seed) for seed in range(2)]
    failed = execute(tasks)
    assert list(failed) == [tasks[0]]
    assert failed[tasks[0]].startswith("ZeroDivisionError: one two (at ")
    assert tasks[1].result() is not None


def test_a_damaged_run_on_a_disk_that_is_read_only_is_an_error_in_a_sentence(tmp_path, monkeypatch):
    run = task(tmp_path)
    assert run_task(run) is None
    (run.folder.path / "run.json").write_text("{")

    def refuse(*_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(RunError, match=r"damaged .* can't be set aside: Read-only file system"):
        run.folder.result()


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch):
    path = tmp_path / "run.json"
    write_json(path, {"old": 1})

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="No space left"):
        write_json(path, {"new": 2})
    assert json.loads(path.read_text()) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]
    assert "No space left" in run_task(task(tmp_path))


def test_no_write_permission(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    assert "can't read" in run_task(replace(task(tmp_path), runs=str(blocked / "runs")))
    with pytest.raises(RunError, match="can't write"), RunFolder(blocked / "x").locked():
        pass


def test_a_loss_that_is_not_finite_is_named():
    model = torch.nn.Linear(1, 1)
    with pytest.raises(InputError, match="not between steps 0 and 4"):
        fit(
            model,
            lambda g, n: torch.ones(n, 1),
            lambda m, x: m(x).sum() * float("nan"),
            steps=4,
            batch_size=2,
            learning_rate=0.1,
            seed=0,
        )


def test_workers_run_side_by_side(tmp_path, workers):
    tasks = [task(tmp_path, seed=seed) for seed in range(3)]
    seen = []
    assert execute(tasks, jobs=2, on_progress=lambda t, share, error: seen.append((t.seed, share))) == {}
    assert {seed for seed, share in seen if share == 1.0} == {0, 1, 2}
    sequential = [task(tmp_path / "again", seed=seed) for seed in range(3)]
    assert execute(sequential) == {}
    assert [figures(t) for t in tasks] == [figures(t) for t in sequential]


def test_progress_of_a_run_starts_with_the_run(tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_PAUSE", "0.02")
    tasks = [task(tmp_path, seed=seed) for seed in range(2)]
    seen = []
    execute(tasks, on_progress=lambda t, share, error: seen.append((t.seed, share, tasks[0].result() is not None)))
    assert any(seed == 0 and not first_done for seed, _, first_done in seen)
    assert any(seed == 1 and share < 1 for seed, share, _ in seen)
    assert all(first_done for seed, _, first_done in seen if seed == 1)


def test_a_killed_worker_costs_a_retry_and_no_finished_run(tmp_path, caplog, workers):
    tasks = [task(tmp_path, experiment="killer", seed=seed) for seed in range(2)]
    assert execute(tasks, jobs=2) == {}
    assert [figures(t)["seed"] for t in tasks] == [0, 1]
    assert "worker died" in caplog.text


@pytest.mark.cluster
@pytest.mark.parametrize("backend", some(["dask", "ray"]))
def test_a_sweep_on_a_local_cluster(tmp_path, backend, deep):
    """Run the sweep in a separate process, so that the cluster ends with it; at full depth nothing is forked."""
    pytest.importorskip("ray" if backend == "ray" else "distributed")
    script = f"""
import sys, os, logging
from commutant.evidence import Task, execute
def main():
    tasks = [Task("evidence_toy", "killer", "small", seed, {str(tmp_path)!r}) for seed in range(2)]
    if {backend!r} == "ray":
        import ray
        ray.init(num_cpus=2, include_dashboard=False, logging_level=logging.ERROR)
    failed = execute(tasks, jobs=2, backend={backend!r})
    assert failed == {{}}, failed
    print("seeds", sorted(t.folder.result()["measurement"]["seed"] for t in tasks))
    if {backend!r} == "dask":
        import distributed
        distributed.get_client().shutdown()
if __name__ == "__main__":
    main()
"""
    if deep:
        path = tmp_path / "sweep.py"
        path.write_text(script)
        done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=240)
    else:
        done = warm.python(script, cwd=tmp_path, DASK_DISTRIBUTED__WORKER__MULTIPROCESSING_METHOD="fork")
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert "seeds [0.0, 1.0]" in done.stdout


def test_two_devices_share_a_run(tmp_path, monkeypatch, deep):
    """Two gloo processes under DDP give one result, and resume like one process."""
    if not deep:
        monkeypatch.setattr("subprocess.run", _torchrun)
    two = task(tmp_path, devices=2, strategy="ddp", accelerator="cpu")
    assert run_task(two) is None
    run = two.folder.result()
    assert run["devices"] == 2
    assert set(run["measurement"]) == {"narrow", "narrow-weights", "wide", "wide-weights"}


def _torchrun(command, *, env, **_):
    """Start what a command of torchrun starts, in processes that hold torch already."""
    assert command[:3] == [sys.executable, "-m", "torch.distributed.run"]
    said = parse_args(command[3:])
    assert said.standalone
    assert said.module
    code = f"import runpy; runpy.run_module({said.training_script!r}, run_name='__main__')"
    ranks = range(int(said.nproc_per_node))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(len(ranks))}
    shared["OMP_NUM_THREADS"] = env["OMP_NUM_THREADS"]
    started = [
        warm.Started(code, *said.training_script_args, LOCAL_RANK=str(rank), RANK=str(rank), **shared) for rank in ranks
    ]
    try:
        ends = [process.wait(100) for process in started]
    finally:
        for process in started:
            process.kill()
    return subprocess.CompletedProcess(command, max(map(abs, ends)), "", "".join(p.err() for p in started))


def test_tensorboard_logs_by_option(tmp_path):
    pytest.importorskip("tensorboard")
    logged, plain = task(tmp_path / "a", tensorboard=True), task(tmp_path / "b")
    for each in (logged, plain):
        assert run_task(each) is None
    assert list((logged.folder.path / "tensorboard").glob("events*"))
    assert not (plain.folder.path / "tensorboard").exists()


def test_records_are_made_from_runs(tmp_path):
    for seed in range(2):
        assert run_task(task(tmp_path, seed=seed)) is None
    judged = judge_runs(PAPER, PAPER.claims[0], "small", tmp_path / "runs")
    written = record(judged, tmp_path / "results")
    (found,) = read_records(tmp_path / "results", [PAPER])
    assert found.recorded
    assert found.verdict.outcome == judged.verdict.outcome
    assert found.verdict.effect.undecided == judged.verdict.effect.undecided
    assert found.seeds == [0, 1]
    assert found.figures["narrow"]["mean"] == pytest.approx(sum(m["narrow"] for m in judged.measurements) / 2, rel=1e-3)
    assert written.name == "line.small.json"
    assert judge_runs(PAPER, PAPER.claims[1], "small", tmp_path / "runs") is None
    written.write_text("{")
    with pytest.raises(InputError, match="damaged"):
        read_records(tmp_path / "results", [PAPER])


def test_unknown_names(tmp_path):
    assert "no experiment 'lien'" in run_task(task(tmp_path, experiment="lien"))
    assert "defines no PAPER" in run_task(task(tmp_path, module="json"))
    with pytest.raises(InputError, match="backend must be"):
        execute([task(tmp_path)], jobs=2, backend="carrier-pigeon")
    assert Path(tmp_path).exists()
