"""Scores of decoded polygons, triangulations and tours, and checked answers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .._errors import InputError
from ..algebra import convex_hull, is_simple_polygon, linear_assignment, polygon_area, sinkhorn


def open_polygon(polygon: Int[Tensor, "batch steps"]) -> Int[Tensor, "batch steps"]:
    """Return polygons without the repeated first vertex at their end.

    Args:
        polygon: Indices of the vertices, then -1, `(batch, steps)`.
    """
    if polygon.dim() != 2 or polygon.is_floating_point():
        raise InputError(
            f"a polygon must be integers of shape (batch, steps), got {polygon.dtype} {tuple(polygon.shape)}"
        )
    if not polygon.shape[1]:
        return polygon
    count = (polygon >= 0).sum(1, keepdim=True)
    last = polygon.gather(1, (count - 1).clamp(min=0))
    repeats = (last == polygon[:, :1]) & (count > 1)
    place = torch.arange(polygon.shape[1], device=polygon.device)
    return polygon.masked_fill(repeats & (place == count - 1), -1)


def same_polygon(polygon: Int[Tensor, "batch steps"], other: Int[Tensor, "batch others"]) -> Bool[Tensor, " batch"]:
    """Return whether polygons have the same vertices in the same cyclic order, in any direction.

    Vertices are compared by index, also where points are equal. A polygon that visits a vertex twice is none.

    Args:
        polygon: Indices of the vertices, then -1; the first may be repeated, `(batch, steps)`.
        other: The same for the other polygons.

    Example:
        >>> same_polygon(torch.tensor([[4, 1, 2, 4]]), torch.tensor([[1, 2, 4, -1, -1]]))
        tensor([True])
    """
    steps = max(polygon.shape[1], other.shape[1])
    both = [torch.nn.functional.pad(open_polygon(p), (0, steps - p.shape[1]), value=-1) for p in (polygon, other)]
    count = (both[0] >= 0).sum(1)
    if not steps:
        return torch.ones_like(count, dtype=torch.bool)
    place = torch.arange(steps, device=polygon.device)
    size = count.clamp(min=1)[:, None]
    start = (both[1] == both[0][:, :1]).long().argmax(1, keepdim=True)  # its first vertex in the other polygon
    ways = [both[1].gather(1, (start + sign * place).remainder(size)) for sign in (1, -1)]
    ways = [w.masked_fill(place >= count[:, None], -1) for w in ways]
    equal = torch.stack([(w == both[0]).all(1) for w in ways]).any(0)
    ordered = both[0].masked_fill(both[0] < 0, -1).sort(dim=1).values
    equal &= ~((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any(1)
    return equal & (count == (both[1] >= 0).sum(1))


def area_coverage(
    points: Float[Tensor, "batch n 2"], polygon: Int[Tensor, "batch steps"], truth: Int[Tensor, "batch others"]
) -> Float[Tensor, " batch"]:
    """Return the area of polygons over that of the true hulls; NaN for polygons that are not simple.

    Args:
        points: Points, `(batch, n, 2)`.
        polygon: Predicted polygons, then -1; the first vertex may be repeated, `(batch, steps)`.
        truth: True hulls, in the same form, `(batch, others)`.
    """
    given = open_polygon(polygon)
    ratio = polygon_area(points, given).abs() / polygon_area(points, open_polygon(truth)).abs()
    return ratio.masked_fill(~is_simple_polygon(points, given), torch.nan)


def triangle_coverage(found: Int[Tensor, "batch steps"], truth: Int[Tensor, "batch others"]) -> Float[Tensor, " batch"]:
    """Return the share of true triangles that were found, whatever the order of triangles and corners.

    It is NaN where there are no true triangles.

    Args:
        found: Corners of triangles, three each, then -1; an unfinished last triangle does not count, `(batch, steps)`.
        truth: True triangles, in the same form, `(batch, others)`.
    """
    ours, true = _triangles(found), _triangles(truth)
    hit = (true[:, :, None] == ours[:, None]).all(-1).any(2) & (true[..., 0] >= 0)
    return hit.sum(1).double() / (true[..., 0] >= 0).sum(1)


def same_triangles(found: Int[Tensor, "batch steps"], truth: Int[Tensor, "batch others"]) -> Bool[Tensor, " batch"]:
    """Return whether two lists hold the same set of triangles, none of them twice.

    Args:
        found: Corners of triangles, three each, then -1, `(batch, steps)`.
        truth: True triangles, in the same form, `(batch, others)`.
    """
    complete = (found >= 0).sum(1) == (truth >= 0).sum(1)
    covered = triangle_coverage(found, truth) == 1
    return complete & (covered | ((truth >= 0).sum(1) == 0))


def _triangles(flat: Tensor) -> Tensor:
    """Return sorted corners, `(batch, triangles, 3)`, -1 for unfinished ones."""
    rows = flat[:, : flat.shape[1] // 3 * 3].unflatten(1, (-1, 3)).sort(-1).values
    return rows.masked_fill((rows < 0).any(-1, keepdim=True), -1)


def tour_length(points: Float[Tensor, "batch n d"], tour: Int[Tensor, "batch steps"]) -> Float[Tensor, " batch"]:
    """Return the Euclidean length of closed tours in float64; infinity if a tour repeats or misses a point.

    Args:
        points: Points, `(batch, n, d)`.
        tour: Indices of the points, then -1; the first may be repeated at the end, `(batch, steps)`.
    """
    given = open_polygon(tour).long()
    if given.numel() and int(given.max()) >= points.shape[1]:
        raise InputError(f"tour must have indices below {points.shape[1]}, got {int(given.max())}")
    n, count = points.shape[1], (given >= 0).sum(1)
    place = torch.arange(given.shape[1], device=tour.device)
    corner = points.double().gather(1, given.clamp(min=0)[..., None].expand(-1, -1, points.shape[-1]))
    following = torch.where(place + 1 < count[:, None], place + 1, 0)
    after = corner.gather(1, following[..., None].expand_as(corner))
    length = (corner - after).norm(dim=-1).masked_fill(given < 0, 0).sum(1)
    seen = torch.zeros(len(tour), n + 1, dtype=torch.long, device=tour.device)
    seen = seen.scatter_add(1, torch.where(given < 0, n, given), torch.ones_like(given))
    return length.masked_fill((seen[:, :n] != 1).any(1), torch.inf)


@dataclass(frozen=True, eq=False)
class CheckedHulls:
    """Exact convex hulls, and which of the predicted ones were right.

    Attributes:
        hulls: Indices of the vertices, counter-clockwise from the smallest index, then -1, `(batch, n)`.
        right: Whether the predicted polygon is the hull, `(batch,)`.
    """

    hulls: Tensor
    right: Tensor


def checked_hulls(
    points: Float[Tensor, "batch n 2"],
    polygon: Int[Tensor, "batch steps"],
    lengths: Int[Tensor, " batch"] | None = None,
) -> CheckedHulls:
    """Return exact hulls with a check of predicted ones.

    A hull takes O(n log n) exact decisions, as few as any check of a polygon. A network is therefore never needed to
    get the hull of points in the plane; this function tells how far it can be trusted.

    Args:
        points: Points, `(batch, n, 2)`.
        polygon: Predicted polygons, then -1; the first vertex may be repeated, `(batch, steps)`.
        lengths: Number of points of each set, `(batch,)`; by default all n.
    """
    hulls = convex_hull(points, lengths)
    return CheckedHulls(hulls, same_polygon(polygon, hulls))


@dataclass(frozen=True, eq=False)
class AssignmentDecoding:
    """Assignment of the rows of a score matrix to its columns.

    Attributes:
        columns: Column of each row, -1 for rows that do not exist, `(batch, n)`.
        soft: Doubly stochastic matrix at the temperature, differentiable, `(batch, n, n)`; zero where there is no row.
    """

    columns: Tensor
    soft: Tensor


def decode_assignment(
    scores: Float[Tensor, "batch n n"], temperature: float = 1.0, lengths: Int[Tensor, " batch"] | None = None
) -> AssignmentDecoding:
    """Return the best one-to-one assignment of rows to columns, and its soft form by Sinkhorn's algorithm.

    Where each output position takes a different element (sorting, matching), it replaces the search over sequences:
    all positions are decided at once, and a loss can act on the soft form.

    Args:
        scores: Scores of pairs, such as those of `PointerAttention`, `(batch, n, n)`.
        temperature: Temperature of the soft form.
        lengths: Number of rows and columns of each matrix, `(batch,)`; by default all n.
    """
    if scores.dim() != 3 or scores.shape[1] != scores.shape[2]:
        raise InputError(f"scores must have shape (batch, n, n), got {tuple(scores.shape)}")
    n = scores.shape[1]
    sizes = torch.full((len(scores),), n) if lengths is None else torch.as_tensor(lengths).cpu()
    if (
        sizes.is_floating_point()
        or sizes.dim() != 1
        or len(sizes) != len(scores)
        or bool(((sizes < 1) | (sizes > n)).any())
    ):
        raise InputError(f"lengths must be {len(scores)} numbers in 1..{n}, got {sizes.tolist()}")
    columns = torch.full(scores.shape[:2], -1, dtype=torch.int64, device=scores.device)
    soft = torch.zeros_like(scores)
    for size in sizes.unique().tolist():
        rows = (sizes == size).nonzero()[:, 0].to(scores.device)
        part = scores[rows, :size, :size]
        matrix = sinkhorn(part, temperature)
        soft = soft.index_put((rows,), torch.nn.functional.pad(matrix, (0, n - size, 0, n - size)))
        best = torch.nn.functional.pad(linear_assignment(part.detach(), maximize=True), (0, n - size), value=-1)
        columns[rows] = best.to(scores.device)
    return AssignmentDecoding(columns, soft)
