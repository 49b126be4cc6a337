"""Experiments of `flow-equivariant-rnn`, far smaller than at any scale."""

import pytest

TINY = {
    "velocities": {"data": "digits", "size": 8, "given": 3, "ahead": 2, "channels": 2, "decoder_layers": 1,
                   "train_speed": 1, "batch": 2, "learning_rate": 3e-3, "test": 4, "steps": 1},
    "equivariance": {"size": 4, "given": 2},
    "cost": {"size": 6, "given": 2, "channels": 2, "batch": 2, "repeats": 1},
}  # fmt: skip


@pytest.mark.parametrize("name", TINY)
def test_an_experiment_gives_what_its_claims_read(name, measured):
    measured("flow-equivariant-rnn", name, TINY[name])
