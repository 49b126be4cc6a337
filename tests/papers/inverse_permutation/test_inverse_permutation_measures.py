"""Experiments of `inverse-permutation`, far smaller than at any scale, and their data."""

from __future__ import annotations

import pytest
import torch

from commutant.algebra import inverse
from commutant.papers.inverse_permutation.measures import _letters, drawn
from commutant.papers.inverse_permutation.models import Decoder
from commutant.permutations import causal_mask, measured_visibility

TRAINED = {"steps": 2, "batch_size": 4, "learning_rate": 1e-3, "test": 6}
TINY = {
    "construction": {"sizes": [3, 4], "test": 5, "beta": 200.0},
    "learning": TRAINED | {"d": 6},
    "decoder": TRAINED | {"d": 3, "letters": 4},
}


@pytest.mark.parametrize("name", TINY)
def test_an_experiment_gives_what_its_claims_read(name, measured):
    measured("inverse-permutation", name, TINY[name])


@pytest.mark.parametrize("order", ["PY", "YP"])
def test_the_rows_of_a_sequence_are_the_permuted_ones(order):
    x, y = drawn(torch.Generator().manual_seed(0), 20, 5, 3, order)
    assert x.shape == (20, 13, 5)
    p, rows = (x[:, :5], x[:, 5:10]) if order == "PY" else (x[:, 5:10], x[:, :5])
    assert torch.equal(p @ y, rows)
    assert torch.equal(p.mT @ rows, y)
    assert not bool(x[:, 10:].any())


def test_letters_come_back_by_the_inverse():
    x, y = _letters(torch.Generator().manual_seed(0), 20, 5, 2, 7)
    p, shown = x[:, :5], x[:, 5:10] - 5
    assert torch.equal(shown.gather(1, inverse(p)), y)
    assert bool((x[:, 10:] == 12).all())


def test_the_decoder_is_causal():
    torch.manual_seed(0)
    model = Decoder(4, 7, 3)
    found = measured_visibility(model, torch.randn(7, 4), tolerance=1e-6)
    assert torch.equal(found, causal_mask(7))
