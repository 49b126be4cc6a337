"""The command line as a user meets it: real processes, exit codes, one sentence for each error."""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
import torch

import warm
from depth import some

MODELS = """
import torch
from torch import nn

class Pool(nn.Module):
    def __init__(self, width=3, order=False):
        super().__init__()
        self.head = nn.Linear(width, 2)
        self.order = order
    def forward(self, x):
        h = self.head(x)
        return h[:, 0] if self.order else h.sum(1)

def fails(x):
    raise RuntimeError("boom")

norms = lambda x: x.norm(dim=-1).sum(1)
"""


def unload(package):
    """Return code that forgets a package, so that the next import finds the file of that name in the folder."""
    names = f"[name for name in sys.modules if name.split('.')[0] == {package!r}]"
    return f"import sys\nfor name in {names}:\n    del sys.modules[name]"


@pytest.fixture
def models(tmp_path):
    (tmp_path / "mymodels.py").write_text(MODELS)
    return tmp_path


def test_help_answers_at_once_and_loads_no_torch():
    started = time.monotonic()
    code = "import sys; from commutant.cli._app import app; app(['--help'], standalone_mode=False); " + (
        "heavy = {'torch', 'numpy', 'torch_geometric', 'lightning_fabric'} & set(sys.modules); assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - started < 5  # generous for a busy machine; about 0.2 s on an idle one
    for command in (
        "papers",
        "reproduce",
        "report",
        "record",
        "check",
        "symmetries",
        "align",
        "merge",
        "barrier",
        "doctor",
    ):
        assert command in done.stdout


def test_papers_and_doctor(tmp_path):
    done = warm.commutant("papers", cwd=tmp_path)
    assert "lcm" in done.stdout
    assert "second-minimum" in done.stdout
    done = warm.commutant("doctor", cwd=tmp_path)
    assert done.returncode == 0
    assert "torch" in done.stdout
    assert "extra graphs" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["mymodels:Pool", "--law", "invariance", "--action", "permutation", "--input", "4x6x3"], 0, "holds"),
        (
            ["mymodels:Pool(3, order=True)", "--law", "invariance", "--action", "permutation", "--input", "4x6x3"],
            1,
            "smallest witness",
        ),
        (["mymodels:norms", "--law", "invariance", "--action", "rotation", "--input", "4x6x3"], 0, "holds"),
        (
            [
                "mymodels:norms",
                "--law",
                "gradient-equivariance",
                "--action",
                "rotation",
                "--output-action",
                "trivial",
                "--input",
                "4x6x3",
                "--dtype",
                "float64",
            ],
            0,
            "holds",
        ),
        (["mymodels:norms", "--law", "invariance", "--action", "translation", "--input", "4x6x3"], 1, "broken"),
        (["mymodels:norms", "--law", "batch-independence", "--input", "4x6x3"], 0, "holds"),
        (["mymodels:norms", "--law", "beauty", "--input", "4x6x3"], 2, "got 'beauty'"),
        (["mymodels:norms", "--law", "invariance", "--input", "4x6x3"], 2, "needs --action"),
        (["mymodels:norms", "--law", "invariance", "--action", "spin", "--input", "4x6x3"], 2, "got 'spin'"),
        (["mymodels:norms", "--law", "invariance", "--action", "rotation"], 2, "give --input"),
        (["mymodels:norms", "--law", "batch-independence"], 2, "give --input"),
        (["mymodels:norms", "--law", "batch-independence", "--input", "4 by 3"], 2, "not understood"),
        (["mymodels:fails", "--law", "batch-independence", "--input", "4x3"], 2, "RuntimeError: boom"),
        (["mymodels:absent", "--law", "batch-independence", "--input", "4x3"], 2, "has no 'absent'"),
        (["mymodels:Pool(oops)", "--law", "batch-independence", "--input", "4x3"], 2, "literal arguments"),
        (["mymodels:Pool(1, 2, 3)", "--law", "batch-independence", "--input", "4x3"], 2, "could not be built"),
        (["nomodule:f", "--law", "batch-independence", "--input", "4x3"], 2, "can't import nomodule"),
        (["mymodels", "--law", "batch-independence", "--input", "4x3"], 2, "package.module:name"),
        (
            ["mymodels:norms", "--law", "batch-independence", "--input", "4x6x3", "--dtype", "int4"],
            2,
            "--dtype must be one of",
        ),
    ],
)
def test_check(models, arguments, code, said):
    done = warm.commutant("check", *arguments, cwd=models)
    assert said in done.stdout + done.stderr
    assert done.returncode == code
    assert "Traceback" not in done.stderr


