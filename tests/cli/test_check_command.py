"""`commutant check`: which axis moves, and exit code 2 for every failure that is not a verdict."""

import os
import subprocess
import sys

import pytest

import warm

MODELS = """
import sys
import torch
from torch import nn

class Tokens(nn.Module):
    def __init__(self, places=False):
        super().__init__()
        self.embed = nn.Embedding(50, 8)
        self.places = nn.Parameter(torch.randn(16, 8), requires_grad=places) if places else None
    def forward(self, ids):
        h = self.embed(ids)
        return h if self.places is None else h + self.places

class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.gru = nn.Embedding(50, 8), nn.GRU(8, 8, batch_first=True)
    def forward(self, ids):
        return self.gru(self.embed(ids))

class Broken(nn.Module):
    def __init__(self):
        sys.exit(0)

class Lazy:
    @property
    def net(self):
        raise RuntimeError("not yet")

lazy = Lazy()
number = 3
tensor = torch.ones(3)
leaves = lambda x: sys.exit(1)
text = lambda x: "hello"
square = lambda x: x.square().sum(1)

def interrupted(x):
    raise type("Own", (BaseException,), {})("own")

def needs_positive(x):
    raise ValueError("first line\\nsecond line")
"""
BAD = {
    "bad_syntax": ("def f(:\n", "SyntaxError"),
    "bad_import": ("import no_such_thing\n", "no_such_thing"),
    "raises": ("raise RuntimeError('at import')\n", "RuntimeError: at import"),
    "leaves": ("import sys\nsys.exit(1)\n", "SystemExit"),
    "leaves_well": ("raise SystemExit(0)\n", "SystemExit"),
    "own": ("class Own(BaseException): pass\nraise Own('odd')\n", "odd"),
    "bytes": (b"x = '\xff'\n", "SyntaxError"),
}


@pytest.fixture
def models(tmp_path):
    (tmp_path / "mymodels.py").write_text(MODELS)
    return tmp_path


@pytest.mark.parametrize("name", BAD)
def test_a_module_that_can_not_be_imported(tmp_path, name):
    text, said = BAD[name]
    (tmp_path / f"{name}.py").write_bytes(text if isinstance(text, bytes) else text.encode())
    done = warm.commutant("check", f"{name}:net", "--input", "4x3", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["mymodels:Broken()"], "could not be built"),
        (["mymodels:lazy.net"], "can't be read"),
        (["mymodels:number"], "can't be called"),
        (["mymodels:tensor"], "can't be called"),
        (["mymodels:leaves"], "SystemExit"),
        (["mymodels:interrupted"], "own"),
        (["mymodels:needs_positive"], "ValueError: first line"),
        (["mymodels:text"], "must return tensors"),
        (["mymodels:Tokens(**{'places': True})"], "literal arguments"),
        ([".mymodels:square"], "package.module:name"),
        (["mymodels:square", "--input", "99999999999999x3"], "can't be drawn"),
        (["mymodels:square", "--input", "ids:0:4x3"], "not understood"),
        (["mymodels:square", "--seed", "-1"], "--seed"),
        (["mymodels:square", "--law", "causality", "--action", "permutation"], "takes no --action"),
        (["mymodels:square", "--law", "causality", "--input", "graph:6x3"], "edges"),
        (
            ["mymodels:square", "--law", "invariance", "--action", "permutation", "--input", "graph:6x3"],
            "graph-permutation",
        ),
        (["mymodels:square", "--law", "invariance", "--action", "rotation", "--input", "ids:9:4x3"], "real numbers"),
        (["mymodels:square", "--law", "invariance", "--action", "rotation", "--input", "4x5x2..3"], "one size"),
    ],
)
def test_failures_exit_with_2_and_one_sentence(models, arguments, said):
    given = arguments if "--input" in arguments else [*arguments, "--input", "4x5x3"]
    done = warm.commutant("check", *given, cwd=models)
    assert done.returncode == 2, done.stdout + done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        # ids have no axis of features: positions move, not the batch
        (["mymodels:Tokens", "--law", "equivariance", "--action", "permutation"], 0, "holds"),
        (["mymodels:Tokens(places=True)", "--law", "equivariance", "--action", "permutation"], 1, "broken"),
        (["mymodels:Tokens", "--law", "equivariance", "--action", "time-shift"], 0, "holds"),
        (["mymodels:Recurrent", "--law", "equivariance", "--action", "permutation"], 1, "broken"),
        (["mymodels:Recurrent", "--law", "causality"], 0, "holds"),
    ],
)
def test_token_models(models, arguments, code, said):
    done = warm.commutant("check", *arguments, "--input", "ids:50:4x16", cwd=models)
    assert done.returncode == code, done.stdout + done.stderr
    assert said in done.stdout


def test_square_symmetry_by_name(models):
    arguments = ["--law", "invariance", "--action", "square-symmetry", "--input", "2x3x4x4"]
    done = warm.commutant("check", "mymodels:square", *arguments, cwd=models)
    assert done.returncode == 1, done.stderr
    assert "broken" in done.stdout


def test_a_locale_without_the_signs_of_formulas(models):
    """Run in a new process, since the encoding of its streams is set when it starts."""
    arguments = ["--law", "gradient-equivariance", "--action", "permutation", "--output-action", "trivial"]
    command = [sys.executable, "-m", "commutant.cli", "check", "mymodels:square", *arguments, "--input", "4x5x3"]
    environ = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, cwd=models, env=environ)
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
