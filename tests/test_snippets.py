"""Every snippet of README and docs runs, page by page, as a reader would run it from top to bottom."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest
import typer

import warm

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)


def blocks(language):
    """Pages with the (line, source) of their blocks in a language."""
    found = []
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        here = [(text[: m.start(2)].count("\n"), m[2]) for m in BLOCK.finditer(text) if m[1] == language]
        if here:
            found.append(pytest.param(path, here, id=path.name))
    return found


RUNNER = """
names = {{"__name__": "snippet"}}
for line, source in {found!r}:
    exec(compile("\\n" * line + source, {page!r}, "exec"), names)
for name in [n for n in names if n.startswith("test_")]:
    names[name]()
"""


@pytest.mark.parametrize(("page", "found"), blocks("python"))
def test_python(page, found, tmp_path):
    """The blocks of a page share their names, as in one notebook, in a process of their own."""
    done = warm.python(RUNNER.format(page=str(page), found=found), cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize(("page", "found"), blocks("bash"))
def test_commands_exist_with_their_options(page, found):
    from commutant.cli._app import app

    commands = typer.main.get_command(app)
    for _, source in found:
        for line in source.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["commutant"]:
                commands.commands[words[1]].make_context(words[1], words[2:])


def test_every_block_names_its_language():
    """A block without a language would be skipped here and shown without colors."""
    for path in PAGES:
        nameless = [m[2] for m in BLOCK.finditer(path.read_text(encoding="utf-8")) if not m[1]]
        assert not nameless, f"{path}: {nameless[0]}"


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_every_dependency_and_extra_is_named(page):
    """Extras for developers and for everything at once aside."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = {"torch": "PyTorch"}
    core = [re.split("[<>=]", dependency)[0] for dependency in project["dependencies"]]
    extras = [f"`{extra}`" for extra in project["optional-dependencies"] if extra not in ("docs", "dev", "all")]
    text = (ROOT / page).read_text(encoding="utf-8").lower()
    assert [d for d in [*core, *extras] if named.get(d, d).lower() not in text] == []
