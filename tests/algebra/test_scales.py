"""Checks and certificates at every scale, precision and range of numbers."""

import pytest
import torch

import commutant.algebra as a
from commutant import InputError


def double(rows):
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("large", [1e3, 1e10, 1e17, 1e100, 1e300])
@pytest.mark.parametrize("small", [1.0, 1e-9])
def test_a_large_cost_elsewhere_does_not_hide_a_worse_assignment(large, small):
    cost = double([[0, small, large], [small, 0, large], [large, large, 0]])
    with pytest.raises(InputError, match="not optimal"):
        a.assignment_duals(cost, torch.tensor([1, 0, 2]))
    with pytest.raises(InputError, match="not optimal"):
        a.assignment_duals(cost.float() if large < 1e30 else cost, torch.tensor([1, 0, 2]))
    u, v = a.assignment_duals(cost, torch.tensor([0, 1, 2]))
    assert bool((u[:, None] + v <= cost).all())
    # a large assigned cost, which enters every potential
    cost = double([[0, small, 2 * large], [small, 0, 2 * large], [0, 0, large]])
    with pytest.raises(InputError, match="not optimal"):
        a.assignment_duals(cost, torch.tensor([1, 0, 2]))
    cost = double([[0, small, 2 * large], [small, 0, 2 * large], [large, large, large]])
    with pytest.raises(InputError, match="not optimal"):
        a.assignment_duals(cost, torch.tensor([1, 0, 2]))
    u, v = a.assignment_duals(cost, torch.tensor([0, 1, 2]))
    assert bool((u[:, None] + v <= cost * (1 + 1e-14)).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_duals_prove_what_the_solver_finds(scale, dtype):
    generator = torch.Generator().manual_seed(0)
    for n in (1, 2, 30, 120):
        for spread in (0.0, 8.0):  # range of the costs in decades
            exponent = spread * torch.rand(n, n, generator=generator, dtype=torch.float64)
            cost = (scale * torch.randn(n, n, generator=generator, dtype=torch.float64) * 10**exponent).to(dtype)
            found = a.linear_assignment(cost)
            u, v = a.assignment_duals(cost, found)
            slack = cost.double() - u[:, None] - v
            size = cost.double().abs() + u.abs()[:, None] + v.abs()
            assert bool((slack >= -1e-13 * size).all())
            assert bool((slack.gather(1, found[:, None]).abs() <= 1e-13 * size.gather(1, found[:, None])).all())
            if n > 2:
                worse = found[torch.cat([torch.tensor([1, 0]), torch.arange(2, n)])]
                with pytest.raises(InputError, match="not optimal"):
                    a.assignment_duals(cost, worse)


def test_ties_up_to_rounding_are_optimal():
    cost = double([[0.1, 0.3], [0.0, 0.2]])
    for columns in ([0, 1], [1, 0]):
        a.assignment_duals(cost, torch.tensor(columns))
    for columns in ([0, 1], [1, 0]):
        a.assignment_duals(torch.full((2, 2), 0.1), torch.tensor(columns))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("d", [2, 300])
def test_paths_of_distances_as_torch_computes_them(d, dtype):
    x = torch.randn(60, d, generator=torch.Generator().manual_seed(0)).to(dtype)
    x = torch.cat([x, x[:20] + 1e-4])  # close points have the largest rounding error
    distance = torch.cdist(x, x)
    order = a.shortest_hamiltonian_path(distance)
    exact = torch.cdist(x.double(), x.double(), compute_mode="donot_use_mm_for_euclid_dist")
    assert float(a.path_length(exact, order)) <= 1.01 * float(a.path_length(exact, a.shortest_hamiltonian_path(exact)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_asymmetric_distances_are_refused_in_every_precision(dtype):
    d = torch.tensor([[0.0, 1.0, 2.0], [1.0, 0.0, 4.0], [2.0, 2.0, 0.0]], dtype=dtype)
    with pytest.raises(InputError, match="symmetric"):
        a.shortest_hamiltonian_path(d)


@pytest.mark.parametrize("scale", [1e-15, 1.0, 1e15, 1e200])
def test_paths_do_not_depend_on_the_unit_of_length(scale):
    x = torch.rand(40, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    d = torch.cdist(x, x)
    d = (d + d.mT) / 2
    lengths = [float(a.path_length(d, a.shortest_hamiltonian_path(s * d))) for s in (1.0, scale)]
    assert lengths[0] == pytest.approx(lengths[1], rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("n", [1, 6, 20])
def test_what_sinkhorn_makes_can_be_decomposed(n, dtype):
    matrix = a.sinkhorn(torch.randn(n, n, generator=torch.Generator().manual_seed(n)).to(dtype))
    weights, permutations = a.birkhoff_decomposition(matrix)
    made = (weights[:, None, None] * a.permutation_matrix(permutations, torch.float64)).sum(0)
    assert float((made - matrix.double()).abs().max()) < n * max(1e-6, 2 * torch.finfo(dtype).eps)
    assert bool(a.is_permutation(permutations))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: a.birkhoff_decomposition(double([[0.6, 0.4], [0.4, 0.5]])), "sums deviate from one by 0.1, where"),
        (lambda: a.birkhoff_decomposition(double([[1.1, -0.1], [-0.1, 1.1]])), "smallest entry is -0.1"),
        (lambda: a.birkhoff_decomposition(torch.eye(2) * (1 + 1e-4)), "not doubly stochastic"),
        (lambda: a.birkhoff_decomposition(torch.eye(2).long()), "floating point"),
        (lambda: a.birkhoff_decomposition(torch.eye(2), tolerance=-1.0), r"tolerance must lie in \[0, 1\]"),
        (lambda: a.birkhoff_decomposition([[1.0]]), "got list"),
        (lambda: a.linear_assignment([[1.0]]), "cost must be a real tensor .*, got list"),
        (lambda: a.linear_assignment(torch.ones(3)), r"\(3,\)"),
        (lambda: a.linear_assignment(torch.ones(2, 2, dtype=torch.complex64)), "complex64"),
        (lambda: a.assignment_duals(torch.ones(3), torch.arange(3)), "finite square"),
        (lambda: a.assignment_duals([[1.0]], torch.arange(1)), "must be a real matrix"),
        (lambda: a.shortest_hamiltonian_path([[0.0]]), "got list"),
        (lambda: a.shortest_hamiltonian_path(torch.zeros(25, 25), exact=True), "25 points needs too much memory"),
        (lambda: a.soft_rank(torch.tensor([3, 1])), "scores must be floating point .*int64"),
        (lambda: a.soft_sort(torch.tensor(1.0)), r"\(\.\.\., n\), got torch.float32 of shape \(\)"),
        (lambda: a.neural_sort_matrix([1.0]), "got list"),
        (lambda: a.soft_sort_matrix(torch.randn(3), 0.0), "temperature must be a positive number"),
        (lambda: a.sinkhorn([[1.0]]), "got list"),
    ],
)
def test_wrong_arguments_are_named(unchecked, call, message):
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int16, torch.int32])
@pytest.mark.parametrize("kind", ["kendall", "cayley", "hamming", "footrule", "spearman", "ulam", "chebyshev"])
def test_distances_of_small_integers(unchecked, kind, dtype):
    generator = torch.Generator().manual_seed(0)
    p, q = torch.randperm(120, generator=generator), torch.randperm(120, generator=generator)
    expected = a.permutation_distance(p, q, kind)
    assert int(a.permutation_distance(p.to(dtype), q.to(dtype), kind)) == int(expected) > 0


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int16, torch.int32])
def test_permutations_of_small_integers(unchecked, dtype):
    generator = torch.Generator().manual_seed(0)
    p, q = torch.randperm(50, generator=generator), torch.randperm(50, generator=generator)
    small, other = p.to(dtype), q.to(dtype)
    for few, all_ in (
        (a.compose(small, other), a.compose(p, q)),
        (a.inverse(small), a.inverse(p)),
        (a.power(small, -3), a.power(p, -3)),
        (a.permutation_matrix(small), a.permutation_matrix(p)),
        (a.cycle_lengths(small), a.cycle_lengths(p)),
        (a.cycle_count(small), a.cycle_count(p)),
        (a.parity(small), a.parity(p)),
    ):
        assert torch.equal(few.double(), all_.double())


