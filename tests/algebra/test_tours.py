"""Tours: exact search against brute force, local search, and the lower bound."""

from __future__ import annotations

import itertools

import pytest
import torch

from commutant import InputError
from commutant.algebra import improve_tour, path_length, shortest_hamiltonian_path, tour_lower_bound


def distances(batch, n, seed=0):
    x = torch.rand(batch, n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.cdist(x, x)


def brute_force(d, closed):
    orders = [torch.tensor([0, *p] if closed else p) for p in itertools.permutations(range(int(closed), len(d)))]
    return min(float(path_length(d, order, closed=closed)) for order in orders)


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("n", [3, 4, 7])
def test_a_batch_of_exact_paths_is_brute_force(n, closed):
    d = distances(5, n)
    found = shortest_hamiltonian_path(d, closed=closed)
    assert torch.equal(found.sort(-1).values, torch.arange(n).expand(5, n))
    lengths = path_length(d, found, closed=closed)
    assert lengths.tolist() == pytest.approx([brute_force(one, closed) for one in d])
    for one, order in zip(d, found, strict=True):
        assert torch.equal(shortest_hamiltonian_path(one, closed=closed), order)


def test_batches_of_any_shape():
    d = distances(6, 5).reshape(2, 3, 5, 5)
    found = shortest_hamiltonian_path(d, closed=True)
    assert found.shape == (2, 3, 5)
    assert path_length(d, found, closed=True).shape == (2, 3)
    assert shortest_hamiltonian_path(d[:0], closed=True).shape == (0, 3, 5)
    assert shortest_hamiltonian_path(torch.zeros(4, 2, 2)).tolist() == [[0, 1]] * 4


@pytest.mark.parametrize("n", [1, 2, 3, 5, 9])
def test_the_bound_is_below_the_optimum_and_close(n):
    d = distances(20, n)
    best = path_length(d, shortest_hamiltonian_path(d, closed=True), closed=True)
    bound = tour_lower_bound(d)
    assert bool((bound <= best + 1e-9).all())
    assert float((best - bound).mean()) <= 0.01 * float(best.mean())


def test_the_bound_holds_without_the_triangle_inequality():
    d = torch.rand(30, 7, 7, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    d = d + d.mT
    best = path_length(d, shortest_hamiltonian_path(d, closed=True), closed=True)
    assert bool((tour_lower_bound(d, 300) <= best + 1e-9).all())


def test_improved_tours_are_never_longer_and_near_the_optimum():
    d = distances(20, 10)
    start = torch.stack([torch.randperm(10, generator=torch.Generator().manual_seed(i)) for i in range(20)])
    better = improve_tour(d, start)
    assert torch.equal(better.sort(-1).values, torch.arange(10).expand(20, 10))
    before, after = path_length(d, start, closed=True), path_length(d, better, closed=True)
    best = path_length(d, shortest_hamiltonian_path(d, closed=True), closed=True)
    assert bool((after <= before).all())
    assert float(after.mean()) < 1.05 * float(best.mean()) < float(before.mean())
    assert torch.allclose(path_length(d, improve_tour(d, better), closed=True), after)


@pytest.mark.parametrize("scale", [1e-300, 1e308])
def test_large_and_small_distances(scale):
    d = distances(3, 6)
    far = d / d.amax((1, 2), keepdim=True) * scale
    start = torch.arange(6).expand(3, -1)
    for found, expected in (
        (shortest_hamiltonian_path(far, closed=True), shortest_hamiltonian_path(d, closed=True)),
        (improve_tour(far, start), improve_tour(d, start)),
    ):
        assert torch.allclose(path_length(d, found, closed=True), path_length(d, expected, closed=True))
    ratio = tour_lower_bound(far / 8) / tour_lower_bound(d)
    assert torch.allclose(ratio, scale / 8 / d.amax((1, 2)), rtol=1e-6)
    same = torch.full((5, 5), 1e308, dtype=torch.float64).fill_diagonal_(0)
    assert sorted(shortest_hamiltonian_path(same, closed=True, exact=False).tolist()) == list(range(5))


def test_the_bound_ignores_the_diagonal_and_takes_the_shorter_direction():
    for n in (2, 3, 5):
        d = distances(4, n)
        assert torch.equal(tour_lower_bound(d + 5 * torch.eye(n)), tour_lower_bound(d))
    d = torch.ones(4, 4, dtype=torch.float32).fill_diagonal_(0)
    for i in range(4):
        d[i, (i + 1) % 4], d[(i + 1) % 4, i] = 0, 2.7e-3
    order = torch.arange(4)
    assert float(tour_lower_bound(d)) <= float(path_length(d, order, closed=True))


def test_no_points():
    nothing = torch.zeros(0, 0)
    assert improve_tour(nothing, torch.zeros(0, dtype=torch.int64)).shape == (0,)
    assert tour_lower_bound(nothing).item() == 0


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: improve_tour(distances(1, 4), torch.tensor([[0, 1, 2, 2]])), "visit each point once"),
        (lambda: improve_tour(distances(1, 4), torch.tensor([[0, 1, 2]])), r"shape \(1, 4\)"),
        (lambda: improve_tour(distances(1, 4), torch.zeros(1, 4)), "tour must hold integers"),
        (lambda: tour_lower_bound(distances(1, 4), 0), "steps must be a whole number"),
        (lambda: tour_lower_bound(torch.rand(4, 4)), "symmetrize it"),
        (lambda: shortest_hamiltonian_path(torch.zeros(4)), "square matrix"),
    ],
)
def test_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
