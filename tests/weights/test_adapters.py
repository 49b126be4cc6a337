"""Networks whose `eval()` merges weights, which no function of this room may change."""

import copy

import pytest
import torch
from torch import nn

from commutant.parameters import PermutationSpec
from commutant.weights import FeatureMerger, repair, reset_batchnorm_stats, ste_matching


class Adapter(nn.Linear):
    """Layer with a low-rank update that `eval()` adds to the weight and `train()` removes again."""

    def __init__(self, features, out):
        super().__init__(features, out)
        self.down, self.up = nn.Parameter(torch.randn(2, features)), nn.Parameter(torch.randn(out, 2))
        self.merged = False

    def train(self, mode=True):
        if self.merged == mode:
            self.weight.data += (1 - 2 * mode) * (self.up @ self.down)
            self.merged = not mode
        return super().train(mode)

    def forward(self, x):
        return super().forward(x) if self.merged else super().forward(x) + x @ (self.up @ self.down).T


def network():
    torch.manual_seed(0)
    return nn.Sequential(Adapter(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)).train()


def assert_unmerged(model, before):
    assert not model[0].merged
    assert model.training
    torch.testing.assert_close(model[0].weight, before[0].weight, rtol=0, atol=0)


X = torch.randn(16, 4, generator=torch.Generator().manual_seed(1))


def test_repair_and_new_statistics_leave_adapters_beside_the_weight():
    model, parent = network(), network()
    before = copy.deepcopy(model)
    repair(model, [parent], [X])
    reset_batchnorm_stats(model, [X])
    assert_unmerged(model, before)
    assert_unmerged(parent, before)
    torch.testing.assert_close(model[1].running_mean, before[0](X).mean(0))


def test_merging_features_leaves_adapters_beside_the_weight():
    model = network()
    before = copy.deepcopy(model)
    FeatureMerger(model, X).shrink(parameters=0.8)
    assert_unmerged(model, before)


def test_matching_through_the_loss_computes_with_adapters_once():
    a, b = network(), network()
    spec, losses = PermutationSpec.from_module(a, X), []

    def loss(model, batch):
        losses.append(float((found := model(batch).square().mean()).detach()))
        return found

    ste_matching(spec, a, b, [X], loss)
    expected = copy.deepcopy(a)
    expected[0].training = expected.training = False
    assert losses[0] == pytest.approx(float(expected(X).square().mean().detach()), rel=1e-4)
