"""Permutations, assignments, doubly stochastic matrices, soft sorts and shortest paths."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from commutant import InputError
from commutant import algebra as a

seeds = st.integers(0, 2**31 - 1)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def draw(seed, *shape):
    return torch.rand(*shape, generator=generator(seed)).argsort(-1)


def everything(n):
    return torch.tensor(list(itertools.permutations(range(n)))).view(-1, n)


@given(seeds, st.integers(0, 9))
def test_group_laws(seed, n):
    p, q, r = draw(seed, 3, 4, n)
    identity = torch.arange(n).expand(4, n)
    x = torch.randn(4, n, generator=generator(seed))
    assert torch.equal(x.gather(-1, p).gather(-1, q), x.gather(-1, a.compose(p, q)))
    assert torch.equal(a.compose(a.compose(p, q), r), a.compose(p, a.compose(q, r)))
    assert torch.equal(a.compose(p, a.inverse(p)), identity)
    assert torch.equal(a.compose(a.inverse(p), p), identity)
    assert torch.equal(a.compose(a.power(p, 3), a.power(p, -5)), a.power(p, -2))
    assert torch.equal(a.parity(a.compose(p, q)), (a.parity(p) + a.parity(q)) % 2)
    order = math.lcm(*a.cycle_lengths(p[0]).tolist(), 1)
    assert torch.equal(a.power(p[0], order), identity[0])
    assert a.is_permutation(p)


@given(seeds, st.integers(1, 8))
def test_the_matrix_of_a_composition_is_the_product_the_other_way_round(seed, n):
    p, q = draw(seed, 2, n)
    x = torch.randn(n, generator=generator(seed))
    matrix = a.permutation_matrix
    assert torch.equal(matrix(p) @ x, x[p])
    assert torch.equal(matrix(q) @ matrix(p), matrix(a.compose(p, q)))
    assert torch.equal(matrix(p) @ matrix(p).T, torch.eye(n))


def test_the_other_order_of_the_product_is_another_permutation():
    p, q = torch.tensor([1, 2, 0]), torch.tensor([1, 0, 2])
    assert not torch.equal(a.permutation_matrix(p) @ a.permutation_matrix(q), a.permutation_matrix(a.compose(p, q)))


def test_cycles_of_a_known_permutation():
    p = torch.tensor([1, 2, 0, 4, 3, 5])
    assert a.cycle_lengths(p).tolist() == [3, 3, 3, 2, 2, 1]
    assert (int(a.cycle_count(p)), int(a.parity(p))) == (3, 1)
    assert int(a.parity(torch.arange(0))) == 0
    assert not a.is_permutation(torch.tensor([0, 0, 2]))


KINDS = ["kendall", "cayley", "hamming", "footrule", "spearman", "ulam", "chebyshev"]


@pytest.mark.parametrize("kind", KINDS)
def test_distances_are_metrics_and_right_invariant(kind):
    every = everything(4)
    n = len(every)
    left, right = every.repeat_interleave(n, 0), every.repeat(n, 1)
    d = a.permutation_distance(left, right, kind).view(n, n).double()
    assert torch.equal(d, d.T)
    assert torch.equal(d == 0, torch.eye(n, dtype=torch.bool))
    length = d.sqrt() if kind == "spearman" else d
    assert bool((length[:, None, :] <= length[:, :, None] + length[None] + 1e-9).all())
    t = torch.tensor([2, 0, 3, 1]).expand_as(left)
    assert torch.equal(a.permutation_distance(a.compose(left, t), a.compose(right, t), kind).view(n, n).double(), d)


def test_only_cayley_and_hamming_are_left_invariant():
    p, q = draw(0, 2, 500, 6)
    t = torch.tensor([3, 0, 5, 1, 4, 2]).expand_as(p)
    moved = {k: a.permutation_distance(a.compose(t, p), a.compose(t, q), k) for k in KINDS}
    same = {k for k in KINDS if torch.equal(moved[k], a.permutation_distance(p, q, k))}
    assert same == {"cayley", "hamming"}


def test_spearman_itself_is_no_metric():
    p, q, r = torch.tensor([0, 1, 2]), torch.tensor([0, 2, 1]), torch.tensor([2, 1, 0])
    every = everything(3)
    d = a.permutation_distance(every.repeat_interleave(6, 0), every.repeat(6, 1), "spearman").view(6, 6)
    assert bool((d[:, None, :] > d[:, :, None] + d[None]).any())
    assert int(a.permutation_distance(p, q, "spearman")) == 2
    assert int(a.permutation_distance(p, r, "footrule")) == 4


@given(seeds, st.integers(1, 12))
def test_diaconis_and_graham(seed, n):
    p, q = draw(seed, 2, 20, n)
    kendall, cayley, footrule = (a.permutation_distance(p, q, k) for k in ("kendall", "cayley", "footrule"))
    assert bool((kendall + cayley <= footrule).all())
    assert bool((footrule <= 2 * kendall).all())
    assert bool((a.permutation_distance(p, q, "hamming") != 1).all())
    assert int(footrule.max()) <= n * n // 2
    assert bool((a.permutation_distance(p, q, "ulam") <= kendall).all())


def test_distances_refuse_what_is_no_permutation(unchecked):
    with pytest.raises(InputError, match="permutations of the same shape"):
        a.permutation_distance(torch.tensor([0, 0]), torch.tensor([0, 1]))
    with pytest.raises(InputError, match="permutations of the same shape"):
        a.permutation_distance(torch.arange(2)[None], torch.arange(3)[None])


@given(seeds, st.integers(1, 5), st.booleans())
def test_assignment_is_the_best_of_all(seed, n, maximize):
    cost = torch.randn(3, n, n, generator=generator(seed), dtype=torch.float64)
    found = a.linear_assignment(cost, maximize=maximize)
    totals = cost[:, torch.arange(n), everything(n)].sum(-1)
    best = totals.amax(-1) if maximize else totals.amin(-1)
    torch.testing.assert_close(cost.gather(-1, found[..., None])[..., 0].sum(-1), best)


@given(seeds, st.integers(1, 8))
def test_assignment_follows_its_costs(seed, n):
    g = generator(seed)
    cost = torch.randn(n, n, generator=g, dtype=torch.float64)
    found = a.linear_assignment(cost)
    rows, columns = torch.randn(2, n, generator=g, dtype=torch.float64)
    assert torch.equal(a.linear_assignment(cost + rows[:, None] + columns), found)
    assert torch.equal(a.linear_assignment(3 * cost), found)
    p, q = draw(seed, 2, n)
    assert torch.equal(a.linear_assignment(cost[p][:, q]), a.inverse(q)[found[p]])


@given(seeds, st.integers(1, 9))
def test_duals_prove_the_optimum(seed, n):
    cost = torch.randn(n, n, generator=generator(seed), dtype=torch.float64)
    if seed % 2:
        cost = (cost * 2).round()  # ties
    found = a.linear_assignment(cost)
    u, v = a.assignment_duals(cost, found)
    slack = cost - u[:, None] - v
    assert float(slack.min()) >= -1e-12
    assert float(slack.gather(1, found[:, None]).abs().max()) <= 1e-12


def test_duals_refuse_a_worse_assignment():
    cost = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    with pytest.raises(InputError, match="not optimal"):
        a.assignment_duals(cost, torch.tensor([1, 0]))


def test_assignment_of_odd_shapes():
    tall = torch.tensor([[3.0], [1.0], [2.0]])
    assert a.linear_assignment(tall).tolist() == [-1, 0, -1]
    assert a.linear_assignment(tall.T).tolist() == [1]
    assert a.linear_assignment(torch.zeros(2, 0, 0)).shape == (2, 0)
    forbidden = torch.tensor([[torch.inf, 1.0], [1.0, 0.0]])
    assert a.linear_assignment(forbidden).tolist() == [1, 0]


def test_assignment_says_what_is_wrong():
    with pytest.raises(InputError, match="cost matrix of batch entry 1 holds NaN"):
        a.linear_assignment(torch.tensor([[[1.0]], [[torch.nan]]]))
    with pytest.raises(InputError, match="cost matrix has no assignment"):
        a.linear_assignment(torch.full((2, 2), torch.inf))


@given(seeds, st.integers(2, 5))
def test_frank_wolfe_reaches_the_optimum_of_a_convex_quadratic_assignment(seed, n):
    """Check convex functions, which have their maximum at a permutation, so that rounding loses nothing."""
    g = generator(seed)
    x = torch.randn(n, 7, generator=g, dtype=torch.float64)
    p = draw(seed, n)
    gram, other = x @ x.T, (x @ x.T)[p][:, p]

    def value(m):
        return (gram * (m @ other @ m.T)).sum() + (x * (m @ x[p])).sum()

    (found,), (soft,) = a.birkhoff_ascent(value, [torch.full((n, n), 1 / n)])
    torch.testing.assert_close(soft.sum(0), torch.ones(n, dtype=torch.float64))
    assert torch.equal(found, a.inverse(p))


@given(seeds, st.integers(1, 5))
def test_birkhoff_and_von_neumann(seed, n):
    scores = torch.randn(n, n, generator=generator(seed), dtype=torch.float64)
    matrix = a.sinkhorn(scores, tolerance=1e-12)
    weights, permutations = a.birkhoff_decomposition(matrix)
    assert len(weights) <= (n - 1) ** 2 + 1
    assert bool((weights >= 0).all())
    assert float(weights.sum()) == pytest.approx(1)
    made = (weights[:, None, None] * a.permutation_matrix(permutations, torch.float64)).sum(0)
    torch.testing.assert_close(made, matrix, atol=1e-9, rtol=0)


def test_birkhoff_refuses_other_matrices():
    with pytest.raises(InputError, match="not doubly stochastic"):
        a.birkhoff_decomposition(torch.ones(2, 2))


@given(seeds, st.integers(1, 7), st.sampled_from([1.0, 0.3, 0.1]))
def test_sinkhorn_laws(seed, n, temperature):
    g = generator(seed)
    scores = torch.randn(2, n, n, generator=g, dtype=torch.float64)
    s = a.sinkhorn(scores, temperature, tolerance=1e-10, max_sweeps=100_000)
    one = torch.ones(2, n, dtype=torch.float64)
    torch.testing.assert_close(s.sum(-1), one, atol=1e-9, rtol=0)
    torch.testing.assert_close(s.sum(-2), one, atol=1e-12, rtol=0)
    rows, columns = torch.randn(2, 2, n, generator=g, dtype=torch.float64)
    shifted = a.sinkhorn(scores + rows[:, :, None] + columns[:, None], temperature, tolerance=1e-10, max_sweeps=100_000)
    torch.testing.assert_close(shifted, s, atol=1e-7, rtol=0)
    p = draw(seed, n)
    torch.testing.assert_close(a.sinkhorn(scores[:, p], temperature, tolerance=1e-10, max_sweeps=100_000), s[:, p],
                               atol=1e-7, rtol=0)  # fmt: skip
    best = scores.gather(-1, a.linear_assignment(scores, maximize=True)[..., None])[..., 0].sum(-1)
    gap = best - (scores * s).sum((-1, -2))
    assert bool((gap >= -1e-8).all())
    assert bool((gap <= temperature * n * math.log(n) + 1e-8).all())


def unrolled(scores, temperature, sweeps=3000):
    found = scores / temperature
    for _ in range(sweeps):
        found = found - found.logsumexp(-1, keepdim=True)
        found = found - found.logsumexp(-2, keepdim=True)
    return found.exp()


@given(seeds, st.integers(1, 5))
def test_the_implicit_gradient_is_the_unrolled_one(seed, n):
    g = generator(seed)
    scores = torch.randn(n, n, generator=g, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(n, n, generator=g, dtype=torch.float64)
    (found,) = torch.autograd.grad((a.sinkhorn(scores, 0.5, tolerance=1e-13) * weight).sum(), scores)
    (expected,) = torch.autograd.grad((unrolled(scores, 0.5) * weight).sum(), scores)
    torch.testing.assert_close(found, expected, atol=1e-7, rtol=1e-6)
    assert float(found.sum(0).abs().max()) < 1e-8
    assert float(found.sum(1).abs().max()) < 1e-8


def test_sinkhorn_says_where_it_did_not_end():
    scores = torch.randn(8, 8, generator=generator(0))
    with pytest.warns(UserWarning, match="after 5 sweeps the row sums still deviate"):
        a.sinkhorn(scores, 0.01, max_sweeps=5)
    with pytest.raises(InputError, match="temperature must be a positive number, got 0"):
        a.sinkhorn(scores, 0.0)
    with pytest.raises(InputError, match="scores hold NaN"):
        a.sinkhorn(scores * torch.nan)
    assert a.sinkhorn(scores.bfloat16(), 1.0).dtype == torch.bfloat16


def test_the_largest_entries_of_sinkhorn_need_not_be_a_permutation():
    found = a.sinkhorn(torch.randn(50, 5, 5, generator=generator(0)), 1.0)
    taken = [a.is_permutation(rows) for rows in found.argmax(-1)]
    assert not all(taken)
    assert any(taken)
    assert a.is_permutation(a.linear_assignment(found, maximize=True))


@pytest.mark.parametrize("sort", [a.soft_sort_matrix, a.neural_sort_matrix])
@given(seeds, st.integers(1, 8), st.sampled_from([2.0, 0.5]))
def test_soft_permutation_matrices(sort, seed, n, temperature):
    scores = torch.randn(3, n, generator=generator(seed), dtype=torch.float64)
    found = sort(scores, temperature)
    torch.testing.assert_close(found.sum(-1), torch.ones(3, n, dtype=torch.float64))
    assert torch.equal(found.argmax(-1), scores.argsort(-1, descending=True))
    p = draw(seed, n)
    torch.testing.assert_close(sort(scores[:, p], temperature), found[..., p])
    torch.testing.assert_close(sort(scores + 3, temperature), found)
    torch.testing.assert_close(sort(2 * scores, 2 * temperature), found)
    if n > 2:
        assert not torch.allclose(found.sum(-2), torch.ones(3, n, dtype=torch.float64), atol=1e-3)


@given(seeds, st.integers(1, 8), st.sampled_from([0.1, 1.0, 10.0]))
def test_soft_ranks_lie_in_the_permutahedron(seed, n, strength):
    scores = torch.randn(2, n, generator=generator(seed), dtype=torch.float64)
    ranks = a.soft_rank(scores, strength)
    corner = torch.arange(n, 0, -1, dtype=torch.float64)
    sums = ranks.sort(-1, descending=True).values.cumsum(-1)
    assert bool((sums <= corner.cumsum(-1) + 1e-9).all())
    torch.testing.assert_close(sums[:, -1], corner.sum().expand(2))


def test_soft_ranks_and_sorts_of_known_numbers():
    x = torch.tensor([8.0, 0, 5, 3, 2, 1, 6, 7, 9])
    assert a.soft_rank(x, 1.0).tolist() == [8, 1, 5, 4, 3, 2, 6, 7, 9]
    torch.testing.assert_close(a.soft_sort(x, 1.0), torch.arange(9) + 5 / 9)
    assert a.soft_rank(torch.zeros(0)).shape == (0,)


@given(seeds, st.integers(1, 6))
def test_soft_ranks_and_sorts_have_the_derivative_of_their_values(seed, n):
    scores = torch.randn(n, generator=generator(seed), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: a.soft_rank(s, 2.0), scores)
    assert torch.autograd.gradcheck(lambda s: a.soft_sort(s, 2.0), scores)


def brute(d, closed):
    every = everything(len(d))
    lengths = d[every[:, :-1], every[:, 1:]].sum(-1) + (d[every[:, -1], every[:, 0]] if closed else 0)
    return float(lengths.min())


@given(seeds, st.integers(1, 7), st.booleans())
def test_exact_paths_are_the_shortest(seed, n, closed):
    places = torch.rand(n, 2, generator=generator(seed), dtype=torch.float64)
    d = torch.cdist(places, places)
    order = a.shortest_hamiltonian_path(d, closed=closed)
    assert a.is_permutation(order)
    assert float(a.path_length(d, order, closed=closed)) == pytest.approx(brute(d, closed))
    near = a.shortest_hamiltonian_path(d, closed=closed, exact=False)
    assert a.is_permutation(near)
    assert float(a.path_length(d, near, closed=closed)) <= 1.25 * brute(d, closed) + 1e-12


def test_long_paths_are_near_the_optimum():
    """Check random points: good paths are a few percent above 0.7124 sqrt(n A), greedy ones 14 to 20 percent."""
    totals = []
    for seed in range(3):
        places = torch.rand(200, 2, generator=generator(seed), dtype=torch.float64)
        d = torch.cdist(places, places)
        order = a.shortest_hamiltonian_path(d, closed=True)
        assert a.is_permutation(order)
        totals.append(float(a.path_length(d, order, closed=True)))
    assert sum(totals) / 3 < 1.07 * 0.7124 * math.sqrt(200) * (1 + 0.33 / 200) + 0.5


def test_paths_say_what_is_wrong():
    with pytest.raises(InputError, match="finite and symmetric"):
        a.shortest_hamiltonian_path(torch.tensor([[0.0, 1.0], [2.0, 0.0]]))
    assert a.shortest_hamiltonian_path(torch.zeros(1, 1)).tolist() == [0]


def test_soft_ranks_are_exact_at_any_small_strength():
    x = torch.tensor([1000.0, 3000, 2000, 4000])
    for strength in (1e-2, 1e-5, 1e-9):
        assert a.soft_rank(x, strength).tolist() == [1, 3, 2, 4]
        assert a.soft_sort(x / 1000, strength).tolist() == [1, 2, 3, 4]
    assert a.soft_rank(torch.tensor([1.0, 3, 2, 4]).bfloat16(), 1e-2).tolist() == [1, 3, 2, 4]
    with pytest.raises(InputError, match="NaN or infinities"):
        a.soft_rank(torch.tensor([1.0, torch.inf]))


def test_the_gradient_of_sinkhorn_where_the_matrix_falls_apart():
    g = generator(4)
    x = torch.randn(6, 6, generator=g, dtype=torch.float64) * 2
    x[:3, 3:] = x[3:, :3] = -40
    w = torch.randn(6, 6, generator=g, dtype=torch.float64)
    found = []
    for tolerance in (1e-6, 1e-13):
        leaf = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad((a.sinkhorn(leaf, tolerance=tolerance, max_sweeps=50_000) * w).sum(), leaf)
        found.append(gradient)
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-4)


def test_more_that_is_refused(unchecked):
    with pytest.raises(InputError, match="real square matrices"):
        a.sinkhorn(torch.tensor([[2, 0], [0, 1]]))
    with pytest.raises(InputError, match="real square matrices"):
        a.sinkhorn(torch.randn(2, 3))
    with pytest.raises(InputError, match="minus infinity throughout"):
        a.sinkhorn(torch.tensor([[-torch.inf, -torch.inf], [0.0, 1.0]]))
    small = 1e-10 * torch.tensor([[4.0, 1.0], [2.0, 3.0]])
    with pytest.raises(InputError, match="not optimal"):
        a.assignment_duals(small, torch.tensor([0, 1]))
    with pytest.raises(InputError, match="each of 0 to n - 1 once"):
        a.assignment_duals(small, torch.tensor([0, 0]))
    with pytest.raises(InputError, match="finite square"):
        a.assignment_duals(small * torch.nan, torch.tensor([0, 1]))
    with pytest.raises(InputError, match="finite square matrix"):
        a.birkhoff_decomposition(torch.tensor([[torch.nan, 0.5], [0.5, 0.5]]))
    with pytest.raises(InputError, match="square matrix, finite and symmetric"):
        a.shortest_hamiltonian_path(torch.zeros(2, 3))
    assert a.is_permutation(a.shortest_hamiltonian_path(torch.full((6, 6), -2.0), closed=True, exact=False))
