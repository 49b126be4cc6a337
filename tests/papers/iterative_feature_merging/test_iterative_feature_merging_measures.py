"""Experiments of `iterative-feature-merging`, far smaller than at any scale."""

import pytest

TINY = {"cifar": {"data": "digits", "network": "mlp", "widths": [32], "steps": 2}}


@pytest.mark.parametrize("name", TINY)
def test_an_experiment_gives_what_its_claims_read(name, measured):
    measured("iterative-feature-merging", name, TINY[name])
