"""Matching by the loss of the merged network, several networks in one frame, and soft permutations."""

import copy
import functools
import itertools
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from commutant import InputError
from commutant.parameters import Permutation, PermutationSpec
from commutant.weights import interpolate, match_many, ste_matching, weight_matching
from commutant.weights._many import _agreement
from commutant.weights._soft import apply_softly, matrices_of
from commutant.weights._straight_through import _Shadow

sys.path.insert(0, str(Path(__file__).parents[1] / "parameters"))
from networks import CASES

from depth import some

X = torch.randn(400, 4, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] * X[:, 1] > 0).long() + (X[:, 2] > 1).long()


def mlp(width=12):
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 3))


def trained(seed, make=mlp):
    return copy.deepcopy(trained_once(seed, make))


@functools.cache
def trained_once(seed, make):
    torch.manual_seed(seed)
    model = make()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(120):
        optimizer.zero_grad()
        F.cross_entropy(model(X), Y).backward()
        optimizer.step()
    return model.eval()


def loss(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1])


def midpoint(a, b):
    with torch.no_grad():
        return float(F.cross_entropy(torch.func.functional_call(a, interpolate([a, b]), (X,)), Y))


ALL_KINDS = ["mlp", "resnet", "gpt_tied", "gru_and_rnn", "cnn_flattened", "concatenated"]


@pytest.mark.parametrize("name", some(ALL_KINDS, keep=4))
def test_matrices_of_permutations_act_as_they_do(name):
    torch.manual_seed(0)
    model, inputs = CASES[name].build()
    spec = PermutationSpec.from_module(model, inputs, verify=False)
    permutation = Permutation.random(spec, torch.Generator().manual_seed(1))
    moved, matrices = permutation.apply(model.state_dict()), matrices_of(permutation)
    for key, value in model.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(apply_softly(spec, matrices, spec.axes[key], value), moved[key])


def test_gradients_reach_the_matrices():
    model = mlp(3).double()
    spec = PermutationSpec.from_module(model, X[:2].double())
    value = model[2].weight.detach()

    def total(p, q):
        return apply_softly(spec, {"0": p, "2": q}, spec.axes["2.weight"], value).pow(3).sum()

    matrices = [torch.rand(3, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(total, matrices)


@pytest.mark.parametrize("projection", ["lap", "sinkhorn"])
def test_the_merged_loss_falls(projection, deep):
    a, b = trained(0), trained(1)
    spec = PermutationSpec.from_module(a, X[:4])
    before = {k: v.clone() for k, v in (*a.state_dict().items(), *b.state_dict().items())}
    batches, generator = [(X, Y)] * (60 if deep else 30), torch.Generator().manual_seed(0)
    found = ste_matching(spec, a, b, batches, loss, projection=projection, generator=generator)
    assert midpoint(a, found.apply(b)) < 0.7 * midpoint(a, b)
    torch.testing.assert_close(found.apply(b)(X), b(X))
    assert all(torch.equal(v, before[k]) for k, v in b.state_dict().items())
    if projection == "lap":  # the search starts at what matching weights finds
        assert midpoint(a, found.apply(b)) <= midpoint(a, weight_matching(spec, a, b).apply(b)) + 1e-6


def test_the_shadow_hands_the_gradient_of_the_mean_on():
    """Check that the shadow's output is the projected source, with the gradient of the shadow."""
    a, b = trained(0), trained(1)
    spec = PermutationSpec.from_module(a, X[:4])
    shadow = _Shadow(spec, {k: v.detach() for k, v in a.state_dict().items()}, b.state_dict())
    moved = shadow.moved()
    projected = weight_matching(spec, a, b).apply(b.state_dict())
    for key, value in moved.items():
        assert torch.equal(value, projected[key])
    loss_at = F.cross_entropy(torch.func.functional_call(a, moved, (X,)), Y)
    grads = torch.autograd.grad(loss_at, shadow.trained)
    leaves = {k: v.detach().requires_grad_() for k, v in projected.items()}
    wanted = torch.autograd.grad(F.cross_entropy(torch.func.functional_call(a, leaves, (X,)), Y), list(leaves.values()))
    torch.testing.assert_close(grads, wanted)


def test_batch_norm_and_dropout_of_the_target_stay_as_they_are():
    def make():
        return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))

    a, b = trained(0, make), trained(1, make)
    spec = PermutationSpec.from_module(a, X[:4])
    before = {k: v.clone() for k, v in a.state_dict().items()}
    found = ste_matching(spec, a, b, [(X, Y)] * 5, loss)
    again = ste_matching(spec, a, b, [(X, Y)] * 5, loss)
    assert found == again
    assert all(torch.equal(v, before[k]) for k, v in a.state_dict().items())


def test_a_frame_for_several_networks_is_consistent_and_the_universe_no_worse(deep):
    count = 4 if deep else 3
    models = [trained(seed) for seed in range(count)]
    spec = PermutationSpec.from_module(models[0], X[:4])
    states = [m.state_dict() for m in models]
    values = []
    for method in ("mean", "universe"):
        found = match_many(spec, models, method=method, generator=torch.Generator().manual_seed(0))
        values.append(_agreement(spec, states, found))
        # from i to j: into the frame, then out of it
        between = [[found[i].compose(found[j].inverse()) for j in range(count)] for i in range(count)]
        for i in range(count):
            for j in range(count):
                for k in range(count):
                    assert between[i][j].compose(between[j][k]) == between[i][k]
    assert values[1] >= values[0]
    assert values[0] > _agreement(spec, states, [Permutation(spec)] * count)
    pairs = [[weight_matching(spec, a, b) for b in models] for a in models]
    triples = itertools.product(range(count), repeat=3)
    assert any(pairs[j][i].compose(pairs[k][j]) != pairs[k][i] for i, j, k in triples), "in pairs it is consistent"


