"""Experiments of `interaction-basis`, far smaller than at any scale."""

import pytest

TINY = {
    "digits": {"data": "digits", "width": 8, "steps": 60},
    "ranks": {"data": "digits", "width": 12, "steps": 60, "ranks": [4, 9]},
    "blocks": {"inputs": 2, "hidden": 4, "outputs": 1, "samples": 300},
    "counts": {"samples": 1000},
    "invariance": {"sizes": [4], "samples": 200},
}


@pytest.mark.parametrize("name", TINY)
def test_an_experiment_gives_what_its_claims_read(name, measured):
    found = measured("interaction-basis", name, TINY[name])
    if name == "counts":
        assert found["count-error"] == 0
    if name == "invariance":
        assert found["local"] < 1e-9 < found["pca"]
