"""The house itself: what an import loads, what is documented, whether published figures are the recorded ones."""

import ast
import dataclasses
import functools
import inspect
import itertools
import json
import re
import subprocess
import sys
import textwrap
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from tools import house, tables  # noqa: E402

from commutant.papers import paper, slugs  # noqa: E402


def test_importing_commutant_loads_nothing_heavier_than_torch():
    code = "import sys, commutant; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split())
    assert not loaded & {"torch_geometric", "lightning_fabric", "sklearn", "scipy", "matplotlib", "pandas", "typer"}


def test_rooms_load_when_they_are_asked_for_and_the_core_needs_no_extra():
    code = f"""
import sys, commutant
assert "torch" not in sys.modules and set({house.rooms()}) <= set(dir(commutant))
assert all(f"    {{room}} " in commutant.__doc__ for room in {house.rooms()}), commutant.__doc__
try:
    commutant.sest
except AttributeError as error:
    assert "sets" in str(error)
for name in ("torch_geometric", "lightning_fabric", "sklearn", "matplotlib", "jinja2", "joblib", "networkx", "ray"):
    sys.modules[name] = None
agg = commutant.sets.LCMAggregation(4, 4)
assert commutant.sets is sys.modules["commutant.sets"]
import torch, commutant.laws, commutant.algebra, commutant.sequences, commutant.training
import commutant.data, commutant.evidence
assert agg(torch.randn(5, 4), torch.tensor([0, 0, 1, 1, 1])).shape == (2, 4)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_tables_are_those_of_the_record(unchecked):
    stale = [path.name for path, text in tables.pages().items() if not path.exists() or path.read_text() != text]
    assert not stale, f"run make tables: {stale}"


@pytest.mark.parametrize("room", house.documented())
def test_every_public_name_is_documented_and_in_the_reference(room):
    module = __import__(f"commutant.{room}", fromlist=["_"])
    page = (ROOT / "docs/reference" / f"{room}.md").read_text().split()
    for name in tables.public_names(room):
        assert f"commutant.{room}.{name}" in page
        subject = getattr(module, name)
        if inspect.isclass(subject) or inspect.isfunction(subject):
            assert (subject.__doc__ or "").strip(), f"{name} has no docstring"
            assert not (subject.__doc__ or "").startswith(f"{name}("), f"{name} has no docstring of its own"


def test_the_usage_of_every_paper_runs(unchecked):
    pytest.importorskip("torch_geometric")
    for slug in slugs():
        exec(paper(slug).usage, {})


@functools.cache
def syntax():
    """Return every module of the library with its syntax tree."""
    return [(path, ast.parse(path.read_text(encoding="utf-8"))) for path in sorted(house.SOURCE.rglob("*.py"))]


def test_files_stay_short():
    for path in (ROOT / "src").rglob("*.py"):
        lines = len(path.read_text().splitlines())
        assert lines <= 400, f"{path} has {lines} lines"


def test_text_is_read_and_written_as_utf8():
    """Whatever the locale: `read_text()` alone takes the encoding of the machine."""
    found = []
    for path, tree in syntax():
        for node in ast.walk(tree):
            name = getattr(node.func, "attr", getattr(node.func, "id", "")) if isinstance(node, ast.Call) else ""
            binary = name == "open" and any(isinstance(a, ast.Constant) and "b" in str(a.value) for a in node.args)
            stated = any(k.arg == "encoding" for k in getattr(node, "keywords", ()))
            if name in ("read_text", "write_text") or (
                name == "open" and ast.unparse(node.func) in ("open", "path.open")
            ):
                found += [] if stated or binary else [f"{path.relative_to(ROOT)}:{node.lineno}"]
    assert not found, f"give encoding='utf-8': {found}"


def test_no_room_imports_a_private_module_of_another():
    """What two rooms need is published, or lies on a lower floor."""
    found = []
    for path, tree in syntax():
        package = ("commutant", *path.relative_to(house.SOURCE).parts[:-1])
        for node in ast.walk(tree):
            if not isinstance(node, ast.ImportFrom) or not node.level:
                continue
            base = [*package[: len(package) - node.level + 1], *(node.module or "").split(".")]
            for target in ([*base, alias.name] for alias in node.names):
                if len(target) > 3 and target[1] not in package[1:2]:
                    hidden = [part for part in target[2:-1] if part.startswith("_")]
                    found += [f"{path.relative_to(ROOT)}:{node.lineno} {'.'.join(target)}"] if hidden else []
    assert not found, f"publish what is shared: {found}"


@pytest.mark.parametrize("room", house.rooms())
def test_no_modules_of_a_room_import_each_other_in_a_circle(room):
    assert not house.cycles(room)


def test_the_wheel_installs_and_every_room_imports(tmp_path):
    """The wheel alone in an environment of its own, with the dependencies of this one."""
    pytest.importorskip("build")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "env")
    python = tmp_path / "env" / "bin" / "python"
    site = tmp_path / "env" / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--target"]
    subprocess.run([*install, str(site), str(wheel)], check=True)
    dependencies = next(p for p in sys.path if p.endswith("site-packages"))
    (site / "dependencies.pth").write_text(dependencies + "\n")
    rooms = ", ".join(f"commutant.{room}" for room in house.rooms())
    code = f"""
