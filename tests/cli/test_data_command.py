"""Command `commutant data`: the list fits a terminal, names are loaded, mistakes exit with 2."""

import pytest

import warm
from commutant.cli._data import fetch_data, show_data


@pytest.fixture(autouse=True)
def nothing_here(monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for variable in ("COMMUTANT_DATA", "HF_HOME", "HF_DATASETS_CACHE"):
        monkeypatch.delenv(variable, raising=False)


def test_the_list_fits_80_columns(capsys, tmp_path):
    show_data(None)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert "…" not in out
    rows = [line.split() for line in out.splitlines()]
    assert ["digits", "embedded", "scikit-learn"] in rows
    assert ["cifar10-6k", "not", "here", "DATA_DIR/cifar10-6k"] in rows
    (tmp_path / "uci121").mkdir()
    for i in range(40):
        (tmp_path / "uci121" / f"made-{i:02}.npz").touch()
    show_data(str(tmp_path))
    out = capsys.readouterr().out
    assert "(40 tables)" in out
    assert "made-05" not in out
    assert str(tmp_path) in out


def test_names_are_loaded(capsys):
    fetch_data(["iris", "python"], None)
    assert capsys.readouterr().out.splitlines() == [
        "iris: loaded and checked (embedded, scikit-learn)",
        "python: loaded and checked (embedded, standard library)",
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["iris"], 0, ""),
        (["imagenet"], 2, "unknown data set 'imagenet'"),
        (["--data-dir", "/nowhere"], 2, "/nowhere"),
        (["cifar10-6k", "--data-dir", "."], 2, "COMMUTANT_DATA) with cifar10-6k/cifar10_6k.npz"),
    ],
)
def test_exit_codes(arguments, code, said, tmp_path):
    done = warm.commutant("data", *arguments, cwd=tmp_path)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr
