"""Aggregations: laws that hold, laws that must fail, and every kind of bad input."""

import copy
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from commutant import InputError
from commutant.algebra import KSmallest, Max, Product, Sum, reduction_plan
from commutant.laws import BatchIndependence, Equivariance, GraphPermutation, Invariance, SetPermutation, Sets, check
from commutant.sets import (
    BinaryGRU,
    Conjugated,
    CouplingFlow,
    GRUFoldAggregation,
    LCMAggregation,
    MonoidAggregation,
    associativity_defect,
    associativity_loss,
    associativity_triples,
    aux_loss,
    binary_gru,
)
from commutant.sets._binary_gru import _FusedBinaryGRU

AGGREGATIONS = {
    "lcm": lambda: LCMAggregation(6, 6),
    "lcm-bare": lambda: LCMAggregation(6, 6, project=False),
    "fold": lambda: GRUFoldAggregation(6, 6),
    "sum": lambda: MonoidAggregation(Sum()),
    "mixed": lambda: MonoidAggregation(Product(BinaryGRU(6), Sum(), Max())),
    "smallest": lambda: MonoidAggregation(KSmallest(2)),
    "exact": lambda: MonoidAggregation(Conjugated.of_sum(6)),
}
each = pytest.mark.parametrize("make", AGGREGATIONS.values(), ids=AGGREGATIONS.keys())


def ragged(sizes, seed=0):
    index = torch.repeat_interleave(torch.tensor(sizes))
    return torch.randn(index.numel(), 6, generator=torch.Generator().manual_seed(seed)), index


@each
@given(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=8), seed=st.integers(0, 1000))
def test_any_batch_composition_gives_the_same(make, sizes, seed):
    module = make().double().eval()
    x, index = ragged(sizes, seed)
    x = x.double()
    together = module(x, index, dim_size=len(sizes))
    assert together.shape[0] == len(sizes)
    for s in range(len(sizes)):
        alone = module(x[index == s], torch.zeros(sizes[s], dtype=torch.int64), dim_size=1)[0]
        assert torch.allclose(together[s], alone, atol=1e-10, equal_nan=True)
    mixed = torch.randperm(len(index), generator=torch.Generator().manual_seed(seed))
    order = index[mixed].argsort(stable=True)
    sorted_again = module(x[mixed][order], index[mixed][order], dim_size=len(sizes))
    assert torch.allclose(module(x[mixed], index[mixed], dim_size=len(sizes)), sorted_again, atol=1e-10)
    ptr = torch.nn.functional.pad(torch.tensor(sizes).cumsum(0), (1, 0))
    assert torch.allclose(module(x, ptr=ptr), together, atol=1e-10)


@each
def test_training_mode_is_batch_independent_in_its_gradients_too(make):
    x, index = ragged([3, 1, 4])
    module = make().train()
    out = module(x.requires_grad_(), index, dim_size=4)
    assert out.shape[0] == 4
    (gradient,) = torch.autograd.grad(out[1].sum(), x)
    assert not gradient[index != 1].any()
    assert gradient[index == 1].any()


def test_gru_aggregation_of_pyg_breaks_batch_independence_and_ours_does_not():
    aggr = pytest.importorskip("torch_geometric.nn.aggr")
    draw = Sets(*ragged([1, 5, 3, 2]))
    for theirs in (aggr.GRUAggregation(6, 6), aggr.LSTMAggregation(6, 6), aggr.LCMAggregation(6, 6)):
        report = check(BatchIndependence(), theirs.eval(), draw)
        assert report.status == "broken"
        assert int(report.witness.x.index.max()) <= 1  # two sets suffice
    for ours in (LCMAggregation(6, 6), GRUFoldAggregation(6, 6)):
        assert check(BatchIndependence(), ours.eval(), draw).passed


def test_commutativity_needs_the_symmetrization():
    cell = nn.GRUCell(6, 6)
    a, b = torch.randn(2, 5, 6)
    assert not torch.allclose(cell(a, b), cell(b, a))
    op = BinaryGRU(6)
    assert torch.equal(op(a, b), op(b, a))