def test_the_inverse_of_no_permutation_is_no_memory_that_lay_there():
    assert a.inverse(torch.tensor([0, 0, 2])).tolist()[1:] == [-1, 2]


@pytest.mark.parametrize("strength", [1e-18, 1e-100, 1e-310, 1e-6, 0.5, 1e6, 1e18])
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_soft_ranks_at_every_strength(strength, offset):
    scores = double([3.0, 1.0, 2.0, 2.0, 7.0]) + offset
    found = a.soft_rank(scores, strength)
    assert float(found.sum()) == pytest.approx(15)
    if strength < 0.4:
        assert found.tolist() == pytest.approx([4, 1, 2.5, 2.5, 5], abs=1e-9)
    if strength > 1e5:
        assert found.tolist() == pytest.approx([3 + (x - 3) / strength for x in (3, 1, 2, 2, 7)], abs=1e-9)
    leaf = scores.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((a.soft_rank(leaf, strength) * torch.arange(5)).sum(), leaf)
    assert bool(gradient.isfinite().all()) or strength < 1e-300  # a derivative of 1 / strength overflows


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("sort", [a.neural_sort_matrix, a.soft_sort_matrix])
def test_soft_permutation_matrices_of_many_scores(sort, dtype):
    scores = torch.randn(1500, generator=torch.Generator().manual_seed(0)).to(dtype)
    for temperature in (1.0, 0.01):
        exact = sort(scores.double(), temperature)
        found = sort(scores, temperature)
        assert found.dtype == dtype
        torch.testing.assert_close(found, exact.to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-6)


