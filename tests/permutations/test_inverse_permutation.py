"""Explicit weights that undo permutations, bit by bit; where they must fail; the disentangled transformer."""

from __future__ import annotations

import math

import pytest
import torch

from commutant import InputError
from commutant.algebra import compose, inverse
from commutant.permutations import (
    DisentangledTransformer,
    InversePermutation,
    causal_mask,
    measured_visibility,
    min_scratch,
    visible_inputs,
)


def drawn(d, features=None, count=40, dtype=torch.float32, scale=10.0, seed=0):
    g = torch.Generator().manual_seed(seed)
    p = torch.rand(count, d, generator=g).argsort(1)
    y = scale * torch.randn(count, d, features or d, generator=g, dtype=torch.float64)
    return p, y.to(dtype)


def permuted(p, y):
    return y.gather(1, p[..., None].expand_as(y))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("d", [1, 2, 3, 6, 10])
@pytest.mark.parametrize("mask", ["none", "causal"])
def test_the_robust_weights_return_every_row_bit_by_bit(mask, d, dtype):
    for scratch in {"none": [None, 1, 4], "causal": [min_scratch(d), d, d + 3]}[mask]:
        for features in (1, d, d + 2):
            p, y = drawn(d, features, dtype=dtype)
            model = InversePermutation(d, mask, scratch, features=features)
            assert torch.equal(model(p, permuted(p, y)), y)


def test_the_direction_is_that_of_a_three_cycle():
    """Involutions hide a transposed bug."""
    y = torch.arange(3.0)[:, None].expand(3, 3)[None]
    p = torch.tensor([[1, 2, 0]])
    for mask in ("none", "causal"):
        model = InversePermutation(3, mask)
        assert model(p, y[:, p[0]])[0, :, 0].tolist() == [0, 1, 2]
        assert model(p, y)[0, :, 0].tolist() == inverse(p)[0].float().tolist() != p[0].float().tolist()


@pytest.mark.parametrize("beta", [5.0, 10.0, 20.0])
@pytest.mark.parametrize("mask", ["none", "causal"])
def test_softer_attention_has_the_error_of_the_bound(mask, beta):
    d = 6
    p, y = drawn(d, dtype=torch.float64)
    model = InversePermutation(d, mask, beta=beta).double()
    error = (model(p, permuted(p, y)) - y).abs().max()
    spread = (y[:, :, None] - y[:, None]).abs().max()
    rows = len(model.model.positions)
    assert 0 < error <= 2 * rows * math.exp(-beta) * spread * 2


@pytest.mark.parametrize("d", [2, 3, 7])
@pytest.mark.parametrize("mask", ["none", "causal"])
def test_the_papers_weights_are_exact_for_bits_and_fail_for_other_values(mask, d):
    p, y = drawn(d, dtype=torch.float64)
    model = InversePermutation(d, mask, beta=200.0, variant="paper").double()
    bits = (y > 0).double()
    assert (model(p, permuted(p, bits)) - bits).abs().max() < 1e-20
    if d > 2:
        assert (model(p, permuted(p, y)) - y).abs().max() > 1


def test_the_papers_causal_weights_need_the_beginning_token():
    """Without it the first row of P attends to itself alone, and ties with the row that is sought."""
    d = 6
    p, y = drawn(d, dtype=torch.float64)
    bits = (y > 0).double()
    model = InversePermutation(d, "causal", beta=200.0, variant="paper").double()
    assert model.bos
    tokens = model.encode(p, permuted(p, bits))
    bare = DisentangledTransformer(d, {"P": d, "Y": d, "scratch": d}, 2, mask=causal_mask(3 * d)).double()
    for ours, theirs in zip(bare.weights, model.model.weights, strict=True):
        ours.data.copy_(theirs)
    out = bare(tokens[:, 1:])[:, -d:, bare.columns(2)["2.0.token"]]
    assert (out - bits).abs().max().item() == pytest.approx(0.5)


def test_relabeling_the_rows_of_the_input_changes_nothing():
    p, y = drawn(5)
    q = torch.rand(40, 5).argsort(1)
    for mask in ("none", "causal"):
        model = InversePermutation(5, mask)
        assert torch.equal(model(compose(p, q), permuted(q, permuted(p, y))), model(p, permuted(p, y)))


def test_two_inputs_that_no_causal_network_tells_apart_in_time():
    """With too few scratch tokens: equal rows before the output, different outputs required."""
    d = 4
    for s in range(d - 1):
        network = DisentangledTransformer(d, {"P": d, "Y": d, "scratch": s}, 3, mask=causal_mask(2 * d + s))
        torch.manual_seed(s)
        for weight in network.weights:
            weight.data.normal_()
        p = torch.tensor([[1, 2, 3, 0]])  # row 0 of Y comes last
        y = torch.rand(1, d, d)
        other = y.clone()
        other[0, 0] = 1 - other[0, 0]
        tokens = [
            torch.cat([torch.nn.functional.one_hot(p, d).float(), permuted(p, v), torch.zeros(1, s, d)], 1)
            for v in (y, other)
        ]
        first = d + s  # where row 0 must be written
        a, b = (network(t)[:, first] for t in tokens)
        assert torch.equal(a, b)
        assert not torch.equal(network(tokens[0])[:, -1], network(tokens[1])[:, -1]) or s == 0


