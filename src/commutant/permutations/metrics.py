"""Metrics of pointer networks in the form of torchmetrics: sums over batches, reset and synchronization included."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .._errors import InputError, require
from ..algebra import is_simple_polygon
from ._answers import area_coverage, open_polygon, same_polygon, same_triangles, tour_length, triangle_coverage

_Metric: Any = require("torchmetrics", "metrics").Metric


class _Mean(_Metric):
    """Mean of a value over the examples of all batches."""

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        # names of its own: a MetricCollection merges metrics whose states have equal names and values
        self._total, self._count = (f"{type(self).__name__}_{part}" for part in ("total", "count"))
        self.add_state(self._total, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state(self._count, torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def _add(self, values: Tensor) -> None:
        values = values.detach().double()
        there = ~values.isnan()
        total, count = getattr(self, self._total), getattr(self, self._count)
        setattr(self, self._total, total + values[there].sum().to(total.device))
        setattr(self, self._count, count + there.sum().to(count.device))

    def compute(self) -> Tensor:
        """Return the mean over all examples that count; NaN, with a warning, if there were none."""
        total, count = getattr(self, self._total), getattr(self, self._count)
        if not int(count):
            warnings.warn(f"{type(self).__name__} has seen no example that counts, so its mean is NaN", stacklevel=2)
        return total / count


def _checked(**answers: Tensor) -> None:
    """Check that answers and truths are tensors of one batch."""
    for name, given in answers.items():
        if not isinstance(given, Tensor) or given.dim() != 2 or given.is_floating_point():
            shown = f"{given.dtype} {tuple(given.shape)}" if isinstance(given, Tensor) else type(given).__name__
            raise InputError(f"{name} must be a tensor of indices (batch, steps), got {shown}")
    sizes = {name: len(given) for name, given in answers.items()}
    if len(set(sizes.values())) > 1:
        raise InputError(f"answers and truths must have one row for each example, got {sizes}")


class PolygonAccuracy(_Mean):
    """Share of polygons with the true vertices in the true cyclic order, in any direction.

    Example:
        >>> metric = PolygonAccuracy()
        >>> metric.update(torch.tensor([[4, 1, 2, 4], [0, 1, 2, 3]]), torch.tensor([[1, 2, 4, -1], [0, 2, 1, 3]]))
        >>> metric.compute()
        tensor(0.5000, dtype=torch.float64)
    """

    def update(self, polygon: Int[Tensor, "batch steps"], truth: Int[Tensor, "batch others"]) -> None:
        """Add the polygons of a batch.

        Args:
            polygon: Predicted vertices, then -1; the first may be repeated, `(batch, steps)`.
            truth: True vertices, in the same form, `(batch, others)`.
        """
        _checked(polygon=polygon, truth=truth)
        self._add(same_polygon(polygon, truth))


class AreaCoverage(_Mean):
    """Mean area of polygons over that of the true hulls.

    As in the paper, polygons that are not simple do not count, nor do hulls without area; `SimplePolygons` gives the
    share of simple ones.
    """

    def update(
        self,
        points: Float[Tensor, "batch n 2"],
        polygon: Int[Tensor, "batch steps"],
        truth: Int[Tensor, "batch others"],
    ) -> None:
        """Add the polygons of a batch.

        Args:
            points: Points, `(batch, n, 2)`.
            polygon: Predicted vertices, then -1; the first may be repeated, `(batch, steps)`.
            truth: True hulls, in the same form, `(batch, others)`.
        """
        _checked(polygon=polygon, truth=truth)
        coverage = area_coverage(points, polygon, truth)
        self._add(coverage.masked_fill(coverage.isinf(), torch.nan))


class SimplePolygons(_Mean):
    """Share of polygons without self-intersection."""

    def update(
        self,
        points: Float[Tensor, "batch n 2"],
        polygon: Int[Tensor, "batch steps"],
        truth: Int[Tensor, "batch others"],
    ) -> None:
        """Add the polygons of a batch.

        Args:
            points: Points, `(batch, n, 2)`.
            polygon: Predicted vertices, then -1; the first may be repeated, `(batch, steps)`.
            truth: True hulls, in the same form; they are not used, so that metrics of one collection agree.
        """
        _checked(polygon=polygon, truth=truth)
        self._add(is_simple_polygon(points, open_polygon(polygon)))


class TriangulationAccuracy(_Mean):
    """Share of triangulations with exactly the true set of triangles."""

    def update(self, found: Int[Tensor, "batch steps"], truth: Int[Tensor, "batch others"]) -> None:
        """Add the triangulations of a batch.

        Args:
            found: Corners of triangles, three each, then -1, `(batch, steps)`.
            truth: True triangles, in the same form, `(batch, others)`.
        """
        _checked(found=found, truth=truth)
        self._add(same_triangles(found, truth))


class TriangleCoverage(_Mean):
    """Mean share of true triangles that were found."""

    def update(self, found: Int[Tensor, "batch steps"], truth: Int[Tensor, "batch others"]) -> None:
        """Add the triangulations of a batch.

        Args:
            found: Corners of triangles, three each, then -1, `(batch, steps)`.
            truth: True triangles, in the same form, `(batch, others)`.
        """
        _checked(found=found, truth=truth)
        self._add(triangle_coverage(found, truth))


class TourExcess(_Mean):
    """Mean excess length of valid tours over the true ones, relative to them.

    Tours that miss or repeat a point do not count; `ValidTours` gives the share of valid ones.
    """

    higher_is_better = False

    def update(
        self, points: Float[Tensor, "batch n d"], tour: Int[Tensor, "batch steps"], truth: Int[Tensor, "batch others"]
    ) -> None:
        """Add the tours of a batch.

        Args:
            points: Points, `(batch, n, d)`.
            tour: Predicted tours, then -1; the first point may be repeated, `(batch, steps)`.
            truth: True tours, in the same form, `(batch, others)`.
        """
        _checked(tour=tour, truth=truth)
        excess = tour_length(points, tour) / tour_length(points, truth) - 1
        self._add(excess.masked_fill(excess.isinf(), torch.nan))


class ValidTours(_Mean):
    """Share of tours that visit every point once."""

    def update(
        self, points: Float[Tensor, "batch n d"], tour: Int[Tensor, "batch steps"], truth: Int[Tensor, "batch others"]
    ) -> None:
        """Add the tours of a batch.

        Args:
            points: Points, `(batch, n, d)`.
            tour: Predicted tours, then -1; the first point may be repeated, `(batch, steps)`.
            truth: True tours, in the same form; they are not used, so that metrics of one collection agree.
        """
        _checked(tour=tour, truth=truth)
        self._add(tour_length(points, tour).isfinite())