def test_swapping_the_children_of_any_node_changes_nothing():
    op, x = BinaryGRU(6), torch.randn(8, 6)
    out = op.reduce(x)
    for swap in (
        [1, 0, 2, 3, 4, 5, 6, 7],
        [2, 3, 0, 1, 4, 5, 6, 7],
        [4, 5, 6, 7, 0, 1, 2, 3],
        [7, 6, 5, 4, 3, 2, 1, 0],
    ):
        assert torch.equal(op.reduce(x[swap]), out)
    assert not torch.allclose(op.reduce(x[[2, 1, 0, 3, 4, 5, 6, 7]]), out, atol=1e-4)


def test_one_and_two_elements():
    op, x = BinaryGRU(6), torch.randn(2, 6)
    assert torch.equal(op.reduce(x[:1]), x[0])
    assert torch.equal(op.reduce(x), op(x[0], x[1]))
    fold = GRUFoldAggregation(6, 6)
    assert not torch.allclose(fold(x[:1], torch.zeros(1, dtype=torch.int64))[0], x[0])


def test_random_initialization_is_not_associative_and_has_no_zero():
    op = BinaryGRU(8)
    a, b, c = torch.randn(3, 1000, 8)
    assert float(associativity_defect(op, a, b, c).mean().detach()) > 0.3
    assert float((op(a, torch.zeros_like(a)) - a).norm(dim=1).mean().detach()) > 0.5


def test_fused_equals_plain_forward_backward_and_second_order():
    op = BinaryGRU(5).double()
    a, b = torch.randn(2, 3000, 5, dtype=torch.float64)
    weights = (op.weight_ih, op.weight_hh, op.bias_ih, op.bias_hh)
    inputs = [a.requires_grad_(), b.requires_grad_(), *weights]
    fused, plain = _FusedBinaryGRU.apply(*inputs), binary_gru(*inputs)
    assert torch.allclose(fused, plain, atol=1e-14)
    probe = torch.randn_like(plain)
    for s, t in zip(torch.autograd.grad(fused, inputs, probe), torch.autograd.grad(plain, inputs, probe), strict=True):
        assert torch.allclose(s, t, atol=1e-9)
    few = [a[:2].detach().requires_grad_(), b[:2].detach().requires_grad_(), *weights]
    assert torch.autograd.gradcheck(_FusedBinaryGRU.apply, few)
    assert torch.autograd.gradgradcheck(_FusedBinaryGRU.apply, few)


def test_plain_equals_two_gru_cells():
    cell = nn.GRUCell(6, 6)
    op = BinaryGRU(6)
    op.load_state_dict({**cell.state_dict(), "empty": torch.zeros(6)})
    a, b = torch.randn(2, 9, 6)
    assert torch.allclose(op(a, b), (cell(a, b) + cell(b, a)) / 2, atol=1e-6)


