"""Experiments far smaller than at any scale run, and return the figures that their claims and plots read."""

import math

import pytest

from commutant.evidence import Task, run_task
from commutant.papers import paper

TINY = {
    ("sie", "views"): {"train": 20, "test": 10, "views": 3, "points": 1100, "size": 32, "width": 2, "steps": 2,
                       "batch": 8, "probe": 2},
    ("sie", "floor"): {"steps": 2},
    ("frame-averaging", "normals"): {"train": 20, "test": 10, "points": 40, "epochs": 1},
    ("frame-averaging", "particles"): {"train": 100, "test": 20, "validation": 20, "warm_up": 10, "horizon": 10,
                                       "width": 6, "layers": 1, "epochs": 1, "slower": 1, "learning_rate": 1e-3},
    ("frame-averaging", "exactness"): {"pairs": 2},
    ("tinvnn", "shapes"): {"train": 50, "test": 10, "points": 40, "epochs": 1},
    ("deep-learning-theory", "ensembles"): {"width": 8, "depth": 16, "networks": 200},
    ("deep-learning-theory", "vertices"): {"width": 4, "depth": 2, "networks": 400},
    ("deep-learning-theory", "training"): {"width": 4, "depth": 3, "steps": 2, "rates": [0.01]},
    ("deep-learning-theory", "cures"): {"width": 8, "depth": 4, "steps": 2, "rates": [0.01]},
    ("deep-learning-theory", "plane"): {"width": 8, "depth": 4, "steps": 2, "rates": [0.01], "biases": [0.0, 0.1],
                                        "weights": [0.5, 2.0]},
    ("deep-learning-theory", "aspect"): {"table": "digits", "weights": 200, "ratios": [0.1, 1.0], "rates": [0.1],
                                         "steps": 2},
    ("self-normalizing", "moments"): {"width": 16, "depth": 8, "inputs": 8},
    ("self-normalizing", "depths"): {"tables": ["wine"], "depths": [4, 5], "width": 8, "steps": 2, "rates": [0.01]},
    ("self-normalizing", "very-deep"): {"depth": 5, "width": 8, "steps": 2, "rates": [0.01]},
    ("deep-learning-theory", "shares"): {"width": 8, "depth": 5, "inputs": 1, "outputs": 2},
    ("exact-permutation-learning", "learning"): {"ks": [3, 8], "width": 256},
    ("exact-permutation-learning", "regime"): {"k": 4, "width": 256, "models": {"standard": 8, "ntk": 8}},
    ("tinvnn", "routes"): {"cities": 5, "tests": 4, "steps": 2},
}  # fmt: skip


@pytest.mark.parametrize(("slug", "name"), TINY, ids=lambda v: v)
def test_an_experiment_gives_what_its_claims_read(slug, name, tmp_path, monkeypatch, unchecked):
    experiment = paper(slug).experiment(name)
    monkeypatch.setitem(experiment.settings, "small", TINY[slug, name])
    task = Task(f"commutant.papers.{slug.replace('-', '_')}", name, "small", 0, str(tmp_path))
    assert run_task(task) is None
    found = task.folder.result()["measurement"]
    for claim in paper(slug).claims:
        if claim.experiment is experiment:
            assert math.isfinite(claim.effect(found)), claim.name
            assert all(math.isfinite(control(found)) for control in claim.controls.values()), claim.name
    experiment.figure([found]).savefig(tmp_path / "figure.png")
