"""Metrics of pointer networks in the form of torchmetrics."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys

import pytest
import torch
from torchmetrics import MetricCollection

from commutant import InputError
from commutant.algebra import convex_hull
from commutant.data import delaunay_examples, hull_examples, tour_examples
from commutant.permutations.metrics import (
    AreaCoverage,
    PolygonAccuracy,
    SimplePolygons,
    TourExcess,
    TriangleCoverage,
    TriangulationAccuracy,
    ValidTours,
)


def test_true_answers_are_perfect_over_batches_of_any_width():
    g = torch.Generator().manual_seed(0)
    hulls, triangles, tours = PolygonAccuracy(), TriangulationAccuracy(), TourExcess()
    areas = MetricCollection([AreaCoverage(), SimplePolygons()])
    coverage = TriangleCoverage()
    for n in (5, 9):
        hull, delaunay, tour = hull_examples(g, 6, n), delaunay_examples(g, 6, n), tour_examples(g, 6, n)
        hulls.update(hull.targets, hull.targets)
        areas.update(hull.x, hull.targets, hull.targets)
        triangles.update(delaunay.targets, delaunay.targets)
        coverage.update(delaunay.targets, delaunay.targets)
        tours.update(tour.x, tour.targets, tour.targets)
    assert float(hulls.compute()) == float(triangles.compute()) == float(coverage.compute()) == 1
    assert {k: float(v) for k, v in areas.compute().items()} == {"AreaCoverage": 1, "SimplePolygons": 1}
    assert abs(float(tours.compute())) < 1e-12
    hulls.reset()
    with pytest.warns(UserWarning, match="before"), pytest.warns(UserWarning, match="has seen no example"):
        assert hulls.compute().isnan()


def test_the_mean_is_over_examples_and_not_over_batches():
    metric = PolygonAccuracy()
    truth = torch.tensor([[0, 1, 2]])
    metric.update(truth.repeat(3, 1), truth.repeat(3, 1))
    metric.update(torch.tensor([[0, 1, 3]]), truth)
    assert float(metric.compute()) == 0.75
    assert float(pickle.loads(pickle.dumps(metric)).compute()) == 0.75


def test_what_does_not_count():
    square = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]])
    hull = convex_hull(square)
    area, simple = AreaCoverage(), SimplePolygons()
    for polygon in ([0, 1, 2, 3], [0, 1, 2, -1], [0, 2, 1, 3]):  # all, half, and one that crosses itself
        for metric in (area, simple):
            metric.update(square, torch.tensor([polygon]), hull)
    assert float(area.compute()) == pytest.approx(0.75)
    assert float(simple.compute()) == pytest.approx(2 / 3)
    line = torch.tensor([[[0.0, 0.0], [0.5, 0.0], [1.0, 0.0]]])
    area.update(line, torch.tensor([[0, 1, 2]]), convex_hull(line))
    assert float(area.compute()) == pytest.approx(0.75)
    excess, valid = TourExcess(), ValidTours()
    for tour in ([0, 1, 2, 3], [0, 2, 1, 3], [0, 1, 2, 2]):
        for metric in (excess, valid):
            metric.update(square, torch.tensor([tour]), torch.tensor([[0, 1, 2, 3]]))
    assert float(excess.compute()) == pytest.approx(((2 + 2 * math.sqrt(2)) / 4 - 1) / 2)
    assert float(valid.compute()) == pytest.approx(2 / 3)


def test_triangles_in_any_order():
    truth = torch.tensor([[0, 1, 2, 1, 2, 3]])
    found = torch.tensor([[3, 2, 1, 0, 1, 4]])
    accuracy, coverage = TriangulationAccuracy(), TriangleCoverage()
    accuracy.update(found, truth)
    coverage.update(found, truth)
    assert float(accuracy.compute()) == 0
    assert float(coverage.compute()) == 0.5


def test_metrics_of_a_collection_keep_apart():
    """Torchmetrics merges metrics whose states look alike after the first batch."""
    square = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]])
    truth = convex_hull(square)
    both = MetricCollection([AreaCoverage(), SimplePolygons()])
    for polygon in ([0, 1, 2, 3], [0, 1, 2, -1], [0, 2, 1, 3]):
        both.update(square, torch.tensor([polygon]), truth)
    assert {k: round(float(v), 3) for k, v in both.compute().items()} == {"AreaCoverage": 0.75, "SimplePolygons": 0.667}
    triangles = MetricCollection([TriangulationAccuracy(), TriangleCoverage()])
    two = torch.tensor([[0, 1, 2, 1, 2, 3]])
    triangles.update(torch.tensor([[0, 1, 4, 1, 2, 4]]), two)
    triangles.update(torch.tensor([[0, 1, 2, 1, 2, 4]]), two)
    assert {k: float(v) for k, v in triangles.compute().items()} == {
        "TriangulationAccuracy": 0,
        "TriangleCoverage": 0.25,
    }


def test_a_batch_without_any_example_that_counts_loses_nothing():
    square, tour = torch.rand(1, 4, 2), torch.tensor([[0, 1, 2, 3]])
    excess = TourExcess()
    excess(square, tour, tour)
    with pytest.warns(UserWarning, match="has seen no example that counts"):
        assert excess(square, torch.tensor([[0, 1, 2, 2]]), tour).isnan()
    excess(square, tour, tour)
    assert float(excess.compute()) == pytest.approx(0)
    assert int(excess.TourExcess_count) == 2


@pytest.mark.usefixtures("unchecked")
def test_answers_that_do_not_fit_are_refused():
    for found, truth, message in (
        ([[0, 1, 2]], torch.tensor([[0, 1, 2]]), "found must be a tensor of indices"),
        (torch.tensor([0, 1, 2]), torch.tensor([[0, 1, 2]]), "found must be a tensor of indices"),
        (torch.tensor([[0, 1, 2]]), torch.tensor([[0.0, 1, 2]]), "truth must be a tensor of indices"),
        (torch.tensor([[0, 1, 2]]), torch.tensor([[0, 1, 2]] * 2), "one row for each example"),
    ):
        with pytest.raises(InputError, match=message):
            TriangleCoverage().update(found, truth)


def test_the_room_does_not_need_the_package():
    code = (
        "import sys; sys.modules['torchmetrics'] = None\n"
        "import commutant.permutations\n"
        "try:\n    import commutant.permutations.metrics\n"
        "except ImportError as e:\n    print(e)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "torchmetrics is not installed; it comes with: pip install 'commutant[metrics]'"
