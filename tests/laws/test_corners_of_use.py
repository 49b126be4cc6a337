"""Batch axes that are not the first, reports without a witness, half precision, scales, generators and training."""

import pytest
import torch
from torch import nn

from commutant import InputError
from commutant.laws import BatchIndependence, Equivariance, Invariance, Rotation, SetPermutation, check
from depth import chosen


@pytest.mark.parametrize("shape", chosen([(3, 6, 4), (2, 5, 4), (4, 4, 4)], [(2, 5, 4), (4, 4, 4)]))
@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
def test_a_state_holds_its_samples_on_another_axis(kind, shape):
    torch.manual_seed(0)
    cell = kind(4, 6, num_layers=2, batch_first=True)
    assert check(BatchIndependence(), cell, torch.randn(shape)).passed
    assert check(BatchIndependence(), cell, torch.randn(1, *shape[1:])).status == "vacuous"


def test_a_leak_into_a_state_is_found():
    torch.manual_seed(0)
    cell = nn.GRU(4, 6, num_layers=2, batch_first=True)

    def leak(x):
        out, state = cell(x)
        return out, state + 0.01 * state.mean(1, keepdim=True)

    assert check(BatchIndependence(), leak, torch.randn(2, 5, 4)).status == "broken"
    with pytest.raises(InputError, match="one row for each of the 4 samples"):
        check(BatchIndependence(), lambda x: x.mean(0), torch.randn(4, 3))


def test_a_broken_law_prints_without_a_witness():
    law, x = Invariance(SetPermutation()), torch.randn(2, 4, 3)
    assert "broken: the two sides differ" in str(check(law, lambda x: x[:, 0], x, explain=False))
    other = check(law, lambda x: (x.sum(1), str(float(x[0, 0, 0]))), x, explain=False)
    assert "on the left side" in str(other)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounding_in_half_precision_is_no_break(dtype, deep):
    for seed in range(8 if deep else 2):
        x = torch.randn(4, 7, 3, generator=torch.Generator().manual_seed(seed)).to(dtype)
        report = check(Equivariance(Rotation()), lambda x: torch.linalg.cross(x, 2.3 * x), x, explain=False)
        assert report.status in ("vacuous", "unresolved")
    assert check(Equivariance(Rotation()), lambda x: x + 0.1 * x.abs(), x, explain=False).status == "broken"


def test_all_signs_alike_and_small_inputs_are_explored():
    def fails_where_small(x):
        small = x.abs().amax((1, 2)) < 0.5
        return torch.where(small[:, None], x[:, 0], x.sum(1))

    x = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0))
    assert check(Invariance(SetPermutation()), fails_where_small, x, explain=False).status == "broken"

    def fails_where_positive(x):
        return torch.where((x > 0).all(1).all(1)[:, None], x[:, 0], x.sum(1))

    x = torch.randn(4, 3, 2, generator=torch.Generator().manual_seed(0))
    assert check(Invariance(SetPermutation()), fails_where_positive, x, explain=False).status == "broken"


def test_empty_inputs_and_wrong_generators(unchecked):
    law = Invariance(SetPermutation())
    for shape in ((0, 4, 3), (2, 0, 3)):
        assert check(law, lambda x: x.sum(1), torch.randn(shape)).status == "vacuous"
    for wrong in ("0", 1.5, True, torch):
        with pytest.raises(InputError, match=r"generator must be a torch\.Generator"):
            check(law, lambda x: x.sum(1), torch.randn(2, 4, 3), generator=wrong)


def test_a_check_is_the_same_each_time_and_goes_on_with_a_given_generator():
    law, x = Invariance(SetPermutation()), torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    worst = [check(law, lambda x: x[:, 0], x, explain=False, generator=g).worst for g in (None, None, generator)]
    assert len(set(worst)) == 1
    assert check(law, lambda x: x[:, 0], x, explain=False, generator=generator).worst != worst[0]


def test_a_module_that_draws_random_numbers_in_training_mode_is_named():
    class Noisy(nn.Module):
        def forward(self, x):
            noise = 0.1 * torch.randn_like(x) if self.training else 0.0
            return (x + noise)[:, 0]

    law, x = Invariance(SetPermutation()), torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0))
    said = "in training mode"
    assert said in check(law, Noisy(), x).sentence
    assert said in check(law, nn.Sequential(nn.Linear(3, 3), Noisy()).forward, x).sentence
    assert said not in check(law, Noisy().eval(), x).sentence
    assert said not in check(law, nn.Sequential(nn.Linear(3, 3), nn.Flatten()), x).sentence
    assert said not in check(law, lambda x: x.sum(1), x).sentence


def test_the_witness_of_a_token_model_is_small():
    torch.manual_seed(0)
    embed = nn.Embedding(50, 4)
    report = check(Invariance(SetPermutation()), lambda i: embed(i[:, 0]), torch.randint(0, 50, (4, 12)))
    assert report.status == "broken"
    assert report.witness.x.shape == (1, 2)