def test_the_disentangled_transformer_is_its_formula():
    torch.manual_seed(0)
    model = DisentangledTransformer(3, {"a": 2, "b": 3}, layers=2, heads=2, mask=causal_mask(5)).double()
    for weight in model.weights:
        weight.data.normal_()
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    h = torch.cat([x, torch.eye(5, dtype=torch.float64).expand(2, -1, -1)], -1)
    for weight in model.weights:
        parts = [h]
        for head in weight:
            scores = (h @ head @ h.mT).masked_fill(~causal_mask(5), -torch.inf)
            parts.append(scores.softmax(-1) @ h)
        h = torch.cat(parts, -1)
    assert torch.allclose(model(x), h)
    blocks = model.blocks(h)
    assert torch.equal(blocks["token"], x)
    assert torch.allclose(blocks["1.1.b"], model(x)[..., model.columns(2)["1.1.b"]])
    assert sum(b.shape[-1] for b in blocks.values()) == model.width == 8 * 9
    assert list(model.columns(1)) == ["token", "a", "b", "1.0.token", "1.0.a", "1.0.b", "1.1.token", "1.1.a", "1.1.b"]


def test_zero_weights_more_change_nothing():
    """A second head whose output nobody reads, and blocks of zeros."""
    torch.manual_seed(0)
    x = torch.randn(2, 6, 3)
    one = DisentangledTransformer(3, {"a": 6}, layers=1)
    two = DisentangledTransformer(3, {"a": 6}, layers=1, heads=2)
    matrix = torch.randn(3, 6)
    for model in (one, two):
        model.set_block(1, "token", "a", matrix)
    assert torch.equal(one(x), two(x)[..., : one.width])


def test_it_sees_what_its_mask_shows():
    torch.manual_seed(0)
    mask = torch.rand(6, 6) < 0.3
    mask |= torch.eye(6, dtype=torch.bool)
    model = DisentangledTransformer(4, {"a": 6}, layers=2, mask=mask).double()
    for weight in model.weights:
        weight.data.normal_()
    found = measured_visibility(model, torch.randn(6, 4, dtype=torch.float64))
    assert torch.equal(found, visible_inputs(mask, 2))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: InversePermutation(4, "causal", 2), "at least 3 scratch tokens .* got 2"),
        (lambda: InversePermutation(4, "causal", 3, variant="paper"), "4 scratch tokens"),
        (lambda: InversePermutation(4, variant="paper", features=5), "at most 4 features"),
        (lambda: InversePermutation(4, "none", 2, variant="paper"), "0 scratch tokens"),
        (lambda: InversePermutation(2)(torch.tensor([[0, 1]]), torch.ones(1, 2, 2).long()), "must be floating point"),
        (lambda: InversePermutation(0), "d must be a whole number"),
        (lambda: InversePermutation(3, "window"), "mask must be one of none, causal"),
        (lambda: InversePermutation(3, variant="fast"), "variant must be one of robust, paper"),
        (lambda: InversePermutation(3, beta=-1.0), "beta must be a positive number"),
        (lambda: InversePermutation(3)(torch.tensor([[0, 0, 1]]), torch.rand(1, 3, 3)), "each of 0 to 2 once"),
        (lambda: InversePermutation(3)(torch.tensor([[0, 1, 2]]), torch.rand(1, 3, 2)), r"shape \(1, 3, 3\)"),
        (lambda: InversePermutation(2)(torch.tensor([[0, 1]]), torch.full((1, 2, 2), torch.nan)), "must be finite"),
        (lambda: DisentangledTransformer(3, {"token": 3}, 1), "other than 'token'"),
        (lambda: DisentangledTransformer(3, {"a": 3}, 1, mask=causal_mask(4)), r"shape \(3, 3\)"),
        (lambda: DisentangledTransformer(3, {"a": 3}, 1)(torch.rand(1, 4, 3)), r"shape \(batch, 3, 3\)"),
        (
            lambda: DisentangledTransformer(3, {"a": 3}, 1).set_block(1, "a", "c", torch.rand(3, 3)),
            "key must be one of",
        ),
        (lambda: DisentangledTransformer(3, {"a": 3}, 1).set_block(2, "a", "a", torch.rand(3, 3)), "no block|at most"),
        (lambda: DisentangledTransformer(3, {"a": 3}, 1).set_block(1, "a", "a", torch.rand(3, 2)), "matrix must have"),
    ],
)
def test_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
