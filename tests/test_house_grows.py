"""A new room and a new paper are found by everything that goes over all of them, with no list to edit."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from tools import house  # noqa: E402

ROOM = '''"""A planted room."""

import torch
from jaxtyping import Float
from torch import Tensor

from ..laws import BatchIndependence, Draw, obeys


def _case(draw: Draw):
    return BatchIndependence(), doubled, lambda _: draw.normal(3, 4)


@obeys("rows do not see each other", _case)
def doubled(x: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
    """Return twice the input."""
    return 2 * x


def misshapen(x: Float[Tensor, "rows columns"]) -> Float[Tensor, "columns rows"]:
    """Return something of another shape than it says."""
    return x
'''
CHECK = """
import torch
from commutant.planted import misshapen
def test_shapes_are_checked():
    misshapen(torch.ones(2, 3))
"""


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """A copy of the project with one room and one paper more; of the papers it has one, as others take long to load."""
    root = tmp_path_factory.mktemp("grown")
    others = [slug.replace("-", "_") for slug in house.papers() if slug != "lcm"]
    for name in ("src", "tools", "docs", "results"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", *others))
    helpers = [path.relative_to(ROOT) for path in (ROOT / "tests").glob("*.py") if not path.match("test_*")]
    for name in ("pyproject.toml", "README.md", "mkdocs.yml", "tests/laws/test_stated.py", *helpers):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    (root / "src/commutant/planted").mkdir()
    (root / "src/commutant/planted/__init__.py").write_text(ROOM)
    (root / "tests/test_planted.py").write_text(CHECK)
    shutil.copytree(root / "src/commutant/papers/lcm", root / "src/commutant/papers/planted_paper")
    definition = root / "src/commutant/papers/planted_paper/__init__.py"
    definition.write_text(definition.read_text().replace('slug="lcm"', 'slug="planted-paper"'))
    return root


def _run(root, *command):
    environment = {**os.environ, "PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}", "OMP_NUM_THREADS": "1"}
    environment.pop("PYTEST_XDIST_WORKER", None)
    done = subprocess.run([sys.executable, *command], cwd=root, capture_output=True, text=True, env=environment)
    return done.returncode, done.stdout + done.stderr


def test_its_laws_run_its_shapes_are_checked_and_every_table_has_it(grown):
    code = """
import pytest
from tools import documentation, house, tables
assert "commutant.planted" in house.checked()
pytest.main(["tests", "-k", "doubled or shapes", "--jaxtyping-packages=commutant.planted,beartype.beartype"])

import commutant.laws
from commutant.papers import slugs
every = commutant.laws.stated_laws
own = lambda *subject: [law for law in every(*subject) if law.subject.__module__ == "commutant.planted"]
commutant.laws.stated_laws = own  # the others take long
assert "planted" in house.rooms() and "planted-paper" in slugs() and house.papers() == sorted(slugs())
config = type("Config", (), {"nav": [{"Papers": []}, {"Reference": []}]})()
print([str(path.name) for path in tables.pages() if not path.exists()])
nav = documentation.on_config(config).nav
print({"planted-paper": "papers/planted-paper.md"} in nav[0]["Papers"])
print({"planted": "reference/planted.md"} in nav[1]["Reference"])
print("planted-paper" in tables.systems_table())
print("doubled" in tables.laws_table())
"""
    code, said = _run(grown, "-c", code)
    assert code == 0, said
    assert "1 failed, 2 passed" in said, said
    assert "TypeCheckError" in said, said
    assert "['planted-paper.md', 'planted.md']\nTrue\nTrue\nTrue\nTrue\n" in said, said


def test_it_needs_a_floor(grown):
    code, said = _run(grown, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()")
    assert code != 0
    assert "planted" in said, said
