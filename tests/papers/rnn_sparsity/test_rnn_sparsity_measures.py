"""Experiments of `rnn-sparsity`, far smaller than at any scale."""

import pytest

TINY = {
    "pruning": {"pairs": 60, "held_out": 6, "width": 2, "epochs": 1},
    "structure": {"pairs": 60, "held_out": 6, "graphs": 3, "smallest": 6, "largest": 9, "steps": 2, "cell": "gru"},
}


@pytest.mark.parametrize("name", TINY)
def test_an_experiment_gives_what_its_claims_read(name, measured):
    measured("rnn-sparsity", name, TINY[name])
