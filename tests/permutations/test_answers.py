"""Scores of polygons, triangulations and tours, checked hulls, and assignment decoding."""

from __future__ import annotations

import itertools

import pytest
import torch

from commutant import InputError
from commutant.algebra import convex_hull
from commutant.data import delaunay_examples, hull_examples, tour_examples
from commutant.permutations import (
    area_coverage,
    checked_hulls,
    decode_assignment,
    same_polygon,
    same_triangles,
    tour_length,
    triangle_coverage,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_a_polygon_is_the_same_from_any_vertex_in_any_direction():
    ring = [4, 1, 3, 0]
    same = [[*w, *([-1] * (7 - len(w)))] for w in _ways(ring)]
    truth = torch.tensor([[0, 4, 1, 3]]).expand(len(same), -1)
    assert bool(same_polygon(torch.tensor(same), truth).all())
    other = torch.tensor([[4, 3, 1, 0], [4, 1, 3, -1], [4, 1, 3, 2], [-1, -1, -1, -1], [4, 1, 3, 1]])
    assert not bool(same_polygon(other, truth[:5]).any())


def test_polygons_without_vertices_and_with_repeated_ones():
    nothing = torch.zeros(1, 0, dtype=torch.int64)
    assert same_polygon(nothing, torch.tensor([[-1, -1]])).tolist() == [True]
    assert same_polygon(torch.tensor([[0, 1, 2, 0, 3]]), torch.tensor([[0, 3, 0, 1, 2]])).tolist() == [False]
    assert area_coverage(torch.rand(1, 3, 2), nothing, torch.tensor([[0, 1, 2]])).isnan().all()
    assert tour_length(torch.rand(1, 3, 2), nothing).isinf().all()


def _ways(ring):
    for k in range(len(ring)):
        turned = ring[k:] + ring[:k]
        yield turned
        yield turned[::-1]
        yield [*turned, turned[0]]


def test_scores_ignore_the_names_of_points():
    examples, p = hull_examples(generator(), 30, 8), torch.randperm(8, generator=generator())
    guess = convex_hull(examples.x[:, :7])  # wrong where the last point is a vertex
    guess = torch.nn.functional.pad(guess, (0, 1), value=-1)
    renamed = lambda rows: torch.where(rows < 0, -1, p.argsort()[rows.clamp(min=0)])  # noqa: E731
    before = area_coverage(examples.x, guess, examples.targets)
    after = area_coverage(examples.x[:, p], renamed(guess), renamed(examples.targets))
    assert torch.allclose(before, after, equal_nan=True)
    right = same_polygon(guess, examples.targets)
    assert torch.equal(right, same_polygon(renamed(guess), renamed(examples.targets)))
    assert bool(right.any())
    assert not bool(right.all())
    assert bool(((before <= 1 + 1e-9) & (before > 0)).all())
    assert bool((before[right] == 1).all())
    assert bool((before[~right] < 1).all())


def test_a_polygon_that_crosses_itself_has_no_area():
    x = torch.tensor([[[0.0, 0], [1, 0], [1, 1], [0, 1]]])
    truth = torch.tensor([[0, 1, 2, 3]])
    assert area_coverage(x, torch.tensor([[0, 2, 1, 3]]), truth).isnan().all()
    assert area_coverage(x, torch.tensor([[0, 1, 2, -1]]), truth).item() == 0.5
    assert area_coverage(x, torch.tensor([[0, 1, -1, -1]]), truth).isnan().all()


def test_triangles_count_in_any_order():
    truth = delaunay_examples(generator(), 20, (3, 7)).targets
    assert bool((triangle_coverage(truth, truth) == 1).all())
    assert bool(same_triangles(truth, truth).all())
    found = torch.tensor([[2, 0, 1, 4, 3, 1, -1, -1], [0, 1, 2, 0, 1, -1, -1, -1], [0, 1, 2, 0, 1, 2, 1, 3]])
    true = torch.tensor([[1, 3, 4, 0, 1, 2, -1]] * 3)
    assert triangle_coverage(found, true).tolist() == [1, 0.5, 0.5]
    assert same_triangles(found, true).tolist() == [True, False, False]


def test_the_length_of_a_tour_has_no_start_and_no_direction():
    examples = tour_examples(generator(), 10, 6)
    tour = examples.targets[:, :6]
    length = tour_length(examples.x, tour)
    for other in (tour.roll(2, 1), tour.flip(1), torch.cat([tour, tour[:, :1]], 1), examples.targets):
        assert torch.allclose(tour_length(examples.x, other), length)
    brute = [
        min(tour_length(x[None], torch.tensor([[0, *p]])).item() for p in itertools.permutations(range(1, 6)))
        for x in examples.x
    ]
    assert length.tolist() == pytest.approx(brute)
    broken = tour.clone()
    broken[0, 3] = broken[0, 2]
    broken[1, 5] = -1
    assert tour_length(examples.x, broken).isinf().tolist() == [True, True] + [False] * 8
    assert tour_length(torch.rand(1, 1, 2), torch.tensor([[0]])).item() == 0


def test_checked_hulls_are_exact_whatever_was_predicted():
    examples = hull_examples(generator(), 20, (4, 9))
    guess = examples.targets.clone()
    guess[:5, 1] = guess[:5, 0]
    found = checked_hulls(examples.x, guess, examples.lengths)
    assert found.right.tolist() == [False] * 5 + [True] * 15
    assert torch.equal(found.hulls, convex_hull(examples.x, examples.lengths))


def test_assignments_are_one_to_one_and_the_best():
    scores = torch.randn(4, 5, 5, generator=generator(), dtype=torch.float64, requires_grad=True)
    lengths = torch.tensor([5, 3, 1, 5])
    found = decode_assignment(scores, 0.5, lengths)
    for s, columns, soft, k in zip(scores, found.columns, found.soft, lengths.tolist(), strict=True):
        best = max(itertools.permutations(range(k)), key=lambda p: float(s[range(k), p].detach().sum()))
        assert columns.tolist() == [*best, *([-1] * (5 - k))]
        assert torch.allclose(soft[:k, :k].sum(0), torch.ones(k, dtype=torch.float64), atol=1e-5)
        assert float(soft.detach()[k:].abs().sum() + soft.detach()[:, k:].abs().sum()) == 0
    found.soft[0, 0, 0].backward()
    assert bool(scores.grad[0].abs().sum() > 0)
    assert bool(scores.grad[1:].abs().sum() == 0)


@pytest.mark.usefixtures("unchecked")
def test_refused_assignments():
    with pytest.raises(InputError, match=r"shape \(batch, n, n\)"):
        decode_assignment(torch.rand(2, 3, 4))
    with pytest.raises(InputError, match=r"lengths must be 2 numbers"):
        decode_assignment(torch.rand(2, 3, 3), lengths=torch.tensor([1.0, 3.0]))
    with pytest.raises(InputError, match=r"indices below 3, got 7"):
        tour_length(torch.rand(1, 3, 2), torch.tensor([[0, 7, 1]]))
    with pytest.raises(InputError, match=r"a polygon must be integers"):
        same_polygon(torch.rand(1, 3), torch.tensor([[0, 1, 2]]))
    with pytest.raises(InputError, match=r"lengths must be 2 numbers in 1\.\.3"):
        decode_assignment(torch.rand(2, 3, 3), lengths=torch.tensor([0, 3]))
