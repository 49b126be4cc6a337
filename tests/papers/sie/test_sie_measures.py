"""Experiments of `sie`, far smaller than at any scale."""

import pytest

TINY = {
    "views": {"train": 20, "test": 10, "views": 3, "points": 1100, "size": 32, "width": 2, "steps": 2, "batch": 8,
              "probe": 2},
    "floor": {"steps": 2},
}  # fmt: skip


@pytest.mark.parametrize("name", TINY)
def test_an_experiment_gives_what_its_claims_read(name, measured):
    measured("sie", name, TINY[name])
