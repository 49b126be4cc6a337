"""Corner cases of the checker, each of which once gave a wrong verdict."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from commutant import InputError
from commutant.laws import (
    BatchIndependence,
    Commutativity,
    Equivariance,
    FunctionPreservation,
    GradientEquivariance,
    GraphPermutation,
    Invariance,
    SetPermutation,
    Sets,
    check,
)

PERMUTE = Invariance(SetPermutation())
X = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0))


def test_a_transformation_gets_the_model_itself():
    def spoiled(model):
        twin = copy.deepcopy(model)
        twin.weight.data.mul_(2)
        return twin

    assert check(FunctionPreservation(copy.deepcopy), nn.Linear(3, 2), X).passed
    assert check(FunctionPreservation(spoiled), nn.Linear(3, 2), X).status == "broken"


def test_a_large_channel_does_not_hide_a_small_one():
    assert check(PERMUTE, lambda x: torch.cat([1e3 * x.sum(1), x[:, 0]], -1), X).status == "broken"
    assert check(PERMUTE, lambda x: torch.cat([1e3 * x.sum(1), x.amax(1)], -1), X).passed
    integers = lambda x: (x[:, 0, 0] > 0).long() + 1000 * (1e6 * x.abs().amax((1, 2))).long()  # noqa: E731
    assert check(PERMUTE, integers, X).status == "broken"


def test_functions_that_work_in_place_are_judged_fairly_and_change_nothing():
    y = X.clone()
    assert check(BatchIndependence(), lambda x: x.mul_(2).sum(1), y).passed
    assert torch.equal(y, X)
    assert check(Commutativity(), lambda a, b: a.add_(b), (X[0], X[1])).passed


def test_equivariance_on_ragged_sets_permutes_the_rows():
    sets = Sets(torch.randn(6, 3), torch.tensor([0, 0, 1, 1, 1, 1]))
    assert check(Equivariance(SetPermutation()), lambda x, index: 2 * x, sets).passed
    assert check(Equivariance(SetPermutation()), lambda x, index: x.cumsum(0), sets).status == "broken"


def test_empty_sets_are_left_out_of_the_comparison():
    def add(x, index):
        return torch.zeros(int(index.max()) + 1, x.shape[1]).index_add(0, index, x)

    assert check(BatchIndependence(), add, Sets(torch.randn(6, 3), torch.tensor([0, 0, 2, 2, 3, 3]))).passed


def test_gradients_of_nested_inputs_are_all_compared():
    def f(p, q):
        return (p[0] * torch.arange(5)[:, None]).sum(1) ** 2 + p[1].sum(1) + q[0].sum(1) + q[1].sum(1)

    pairs = ((X, X + 1), (X + 2, X + 3))
    assert check(GradientEquivariance(SetPermutation()), f, pairs).status == "broken"


def test_graph_with_as_many_edges_as_nodes():
    edges = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
    batch = torch.tensor([0, 0, 1, 1])

    def pool(x, edge_index, batch):
        return torch.zeros(2, 3).index_add(0, batch, x)

    assert check(Invariance(GraphPermutation()), pool, (torch.randn(4, 3), edges, batch)).passed


def test_outputs_under_other_names_differ():
    assert check(PERMUTE, lambda x: {"a" if x[0, 0, 0] > 0 else "b": x.sum(1)}, X).status == "broken"


def test_a_side_that_raises_is_a_break_and_says_so():
    net = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8))
    report = check(BatchIndependence(), net, torch.randn(2, 3))
    assert report.status == "broken"
    assert "raised ValueError" in report.sentence
    assert ".eval()" in report.sentence
    with pytest.raises(RuntimeError):
        check(PERMUTE, nn.Linear(7, 2), X)


def test_the_witness_shows_the_failure_that_was_found():
    report = check(PERMUTE, lambda x: x.std(1) + x[:, 0], X)
    assert not report.witness.comparison.nan
    assert report.witness.g.numel() == report.witness.x.shape[1]


def test_layers_called_by_keyword_are_not_blamed():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(3, 1, batch_first=True)
            self.mix = nn.Identity()

        def forward(self, x):
            h = self.mix(input=x + torch.arange(5.0)[:, None])
            return self.attention(query=h, key=h, value=h)[0].sum(1)

    report = check(PERMUTE, Net().eval(), X)
    assert report.status == "broken"
    assert report.culprit is None


def test_reassigned_buffers_are_put_back():
    class Counter(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("count", torch.zeros(()))

        def forward(self, x):
            self.count = self.count + 1
            return x.sum(1) * self.count

    net = Counter()
    assert check(PERMUTE, net, X).passed
    assert float(net.count) == 0


def test_numbers_and_arrays_are_outputs_too():
    assert check(PERMUTE, lambda x: x[0, 0, 0].item(), X).status == "broken"
    assert check(PERMUTE, lambda x: np.asarray(x.numpy()[:, 0]), X).status == "broken"
    with pytest.raises(InputError, match="must return tensors"):
        check(PERMUTE, lambda x: "hello", X)
