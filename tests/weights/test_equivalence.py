"""Equivalence of networks up to the order of their channels."""

import copy

import pytest
import torch
from torch import nn

from commutant import InputError
from commutant.parameters import Permutation, PermutationSpec
from commutant.weights import FeatureMerger, functionally_equivalent


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv1d(2, 8, 3), nn.BatchNorm1d(8), nn.ReLU(), nn.Flatten(), nn.Linear(48, 12), nn.Tanh(), nn.Linear(12, 3)
    ).eval()


X = torch.randn(4, 2, 8, generator=torch.Generator().manual_seed(0))


def test_a_permuted_network_is_the_same_and_another_is_not():
    model = network()
    model[1].running_mean.normal_()
    spec = PermutationSpec.from_module(model, X)
    permuted = Permutation.random(spec, torch.Generator().manual_seed(1)).apply(model)
    same = functionally_equivalent(spec, model, permuted, batches=[X])
    assert same
    assert same.worst < 1e-6
    assert len(same.activations) == 2
    torch.testing.assert_close(same.permutation.apply(permuted).state_dict(), model.state_dict())
    other = functionally_equivalent(spec, model, network(1), batches=[X])
    assert not other
    assert other.worst > 0.3


def test_nan_is_never_the_same():
    model = network()
    spec = PermutationSpec.from_module(model, X)
    assert not functionally_equivalent(spec, model, model, batches=[X * torch.nan])


def test_one_changed_entry_is_seen_and_named():
    model = network()
    spec = PermutationSpec.from_module(model, X)
    changed = copy.deepcopy(model)
    changed[1].running_var[3] *= 1.5  # no weight, but part of the function
    found = functionally_equivalent(spec, model, changed)
    assert not found
    assert max(found.residuals, key=found.residuals.get) == "1.running_var"
    assert functionally_equivalent(spec, model, model).worst == 0


def test_copies_of_channels_are_merged_first():
    wide = nn.Sequential(nn.Linear(4, 9), nn.Tanh(), nn.Linear(9, 2))
    narrow = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))
    x = torch.randn(3, 4)
    with torch.no_grad():
        copies = torch.tensor([0, 1, 2, 3, 4, 5, 0, 0, 3])
        wide[0].weight.copy_(narrow[0].weight[copies])
        wide[0].bias.copy_(narrow[0].bias[copies])
        wide[2].weight.copy_(narrow[2].weight[:, copies] / torch.bincount(copies)[copies])
        wide[2].bias.copy_(narrow[2].bias)
    spec = PermutationSpec.from_module(narrow, x)
    with pytest.raises(InputError, match="must have shape"):
        functionally_equivalent(spec, narrow, wide)
    assert functionally_equivalent(spec, narrow, FeatureMerger(wide, x, criterion="saliency").shrink(beta=0.0).module)


def test_counters_do_not_count_and_other_integers_do():
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.norm, self.b = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 2)
            self.register_buffer("kept", torch.tensor([1, 0, 1, 1]))

        def forward(self, x):
            return self.b(self.norm(self.a(x * self.kept)).relu())

    model, x = Masked().eval(), torch.randn(5, 4)
    spec = PermutationSpec.from_module(model, x)
    other = copy.deepcopy(model)
    other.norm.num_batches_tracked.fill_(500)
    found = functionally_equivalent(spec, model, other)
    assert found
    assert found.worst == 0
    assert "norm.num_batches_tracked" not in found.residuals
    by_hand = PermutationSpec.from_axes({"a.weight": ("h", None), "a.bias": ("h",)}, model.state_dict())
    assert functionally_equivalent(by_hand, model, other)
    other.kept[1] = 1
    assert not functionally_equivalent(spec, model, other)


def test_an_entry_of_zeros_differs_by_its_whole_size():
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))
    nn.init.zeros_(model[0].bias)
    spec = PermutationSpec.from_module(model, torch.randn(3, 4))
    other = copy.deepcopy(model)
    nn.init.constant_(other[0].bias, 0.5)
    assert functionally_equivalent(spec, model, other).residuals["0.bias"] == 1
    assert functionally_equivalent(spec, other, model).residuals["0.bias"] == 1
