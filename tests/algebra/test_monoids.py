"""Reductions against a slow reference, a left fold over each set."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import warm
from commutant import InputError
from commutant.algebra import (
    Adjoin,
    DiagonalAffine,
    KSmallest,
    LogSumExp,
    MatrixAffine,
    Max,
    Min,
    Monoid,
    Product,
    SegmentTree,
    Sum,
    reduction_plan,
)


class Counting(Monoid):
    """Sum that counts the number and depth of its applications."""

    def __init__(self):
        super().__init__()
        self.calls, self.pairs = 0, 0

    def op(self, a, b):
        self.calls += 1
        self.pairs += a.shape[0] if a.dim() > 1 else 1
        return a + b

    def identity(self, like):
        return torch.zeros_like(like)


MONOIDS = {
    "sum": (Sum(), lambda n: torch.randn(n, 3, dtype=torch.float64)),
    "max": (Max(), lambda n: torch.randint(0, 4, (n, 3)).double()),
    "min": (Min(), lambda n: torch.randint(0, 4, (n, 3)).double()),
    "logsumexp": (LogSumExp(0.5), lambda n: torch.randn(n, 3, dtype=torch.float64)),
    "smallest": (KSmallest(2), lambda n: torch.randn(n, 3, 2, dtype=torch.float64).sort(-1).values),
    "product": (Product(Sum(), Max()), lambda n: (torch.randn(n, 3).double(), torch.randn(n, 3).double())),
    "diagonal": (DiagonalAffine(), lambda n: (torch.randn(n, 3).double(), torch.randn(n, 3).double())),
    "block": (MatrixAffine(), lambda n: (torch.randn(n, 4, 2, 2).double() / 2, torch.randn(n, 4, 2).double())),
    "dense": (MatrixAffine(), lambda n: (torch.randn(n, 3, 3).double() / 2, torch.randn(n, 3).double())),
    "adjoined": (Adjoin(Sum()), lambda n: (torch.randn(n, 3).double(), torch.rand(n) > 0.3)),
    "tree of sums": (Counting(), lambda n: torch.randn(n, 3).double()),
}
each = pytest.mark.parametrize(("monoid", "draw"), MONOIDS.values(), ids=MONOIDS.keys())


def tensors(x):
    return [x] if isinstance(x, torch.Tensor) else [t for part in x for t in tensors(part)]


def at(x, i):
    return x[i] if isinstance(x, torch.Tensor) else tuple(at(part, i) for part in x)


def fold(monoid, x, order):
    first, *rest = order
    out = at(x, first)
    for i in rest:
        out = monoid.op(out, at(x, i))
    return out


def assert_same(a, b, tolerance=1e-12):
    for s, t in zip(tensors(a), tensors(b), strict=True):
        assert s.shape == t.shape
        assert torch.allclose(s.double(), t.double(), atol=tolerance, rtol=tolerance), (s, t)


@each
@given(n=st.integers(1, 40))
def test_reduce_equals_the_fold(monoid, draw, n):
    x = draw(n)
    if isinstance(monoid, Adjoin):  # absent elements have no value to compare
        x = (torch.where(x[1][:, None], x[0], 0.0), x[1])
    if isinstance(monoid, Counting):
        monoid.calls = monoid.pairs = 0
        monoid.reduce(x)
        assert monoid.pairs == n - 1
        assert monoid.calls == math.ceil(math.log2(n))
    assert_same(monoid.reduce(x), fold(monoid, x, range(n)))


@each
@given(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=9), seed=st.integers(0, 10**6))
def test_segment_reduce_equals_the_fold_of_each_set(monoid, draw, sizes, seed):
    index = torch.repeat_interleave(torch.tensor(sizes))
    index = index[torch.randperm(index.numel(), generator=torch.Generator().manual_seed(seed))]
    x = draw(index.numel())
    if isinstance(monoid, Adjoin):
        x = (torch.where(x[1][:, None], x[0], 0.0), x[1])
    out = monoid.segment_reduce(x, index=index, num_sets=len(sizes))
    for s in range(len(sizes)):
        members = (index == s).nonzero().flatten().tolist()
        if members:
            assert_same(at(out, s), fold(monoid, x, members))
        else:
            assert_same(at(out, s), monoid.identity(at(out, s)))
    order = index.argsort(stable=True)
    ptr = torch.nn.functional.pad(torch.tensor(sizes).cumsum(0), (1, 0))
    assert_same(monoid.segment_reduce(at(x, order), ptr=ptr), out)


@each
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("exclusive", [False, True])
@given(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=6))
def test_scan_equals_all_folds(monoid, draw, reverse, exclusive, sizes):
    n = sum(sizes)
    x = draw(n)
    if isinstance(monoid, Adjoin):
        x = (torch.where(x[1][:, None], x[0], 0.0), x[1])
    ptr = torch.nn.functional.pad(torch.tensor(sizes).cumsum(0), (1, 0))
    for bounds in (torch.tensor([0, n]), ptr):
        out = monoid.scan(x, exclusive=exclusive, reverse=reverse, ptr=None if len(bounds) == 2 else bounds)
        for start, stop in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            for i in range(start, stop):
                members = range(i + exclusive, stop) if reverse else range(start, i + 1 - exclusive)
                expected = fold(monoid, x, members) if len(members) else monoid.identity(at(out, i))
                assert_same(at(out, i), expected)


@pytest.mark.parametrize("bracketing", ["balanced", "fold", "random"])
@given(sizes=st.lists(st.integers(0, 12), min_size=1, max_size=8), seed=st.integers(0, 10**6))
def test_every_bracketing_takes_each_element_once(bracketing, sizes, seed):
    ptr = torch.nn.functional.pad(torch.tensor(sizes).cumsum(0), (1, 0))
    n = int(ptr[-1])
    x = torch.randn(n, 2, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    counting = Counting()
    plan = reduction_plan(num_elements=n, ptr=ptr, bracketing=bracketing, generator=generator)
    out = counting.segment_reduce(x, plan=plan)
    assert_same(out, Sum().segment_reduce(x, ptr=ptr))
    assert counting.pairs == sum(max(0, size - 1) for size in sizes)
    if bracketing == "balanced":
        assert len(plan.levels) == math.ceil(math.log2(max(1, *sizes, 1)))
    if bracketing == "fold":
        assert len(plan.levels) == max(0, max(sizes) - 1)


def test_order_is_kept_where_it_matters():
    monoid, draw = MONOIDS["dense"]
    x = draw(7)
    assert not torch.allclose(monoid.reduce(x)[0], monoid.reduce(at(x, torch.arange(6, -1, -1)))[0])


@each
def test_reduce_along_any_axis(monoid, draw):
    x = draw(24)
    grid = tuple(t.reshape(2, 3, 4, *t.shape[1:]) for t in tensors(x))
    grid = grid if not isinstance(x, torch.Tensor) else grid[0]
    for dim in range(3):
        moved = tuple(t.movedim(dim, 0) for t in tensors(grid))
        moved = moved if not isinstance(x, torch.Tensor) else moved[0]
        assert_same(monoid.reduce(grid, dim=dim), monoid.reduce(moved))


@each
def test_gradients_of_ragged_and_dense_agree(monoid, draw):
    x = draw(8)
    leaves = [t.clone().requires_grad_() for t in tensors(x) if t.is_floating_point()]

    def build():
        fresh = iter(leaves)
        parts = [next(fresh) if t.is_floating_point() else t for t in tensors(x)]
        return parts[0] if isinstance(x, torch.Tensor) else tuple(parts)

    def gradient(out):
        values = [t for t in tensors(out) if t.is_floating_point()]
        total = sum((torch.sin(torch.arange(v.numel()).double()).reshape(v.shape) * v).sum() for v in values)
        return torch.autograd.grad(total, leaves)

    dense = gradient(monoid.reduce(build()))
    ragged = gradient(at(monoid.segment_reduce(build(), index=torch.zeros(8, dtype=torch.int64)), 0))
    scanned = gradient(at(monoid.scan(build()), -1))
    for a, b, c in zip(dense, ragged, scanned, strict=True):
        assert torch.allclose(a.sum(0), b.sum(0))  # for equal values, tree and scatter divide a gradient differently
        assert torch.allclose(a.sum(0), c.sum(0))


def test_the_gradient_of_a_maximum_is_shared_among_ties():
    x = torch.tensor([[1.0], [1.0], [0.0], [3.0]], requires_grad=True)
    out = Max().segment_reduce(x, ptr=torch.tensor([0, 3, 4]))
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert gradient.flatten().tolist() == [0.5, 0.5, 0.0, 1.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_dtypes_are_kept_and_half_is_summed_in_float32(dtype):
    x = torch.full((4096, 1), 0.01, dtype=dtype)
    for out in (Sum().reduce(x), Sum().segment_reduce(x, ptr=torch.tensor([0, 4096]))[0]):
        assert out.dtype == dtype
        assert float(out) == pytest.approx(float(x[0, 0]) * 4096, rel=1e-2)
    assert Sum().scan(x).dtype == dtype


def test_masked_elements_change_nothing_to_the_last_bit():
    monoid = Counting()
    x = torch.randn(5, 9, 3)
    mask = torch.rand(5, 9) > 0.4
    mask[2] = False
    out = monoid.reduce(x, dim=1, mask=mask)
    for row in range(5):
        kept = x[row][mask[row]]
        assert torch.equal(out[row], monoid.reduce(kept) if len(kept) else torch.zeros(3))
    poisoned = x.masked_fill(~mask[..., None], float("nan"))
    assert torch.equal(monoid.reduce(poisoned, dim=1, mask=mask), out)


def test_adjoined_identity_is_exact():
    monoid = Adjoin(LogSumExp())
    x = (torch.randn(6, 3), torch.ones(6, dtype=torch.bool))
    empty = (torch.full((6, 3), float("nan")), torch.zeros(6, dtype=torch.bool))
    for out in (monoid.op(x, empty), monoid.op(empty, x)):
        assert torch.equal(out[0], x[0])
        assert bool(out[1].all())
    assert not bool(monoid.op(empty, empty)[1].any())


def test_second_minimum_needs_no_training():
    monoid = KSmallest(2)
    x = torch.randint(0, 50, (40, 1)).float()
    assert float(monoid.lower(monoid.reduce(monoid.lift(x)))[1]) == float(x.flatten().sort().values[1])


def test_incremental_law_of_exact_monoids():
    a, b = torch.randn(7, 3).double(), torch.randn(5, 3).double()
    for monoid in (Sum(), Max(), Min(), LogSumExp()):
        assert_same(monoid.reduce(torch.cat([a, b])), monoid.op(monoid.reduce(a), monoid.reduce(b)))


def test_nan_poisons_its_own_set_only():
    x = torch.randn(9, 2)
    x[4] = float("nan")
    index = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3, 3])
    for monoid in (Sum(), Max(), Min(), LogSumExp(), Counting()):
        bad = monoid.segment_reduce(x, index=index).isnan().any(1)
        assert bad.tolist() == [False, False, True, False]


def test_ten_million_elements_in_linear_memory():
    n = 10_000_000
    x = torch.ones(n, 1)
    ptr = torch.tensor([0, 5, 5, n])
    assert Counting().segment_reduce(x, ptr=ptr).flatten().tolist() == [5.0, 0.0, n - 5.0]


def test_empty_batches():
    assert Sum().segment_reduce(torch.empty(0, 3), index=torch.empty(0, dtype=torch.int64)).shape == (0, 3)
    assert torch.equal(Sum().segment_reduce(torch.empty(0, 3), ptr=torch.tensor([0, 0, 0])), torch.zeros(2, 3))
    assert torch.equal(Max().reduce(torch.empty(0, 3)), torch.full((3,), -torch.inf))
    assert Sum().scan(torch.empty(0, 3)).shape == (0, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Sum().segment_reduce(torch.ones(3, 1)), "either index"),
        (lambda: Sum().segment_reduce(torch.ones(3, 1), torch.zeros(3).long(), torch.tensor([0, 3])), "either index"),
        (lambda: Sum().segment_reduce(torch.ones(3, 1), torch.zeros(2).long()), "2 entries for 3 elements"),
        (lambda: Sum().segment_reduce(torch.ones(3, 1), torch.tensor([0, -1, 2])), "from -1 to 2"),
        (lambda: Sum().segment_reduce(torch.ones(3, 1), torch.tensor([0, 1, 5]), num_sets=3), "0..2"),
        (lambda: Sum().segment_reduce(torch.ones(3, 1), ptr=torch.tensor([0, 2])), "rise from 0 to"),
        (lambda: Sum().segment_reduce(torch.ones(3, 1), ptr=torch.tensor([0, 3]), num_sets=4), "4 sets are requested"),
        (lambda: Sum().segment_reduce(torch.ones(3, 1).long(), ptr=torch.tensor([0, 3])), "floating point"),
        (lambda: Sum().reduce(torch.ones(3), dim=1), "dim=1"),
        (lambda: Sum().reduce(torch.ones(3, 2), mask=torch.ones(2, dtype=torch.bool)), "mask must be boolean"),
        (lambda: Sum().scan(torch.ones(3, 2), dim=1, ptr=torch.tensor([0, 3])), "leading axis"),
        (lambda: DiagonalAffine().scan((torch.ones(3), torch.ones(4))), "share the axes"),
        (lambda: MatrixAffine().op((torch.ones(2, 2), torch.ones(3)), (torch.ones(2, 2), torch.ones(3))), "same width"),
        (lambda: KSmallest(0), "at least 1"),
        (lambda: KSmallest(2).op(torch.ones(3), torch.ones(3)), "2 sorted values"),
        (lambda: LogSumExp(0.0), "at least 1.2e-38"),
        (lambda: Product(), "at least one"),
        (lambda: reduction_plan(num_elements=1, ptr=torch.tensor([0, 1]), bracketing="sideways"), "sideways"),
        (lambda: SegmentTree(Sum(), torch.empty(0, 2)), "at least one element"),
        (lambda: SegmentTree(Sum(), torch.ones(4)).query(1, 5), "stop <= 4"),
        (lambda: SegmentTree(Sum(), torch.ones(4)).update(torch.tensor([4]), torch.ones(1)), "0..3"),
        (lambda: SegmentTree(Sum(), torch.ones(4)).update(torch.tensor([1, 1]), torch.ones(2)), "distinct"),
    ],
)
def test_bad_input_is_named(call, message):
    # in tests, shape annotations refuse some of these first
    with pytest.raises((InputError, TypeError), match=f"{message}|type|Type"):
        call()


def test_a_plan_of_other_elements_is_refused():
    plan = reduction_plan(num_elements=3, ptr=torch.tensor([0, 3]))
    with pytest.raises(InputError, match="plan is for 3"):
        Sum().segment_reduce(torch.ones(4, 1), plan=plan)


@each
@given(n=st.integers(1, 20), seed=st.integers(0, 10**6))
def test_segment_tree(monoid, draw, n, seed):
    x = draw(n)
    if isinstance(monoid, Adjoin):
        x = (torch.where(x[1][:, None], x[0], 0.0), x[1])
    tree = SegmentTree(monoid, x)
    for s, t in zip(tensors(tree.root), tensors(monoid.reduce(x)), strict=True):
        assert torch.equal(s, t)
    generator = torch.Generator().manual_seed(seed)
    edits = torch.randperm(n, generator=generator)[: max(1, n // 3)]
    new = at(draw(n), edits)
    if isinstance(monoid, Adjoin):
        new = (torch.where(new[1][:, None], new[0], 0.0), new[1])
    tree.update(edits, new)
    changed = [t.index_copy(0, edits, s) for t, s in zip(tensors(x), tensors(new), strict=True)]
    x = changed[0] if isinstance(x, torch.Tensor) else tuple(changed)
    for s, t in zip(tensors(tree.root), tensors(monoid.reduce(x)), strict=True):
        assert torch.equal(s, t)
    start, stop = sorted(torch.randint(0, n + 1, (2,), generator=generator).tolist())
    expected = fold(monoid, x, range(start, stop)) if stop > start else monoid.identity(at(x, 0))
    assert_same(tree.query(start, stop), expected)


def test_segment_tree_edits_in_logarithmic_time():
    counting = Counting()
    tree = SegmentTree(counting, torch.ones(1000, 1))
    counting.pairs = 0
    tree.update(torch.tensor([17]), torch.ones(1, 1))
    assert counting.pairs <= 10
    counting.calls = 0
    tree.query(3, 997)
    assert counting.calls <= 20


@pytest.mark.parametrize(
    ("whole", "by_sets"),
    [
        ("(lambda x: gru.reduce(x),)", "(lambda x, plan: Sum().segment_reduce(x, plan=plan),)"),
        pytest.param(
            "(lambda x: Sum().reduce(x), lambda x: Max().scan(x), lambda x: LogSumExp().reduce(x, dim=1), "
            "lambda x: DiagonalAffine().scan((x, x))[1])",
            "(lambda x, plan: Max().segment_reduce(x, plan=plan), lambda x, plan: LogSumExp().segment_reduce(x, "
            "plan=plan), lambda x, plan: gru.segment_reduce(x, plan=plan))",
            marks=pytest.mark.deep,
        ),
    ],
    ids=["some", "the others"],
)
def test_compiles_without_graph_breaks(whole, by_sets):
    """Run in a separate process, since the compiler can't trace run-time shape checks."""
    code = f"""
import torch
from commutant.algebra import *
from commutant.sets import BinaryGRU
x = torch.randn(37, 4)
long = torch.randn(370, 4)
gru = BinaryGRU(4)
for f in {whole}:
    fast = torch.compile(f, fullgraph=True, backend="aot_eager")
    assert torch.allclose(fast(x), f(x), atol=1e-5), f
# each plan meets the compiler before anything else: nothing may be left to work out
for f in {by_sets}:
    plan = reduction_plan(num_elements=370, ptr=torch.tensor([0, 5, 5, 20, 370]))
    fast = torch.compile(f, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(fast(long, plan), f(long, plan), rtol=1e-4, atol=1e-5)
"""
    done = warm.python(code)
    assert done.returncode == 0, done.stderr[-2000:]
