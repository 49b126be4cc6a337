"""Experiments of `self-normalizing`, far smaller than at any scale."""

import pytest

TINY = {
    "moments": {"width": 16, "depth": 8, "inputs": 8},
    "depths": {"tables": ["wine"], "depths": [4, 5], "width": 8, "steps": 2, "rates": [0.01]},
    "very-deep": {"depth": 5, "width": 8, "steps": 2, "rates": [0.01]},
}


@pytest.mark.parametrize("name", TINY)
def test_an_experiment_gives_what_its_claims_read(name, measured):
    measured("self-normalizing", name, TINY[name])
