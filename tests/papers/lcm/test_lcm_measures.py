"""Experiments of `lcm`, far smaller than at any scale."""

import pytest

TINY = {
    "second-minimum": {"bits": 2, "spread_low": 1, "channels": 4, "steps": 1, "batch_size": 2, "learning_rate": 2e-3,
                       "tests": 4},
    "cost": {"sizes": [2, 200], "sets": 2, "channels": 4, "repeats": 1},
    "digits": {"train": 20, "channels": 4, "steps": 1, "batch_size": 4, "learning_rate": 2e-3},
    "batch-dependence": {"channels": 4},
}  # fmt: skip


@pytest.mark.parametrize("name", TINY)
def test_an_experiment_gives_what_its_claims_read(name, measured):
    measured("lcm", name, TINY[name])
