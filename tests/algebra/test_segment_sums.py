"""Accuracy of segment sums, and masks and dtypes of every monoid."""

import itertools

import pytest
import torch

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
    ScalarKalman,
    SegmentTree,
    Sum,
    pca_frame,
    reduction_plan,
)
from commutant.sets import BinaryGRU, Conjugated, MonoidAggregation


class Multiply(Monoid):
    def op(self, a, b):
        return a * b

    def identity(self, like):
        return torch.ones_like(like)


def test_a_sum_of_very_many_ones():
    n = 2 * 10**7
    assert float(Sum().segment_reduce(torch.ones(n), ptr=torch.tensor([0, n]))) == n


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex64])
def test_segment_sums_are_as_accurate_as_a_tree(dtype, shuffled):
    generator = torch.Generator().manual_seed(0)
    sizes = torch.tensor([300_000, 0, 1, 31, 32, 33, 1025, 0, 70_000])
    index = torch.repeat_interleave(sizes)
    if shuffled:
        index = index[torch.randperm(len(index), generator=generator)]
    x = (torch.rand(len(index), 2, generator=generator) / 8).to(dtype)
    exact = torch.zeros(len(sizes), 2, dtype=torch.complex128).index_add(0, index, x.to(torch.complex128))
    exact = exact if dtype.is_complex else exact.real
    found = Sum().segment_reduce(x, index=index, num_sets=len(sizes))
    assert found.dtype == dtype
    resolution = torch.finfo(dtype).eps
    assert bool(((found - exact.to(dtype)).abs() <= 3 * resolution * exact.abs()).all())


@pytest.mark.parametrize(("dtype", "large"), [(torch.float32, 2.0**24), (torch.float64, 2.0**53)])
def test_a_large_first_element_does_not_swallow_the_rest(dtype, large):
    x = torch.cat([torch.tensor([large], dtype=dtype), torch.ones(2**20, dtype=dtype)])
    found = Sum().segment_reduce(x, ptr=torch.tensor([0, len(x)]))
    assert abs(float(found) - large - 2**20) <= 32


