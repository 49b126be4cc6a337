"""Regression tests of corner cases of monoids and aggregations."""

import pytest
import torch

from commutant.algebra import Adjoin, DiagonalAffine, KSmallest, LogSumExp, Max, Product, SegmentTree, Sum
from commutant.sets import BinaryGRU, Conjugated, CouplingFlow, LCMAggregation, MonoidAggregation, aux_loss

INDEX = torch.tensor([0] * 5 + [1] * 3 + [3])
X = torch.randn(9, 8)


@pytest.mark.parametrize(
    "make",
    [
        lambda: LCMAggregation(8, 8, associativity_weight=1.0),
        lambda: MonoidAggregation(Product(BinaryGRU(8), Sum()), associativity_weight=1.0),
        lambda: MonoidAggregation(KSmallest(2), associativity_weight=1.0),
    ],
)
def test_the_associativity_loss_takes_every_kind_of_element(make):
    module = make()
    for x in (X, torch.randn(4, 9, 8)):
        module(x, INDEX)
        assert bool(aux_loss(module).isfinite())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        module(X, INDEX)
    assert bool(aux_loss(module).isfinite())


def test_the_loss_is_a_mean_over_layers():
    one = LCMAggregation(8, 8, associativity_weight=1.0)
    one(X, INDEX)
    both = torch.nn.ModuleList([one, one])
    assert torch.allclose(aux_loss(both), aux_loss(one))


@pytest.mark.parametrize("monoid", [Conjugated.of_sum(8), Product(BinaryGRU(8), Sum())], ids=["conjugated", "product"])
def test_half_precision_modules(monoid):
    out = MonoidAggregation(monoid).bfloat16()(X.bfloat16(), INDEX)
    assert out.dtype == torch.bfloat16


def test_an_infinite_identity_is_one():
    op = Conjugated(Max(), CouplingFlow(4)).double()
    a = torch.randn(5, 4, dtype=torch.float64)
    assert torch.allclose(op.op(a, op.identity(a)), a)


@pytest.mark.parametrize("base", [BinaryGRU(3), LogSumExp()], ids=["gru", "logsumexp"])
def test_absent_values_reach_no_gradient(base):
    value = torch.randn(2, 3, requires_grad=True)
    poison = torch.full((2, 3), float("nan"))
    here, gone = torch.ones(2, dtype=torch.bool), torch.zeros(2, dtype=torch.bool)
    Adjoin(base).op((value, here), (poison, gone))[0].sum().backward()
    assert torch.equal(value.grad, torch.ones(2, 3))


def test_logsumexp_of_nothing_has_gradient_zero():
    x = torch.tensor([-torch.inf, -torch.inf, 1.0, 2.0], requires_grad=True)
    LogSumExp().reduce(x).backward()
    assert torch.allclose(x.grad, torch.tensor([0.0, 0.0, 1.0, 2.0]).softmax(0) * 0 + x.detach().softmax(0))


def test_forward_mode_derivatives():
    x, ptr = torch.rand(6, 2), torch.tensor([0, 2, 6])
    scan = lambda t: DiagonalAffine().scan((t, t), ptr=ptr)[1]  # noqa: E731
    assert torch.allclose(torch.func.jacfwd(scan)(x), torch.func.jacrev(scan)(x), atol=1e-6)


def test_edits_by_any_integer_index():
    tree = SegmentTree(Sum(), torch.ones(4))
    tree.update(torch.tensor([1], dtype=torch.int32), torch.zeros(1))
    assert float(tree.root) == 3