def test_function_transforms_and_autocast():
    op = BinaryGRU(4)
    a, b = torch.randn(2, 3, 4)
    jacobian = torch.func.jacrev(lambda t: op(t, b).sum(0))(a)
    assert jacobian.shape == (4, 3, 4)
    assert torch.allclose(torch.func.vmap(op)(a, b), op(a, b), atol=1e-6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.allclose(op(a, b).float(), op(a, b).float())
    half = copy.deepcopy(op).bfloat16()
    assert half(a.bfloat16(), b.bfloat16()).dtype == torch.bfloat16


def test_associativity_triples_follow_the_rule_of_the_paper():
    plan = reduction_plan(num_elements=4, ptr=torch.tensor([0, 4]))
    a, b, c, known = associativity_triples(plan)
    assert list(zip(a.tolist(), b.tolist(), c.tolist(), strict=True)) == [(0, 1, 2), (1, 2, 3)]
    assert known.tolist() == [-1, 5]
    plan = reduction_plan(num_elements=3, ptr=torch.tensor([0, 3]))
    assert [t.tolist() for t in associativity_triples(plan)[:3]] == [[0], [1], [2]]
    for n in (1, 2):
        plan = reduction_plan(num_elements=n, ptr=torch.tensor([0, n]))
        assert associativity_triples(plan)[0].numel() == 0


def test_associativity_loss_against_the_formula():
    op = BinaryGRU(6)
    x = torch.randn(11, 6)
    plan = reduction_plan(num_elements=11, ptr=torch.tensor([0, 7, 8, 11]))
    _, nodes = op.segment_reduce_nodes(x, plan)
    a, b, c, _ = associativity_triples(plan)
    gap = op(op(nodes[a], nodes[b]), nodes[c]) - op(nodes[a], op(nodes[b], nodes[c]))
    assert torch.allclose(associativity_loss(op, nodes, plan), gap.square().sum(1).mean(), atol=1e-6)


def test_associativity_loss_vanishes_for_exact_monoids():
    x = torch.randn(16, 6).double()
    plan = reduction_plan(num_elements=16, ptr=torch.tensor([0, 9, 16]))
    for monoid in (Sum(), Max(), Conjugated.of_sum(6).double()):
        _, nodes = monoid.segment_reduce_nodes(x, plan)
        assert float(associativity_loss(monoid, nodes, plan).detach()) < 1e-20


def test_associativity_loss_trains_the_defect_down():
    module = LCMAggregation(6, 6, project=False, associativity_weight=1.0)
    probe = torch.randn(3, 200, 6)
    before = float(associativity_defect(module.monoid, *probe).mean().detach())
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    for step in range(60):
        x, index = ragged([5, 9, 4], seed=step)
        module(x, index)
        optimizer.zero_grad()
        aux_loss(module).backward()
        optimizer.step()
    assert float(associativity_defect(module.monoid, *probe).mean().detach()) < before / 2
    module.eval()
    module(*ragged([5]))
    assert float(aux_loss(module)) == 0.0


def test_training_shuffles_and_evaluation_does_not():
    x, index = ragged([9, 9])
    module = LCMAggregation(6, 6, generator=torch.Generator().manual_seed(3))
    assert not torch.allclose(module(x, index), module(x, index))
    again = LCMAggregation(6, 6, generator=torch.Generator().manual_seed(3))
    again.load_state_dict(module.state_dict())
    first = again(x, index)
    again.generator.manual_seed(3)
    assert torch.equal(again(x, index), first)
    module.eval()
    assert torch.equal(module(x, index), module(x, index))


def test_exact_operators_ignore_order_and_bracketing():
    module = MonoidAggregation(Conjugated.of_sum(6)).double().eval()
    x, index = ragged([7, 5])
    sets = Sets(x.double(), index)
    assert check(Invariance(SetPermutation()), module, sets).passed
    assert check(Invariance(SetPermutation()), LCMAggregation(6, 6).double().eval(), sets).status == "broken"


def test_flow_inverts():
    flow = CouplingFlow(7, layers=6).double()
    x = 3 * torch.randn(50, 7, dtype=torch.float64)
    assert torch.allclose(flow.inverse(flow(x)), x, atol=1e-10)
    empty = Conjugated(Max(), CouplingFlow(6)).segment_reduce(torch.randn(2, 6), ptr=torch.tensor([0, 2, 2]))[1]
    assert torch.equal(empty, torch.full((6,), -torch.inf))


def test_empty_sets_and_batches():
    module = LCMAggregation(6, 6).eval()
    assert module(torch.empty(0, 6), torch.empty(0, dtype=torch.int64), dim_size=3).shape == (3, 6)
    out = module(*ragged([2, 0, 3]), dim_size=4)
    assert torch.equal(out[1], module.monoid.empty)
    assert torch.equal(out[3], module.monoid.empty)
    fold = GRUFoldAggregation(6, 6).eval()
    assert torch.equal(fold(torch.empty(0, 6), torch.empty(0, dtype=torch.int64), dim_size=2), fold.start.expand(2, -1))


def test_leading_axes_and_dim():
    module = LCMAggregation(6, 4).eval()
    x, index = ragged([4, 3])
    stacked = torch.stack([x, 2 * x])
    out = module(stacked, index)
    assert out.shape == (2, 2, 4)
    assert torch.allclose(out[1], module(2 * x, index), atol=1e-6)
    assert torch.allclose(module(stacked.movedim(0, 1), index, dim=0).movedim(1, 0), out, atol=1e-6)


def test_inside_message_passing():
    geometric = pytest.importorskip("torch_geometric.nn")
    conv = geometric.SAGEConv(6, 5, aggr=MonoidAggregation(Conjugated.of_sum(6))).double().eval()
    edges = torch.randint(0, 8, (2, 30))
    assert conv(torch.randn(8, 6).double(), edges).shape == (8, 5)
    report = check(Equivariance(GraphPermutation()), conv, (torch.randn(8, 6).double(), edges))
    assert report.passed, str(report)
    lcm = geometric.SAGEConv(6, 5, aggr=LCMAggregation(6, 6)).eval()
    assert lcm(torch.randn(8, 6), edges).shape == (8, 5)


def test_nan_stays_in_its_set():
    x, index = ragged([3, 4, 2])
    x[4] = float("nan")
    for make in AGGREGATIONS.values():
        out = make().eval()(x, index)
        assert out.isnan().any(-1).tolist() == [False, True, False]


def test_copies_and_pickles_after_a_training_step():
    module = LCMAggregation(6, 6, associativity_weight=1.0, generator=torch.Generator().manual_seed(1))
    x, index = ragged([5, 4])
    module(x, index)
    module.generator = None
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert float(aux_loss(twin)) == 0
        assert torch.equal(twin.eval()(x, index), module.eval()(x, index))
        module.train()


def test_reset_parameters_and_state_dict():
    module = LCMAggregation(6, 6)
    saved = {k: v.clone() for k, v in module.state_dict().items()}
    module.reset_parameters()
    assert not torch.equal(module.monoid.weight_ih, saved["monoid.weight_ih"])
    module.load_state_dict(saved)
    assert torch.equal(module.monoid.weight_ih, saved["monoid.weight_ih"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: LCMAggregation(6, 6)(torch.ones(3, 5), torch.zeros(3).long()), "6 channels"),
        (lambda: LCMAggregation(6, 6, project=False)(torch.ones(3, 5), torch.zeros(3).long()), "6 channels"),
        (lambda: LCMAggregation(6, 6)(torch.ones(3, 6), torch.zeros(2).long()), "2 entries for 3"),
        (lambda: LCMAggregation(6, 6)(torch.ones(3, 6), torch.tensor([0, 1, -2])), "from -2"),
        (lambda: LCMAggregation(6, 6)(torch.ones(3, 6), torch.tensor([0, 1, 9]), dim_size=4), "0..3|dim_size"),
        (lambda: LCMAggregation(6, 6)(torch.ones(3, 6).long(), torch.zeros(3).long()), "floating point"),
        (lambda: LCMAggregation(6, 6)(torch.ones(3), torch.zeros(3).long()), "element axis"),
        (lambda: LCMAggregation(6, 6)(torch.ones(3, 6), torch.zeros(6).long(), dim=1), "channel axis"),
        (lambda: LCMAggregation(6, 6)(torch.ones(3, 6), torch.zeros(3)), "1-d integer"),
        (lambda: LCMAggregation(6, 4, project=False), "must equal"),
        (lambda: LCMAggregation(6, 4, associativity_weight=-1.0), "finite and non-negative"),
        (lambda: MonoidAggregation(BinaryGRU(4))(torch.ones(3, 6), torch.arange(3)), "takes 4 features"),
        (lambda: GRUFoldAggregation(6, 6)(torch.ones(3, 5), torch.zeros(3).long()), "elements, 6"),
        (lambda: BinaryGRU(0), "at least 1"),
        (lambda: BinaryGRU(4)(torch.ones(3, 5), torch.ones(3, 5)), "4 features"),
        (lambda: CouplingFlow(1), "at least 2"),
        (lambda: Conjugated(Sum(), nn.Linear(3, 3)), "inverse"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises((InputError, ValueError, TypeError), match=f"{message}|Type-check"):
        call()
