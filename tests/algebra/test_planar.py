"""Hulls, polygons and orientations of points in the plane, against Qhull, brute force and rational numbers."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
import torch
from scipy.spatial import ConvexHull

from commutant import InputError
from commutant.algebra import convex_hull, is_simple_polygon, orientation, polygon_area


def grid(n):
    return torch.stack(torch.meshgrid(torch.arange(float(n)), torch.arange(float(n)), indexing="ij"), -1).reshape(-1, 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [3, 4, 10, 60])
def test_hulls_are_those_of_qhull(n, dtype):
    x = torch.rand(40, n, 2, generator=torch.Generator().manual_seed(n), dtype=dtype)
    found = convex_hull(x)
    for points, ours in zip(x, found.tolist(), strict=True):
        theirs = ConvexHull(points.double().numpy()).vertices.tolist()
        start = theirs.index(min(theirs))
        assert [i for i in ours if i >= 0] == theirs[start:] + theirs[:start]
        assert set(ours[len(theirs) :]) <= {-1}
    assert bool((polygon_area(x, found) > 0).all())
    assert bool(is_simple_polygon(x, found).all())


def test_hulls_of_degenerate_points():
    cases = [
        ([[0.0, 0], [1, 1], [2, 2], [0.5, 0.5]], [0, 2]),
        ([[1.0, 1], [1, 1], [1, 1]], [0]),
        ([[3.0, 4]], [0]),
        ([[0.0, 0], [1, 0]], [0, 1]),
        ([[0.0, 0], [1, 0], [1, 0], [0, 1], [0, 0]], [0, 1, 3]),
    ]
    for points, expected in cases:
        found = convex_hull(torch.tensor([points]))[0].tolist()
        assert [i for i in found if i >= 0] == expected
    corners = convex_hull(grid(5)[None])[0]
    assert corners[corners >= 0].tolist() == [0, 20, 24, 4]
    crowded = torch.randint(0, 4, (50, 12, 2), generator=torch.Generator().manual_seed(0)).double()
    for points, row in zip(crowded, convex_hull(crowded).tolist(), strict=True):
        corners = [i for i in row if i >= 0]
        assert all((points[:i] != points[i]).any(1).all() for i in corners)
        theirs = {tuple(points[i].tolist()) for i in ConvexHull(points.numpy()).vertices}
        assert {tuple(points[i].tolist()) for i in corners} == theirs
    assert convex_hull(torch.rand(2, 5, 2), torch.tensor([0, 1])).tolist() == [[-1] * 5, [0, -1, -1, -1, -1]]
    assert convex_hull(torch.zeros(0, 4, 2)).shape == (0, 4)
    assert convex_hull(torch.zeros(2, 0, 2)).shape == (2, 0)


def test_ragged_hulls_are_those_of_each_set():
    x, lengths = torch.rand(6, 9, 2), torch.tensor([9, 8, 5, 3, 2, 1])
    together = convex_hull(x, lengths)
    for row, points, k in zip(together.tolist(), x, lengths.tolist(), strict=True):
        alone = convex_hull(points[None, :k])[0].tolist()
        assert row == alone + [-1] * (9 - k)


def test_orientation_is_exact_where_floats_are_not():
    """Points whose area float64 computes with the wrong sign."""
    generator = torch.Generator().manual_seed(0)
    base = torch.rand(400, 2, generator=generator, dtype=torch.float64)
    t = torch.rand(400, 1, generator=generator, dtype=torch.float64)
    a, b = base, base + 12.0
    c = a + t * (b - a)
    c[:, 1] += (torch.randint(-2, 3, (400,), generator=generator) * 2.0**-50).double()
    plain = ((a[:, 0] - c[:, 0]) * (b[:, 1] - c[:, 1]) - (a[:, 1] - c[:, 1]) * (b[:, 0] - c[:, 0])).sign().long()

    def exact(p, q, r):
        (px, py), (qx, qy), (rx, ry) = ([Fraction(v) for v in s.tolist()] for s in (p, q, r))
        area = (px - rx) * (qy - ry) - (py - ry) * (qx - rx)
        return (area > 0) - (area < 0)

    truth = torch.tensor([exact(*points) for points in zip(a, b, c, strict=True)])
    assert bool((plain != truth).any()), "the case must be hard"
    assert torch.equal(orientation(a, b, c), truth)
    assert torch.equal(orientation(b, a, c), -truth)


@pytest.mark.parametrize("scale", [2.0**-1070, 2.0**-565, 2.0**-100, 1.0, 2.0**500, 2.0**535, 2.0**1000])
def test_decisions_do_not_depend_on_the_scale(scale):
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(-3, 4, (60, 6, 2), generator=generator).double()
    ring = torch.arange(6).expand(60, -1)
    assert torch.equal(convex_hull(x * scale), convex_hull(x))
    assert torch.equal(is_simple_polygon(x * scale, ring), is_simple_polygon(x, ring))
    folded = torch.tensor([[[0.0, 0], [2, 0], [1, 0]]], dtype=torch.float64) * scale
    assert not bool(is_simple_polygon(folded, torch.tensor([[0, 1, 2]])))


def test_the_area_is_that_far_from_the_origin_too():
    square = torch.tensor([[[0.0, 0], [1, 0], [1, 1], [0, 1]]], dtype=torch.float64)
    for far in (1e3, 1e8, 1e12):
        assert polygon_area(square + far, torch.tensor([[0, 1, 2, 3]])).item() == pytest.approx(1, abs=1e-3)
    assert polygon_area(square, torch.zeros(1, 0, dtype=torch.int64)).tolist() == [0]
    assert is_simple_polygon(square, torch.zeros(1, 0, dtype=torch.int64)).tolist() == [False]


def crosses(p, ring):
    """Whether two edges of a polygon cross or touch, by brute force in rational numbers."""
    points = [[Fraction(v) for v in p[i].tolist()] for i in ring]
    edges = [(points[i], points[(i + 1) % len(points)]) for i in range(len(points))]

    def side(a, b, c):
        area = (a[0] - c[0]) * (b[1] - c[1]) - (a[1] - c[1]) * (b[0] - c[0])
        return (area > 0) - (area < 0)

    def on(a, b, c):
        return side(a, b, c) == 0 and all(min(a[k], b[k]) <= c[k] <= max(a[k], b[k]) for k in (0, 1))

    for (i, (a, b)), (j, (c, d)) in itertools.combinations(enumerate(edges), 2):
        touching = [on(a, b, c), on(a, b, d), on(c, d, a), on(c, d, b)]
        proper = side(a, b, c) * side(a, b, d) < 0 and side(c, d, a) * side(c, d, b) < 0
        neighbors = (j - i) % len(edges) in (1, len(edges) - 1)
        if proper or (sum(touching) > (2 if neighbors else 0)):
            return True
    return len(set(map(tuple, points))) < len(points)


@pytest.mark.parametrize("on_grid", [False, True])
def test_simple_polygons_are_those_without_crossings(on_grid):
    generator, seen = torch.Generator().manual_seed(1), set()
    for m in (3, 4, 5, 6):
        x = torch.randint(0, 3, (40, m, 2), generator=generator).double() if on_grid else torch.rand(40, m, 2)
        ring = torch.arange(m).expand(40, -1)
        for points, simple in zip(x, is_simple_polygon(x, ring).tolist(), strict=True):
            expected = not crosses(points, range(m))
            seen.add((m, expected))
            assert simple == expected, points
    assert len(seen) >= 7


def test_simple_polygons_of_few_vertices():
    x = torch.rand(3, 4, 2)
    rings = torch.tensor([[0, 1, -1, -1], [0, 1, 2, 0], [-1, -1, -1, -1]])
    assert is_simple_polygon(x, rings).tolist() == [False] * 3
    assert polygon_area(x, rings)[[0, 2]].tolist() == [0.0, 0.0]
    assert is_simple_polygon(x[:0], rings[:0]).shape == (0,)


def test_area_is_that_of_the_triangle_and_changes_sign_with_the_direction():
    x = torch.tensor([[[0.0, 0.0], [2.0, 0.0], [0.0, 3.0]]])
    assert polygon_area(x, torch.tensor([[0, 1, 2]])).item() == 3
    assert polygon_area(x, torch.tensor([[0, 2, 1]])).item() == -3


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: convex_hull(torch.rand(3, 2)), r"shape \(batch, n, 2\), got \(3, 2\)"),
        (lambda: convex_hull(torch.full((1, 3, 2), torch.nan)), "must be finite"),
        (lambda: convex_hull(torch.zeros(1, 3, 2, dtype=torch.int64)), "floating-point points"),
        (lambda: convex_hull(torch.rand(1, 3, 2), torch.tensor([4])), r"lengths must lie in 0\.\.3"),
        (lambda: convex_hull(torch.rand(1, 3, 2), torch.tensor([1, 2])), r"integers of shape \(1,\)"),
        (lambda: convex_hull([[0.0, 1.0]]), "points must be a tensor, got list"),
        (lambda: convex_hull(torch.rand(1, 3, 2), torch.tensor([True])), "lengths must be integers"),
        (lambda: orientation(torch.rand(2, 2), torch.rand(3, 2), torch.rand(2, 2)), "shapes that broadcast"),
        (lambda: orientation(torch.rand(3), torch.rand(3), torch.rand(3)), "points of the plane"),
        (lambda: polygon_area(torch.rand(1, 3, 2), torch.tensor([[0, 3, 1]])), "indices below 3"),
        (lambda: polygon_area(torch.rand(1, 3, 2), torch.tensor([[0, -1, 1]])), "then -1 only"),
        (lambda: is_simple_polygon(torch.rand(3, 2), torch.tensor([[0, 1, 2]])), "points must have shape"),
    ],
)
def test_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
