"""Buffers that are constants of a network, such as masks, which matching and merging preserve."""

import pytest
import torch
from torch import nn

from commutant import InputError
from commutant.parameters import Permutation, PermutationSpec
from commutant.weights import activation_matching, interpolate, match_many, ste_matching, weight_matching
from depth import some


class Masked(nn.Module):
    """Network with a mask of units, two more constants of each unit, and a mask of a weight."""

    def __init__(self, width=12, of_weights=False):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, width), nn.Linear(width, width), nn.Linear(width, 2)
        self.register_buffer("mask", (torch.arange(width) % 2).float())
        self.register_buffer("flags", (torch.arange(width) < 4).float())
        self.register_buffer("numbers", torch.arange(float(width)) // 3)
        mask = torch.rand(width, width, generator=torch.Generator().manual_seed(1)) > 0.5
        if of_weights:
            self.register_buffer("of_weights", mask.float())

    def forward(self, x):
        h = (self.a(x) * self.mask).tanh() * (1.0 + self.flags)
        weight = self.b.weight * self.of_weights if hasattr(self, "of_weights") else self.b.weight
        h = nn.functional.linear(h, weight, self.b.bias)
        return self.c(torch.tanh(h + self.numbers))


def pair(example=None, **options):
    torch.manual_seed(0)
    a, b = Masked(**options), Masked(**options)
    return a, b, PermutationSpec.from_module(a, torch.randn(3, 4) if example is None else example)


def buffers(network):
    return dict(network.named_buffers())


EQUAL = [(torch.float32, True), (torch.bfloat16, False), (torch.float32, False), (torch.float64, False),
         (torch.float64, True), (torch.bfloat16, True)]  # fmt: skip


@pytest.mark.parametrize(("dtype", "of_weights"), some(EQUAL, keep=2))
def test_equal_constants_stay_as_they_are(of_weights, dtype):
    a, b, spec = pair(of_weights=of_weights)
    a, b = a.to(dtype), b.to(dtype)
    for found in (
        weight_matching(spec, a, b),
        weight_matching(spec, a, b, restarts=2, generator=torch.Generator().manual_seed(0)),
        match_many(spec, [a, b])[1],
    ):
        moved = found.apply(b)
        merged = interpolate([a, moved])
        for key, value in buffers(a).items():
            assert torch.equal(moved.state_dict()[key], value), key
            assert torch.equal(merged[key], value), key
    assert of_weights or found != Permutation(spec)


def test_a_planted_permutation_of_constants_is_found():
    for of_weights in (False, True):
        a, _, spec = pair(of_weights=of_weights)
        planted = Permutation.random(spec, torch.Generator().manual_seed(0))
        assert weight_matching(spec, a, planted.apply(a)) == planted.inverse()


def test_constants_of_other_order_are_brought_together():
    """Merge networks with equal numbers of ones at different positions: the result has only ones and zeros."""
    a, b, spec = pair()
    for name in ("mask", "flags", "numbers"):
        order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
        getattr(b, name).copy_(getattr(b, name)[order])
    merged = interpolate([a, weight_matching(spec, a, b).apply(b)])
    assert merged["numbers"].sort().values.tolist() == sorted(a.numbers.tolist())
    assert set(merged["mask"].tolist()) <= {0.0, 1.0}


def test_constants_that_can_not_agree_disagree_as_little_as_possible():
    a, b, spec = pair()
    for network in (a, b):
        network.flags.zero_()
        network.numbers.zero_()
    b.mask[:4] = 1
    merged = interpolate([a, weight_matching(spec, a, b).apply(b)])
    assert (merged["mask"] == 0.5).sum() == 2  # eight ones and six


def test_running_statistics_do_not_pin():
    torch.manual_seed(0)
    a = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2)).eval()
    spec = PermutationSpec.from_module(a, torch.randn(4, 3))
    a[1].running_mean.normal_()
    planted = Permutation.random(spec, torch.Generator().manual_seed(0))
    moved = planted.apply(a)
    moved[1].running_mean.copy_(torch.arange(6.0))
    moved[1].num_batches_tracked.fill_(7)
    assert weight_matching(spec, a, moved) == planted.inverse()
    assert interpolate([a, moved])["1.num_batches_tracked"] == 0


def test_constants_within_heads():
    """Give each channel of each head of both networks a distinct scale: heads move, channels do not."""

    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.out = nn.Linear(5, 12), nn.Linear(5, 12), nn.Linear(1, 2)
            self.register_buffer("scale", torch.linspace(0.5, 2.0, 4).repeat(3, 1))

        def forward(self, x):
            q, k = (f(x).unflatten(-1, (3, 4)) * self.scale for f in (self.q, self.k))
            return self.out(torch.einsum("bthc,bshc->bhts", q, k).tanh().sum((1, 2, 3))[:, None])

    torch.manual_seed(0)
    a, b = Heads(), Heads()
    spec = PermutationSpec.from_module(a, torch.randn(2, 3, 5))
    assert any(spec.parents.values())
    found = weight_matching(spec, a, b)
    assert torch.equal(found.apply(b).scale, a.scale)
    assert found != Permutation(spec)
    planted = Permutation.random(spec, torch.Generator().manual_seed(3))
    assert weight_matching(spec, a, planted.apply(a)) == planted.inverse()


def test_other_ways_of_matching_respect_constants():
    x = torch.randn(64, 4)
    a, b, spec = pair(x)
    for found in (
        activation_matching(spec, a, b, [x]),
        activation_matching(spec, a, b, [x], score="correlation"),
        ste_matching(spec, a, b, [x] * 2, lambda m, x: m(x).square().mean()),
        ste_matching(spec, a, b, [x] * 2, lambda m, x: m(x).square().mean(), projection="sinkhorn"),
        match_many(spec, [a, b], method="universe")[1],
    ):
        assert torch.equal(found.apply(b).mask, a.mask)
        assert torch.equal(found.apply(b).numbers, a.numbers)


def test_a_mean_that_is_none_is_refused():
    flags = [{"w": torch.ones(2), "f": torch.tensor([True, bit])} for bit in (True, False)]
    with pytest.raises(InputError, match=r"'f' holds torch\.bool and differs between the networks"):
        interpolate(flags)
    assert interpolate([flags[0], flags[0]])["f"].tolist() == [True, True]
    nan = {"w": torch.tensor([1.0, torch.nan])}
    with pytest.raises(InputError, match="'w' holds NaN or infinities in one of the networks"):
        interpolate([{"w": torch.ones(2)}, nan])
    assert interpolate([{"w": torch.ones(2)}, nan], [1, 0])["w"].tolist() == [1, 1]
    with pytest.raises(InputError, match=r"the mean of 'w' exceeds the range of torch\.float16"):
        interpolate([{"w": torch.tensor([6e4]).half()}, {"w": torch.tensor([-6e4]).half()}], [2, -1])
    mask = {"w": torch.tensor([0.0, -torch.inf])}
    assert interpolate([mask, mask])["w"].tolist() == [0.0, -torch.inf]
