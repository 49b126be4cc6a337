"""Modules that end the process, shards that disagree and names of folders, for `commutant align | merge | shrink`."""

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from warm import commutant

MODELS = """
from torch import nn

def mlp():
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))

class Leaves(nn.Module):
    def __init__(self, error):
        super().__init__()
        self.layer, self.error = nn.Linear(4, 6), error

    def forward(self, x):
        raise self.error

def leaves(how):
    return Leaves({"exit": SystemExit(0), "base": BaseException("of its own")}[how])
"""
NET = ("--model", "nets:mlp()", "--input", "2x4")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "nets.py").write_text(MODELS)
    for name in "ab":
        net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
        save_file(net.state_dict(), str(tmp_path / f"{name}.safetensors"))
    return tmp_path


def refused(message, *arguments, cwd):
    done = commutant(*arguments, cwd=cwd)
    assert done.returncode == 2, done.stdout + done.stderr
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(("how", "said"), [("exit", "SystemExit: 0"), ("base", "BaseException: of its own")])
def test_a_module_that_ends_the_process_is_a_failure(folder, how, said):
    save_file(nn.ModuleDict({"layer": nn.Linear(4, 6)}).state_dict(), str(folder / "leaves.safetensors"))
    more = ("--model", f"nets:leaves('{how}')", "--input", "2x4", "-o", "no.safetensors")
    refused(said, "align", "leaves.safetensors", "leaves.safetensors", *more, cwd=folder)
    refused(said, "shrink", "leaves.safetensors", *more, "--beta", "0", cwd=folder)
    refused(said, "symmetries", *more[1:4], cwd=folder)
    assert not (folder / "no.safetensors").exists()


def test_two_shards_that_hold_one_entry(tmp_path):
    weights = {"a.weight": torch.ones(2, 2), "b.weight": torch.ones(2, 2)}
    save_file(weights, str(tmp_path / "one.safetensors"))
    save_file({"b.weight": torch.zeros(2, 2)}, str(tmp_path / "two.safetensors"))
    index = {"weight_map": {"a.weight": "one.safetensors", "b.weight": "two.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    said = "holds 'b.weight' twice, in one.safetensors and two.safetensors"
    refused(said, "align", ".", ".", "--model", "nets:mlp()", "--input", "2x4", "-o", "out", cwd=tmp_path)


def test_a_folder_with_a_version_in_its_name(folder):
    done = commutant("merge", "a.safetensors", "b.safetensors", *NET, "-o", "net-3.1-merged", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert (folder / "net-3.1-merged" / "a.safetensors").is_file()
    for name in ("o.bin", "o.pt"):
        refused("must be a folder", "merge", "a.safetensors", "b.safetensors", *NET, "-o", name, cwd=folder)
