"""Experiments of `pararnn`, far smaller than at any scale."""

import pytest

TINY = {
    "agreement": {"lengths": [16, 64], "batch": 2, "channels": 4},
    "parity": {"channels": 4, "length": 8, "steps": 2, "solve_length": 64},
    "tasks": {"channels": 16, "steps": 2, "batch": 4, "tasks": {
        "keep-5th": {"length": 8, "vocabulary": 8}, "recall": {"pairs": 2, "length": 12, "vocabulary": 12},
        "1-hop": {"length": 8, "vocabulary": 4}, "2-hop": {"length": 8, "vocabulary": 4}}},
}  # fmt: skip


@pytest.mark.parametrize("name", TINY)
def test_an_experiment_gives_what_its_claims_read(name, measured):
    measured("pararnn", name, TINY[name])
