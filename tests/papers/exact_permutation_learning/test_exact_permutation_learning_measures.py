"""Experiments of `exact-permutation-learning`, far smaller than at any scale."""

import pytest

TINY = {
    "learning": {"ks": [3, 8], "width": 256},
    "regime": {"k": 4, "width": 256, "models": {"standard": 8, "ntk": 8}},
}


@pytest.mark.parametrize("name", TINY)
def test_an_experiment_gives_what_its_claims_read(name, measured):
    measured("exact-permutation-learning", name, TINY[name])
