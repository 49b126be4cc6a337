"""Hulls, triangulations, tours and orders as tasks; the file format of the published data."""

from __future__ import annotations

import pytest
import torch

from commutant import InputError
from commutant.algebra import polygon_area
from commutant.data import (
    delaunay_examples,
    hull_examples,
    read_pointer_file,
    sorting_examples,
    tour_examples,
    triangulation,
    write_pointer_file,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_hulls_start_at_the_smallest_index_and_close():
    examples = hull_examples(generator(), 200, (3, 9))
    assert set(examples.lengths.tolist()) == set(range(3, 10))
    for row, n in zip(examples.targets.tolist(), examples.lengths.tolist(), strict=True):
        ring = [i for i in row if i >= 0]
        assert ring[0] == ring[-1] == min(ring)
        assert max(ring) < n
        assert row[-1] == -1
    opened = examples.targets.masked_fill(
        torch.arange(examples.targets.shape[1]) == (examples.targets >= 0).sum(1, keepdim=True) - 1, -1
    )
    assert bool((polygon_area(examples.x, opened) > 0).all())


def test_triangulations_are_delaunay():
    """No point lies within the circle of a triangle, and there are 2 n - 2 - h triangles."""
    examples = delaunay_examples(generator(), 60, (3, 9))
    hulls = hull_examples(generator(), 60, (3, 9))
    assert torch.equal(hulls.x, examples.x)
    for x, row, hull, n in zip(
        examples.x.double(), examples.targets, hulls.targets, examples.lengths.tolist(), strict=True
    ):
        triples = row[row >= 0].reshape(-1, 3)
        assert len(triples) == 2 * n - 2 - (len(hull[hull >= 0]) - 1)
        assert bool((triples.diff(dim=1) > 0).all())
        for corners in x[triples]:
            system = torch.cat([2 * corners, torch.ones(3, 1)], 1)
            center = torch.linalg.solve(system, corners.square().sum(1))
            radius = (center[2] + center[:2].square().sum()).sqrt()
            assert bool(((x[:n] - center[:2]).norm(dim=1) >= radius - 1e-9).all())
        side = (x[triples][:, [1, 2, 0]] - x[triples][:, [2, 0, 1]]).norm(dim=-1, keepdim=True)
        incenter = (side * x[triples]).sum(1) / side.sum(1)
        assert incenter.tolist() == sorted(incenter.tolist())


def test_points_without_triangles():
    assert triangulation(torch.rand(2, 2)).shape == (0, 3)
    assert triangulation(torch.linspace(0, 1, 5)[:, None].expand(5, 2)).shape == (0, 3)


def test_tours_are_optimal_and_written_in_one_way():
    examples = tour_examples(generator(), 40, (1, 7))
    for row, n in zip(examples.targets.tolist(), examples.lengths.tolist(), strict=True):
        assert row[0] == 0
        assert sorted(row[:n]) == list(range(n))
        assert n < 3 or row[1] < row[n - 1]
        assert set(row[n:]) == {-1}
    other = tour_examples(generator(), 40, (1, 7), "local-search")
    assert torch.equal(examples.x, other.x)


def test_mean_lengths_of_optimal_tours_are_the_published_ones():
    """2.12 for 5 points and 2.87 for 10 (table 2 of the paper)."""
    from commutant.permutations import tour_length

    for n, mean in ((5, 2.12), (10, 2.87)):
        examples = tour_examples(generator(), 2000, n)
        assert float(tour_length(examples.x, examples.targets).mean()) == pytest.approx(mean, abs=0.03)


def test_orders_sort():
    examples = sorting_examples(generator(), 50, (1, 8))
    for x, row, n in zip(examples.x[..., 0], examples.targets, examples.lengths.tolist(), strict=True):
        assert torch.equal(x[row[:n]], x[:n].sort().values)
        assert set(row[n:].tolist()) == {-1}


@pytest.mark.parametrize("task", [hull_examples, delaunay_examples, tour_examples])
def test_files_come_back_as_they_were(task, tmp_path):
    examples = task(generator(), 20, (3, 7))
    write_pointer_file(tmp_path / "data.txt", examples)
    read = read_pointer_file(tmp_path / "data.txt")
    n, steps = read.x.shape[1], read.targets.shape[1]
    assert torch.equal(read.x, examples.x[:, :n])
    assert torch.equal(read.targets, examples.targets[:, :steps])
    assert torch.equal(read.lengths, examples.lengths)


def test_the_published_format_counts_from_one(tmp_path):
    (tmp_path / "data.txt").write_text("0.5 0.25 1.0 0.0 0.0 1.0 output 1 3 2 1 \n\n")
    read = read_pointer_file(tmp_path / "data.txt")
    assert read.x.tolist() == [[[0.5, 0.25], [1.0, 0.0], [0.0, 1.0]]]
    assert read.targets.tolist() == [[0, 2, 1, 0, -1]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.5 0.25 1 2", "line 1: expected pairs"),
        ("0 0 1 1 output 1 2\n0.5 0.25 1 output 1", "line 2: expected pairs"),
        ("0.5 x output 1", "line 1: could not convert"),
        ("0.5 0.5 output 0", r"indices must lie in 1\.\.1, got \[0\]"),
        ("0.5 0.5 output 2", r"indices must lie in 1\.\.1, got \[2\]"),
        ("0.5 nan output 1", "finite"),
        ("0.5 1e39 output 1", "finite"),
        ("output 1", "expected pairs"),
        ("", "has no examples"),
    ],
)
def test_damaged_files_are_named(text, message, tmp_path):
    (tmp_path / "data.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        read_pointer_file(tmp_path / "data.txt")


@pytest.mark.usefixtures("unchecked")
def test_refused(tmp_path):
    with pytest.raises(InputError, match="can't be read"):
        read_pointer_file(tmp_path / "nothing.txt")
    with pytest.raises(InputError, match="n must be a whole number of at least 3, got 2"):
        hull_examples(generator(), 4, 2)
    with pytest.raises(InputError, match="use labels='local-search'"):
        tour_examples(generator(), 1, 25)
    with pytest.raises(InputError, match="n must be a whole number"):
        hull_examples(generator(), 4, (3, 5.5))
    with pytest.raises(InputError, match="a number or a range"):
        hull_examples(generator(), 4, (3, 5, 6))
    with pytest.raises(InputError, match="points must be finite"):
        triangulation(torch.full((4, 2), torch.nan))
    with pytest.raises(InputError, match="can't be written"):
        write_pointer_file(tmp_path / "no" / "x.txt", hull_examples(generator(), 1, 3))
    with pytest.raises(InputError, match="low <= high"):
        tour_examples(generator(), 4, (5, 3))
    with pytest.raises(InputError, match="labels must be one of optimal, local-search"):
        tour_examples(generator(), 4, 5, "christofides")
    with pytest.raises(InputError, match="points in the plane, got 1"):
        write_pointer_file(tmp_path / "x.txt", sorting_examples(generator(), 2, 3))
