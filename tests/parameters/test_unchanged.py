"""Calls with other parameters, and the derivation of symmetries, do not change a module."""

import pytest
import torch
from torch import nn

from commutant._errors import InputError
from commutant.parameters import PermutationSpec, called_with, unchanged


class TwoNames(nn.Module):
    """Module with one layer under two names."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second, self.last = self.first, nn.Linear(4, 2)

    def forward(self, x):
        return self.last(torch.tanh(self.second(torch.tanh(self.first(x)))))


class Tied(TwoNames):
    """Module with two layers that share a weight."""

    def __init__(self):
        super().__init__()
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight


def snapshot(model):
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    modes = [m.training for m in model.modules()]
    return {n: (t, t.detach().clone(), type(t), t.requires_grad) for n, t in tensors}, modes


def assert_same(model, before):
    after = snapshot(model)
    assert after[1] == before[1]
    assert after[0].keys() == before[0].keys()
    for name, (tensor, value, kind, trains) in before[0].items():
        assert after[0][name][0] is tensor
        assert torch.equal(tensor, value)
        assert (type(tensor), tensor.requires_grad) == (kind, trains)


def test_unchanged_restores_modes_submodules_and_buffers():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    before, parts = snapshot(model), dict(model.named_modules())

    def changes():
        with unchanged(model):
            model.eval()[0] = nn.Identity()
            model[1].train()(torch.randn(4, 2))
            model[1].weight, model.extra = nn.Parameter(torch.zeros(2)), 1
            model[1].register_buffer("running_mean", None)
            raise KeyError

    with pytest.raises(KeyError):
        changes()
    assert_same(model, before)
    assert dict(model.named_modules()) == parts
    assert not hasattr(model, "extra")


def test_other_tensors_stand_in_every_place_of_theirs():
    for kind in (TwoNames, Tied):
        model, other, x = kind(), kind(), torch.randn(3, 4)
        before = snapshot(model)
        assert torch.equal(called_with(model, dict(other.named_parameters()), (x,)), other(x))
        assert_same(model, before)
    with pytest.raises(InputError, match="TorchScript"):
        called_with(torch.jit.script(nn.Sequential(nn.Linear(2, 2))), {}, (torch.zeros(1, 2),))


class Branching(TwoNames):
    """Module that torch.export can't follow."""

    def forward(self, x):
        return self.last(self.first(x)) if float(x.sum()) > 1e9 else super().forward(x)


@pytest.mark.parametrize("kind", [TwoNames, Tied, Branching])
def test_deriving_symmetries_leaves_shared_modules_as_they_were(kind):
    model, x = kind(), torch.randn(3, 4)
    before = snapshot(model)
    spec = PermutationSpec.from_module(model, x)
    assert ("make_fx" in spec.how or "torch.export could not" in spec.how) == (kind is Branching)
    assert_same(model, before)
    model(x).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_what_a_module_collects_is_restored_and_a_lazy_one_keeps_its_weights():
    model = nn.Sequential(nn.LazyLinear(3))
    model.seen, model.cache = [1], {"a": 1}
    with unchanged(model):
        model(torch.randn(2, 4))
        model.seen.append(2)
        model.cache["b"] = 2
    assert type(model[0]) is nn.Linear
    assert (model.seen, model.cache) == ([1], {"a": 1})
    assert model(torch.randn(2, 4)).shape == (2, 3)