def test_check_finds_the_batch_dependence_of_pyg_by_itself(tmp_path):
    if importlib.util.find_spec("torch_geometric") is None:
        pytest.skip("no torch_geometric")  # not imported here: the process has it
    words = ("check", "torch_geometric.nn:GRUAggregation(8, 8)", "--law", "batch-independence")
    done = warm.commutant(*words, cwd=tmp_path)
    assert done.returncode == 1
    assert "batch independence is broken" in done.stdout
    index = re.search(r"index = torch\.tensor\((\[.*\])\)", done.stdout).group(1)
    assert max(eval(index)) <= 1
    words = ("check", "commutant.sets:GRUFoldAggregation(8, 8)", "--law", "batch-independence")
    ours = warm.commutant(*words, cwd=tmp_path)
    assert ours.returncode == 0


def test_reproduce_report_and_record(tmp_path):
    words = ("reproduce", "lcm/batch-dependence", "--seeds", 2, "--jobs", 1)
    done = warm.commutant(*words, "--strict", cwd=tmp_path, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    threads = [json.loads(path.read_text())["threads"] for path in tmp_path.glob("runs/**/run.json")]
    assert threads == [1, 1], "the environment's limit holds"
    assert "batch-dependence" in done.stdout
    again = warm.commutant(*words, cwd=tmp_path)
    assert "2 of 2 runs were done before" in again.stdout
    done = warm.commutant("record", "lcm/batch-dependence", cwd=tmp_path)
    assert (tmp_path / "results/lcm/batch-dependence.small.json").exists()
    assert "no finished run" in warm.commutant("record", "lcm/second-minimum", cwd=tmp_path).stdout
    done = warm.commutant("report", "--no-laws", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "report/lcm.html").exists()
    assert str(tmp_path / "report/index.html") in done.stdout


@pytest.mark.parametrize(
    ("said", "threads"), [("1", 1), ("4,2", 4), (" 3", 3), ("99", 99), ("0", 8), ("all", 8), ("", 8)]
)
def test_the_environment_limits_threads(monkeypatch, said, threads):
    from commutant.cli._reproduce import _allowed_threads

    monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert _allowed_threads(8) == threads


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["reproduce", "lmc"], "did you mean lcm?"),
        (["reproduce", "lcm/second-minimun"], "did you mean second-minimum"),
        (
            ["reproduce", "lcm/batch-dependence", "--seeds", "0"],
            "--seeds must be a whole number of at least 1, or auto",
        ),
        (["reproduce", "lcm/batch-dependence", "--scale", "huge"], "--scale must be one of small, full, got 'huge'"),
        pytest.param(
            ["reproduce", "pararnn/parity", "--accelerator", "gpu"],
            "torch sees no GPU",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
        (["reproduce", "lcm/graph-classification", "--data-dir", "nowhere"], "nowhere does not exist"),
        (["report", "--output", "/dev/null/report", "--no-laws"], "can't write the report"),
        (["record", "nothing"], "unknown paper 'nothing'"),
        (["record", "lcm", "--runs", "nowhere"], "nothing was recorded: nowhere holds no finished run"),
        (["reproduce", "lcm/batch-dependence", "--data-dir", "nowhere"], "nowhere does not exist"),
    ],
)
def test_mistakes_are_named(tmp_path, arguments, said):
    done = warm.commutant(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_claim_without_its_data_is_skipped_with_the_reason(tmp_path):
    done = warm.commutant("reproduce", "lcm/graph-classification", "--data-dir", tmp_path, cwd=tmp_path)
    assert "skipped" in done.stdout or "MUTAG" in done.stdout


def test_a_refuted_claim_exits_one_when_strict(tmp_path):
    code = """
from dataclasses import replace
import commutant.papers.lcm as lcm
changes = {"at_least": 100.0, "refutable_at": SCALES, "basis": "seeds", "cases": None}
claims = tuple(replace(c, **changes) if c.name == "batch-dependence" else c for c in lcm.PAPER.claims)
lcm.PAPER = replace(lcm.PAPER, claims=claims)
"""
    words = ("reproduce", "lcm/batch-dependence", "--seeds", 3, "--jobs", 1)
    for scales, strict, expected, said in (
        (("small", "full"), [], 0, ": refuted\n"),
        (("small", "full"), ["--strict"], 1, ": refuted\n"),
        (("full",), ["--strict"], 0, ": not reproduced at this scale\n"),
    ):
        done = warm.commutant(*words, *strict, cwd=tmp_path, before=code.replace("SCALES", str(scales)))
        assert done.returncode == expected, done.stderr
        assert said in re.sub(r" +\n", "\n", done.stdout)


def test_a_missing_extra_says_which(tmp_path):
    (tmp_path / "lightning_fabric.py").write_text("raise ImportError('gone')")
    done = warm.commutant("reproduce", "lcm/batch-dependence", cwd=tmp_path, before=unload("lightning_fabric"))
    assert done.returncode == 2
    assert "pip install 'commutant[evidence]'" in done.stderr


@pytest.mark.parametrize("jobs", some([1, 2]))
def test_ctrl_c_is_clean_and_the_run_goes_on(tmp_path, jobs):
    code = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
from commutant.cli import main
main()
"""
    words = ("reproduce", "lcm/real-input", "--seeds", 2, "--jobs", jobs)
    process = warm.Started(code, *words, cwd=tmp_path)
    runs = tmp_path / "runs"
    while not list(runs.glob("**/progress.json")):
        assert process.poll() is None, process.err()
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(60) == 130, process.err()
    assert "resumes from here" in process.err()
    assert "Traceback" not in process.err()
    (lock,) = {Path(p).name for p in runs.glob("**/.lock")} or {".lock"}
    assert lock == ".lock"


def test_minutes_are_minutes_of_the_clock(tmp_path, monkeypatch, capsys):
    from commutant.cli import _reproduce

    monkeypatch.setattr(_reproduce, "time", types.SimpleNamespace(time=lambda: 0.0))  # the minutes were over long ago
    options = {"accelerator": "cpu", "devices": 1, "data_dir": None}
    code = _reproduce.reproduce(
        ["lcm/batch-dependence"], scale="small", runs=tmp_path, seeds=2, jobs=1, backend="loky", minutes=3.0,
        strict=False, options=options,
    )  # fmt: skip
    assert code == 0
    assert "lcm/batch-dependence: the 3 minutes were over before seed 0, 1 started" in capsys.readouterr().out


def test_minutes_leave_out_the_dear(tmp_path):
    done = warm.commutant("reproduce", "lcm/batch-dependence", "lcm/second-minimum", "--minutes", "0.3", "--jobs", "1",
                     "--seeds", "1", "--runs", tmp_path, cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "skipped lcm/second-minimum: about 3 minutes of computing; run: commutant reproduce lcm/" in done.stdout
    assert (tmp_path / "lcm" / "batch-dependence").is_dir()
    assert not (tmp_path / "lcm" / "second-minimum").exists()
    done = warm.commutant("reproduce", "lcm", "--minutes", "5", "--scale", "full", "--runs", tmp_path, cwd=tmp_path)
    assert done.returncode == 2
    assert "--minutes relies on the times of the small scale" in done.stderr


def test_brackets_are_printed_and_every_extra_is_listed(tmp_path):
    """Brackets of an extra are not markup, and a missing extra says how to install it."""
    from importlib import metadata

    code = """
from importlib import metadata
found = metadata.version
def version(name):
    if name in ("transformers", "ase", "networkx"):
        raise metadata.PackageNotFoundError(name)
    return found(name)
metadata.version = version
"""
    done = warm.commutant("doctor", cwd=tmp_path, before=code)
    assert done.returncode == 0, done.stderr
    for extra in metadata.metadata("commutant").get_all("Provides-Extra"):
        assert (f"extra {extra} " in done.stdout) == (extra not in ("dev", "docs", "all"))
    for extra, package in (("hf", "transformers"), ("molecules", "ase"), ("graphs", "networkx")):
        assert f"missing {package}: pip install 'commutant[{extra}]'" in done.stdout


def test_a_failed_run_names_the_extra(tmp_path):
    (tmp_path / "torch_geometric.py").write_text("raise ImportError('gone')")
    words = ("reproduce", "lcm/batch-dependence", "--seeds", 1, "--jobs", 1)
    done = warm.commutant(*words, cwd=tmp_path, before=unload("torch_geometric"))
    assert done.returncode == 2
    assert "pip install 'commutant[graphs]'" in done.stdout + done.stderr


def test_claims_that_cannot_run_are_exit_two(tmp_path):
    done = warm.commutant("reproduce", "frame-averaging/ligands", cwd=tmp_path)
    assert done.returncode == 2
    assert "skipped frame-averaging/ligands" in done.stdout
    assert "none of the claims asked for can run here" in done.stderr


@pytest.mark.parametrize(
    "arguments", [["record", "lcm/batch-dependence", "--scale", "foo"], ["record", "lcm", "--scale", ""]]
)
def test_an_unknown_scale_is_exit_two(tmp_path, arguments):
    done = warm.commutant(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert "scale must be one of small, full" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_error_that_nobody_thought_of_is_a_sentence_and_exit_two(tmp_path):
    code = """
import commutant.cli._show as show
def broken():
    raise ZeroDivisionError("one\\ntwo")
show.show_doctor = broken
"""
    done = warm.commutant("doctor", cwd=tmp_path, before=code)
    assert done.returncode == 2
    assert re.fullmatch(r"commutant: ZeroDivisionError: one two \(at .*<string>:\d+\)\n", done.stderr)


def test_a_terminal_and_a_report_without_unicode(tmp_path):
    plain = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    code = """
import sys
import commutant.papers
from commutant.cli import main
commutant.papers.slugs = lambda: ["tinvnn"]  # the start of the others takes seconds
for sys.argv[1:] in (["papers"], ["report", "--no-laws"]):
    try:
        main()
    except SystemExit as end:
        assert not end.code
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, **plain})
    assert done.returncode == 0, done.stderr
    assert "tinvnn" in done.stdout
    assert "·" in (tmp_path / "report" / "index.html").read_text(encoding="utf-8")


def test_closed_streams_and_readers_that_are_gone(tmp_path):
    """Neither gives the exit code of a verdict, and `--help` shows the sizes of an input as typed."""
    line = f"{sys.executable} -m commutant.cli"
    gone = "".join(f"{line} {words} | true; echo ${{PIPESTATUS[0]}} >&2;" for words in ("--version", "data --help"))
    command = ["bash", "-c", f"{line} data --help >&-; echo $? >&2; {gone}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.stderr.split() == ["0", "2", "2"]
    done = warm.commutant("align", "--help", cwd=tmp_path)
    assert "ids:50:" in done.stdout


def test_a_factory_that_imports_when_it_is_called(tmp_path):
    (tmp_path / "nets.py").write_text("def later():\n    import sidekick\n    return sidekick.net()\n")
    (tmp_path / "sidekick.py").write_text("from torch import nn\n\ndef net():\n    return nn.Linear(3, 2)\n")
    leave = "import os, sys; sys.path.remove(os.getcwd())"  # as the installed command starts
    done = warm.commutant("check", "nets:later()", "--input", "4x3", cwd=tmp_path, before=leave)
    assert done.returncode == 0, done.stderr