def test_second_derivatives_of_sinkhorn_also_where_all_scores_are_equal():
    for scores in (torch.zeros(3, 3, dtype=torch.float64), torch.randn(3, 3, dtype=torch.float64)):
        leaf = scores.requires_grad_()
        assert torch.autograd.gradgradcheck(lambda s: a.sinkhorn(s, 0.7, tolerance=1e-13).square(), leaf)


@pytest.mark.parametrize("temperature", [1e-37, 1e-20, 1e-3, 1.0, 1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logsumexp_at_every_temperature(temperature, dtype):
    x = torch.tensor([1.0, 3.0, 3.0, -2.0, 1e10], dtype=dtype)
    for values in (x[:4], x, x * 1e20):
        leaf = values.clone().requires_grad_()
        value = a.LogSumExp(temperature).reduce(leaf)
        (gradient,) = torch.autograd.grad(value, leaf)
        shifted = (values.double() - values.double().max()) / temperature
        exact = values.double().max() + temperature * shifted.logsumexp(0)
        torch.testing.assert_close(value.detach().double(), exact, rtol=4 * torch.finfo(dtype).eps, atol=0)
        torch.testing.assert_close(gradient.double(), shifted.softmax(0), rtol=1e-4, atol=1e-5)


def test_logsumexp_of_infinities_and_second_derivatives_at_ties():
    x = torch.tensor([torch.inf, 1.0, torch.inf], requires_grad=True)
    value = a.LogSumExp().reduce(x)
    assert float(value.detach()) == torch.inf
    assert bool(torch.autograd.grad(value, x)[0].isfinite().all())
    assert bool(a.LogSumExp().reduce(torch.tensor([torch.nan, 1.0])).isnan())
    at = double([0.5, 0.5, 0.5, 0.2]).requires_grad_()
    assert torch.autograd.gradcheck(a.LogSumExp(0.3).reduce, at)
    assert torch.autograd.gradgradcheck(a.LogSumExp(0.3).reduce, at)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: a.sinkhorn(torch.randn(3, 3), 1e-40), "overflow torch.float32"),
        (lambda: a.LogSumExp(1e-42), "temperature must be at least 1.2e-38 and finite, got 1e-42; use Max"),
        (lambda: a.sinkhorn(torch.randn(3, 3), max_sweeps=0), "max_sweeps must be"),
        (lambda: a.sinkhorn(torch.randn(3, 3), tolerance=-1.0), "tolerance must be a positive number"),
        (lambda: a.compose(torch.arange(3), torch.arange(2)), "of the same shape"),
        (lambda: a.power(torch.arange(3), 1.5), "exponent must be an integer"),
        (lambda: a.cycle_lengths(torch.tensor([0, 0, 1])), "p must be a permutation"),
        (lambda: a.parity(torch.tensor([5, 0])), "p must be a permutation"),
        (lambda: a.Sum().scan(torch.ones(3), ptr=[0, 3], reverse=True), "ptr must be a 1-d integer tensor"),
        (lambda: a.Sum().reduce(torch.ones(3), dim="0"), "dim=0 is not an axis"),
        (lambda: a.Sum().segment_reduce(torch.ones(3), plan=3), "plan must come from reduction_plan"),
        (
            lambda: a.Sum().segment_reduce_nodes(
                torch.ones(4), a.reduction_plan(num_elements=3, ptr=torch.tensor([0, 3]))
            ),
            "the plan is for 3 elements, x has 4",
        ),
        (
            lambda: a.reduction_plan(num_elements=3, ptr=torch.tensor([0, 3]), order=torch.tensor([0, 0, 1])),
            "each of the 3 elements once",
        ),
        (
            lambda: a.reduction_plan(num_elements=3, ptr=torch.tensor([0, 3]), generator=3),
            "generator must be a torch.Generator",
        ),
    ],
)
def test_arguments_out_of_range_are_named(unchecked, call, message):
    with pytest.raises(InputError, match=message):
        call()
