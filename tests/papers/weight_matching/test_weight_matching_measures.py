"""Experiments of `weight-matching`, far smaller than at any scale."""

import pytest

TINY = {"cifar": {"data": "digits", "network": "mlp", "widths": [16], "steps": 2, "searched": [], "search": 0}}


@pytest.mark.parametrize("name", TINY)
def test_an_experiment_gives_what_its_claims_read(name, measured):
    measured("weight-matching", name, TINY[name])