import {rooms}, commutant, pathlib
home = pathlib.Path(commutant.__file__).parent
assert home.is_relative_to({str(site)!r}), home
assert (home / "report/templates/style.css").exists()
for name in ("recurrences.c", "attention.c", "pointing.c", "elementary.h"):
    assert (home / "kernels" / name).exists()
"""
    done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_what_experiments_are_said_to_take_is_what_they_took():
    """To a factor of three, as machines differ: `reproduce --minutes` goes by it."""
    for slug in slugs():
        for claim in paper(slug).claims:
            record = ROOT / "results" / slug / f"{claim.name}.small.json"
            if record.exists():
                found = json.loads(record.read_text(encoding="utf-8"))
                took = found["seconds"] / 60 / len(found["seeds"])
                said = claim.experiment.minutes
                assert took < 0.2 or said / 3 < took < said * 3, f"{slug}/{claim.name}: {took:.2g} minutes, said {said}"


WRONG_STARTS = {"Of", "By", "So", "To", "At", "With", "From", "As", "In", "What", "How", "Whether"}


def test_docstrings_begin_with_what_the_thing_is_or_does():
    found = []
    for path, tree in syntax():
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                words = (ast.get_docstring(node) or "A").split()
                line = getattr(node, "lineno", 1)
                found += [f"{path.relative_to(ROOT)}:{line} {words[0]} ..."] if words[0] in WRONG_STARTS else []
    assert not found, "\n".join(["say what the thing is or does:", *found])


RECORDED = {"centred"}  # an arm whose name is a key of records in results/


def test_spelling_is_that_of_pytorch():
    """US spelling in code and prose: normalize, initialize, behavior, neighbor, center, color."""
    british = re.compile(
        r"\b\w*(?:(?:normal|initial|symmetr|standard|recogn|general|optim|vector|diagonal|linear|real|random|parametr"
        r"|organ|minim|maxim|local|serial|canonical|summar)is(?:e|ed|es|ing|ation)|behaviour|neighbour|colour|centre"
        r"|artefact|labell(?:ed|ing)|modelling|licence|favour)\w*",
        re.IGNORECASE,
    )
    found = []
    for folder, kinds in (("src", ("py", "html", "c")), ("docs", ("md",)), ("benchmarks", ("py",)), ("tools", ("py",))):
        for path in (p for kind in kinds for p in (ROOT / folder).rglob(f"*.{kind}")):
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                words = (word[0] for word in british.finditer(line))
                found += [f"{path.relative_to(ROOT)}:{number} {word}" for word in words if word not in RECORDED]
    assert not found, "\n".join(found)


def _own_parameters(function):
    """Return the names in a signature as it is written; `**options` counts as one."""
    code = inspect.unwrap(function).__code__
    return code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]


def _fields_with_docstrings(subject):
    """Return the fields of a record that have a string below them."""
    body = ast.parse(textwrap.dedent(inspect.getsource(subject))).body[0].body
    pairs = itertools.pairwise(body)
    return {a.target.id for a, b in pairs if isinstance(a, ast.AnnAssign) and isinstance(b, ast.Expr)}


def _undocumented(subject):
    """Return the arguments of a public class or function, and the fields of a record, that no docstring names."""
    if not inspect.isclass(subject):
        names, text, said = _own_parameters(subject), subject.__doc__ or "", set()
    else:
        own = [c for c in subject.__mro__ if c.__module__.startswith("commutant")]
        text = "\n".join(f"{c.__doc__}\n{vars(c)['__init__'].__doc__ if '__init__' in vars(c) else ''}" for c in own)
        if dataclasses.is_dataclass(subject) or hasattr(subject, "_fields"):
            names, said = inspect.signature(subject).parameters, _fields_with_docstrings(subject)
        else:
            init = next(c for c in subject.__mro__ if "__init__" in vars(c))
            ours = init in own and hasattr(init.__init__, "__code__")
            names, said = _own_parameters(init.__init__) if ours else (), set()
    return [
        name
        for name in names
        if name not in ("self", "cls") and name[0] != "_" and name not in said and not re.search(rf"\b{name}\b", text)
    ]


@pytest.mark.parametrize("room", house.documented())
def test_arguments_are_documented(room):
    module = __import__(f"commutant.{room}", fromlist=["_"])
    found = []
    for name in tables.public_names(room):
        subject = getattr(module, name)
        if inspect.isclass(subject) or inspect.isfunction(subject):
            found += [f"{name}: {argument}" for argument in _undocumented(subject)]
    assert not found, "\n".join(["arguments without a word in the docstring:", *found])
