"""Experts chosen by the largest score: they keep their order where scores can be equal."""

import pytest
import torch
import torch.nn.functional as F
from networks import Net, p, x
from torch import nn

from commutant.parameters import Permutation, PermutationSpec

L = nn.Linear


def chosen(scores, dim=-1):
    """Look up rows of `w` by the position of the largest score."""
    return lambda m, i: m.w[scores(m, i).argmax(dim)]


def generic_norm():
    norm = nn.LayerNorm(4)
    nn.init.normal_(norm.bias)
    return norm


def tokens(i):
    return (i.abs() * 9).long() % 40


MAY_BE_EQUAL = {
    "zero inputs": (chosen(lambda m, i: m.r(i)), {"r": L(4, 5, bias=False)}),
    "dead units": (chosen(lambda m, i: m.r(m.h(i).relu())), {"h": L(4, 6, bias=False), "r": L(6, 5, bias=False)}),
    "units dead at a bias": (chosen(lambda m, i: m.r((m.h(i) - 9).relu())), {"h": L(4, 6), "r": L(6, 5, bias=False)}),
    "a gate that is zero": (chosen(lambda m, i: m.r(i) * i[:, :1].relu()), {"r": L(4, 5)}),
    "a factor zero": (chosen(lambda m, i: m.r(i) * 0.0), {"r": L(4, 5)}),
    "a bias of zeros": (chosen(lambda m, i: F.linear(i, m.v, m.z)), {"v": p(5, 4), "z": nn.Parameter(torch.zeros(5))}),
    "a norm of zeros": (chosen(lambda m, i: m.r(F.layer_norm(i, (4,)))), {"r": L(4, 5, bias=False)}),
    "a norm that starts with no bias": (chosen(lambda m, i: m.r(m.n(i))),
                                        {"n": nn.LayerNorm(4), "r": L(4, 5, bias=False)}),
    "a root mean square norm": (chosen(lambda m, i: m.r(m.n(i))), {"n": nn.RMSNorm(4), "r": L(4, 5, bias=False)}),
    "a row of padding": (chosen(lambda m, i: m.r(m.e(tokens(i)))),
                         {"e": nn.Embedding(40, 4, padding_idx=0), "r": L(4, 5, bias=False)}),
    "a rectified copy": (chosen(lambda m, i: (lambda h: h + (-h).relu())(m.r(i) - 2)), {"r": L(4, 5)}),
    "scores of zero keys": (chosen(lambda m, i: m.q @ m.k(i).t(), 0), {"q": p(5, 6), "k": L(4, 6, bias=False)}),
    "a convolution": (chosen(lambda m, i: m.c(i[:, :, None])[:, :, 0]), {"c": nn.Conv1d(4, 5, 1, bias=False)}),
    "an einsum": (chosen(lambda m, i: torch.einsum("bi,oi->bo", i, m.v)), {"v": p(5, 4)}),
    "a product of matrices": (chosen(lambda m, i: i @ m.v), {"v": p(4, 5)}),
    "beside a stretch of zeros": (chosen(lambda m, i: m.r(F.pad(m.h(i).relu(), (1, 1)))),
                                  {"h": L(4, 6), "r": L(8, 5, bias=False)}),
    "rows that are dead alike": (lambda m, i: i[:, :1] * m.w[m.r(m.h(m.w).relu())[:, 0].argmax(0)],
                                 {"h": L(2, 6), "r": L(6, 1)}),
    "the top two": (lambda m, i: m.w[m.r(i).topk(2, -1).indices].sum(1), {"r": L(4, 5, bias=False)}),
    "sorted": (lambda m, i: m.w[m.r(i).argsort(-1)[:, 0]], {"r": L(4, 5, bias=False)}),
}  # fmt: skip

DIFFER = {
    "a bias": (chosen(lambda m, i: m.r(m.h(i).relu())), {"h": L(4, 6), "r": L(6, 5)}),
    "probabilities": (chosen(lambda m, i: m.r(i).softmax(-1)), {"r": L(4, 5)}),
    "a product and a bias": (chosen(lambda m, i: torch.addmm(m.c, i, m.v)), {"v": p(4, 5), "c": p(5)}),
    "a norm with a bias": (chosen(lambda m, i: m.r(m.n(i))), {"n": generic_norm(), "r": L(4, 5, bias=False)}),
    "tokens": (chosen(lambda m, i: m.r(m.e(tokens(i)))), {"e": nn.Embedding(40, 4), "r": L(4, 5, bias=False)}),
    "a residual stream of tokens": (
        chosen(lambda m, i: m.r(F.rms_norm(m.e(tokens(i)) + m.b(m.a(m.e(tokens(i))).relu()), (4,)))),
        {"e": nn.Embedding(40, 4), "a": L(4, 6, bias=False), "b": L(6, 4, bias=False), "r": L(4, 5, bias=False)},
    ),
    "the nearest code": (
        chosen(lambda m, i: -((m.a(i).square().sum(1, keepdim=True) + m.w.square().sum(1)) - 2 * m.a(i) @ m.w.t())),
        {"a": L(4, 2)},
    ),
    "less the largest": (chosen(lambda m, i: m.r(i) - m.r(i).amax(1, keepdim=True)), {"r": L(4, 5)}),
    "a temperature": (chosen(lambda m, i: m.r(i) / 0.7 * m.t), {"r": L(4, 5), "t": p(1)}),
    "a convolution with a bias": (chosen(lambda m, i: m.c(i[:, :, None])[:, :, 0]), {"c": nn.Conv1d(4, 5, 1)}),
    "an einsum of tokens": (chosen(lambda m, i: torch.einsum("bti,oi->bto", m.e(tokens(i)), m.v)),
                            {"e": nn.Embedding(40, 4), "v": p(5, 4)}),
}  # fmt: skip


def network(forward, parts):
    return Net(forward, **parts, w=nn.Parameter(torch.randn(5, 2, generator=torch.Generator().manual_seed(3))))


@pytest.mark.parametrize("name", MAY_BE_EQUAL)
def test_scores_that_may_be_equal_keep_their_order(name):
    spec = PermutationSpec.from_module(network(*MAY_BE_EQUAL[name]), x(9, 4))
    assert "w" not in spec.sizes
    assert 5 not in spec.sizes.values()


def test_the_reason_is_named():
    spec = PermutationSpec.from_module(network(*MAY_BE_EQUAL["dead units"]), x(9, 4))
    assert spec.frozen["r.weight", 0] == "aten.argmax of entries that may be equal"


@pytest.mark.parametrize("name", DIFFER)
def test_scores_that_differ_almost_surely_may_move(name):
    model = network(*DIFFER[name])
    spec = PermutationSpec.from_module(model, x(9, 4))
    assert 5 in spec.sizes.values()
    rows = torch.cat([torch.zeros(3, 4), -x(30, 4).abs() * 3, x(30, 4, seed=1) * 9]).double()
    model.double()
    for seed in range(3):
        moved = Permutation.random(spec, torch.Generator().manual_seed(seed)).apply(model)
        torch.testing.assert_close(moved(rows), model(rows))