def test_sums_of_segments_with_gradients():
    x = torch.randn(3000, 2, dtype=torch.float64, requires_grad=True)
    index = torch.randint(0, 5, (3000,), generator=torch.Generator().manual_seed(0))
    weight = torch.randn(5, 2, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((Sum().segment_reduce(x, index=index, num_sets=5) * weight).sum(), x)
    assert torch.equal(gradient, weight[index])
    few = torch.randn(70, 1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda t: Sum().segment_reduce(t, ptr=torch.tensor([0, 69, 70])).square(), few)


@pytest.mark.parametrize("monoid", [LogSumExp(), Multiply()], ids=["logsumexp", "product"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_other_reductions_of_large_segments(monoid, dtype):
    n = 40_000
    x = torch.full((n, 1), 1.0 if isinstance(monoid, LogSumExp) else 1 + 2**-7).to(dtype)
    x = x if isinstance(monoid, LogSumExp) else torch.where(torch.arange(n)[:, None] % 400 == 0, x, 1)
    exact = x.double().logsumexp(0) if isinstance(monoid, LogSumExp) else x.double().prod(0)
    found = monoid.segment_reduce(x, ptr=torch.tensor([0, n]))[0].double()
    torch.testing.assert_close(found, exact, rtol=torch.finfo(dtype).eps * 20, atol=0)


def test_a_mean_over_very_many_frames_in_half_precision():
    cloud = torch.randn(1, 60, 3, generator=torch.Generator().manual_seed(0))
    frame = pca_frame(cloud, "SE")
    many = frame._part(torch.arange(len(frame)).repeat(4096 // len(frame)))
    many = type(many)(**{**many.__dict__, "weight": torch.full((4096,), 1 / 4096, dtype=torch.float64)})
    for dtype in (torch.bfloat16, torch.float32):
        assert float(many.pool(torch.ones(4096, 1).to(dtype))) == 1.0


def drawn(monoid, shape):
    x = torch.randn(*shape, 3, dtype=torch.float64)
    if isinstance(monoid, Product):
        return tuple(drawn(factor, shape) for factor in monoid.factors)
    if isinstance(monoid, Adjoin):
        return x, x[..., 0] > 0
    if isinstance(monoid, KSmallest):
        return monoid.lift(x)
    if isinstance(monoid, DiagonalAffine):
        return x, x.cos()
    if isinstance(monoid, MatrixAffine):
        return torch.randn(*shape, 3, 3, dtype=torch.float64), x
    if isinstance(monoid, ScalarKalman):
        return x, x, x.abs(), x, x.abs()
    return x


EVERY = [
    Sum(),
    Max(),
    Min(),
    LogSumExp(0.5),
    KSmallest(2),
    Product(Sum(), Max(), LogSumExp()),
    Adjoin(Sum()),
    DiagonalAffine(),
    MatrixAffine(),
    ScalarKalman(),
    Multiply(),
    Conjugated.of_sum(3).double(),
    BinaryGRU(3).double(),
]


def parts(element):
    return [element] if isinstance(element, torch.Tensor) else [t for part in element for t in parts(part)]


@pytest.mark.parametrize("monoid", EVERY, ids=lambda monoid: type(monoid).__name__)
@pytest.mark.parametrize("leading", [(), (2,), (2, 0), (2, 3)])
@pytest.mark.parametrize("n", [0, 1, 5])
def test_a_masked_reduction_is_that_of_what_is_left(monoid, leading, n):
    x = drawn(monoid, (*leading, n))
    mask = torch.rand(*leading, n, generator=torch.Generator().manual_seed(n)) > 0.4
    dim = len(leading)
    found = parts(monoid.reduce(x, dim=dim, mask=mask))

    def kept(element, place):
        if isinstance(element, torch.Tensor):
            return element[place][mask[place]]
        return tuple(kept(part, place) for part in element)

    for place in itertools.product(*map(range, leading)):
        expected = parts(monoid.reduce(kept(x, place)))
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a[place], b)
    for a, b in zip(found, parts(x), strict=True):
        assert a.shape == (*leading, *b.shape[dim + 1 :])


@pytest.mark.parametrize("monoid", [Max(), Min(), Sum(), LogSumExp(), KSmallest(2)], ids=lambda m: type(m).__name__)
def test_booleans_are_refused_by_every_reduction(monoid):
    x, ptr = torch.tensor([[True, False]] * 3), torch.tensor([0, 3, 3])
    for call in (
        lambda: monoid.reduce(x),
        lambda: monoid.segment_reduce(x, ptr=ptr),
        lambda: monoid.scan(x),
        lambda: monoid.reduce(x, mask=torch.ones(3, dtype=torch.bool)),
        lambda: Product(monoid, Sum()).scan((x, x.float())),
        lambda: Adjoin(monoid).reduce((x, x[:, 0])),
        lambda: SegmentTree(monoid, x),
    ):
        with pytest.raises(InputError, match=r"must be (real )?floating point, got torch\.bool"):
            call()


@pytest.mark.parametrize("monoid", [Max(), Min(), LogSumExp(), KSmallest(2)], ids=lambda m: type(m).__name__)
def test_complex_numbers_have_no_order(monoid):
    with pytest.raises(InputError, match=r"must be real floating point, got torch\.complex64"):
        monoid.reduce(torch.ones(3, 2, dtype=torch.complex64))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Sum().reduce([1.0, 2.0]), "tensor or a tuple of tensors, got float"),
        (lambda: Sum().reduce(()), "got nothing"),
        (lambda: Sum().reduce(torch.ones(3).numpy()), "got ndarray"),
        (lambda: Sum().reduce(torch.tensor(1.0)), "dim=0 is not an axis"),
        (lambda: Sum().reduce(torch.ones(3), mask=[True] * 3), "mask must be a boolean tensor, got list"),
        (lambda: Sum().reduce(torch.ones(3), mask=torch.ones(3)), "mask must be boolean"),
        (lambda: Sum().segment_reduce(torch.ones(3), index=[0, 0, 1]), "index must be a 1-d integer tensor, got list"),
        (lambda: Sum().segment_reduce(torch.ones(3), ptr=[0, 3]), "ptr must be a 1-d integer tensor, got list"),
        (lambda: Sum().segment_reduce(torch.ones(1), index=torch.tensor([-1])), "not be negative, got values from -1"),
        (lambda: Sum().segment_reduce(torch.ones(3), index=torch.arange(3), num_sets=-1), "num_sets must"),
        (lambda: Sum().segment_reduce(torch.ones(3), index=torch.arange(3), num_sets=2), "lie in 0..1 for 2 sets"),
        (lambda: Sum().segment_reduce(torch.ones(3), index=torch.arange(3), num_sets=0), "no set"),
        (lambda: Sum().segment_reduce(torch.ones(3, device="meta"), index=torch.arange(3)), "x on meta"),
        (lambda: Product(Sum, Max), "a factor must be a Monoid such as .*, got the class Sum; instantiate it"),
        (lambda: Product(Sum(), "max"), "got 'max'"),
        (lambda: Product(Sum(), Max()).reduce(torch.ones(3)), "a tuple of as many parts, got Tensor"),
        (lambda: Adjoin(torch.add), "base must be a Monoid"),
        (lambda: Adjoin(Sum()).reduce((torch.ones(3), torch.ones(3))), "a value and a boolean tensor"),
        (lambda: KSmallest(2.0), "a whole number of at least 1, got 2.0"),
        (lambda: KSmallest(-1), "at least 1"),
        (lambda: LogSumExp(float("nan")), "at least 1.2e-38 and finite"),
        (lambda: SegmentTree("sum", torch.ones(3)), "monoid must be a Monoid"),
        (lambda: SegmentTree(Sum(), torch.ones(3)).update([1], torch.ones(1)), "1-d integer tensor, got list"),
        (lambda: SegmentTree(Sum(), torch.ones(3)).update(torch.tensor([1]), torch.ones(2)), "one row for each"),
        (lambda: Conjugated("sum", torch.nn.Identity()), "base must be a Monoid"),
        (lambda: reduction_plan(num_elements=-1, ptr=torch.tensor([0])), "num_elements must"),
    ],
)
def test_wrong_arguments_are_named(unchecked, call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_a_segment_tree_of_half_precision_is_the_reduction():
    x = (torch.rand(700, 2, generator=torch.Generator().manual_seed(0)) + 1).bfloat16()
    tree = SegmentTree(Sum(), x)
    assert tree.root.dtype == torch.bfloat16
    assert torch.equal(tree.root, Sum().reduce(x))
    tree.update(torch.tensor([3]), torch.zeros(1, 2, dtype=torch.bfloat16))
    x[3] = 0
    assert torch.equal(tree.root, Sum().reduce(x))
    assert torch.equal(tree.query(0, 700), Sum().reduce(x))


def test_a_plan_inside_the_library_works_out_no_more_than_it_needs():
    from commutant.algebra import plans

    built, build = [], plans._build_tree

    def counted(plan):
        built.append(plan)
        return build(plan)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plans, "_build_tree", counted)
        x, index = torch.randn(100, 2), torch.randint(0, 4, (100,))
        Sum().segment_reduce(x, index=index)
        MonoidAggregation(Max())(x, index)
        assert not built
        LogSumExp().segment_reduce(x, index=index)
        assert len(built) == 1
