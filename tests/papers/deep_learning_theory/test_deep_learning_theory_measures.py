"""Experiments of `deep-learning-theory`, far smaller than at any scale."""

import pytest

TINY = {
    "ensembles": {"width": 8, "depth": 16, "networks": 200},
    "vertices": {"width": 4, "depth": 2, "networks": 400},
    "training": {"width": 4, "depth": 3, "steps": 2, "rates": [0.01]},
    "cures": {"width": 8, "depth": 4, "steps": 2, "rates": [0.01]},
    "plane": {"width": 8, "depth": 4, "steps": 2, "rates": [0.01], "biases": [0.1], "weights": [2.0]},
    "aspect": {"table": "digits", "weights": 200, "ratios": [0.1, 1.0], "rates": [0.1], "steps": 2},
    "shares": {"width": 8, "depth": 5, "inputs": 1, "outputs": 2},
}


@pytest.mark.parametrize("name", TINY)
def test_an_experiment_gives_what_its_claims_read(name, measured):
    measured("deep-learning-theory", name, TINY[name])
