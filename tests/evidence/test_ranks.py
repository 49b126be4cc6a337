"""Statistics of many tables: ranks computed by hand, and the experiment on a folder of three tables."""

import numpy as np
import pytest

from commutant._errors import InputError
from commutant.data import load_table, uci_tables
from commutant.evidence import Task, run_task
from commutant.papers import paper
from commutant.papers.self_normalizing.ranks import ALL, mean_ranks


def test_mean_ranks_share_what_is_equal():
    accuracies = {"a": [0.9, 0.5, 0.7], "b": [0.8, 0.5, 0.9], "c": [0.7, 0.4, 0.8]}
    assert mean_ranks(accuracies, ["a", "b", "c"]) == pytest.approx({"a": 5.5 / 3, "b": 4.5 / 3, "c": 8 / 3})
    assert mean_ranks(accuracies, ["b", "c"]) == pytest.approx({"b": 1, "c": 2})


def test_the_rank_study_runs_on_a_folder(tmp_path, monkeypatch, unchecked):
    (tmp_path / "uci121").mkdir()
    for name in ("iris", "wine", "twonorm"):
        table = load_table(name)
        np.savez(tmp_path / "uci121" / f"{name}.npz", X=table.x.numpy(), y=table.y.numpy().astype(np.int16))
    assert uci_tables(str(tmp_path)) == ["iris", "twonorm", "wine"]
    experiment = paper("self-normalizing").experiment("ranks")
    assert experiment.unavailable(str(tmp_path)) is None
    tiny = {"rows": 200, "depths": [1, 2], "width": 8, "steps": 60, "rates": [0.1], "adamw_rates": [0.01], "trees": 5}
    monkeypatch.setitem(experiment.settings, "small", tiny)
    task = Task(
        "commutant.papers.self_normalizing", "ranks", "small", 0, str(tmp_path / "runs"), data_dir=str(tmp_path)
    )
    assert run_task(task) is None
    found = task.folder.result()["measurement"]
    assert found["tables"] == 3
    assert sum(found[f"rank@{method}"] for method in ALL) == pytest.approx(21)
    assert sum(found[f"difference@{method}"] for method in ("selu", "relu", "batch", "layer")) == pytest.approx(0)
    assert all(found[f"_boosting@{name}"] > 0.8 for name in ("iris", "wine"))
    assert all(0 < found[f"p@{method}"] <= 1 for method in ALL if method != "selu")
    experiment.figure([found]).savefig(tmp_path / "figure.png")


def test_without_a_folder_it_says_so(monkeypatch, tmp_path):
    monkeypatch.delenv("COMMUTANT_DATA", raising=False)
    assert "--data-dir" in paper("self-normalizing").experiment("ranks").unavailable(None)
    with pytest.raises(InputError, match="uci121"):
        uci_tables(str(tmp_path))