COPIES = [("mlp", "mean"), ("mlp", "universe"), ("gpt_tied", "mean"), ("gru_and_rnn", "mean"),
          ("gpt_tied", "universe"), ("gru_and_rnn", "universe")]  # fmt: skip


@pytest.mark.parametrize(("name", "method"), some(COPIES, keep=3))
def test_planted_permutations_of_several_copies_are_undone(name, method):
    torch.manual_seed(0)
    model, inputs = CASES[name].build()
    spec = PermutationSpec.from_module(model, inputs, verify=False)
    generator = torch.Generator().manual_seed(3)
    copies = [Permutation.random(spec, generator).apply(model.state_dict()) for _ in range(3)]
    found = match_many(spec, copies, method=method, generator=generator)
    moved = [p.apply(c) for p, c in zip(found, copies, strict=True)]
    for other in moved[1:]:
        assert all(torch.equal(v, other[k]) for k, v in moved[0].items())


def test_several_networks_by_their_loss(deep):
    models = [trained(seed) for seed in range(3)]
    spec = PermutationSpec.from_module(models[0], X[:4])
    batches, generator = [(X, Y)] * (40 if deep else 20), torch.Generator().manual_seed(0)
    found = match_many(spec, models, method="ste", batches=batches, loss=loss, generator=generator)
    assert found[0] == Permutation(spec)

    def merged(permutations):
        state = interpolate([p.apply(m) for p, m in zip(permutations, models, strict=True)])
        return float(loss(lambda x: torch.func.functional_call(models[0], state, (x,)), (X, Y)).detach())

    assert merged(found) < 0.7 * merged([Permutation(spec)] * 3)


def test_what_is_refused(unchecked):
    a, b = mlp(), mlp()
    spec = PermutationSpec.from_module(a, X[:4])
    with pytest.raises(InputError, match="projection must be one of lap, sinkhorn"):
        ste_matching(spec, a, b, [(X, Y)], loss, projection="hungarian")
    with pytest.raises(InputError, match="no batch was given"):
        ste_matching(spec, a, b, [], loss)
    with pytest.raises(InputError, match="must be a finite scalar"):
        ste_matching(spec, a, b, [(X, Y)], lambda model, batch: model(batch[0]))
    with pytest.raises(InputError, match="must be a finite scalar"):
        ste_matching(spec, a, b, [(X * torch.nan, Y)], loss)
    with pytest.raises(InputError, match="method must be"):
        match_many(spec, [a, b], method="median")
    with pytest.raises(InputError, match="at least two networks"):
        match_many(spec, [a])
    with pytest.raises(InputError, match="needs batches and a loss"):
        match_many(spec, [a, b], method="ste")
    with pytest.raises(InputError, match="needs batches and a loss"):
        match_many(spec, [a, b], loss=loss)
    with pytest.raises(InputError, match="give a module, got"):
        match_many(spec, [a.state_dict(), b], method="ste", batches=[(X, Y)], loss=loss)
    with pytest.raises(InputError, match=r"'0.weight' must have shape \(12, 4\), got \(9, 4\)"):
        ste_matching(spec, a, mlp(9), [(X, Y)], loss)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.up, self.down = nn.Embedding(7, 6), nn.Linear(6, 9), nn.Linear(9, 6)
        self.head = nn.Linear(6, 7, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, words):
        h = self.embed(words)
        return self.head(h + self.down(torch.relu(self.up(h))))


@pytest.mark.parametrize("projection", ["lap", "sinkhorn"])
def test_tied_weights_stay_one(projection):
    a, b = Tied(), Tied()
    words = torch.randint(0, 7, (4, 5))
    spec = PermutationSpec.from_module(a, words)
    batches = [(words, words)] * 3

    def word_loss(model, batch):
        return F.cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten())

    found = ste_matching(spec, a, b, batches, word_loss, projection=projection)
    torch.testing.assert_close(found.apply(b)(words), b(words))
    lacking = {k: v for k, v in b.state_dict().items() if k != "head.weight"}
    assert ste_matching(spec, a, lacking, batches, word_loss, projection=projection) == found


@pytest.mark.parametrize("method", some(["mean", "ste", "universe"], keep=2))
def test_recurrent_weights_without_gradients_around(method):
    a, b = CASES["gru_and_rnn"].build()[0], CASES["gru_and_rnn"].build()[0]
    x = CASES["gru_and_rnn"].build()[1]
    spec = PermutationSpec.from_module(a, x, verify=False)
    options = {"batches": [x[0]] * 2, "loss": lambda m, x: m(x).square().mean()} if method == "ste" else {}
    before = torch.get_rng_state()
    with torch.no_grad():
        found = match_many(spec, [a, b], method=method, **options)
    assert torch.equal(torch.get_rng_state(), before)
    torch.testing.assert_close(found[1].apply(b)(*x), b(*x))


def test_more_of_what_is_refused(unchecked):
    a, b = mlp(), mlp()
    spec = PermutationSpec.from_module(a, X[:4])
    with pytest.raises(InputError, match=r"target must be a module.*got OrderedDict"):
        ste_matching(spec, a.state_dict(), b, [(X, Y)], loss)
    with pytest.raises(InputError, match=r"learning_rate must be a positive number, got 0\.0"):
        ste_matching(spec, a, b, [(X, Y)], loss, learning_rate=0.0)
    with pytest.raises(InputError, match="temperature must be a positive number"):
        ste_matching(spec, a, b, [(X, Y)], loss, temperature=0.0)
    with pytest.raises(InputError, match="has no gradient"):
        ste_matching(spec, a, b, [(X, Y)], lambda m, batch: loss(m, batch).detach())
