"""Experiments of `tinvnn`, far smaller than at any scale."""

import pytest

TINY = {
    "shapes": {"train": 50, "test": 10, "points": 40, "epochs": 1},
    "routes": {"cities": 5, "tests": 4, "steps": 2},
}


@pytest.mark.parametrize("name", TINY)
def test_an_experiment_gives_what_its_claims_read(name, measured):
    measured("tinvnn", name, TINY[name])
