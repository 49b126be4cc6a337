"""Causality of models that return states, of token models, and of models that look ahead at one step."""

import pytest
import torch
from torch import nn

from commutant import InputError
from commutant.laws import Causality, check
from depth import chosen


@pytest.mark.parametrize("shape", [(4, 7, 3), (7, 7, 3), (2, 2, 3), (1, 5, 3)])
@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
def test_states_beside_the_output(kind, shape):
    torch.manual_seed(0)
    x = torch.randn(shape)
    assert check(Causality(), kind(3, 5, num_layers=2, batch_first=True), x).passed
    assert check(Causality(), kind(3, 5, batch_first=True, bidirectional=True), x).status == "broken"
    assert check(Causality(0), kind(3, 5, num_layers=2), x).passed or shape[0] == 1


def test_token_models():
    torch.manual_seed(0)
    embed, gru = nn.Embedding(50, 8), nn.GRU(8, 8, batch_first=True)
    ids = torch.randint(0, 50, (4, 12))
    assert check(Causality(), lambda i: gru(embed(i))[0], ids).passed
    assert check(Causality(), lambda i: gru(embed(i.flip(1)))[0].flip(1), ids).status == "broken"
    bits = torch.randint(0, 2, (4, 12))
    assert check(Causality(), lambda i: i.cumsum(1), bits).passed
    assert check(Causality(), lambda i: i.flip(1).cumsum(1).flip(1), bits).status == "broken"


@pytest.mark.parametrize("place", chosen([0, 100, 254], [0, 254]))
def test_a_peek_at_one_place_of_256(place):
    def peek(x):
        out = x.cumsum(1)
        out[:, place] += 0.1 * x[:, place + 1]
        return out

    report = check(Causality(), peek, torch.randn(1, 256, 1), explain=False)
    assert report.status == "broken"


def test_the_witness_is_one_step():
    def peek(x):
        out = x.cumsum(1)
        out[:, 3] += 0.1 * x[:, 4]
        return out

    report = check(Causality(), peek, torch.randn(2, 16, 1))
    assert report.witness.x.shape == (1, 5, 1)
    assert len(report.witness.g) == 2
    assert "the first step that changed" in report.witness.code


def test_nothing_to_try_and_nothing_to_compare():
    report = check(Causality(), lambda x: x.cumsum(1), torch.randn(4, 1, 3))
    assert report.status == "vacuous"
    assert "no drawn" in report.sentence
    with pytest.raises(InputError, match="output with the 7 steps"):
        check(Causality(), lambda x: x.mean(1), torch.randn(4, 7, 3))
    with pytest.raises(InputError, match="share a time axis"):
        check(Causality(), lambda x, h: x, (torch.randn(4, 7, 3), torch.randn(4, 3)))
    with pytest.raises(InputError, match="dim must be"):
        Causality(-1)
