"""Command `commutant mask`: verdicts, exit codes, files, and refused input."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch

from commutant.cli import main
from commutant.permutations import causal_mask, window_mask


@pytest.fixture
def run(capsys, monkeypatch, unchecked):
    """Return a function that runs the command and returns its exit code, its output and its errors."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["commutant", "mask", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return ended.value.code or 0, said.out, said.err

    return call


def test_the_verdict_names_what_is_blocked_and_how_to_mend_it(run):
    code, out, _ = run("causal:20", "--moves", "inverse-permutation")
    assert code == 1
    assert "impossible, whatever the weights" in out
    assert "45 moves: position 10 can't depend on position 11, ..." in out
    assert max(map(len, out.splitlines())) <= 80
    assert "9 scratch tokens after the input: add --scratch 9" in out
    code, out, _ = run("causal:20", "--scratch", "9")
    assert code == 0
    assert "29 positions, the last 9 of them scratch tokens" in out
    assert "possible: each destination can depend on its source" in out


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["full:6", "--layers", "1"], 0),
        (["causal:6", "--order", "YP"], 1),
        (["causal:6", "--order", "YP", "--scratch", "1"], 0),
        (["window:12:3", "--moves", "0->11"], 0),
        (["window:12:3", "--moves", "0->11", "--layers", "5"], 1),
        (["window:12:3", "--moves", "0->11", "--layers", "6"], 0),
        (["prefix:8:8", "--moves", "all", "--layers", "1"], 0),
        (["prefix:8:4", "--moves", "all"], 1),
        (["causal:5", "--moves", "reverse"], 1),
        (["full:5", "--moves", "reverse"], 0),
        (["causal:5", "--moves", "0->4, 1->1"], 0),
    ],
)
def test_exit_codes_are_verdicts(arguments, code, run):
    assert run(*arguments)[0] == code


def test_json(run):
    code, out, _ = run("causal:6", "--json")
    assert code == 1
    assert json.loads(out) == {
        "mask": "causal:6", "positions": 6, "layers": None, "moves": "inverse-permutation", "scratch": 0,
        "feasible": False, "blocked": [[4, 3], [5, 3], [5, 4]], "fewest_scratch_tokens": 2,
    }  # fmt: skip


def test_masks_from_files_functions_and_configurations(run, tmp_path, monkeypatch):
    np.save(tmp_path / "mask.npy", causal_mask(6).numpy())
    torch.save(window_mask(6, 2), tmp_path / "mask.pt")
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "mistral", "num_hidden_layers": 2, "sliding_window": 3})
    )
    (tmp_path / "my_masks.py").write_text("def causal(b, h, q, k):\n    return q >= k\n")
    monkeypatch.chdir(tmp_path)
    assert run("mask.npy")[0] == 1
    assert run("mask.npy", "--moves", "0->5")[0] == 0
    assert run("mask.pt", "--moves", "0->5", "--layers", "4")[0] == 1
    assert run("mask.pt", "--moves", "0->5", "--layers", "5")[0] == 0
    assert run("config.json:6", "--moves", "0->4")[0] == 0
    assert run("config.json:6", "--moves", "0->5")[0] == 1
    assert run("my_masks:causal:6", "--moves", "0->5")[0] == 0
    torch.save([window_mask(6, 2)] * 5, tmp_path / "layers.pt")
    assert run("layers.pt", "--moves", "0->5")[0] == 0
    torch.save([window_mask(6, 2)] * 4, tmp_path / "layers.pt")
    assert run("layers.pt", "--moves", "0->5")[0] == 1


def test_scratch_tokens_are_where_the_output_is_read(run):
    for scratch, code in ((0, 1), (8, 1), (9, 0)):
        found, out, _ = run("causal:10", "--moves", "reverse", "--scratch", str(scratch), "--json")
        assert found == code
        if code and scratch:
            assert json.loads(out)["blocked"] == [[9, 8]]
    assert run("causal:4", "--moves", "all", "--scratch", "3")[0] == 0
    assert run("causal:4", "--moves", "all", "--scratch", "2")[0] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["causal:5"], "even number of input positions"),
        (["causal:x"], "must be one of causal:N"),
        (["causal"], "must be one of causal:N"),
        (["window:5"], "must be one of causal:N"),
        (["causal:0", "--moves", "all"], "length must be a whole number"),
        (["nothing"], "must be one of causal:N"),
        (["nothing.npy"], "can't be read as a mask"),
        (["nothing.json:4"], "nothing.json is no file"),
        (["broken.json:4"], "is not a configuration"),
        (["nothing:f:4"], "nothing"),
        (["causal:6", "--moves", "0->9"], r"positions in 0..5"),
        (["causal:6", "--moves", "abc"], "--moves must be inverse-permutation, reverse, all"),
        (["causal:6", "--moves", "0->1->2"], "--moves must be"),
        (["causal:6", "--order", "XY"], "order must be one of PY, YP"),
        (["broken.pt"], "can't be read as a mask"),
        (["list.pt"], "must hold a tensor, or a list with one for each layer, got list"),
        (["float.npy"], "must be a boolean tensor"),
        (["causal.npy", "--scratch", "2"], "--scratch needs a mask that can grow"),
    ],
)
def test_refused(arguments, message, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.pt").write_bytes(b"no mask")
    (tmp_path / "broken.json").write_text("{")
    torch.save([1], tmp_path / "list.pt")
    np.save(tmp_path / "float.npy", np.ones((4, 4)))
    np.save(tmp_path / "causal.npy", causal_mask(4).numpy())
    code, out, err = run(*arguments)
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not out
