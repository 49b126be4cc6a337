"""Fixture of the tests of every paper: an experiment run at settings far smaller than those of any scale."""

import math

import pytest

from commutant.evidence import Task, run_task
from commutant.papers import module_of, paper


@pytest.fixture
def measured(tmp_path, monkeypatch, unchecked):
    """Return a function that runs an experiment and returns its figures, once its claims and its plot can read them."""

    def run(slug, name, settings):
        experiment = paper(slug).experiment(name)
        monkeypatch.setitem(experiment.settings, "small", settings)
        task = Task(module_of(slug), name, "small", 0, str(tmp_path))
        assert run_task(task) is None
        found = task.folder.result()["measurement"]
        for claim in paper(slug).claims:
            if claim.experiment is experiment:
                assert math.isfinite(claim.effect(found)), claim.name
                assert all(math.isfinite(control(found)) for control in claim.controls.values()), claim.name
                assert claim.cases is None or claim.cases(found) >= 1, claim.name
        if experiment.figure is not None:
            experiment.figure([found]).savefig(tmp_path / "figure.png")
        return found

    return run
