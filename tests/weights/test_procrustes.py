"""Rotated streams: folded gains and planted rotations."""

import copy
import functools

import pytest
import torch
from torch import nn

from commutant import InputError
from commutant.parameters import Permutation, PermutationSpec, act_linearly
from commutant.weights import distance, fold_gains, procrustes_matching, weight_matching
from depth import some


class Stream(nn.Module):
    """Network with a residual stream of width 10 that RMS norms read, and two layers of 16 units."""

    def __init__(self, seed, tied=False):
        super().__init__()
        torch.manual_seed(seed)
        self.embed = nn.Embedding(20, 10)
        self.norms = nn.ModuleList(nn.RMSNorm(10) for _ in range(3))
        self.up = nn.ModuleList(nn.Linear(10, 16) for _ in range(2))
        self.down = nn.ModuleList(nn.Linear(16, 10) for _ in range(2))
        self.head = nn.Linear(10, 20, bias=False)
        if tied:
            self.head.weight = self.embed.weight
        for norm in self.norms:
            norm.weight.data.uniform_(0.5, 2)

    def forward(self, words):
        h = self.embed(words)
        for norm, up, down in zip(self.norms, self.up, self.down, strict=False):
            h = h + down(torch.nn.functional.gelu(up(norm(h))))
        return self.head(self.norms[-1](h))


WORDS = torch.randint(0, 20, (3, 7), generator=torch.Generator().manual_seed(0))


def stream(spec):
    return next(group for group, size in spec.sizes.items() if size == 10)


@functools.cache
def spec_of_streams():
    return PermutationSpec.from_module(Stream(0).double(), WORDS)


@functools.cache
def folded_once(seed):
    return fold_gains(spec_of_streams(), Stream(seed).double())


def folded(seed):
    return copy.deepcopy(folded_once(seed))


@functools.cache
def spec_of_folded():
    return PermutationSpec.from_module(folded_once(0), WORDS)


def test_folding_keeps_the_function_and_lets_the_stream_rotate():
    model, spec = Stream(0).double(), spec_of_streams()
    result = fold_gains(spec, model)
    torch.testing.assert_close(result(WORDS), model(WORDS))
    for norm in result.norms:
        torch.testing.assert_close(norm.weight.detach(), torch.ones(10).double())
    assert spec.kinds[stream(spec)].name == "monomial"
    again = spec_of_folded()
    assert again.kinds[stream(again)].name == "orthogonal"
    assert float(model.norms[0].weight.detach().min()) < 1


def test_a_planted_rotation_is_undone_with_the_permutations():
    model, spec = folded(0), spec_of_folded()
    generator = torch.Generator().manual_seed(1)
    moved = Permutation.random(spec, generator).apply(model)
    turn = torch.linalg.qr(torch.randn(1, 10, 10, generator=generator, dtype=torch.float64)).Q
    rotations = spec.kinds[stream(spec)].rotations
    moved.load_state_dict(act_linearly(spec, moved.state_dict(), stream(spec), dict.fromkeys(rotations, turn)))
    torch.testing.assert_close(moved(WORDS), model(WORDS))
    found = procrustes_matching(spec, model, moved)
    again = found.apply(moved)
    assert distance(model, again) < 1e-8 * distance(model, moved)
    assert distance(model, weight_matching(spec, model, moved).apply(moved)) > 0.3 * distance(model, moved)
    (matrix,) = found.rotations.values()
    torch.testing.assert_close(matrix @ matrix.mT, torch.eye(10).double()[None])


def test_independent_networks_come_closer_than_by_permutations():
    a, b, spec = folded(0), folded(1), spec_of_folded()
    found = procrustes_matching(spec, a, b).apply(b)
    torch.testing.assert_close(found(WORDS), b(WORDS))
    assert distance(a, found) < distance(a, weight_matching(spec, a, b).apply(b)) < distance(a, b)


def test_what_is_refused():
    model, spec = Stream(0).double(), spec_of_streams()
    with pytest.raises(InputError, match="no group of this spec may be rotated"):
        procrustes_matching(spec, model, model)
    good = folded(0)
    with pytest.raises(InputError, match=r"'norms.0.weight' of the source differs between channels"):
        procrustes_matching(spec_of_folded(), good, model)
    model.norms[1].weight.data[3] = 0
    with pytest.raises(InputError, match=r"'norms.1.weight' has a gain of zero"):
        fold_gains(spec, model)


def test_a_gain_before_a_tied_weight_stays():
    """Check that a gain stays where the tied embedding would have to change with it."""
    model = Stream(0, tied=True).double()
    spec = PermutationSpec.from_module(model, WORDS)
    result = fold_gains(spec, model)
    torch.testing.assert_close(result(WORDS), model(WORDS))
    assert result.head.weight is result.embed.weight
    assert not torch.equal(result.norms[2].weight.detach(), torch.ones(10).double())


def test_a_bias_is_no_gain():
    x = torch.randn(5, 4).double()
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    result = fold_gains(PermutationSpec.from_module(model, x), model)
    assert torch.equal(result[0].bias, model[0].bias)
    model[0].bias.data.zero_()
    torch.testing.assert_close(fold_gains(PermutationSpec.from_module(model, x), model)(x), model(x))


class Headed(nn.Module):
    """Network with a stream of width 12 and one attention layer of 3 heads."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.embed, self.norm, self.last, self.head = (
            nn.Embedding(9, 12),
            nn.RMSNorm(12),
            nn.RMSNorm(12),
            nn.Linear(12, 4),
        )
        self.q, self.k, self.v, self.o = (nn.Linear(12, 12) for _ in range(4))

    def forward(self, words):
        h = self.embed(words)
        q, k, v = (f(self.norm(h)).unflatten(-1, (3, 4)).transpose(1, 2) for f in (self.q, self.k, self.v))
        mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        return self.head(self.last(h + self.o(mixed.transpose(1, 2).flatten(2))))


@pytest.mark.parametrize("seed", some(range(3)))
def test_heads_are_permuted_while_the_stream_turns(seed):
    words = torch.randint(0, 9, (2, 5), generator=torch.Generator().manual_seed(0))
    a, b = Headed(seed).double(), Headed(seed + 10).double()
    spec = PermutationSpec.from_module(a, words)
    stream = next(g for g, n in spec.sizes.items() if n == 12)
    generator = torch.Generator().manual_seed(seed)
    moved = Permutation.random(spec, generator).apply(a)
    turn = torch.linalg.qr(torch.randn(1, 12, 12, generator=generator, dtype=torch.float64)).Q
    parts = dict.fromkeys(spec.kinds[stream].rotations, turn)
    moved.load_state_dict(act_linearly(spec, moved.state_dict(), stream, parts))
    found = procrustes_matching(spec, a, moved)
    torch.testing.assert_close(found.apply(moved)(words), a(words))
    matched = procrustes_matching(spec, a, b).apply(b)
    torch.testing.assert_close(matched(words), b(words))
    assert distance(a, matched) <= distance(a, weight_matching(spec, a, b).apply(b)) + 1e-9
