"""Points and polygons of the plane with exact decisions: orientation, convex hull, simplicity, area."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .._errors import InputError

_FILTER = (3 + 16 * 2.0**-53) * 2.0**-53
"""Relative error of the difference of two products in float64 (Shewchuk 1997)."""


def orientation(
    a: Float[Tensor, "*#batch 2"], b: Float[Tensor, "*#batch 2"], c: Float[Tensor, "*#batch 2"]
) -> Int[Tensor, "*batch"]:
    """Return the side of the line from a to b on which c lies: 1 left, -1 right, 0 on the line.

    The sign is exact for the given coordinates: where float64 can't decide, it is computed in rational numbers.

    Args:
        a: Points, `(*batch, 2)`.
        b: Points, `(*batch, 2)`.
        c: Points, `(*batch, 2)`.

    Raises:
        InputError: For coordinates that are NaN or infinite.

    Example:
        >>> a, b = torch.tensor([0.0, 0.0]), torch.tensor([1.0, 1.0])
        >>> orientation(a, b, torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.1, 0.1]]))
        tensor([ 1, -1,  0])
    """
    points = [_array(name, p) for name, p in (("a", a), ("b", b), ("c", c))]
    try:
        np.broadcast_shapes(*(p.shape for p in points))
    except ValueError:
        shapes = ", ".join(str(tuple(p.shape)) for p in (a, b, c))
        raise InputError(f"a, b and c must have shapes that broadcast, got {shapes}") from None
    return torch.from_numpy(np.asarray(_side(*points))).to(a.device)


def convex_hull(
    points: Float[Tensor, "batch n 2"], lengths: Int[Tensor, " batch"] | None = None
) -> Int[Tensor, "batch n"]:
    """Return the vertices of the convex hull, counter-clockwise from the one of the smallest index.

    All decisions are exact. Points on an edge are no vertices, and of equal points the first one counts. If all points
    are on a line, the result has its two ends, and for equal points a single one.

    Args:
        points: Points, `(batch, n, 2)`.
        lengths: Number of points of each set, `(batch,)`; by default all n.

    Returns:
        Indices of the vertices, filled up with -1, `(batch, n)`.

    Raises:
        InputError: For coordinates that are NaN or infinite.

    Example:
        >>> convex_hull(torch.tensor([[[0.5, 0.5], [0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]]))
        tensor([[ 1,  2,  3,  4, -1]])
    """
    if not isinstance(points, Tensor):
        raise InputError(f"points must be a tensor, got {type(points).__name__}; convert it with torch.as_tensor")
    device = points.device
    if points.dim() != 3 or points.shape[-1] != 2:
        raise InputError(f"points must have shape (batch, n, 2), got {tuple(points.shape)}")
    batch, n = points.shape[:2]
    counts = np.full(batch, n) if lengths is None else _counts(lengths, batch, n)
    missing = np.arange(n) >= counts[:, None]
    p = _array("points", points.masked_fill(torch.from_numpy(missing).to(device)[..., None], 0))
    order = np.lexsort((p[..., 1], p[..., 0], missing), axis=-1)  # missing points last
    ranked = np.take_along_axis(p, order[..., None], 1)
    fresh = np.ones((batch, n), dtype=bool)
    fresh[:, 1:] = (ranked[:, 1:] != ranked[:, :-1]).any(-1)
    first = np.maximum.accumulate(np.where(fresh, np.arange(n), 0), axis=1)
    order = np.take_along_axis(order, first, 1)  # equal points are one, under their smallest index
    lower, size = _chain(ranked, counts)
    upper, more = _chain(*_reversed(p, order, counts))
    hull = np.full((batch, max(n, 1)), -1)
    for i in range(batch):  # the two chains share their ends
        back = order[i, : counts[i]][::-1]
        ring = [*order[i][lower[i, : size[i]]], *back[upper[i, : more[i]]][1:-1]]
        start = int(np.argmin(ring)) if ring else 0
        hull[i, : len(ring)] = ring[start:] + ring[:start]
    return torch.from_numpy(hull[:, :n]).to(device)


def polygon_area(points: Float[Tensor, "batch n 2"], polygon: Int[Tensor, "batch m"]) -> Float[Tensor, " batch"]:
    """Return the signed area of polygons, positive if they are counter-clockwise, in float64.

    Args:
        points: Points, `(batch, n, 2)`.
        polygon: Indices of the vertices, filled up with -1, `(batch, m)`.
    """
    corner, following, count = _ring(points, polygon)
    if not polygon.shape[1]:
        return torch.zeros(len(points), dtype=torch.float64, device=points.device)
    origin = corner[:, :1].clone()
    corner, following = corner - origin, following - origin  # far from the origin, products cancel
    area = (corner[..., 0] * following[..., 1] - corner[..., 1] * following[..., 0]).sum(-1) / 2
    return area.masked_fill(count < 3, 0)


def is_simple_polygon(points: Float[Tensor, "batch n 2"], polygon: Int[Tensor, "batch m"]) -> Bool[Tensor, " batch"]:
    """Return whether polygons have at least three different vertices, and edges that meet at shared vertices only.

    All decisions are exact.

    Args:
        points: Points, `(batch, n, 2)`.
        polygon: Indices of the vertices, filled up with -1; the first vertex is not repeated, `(batch, m)`.
    """
    corner, following, count = _ring(points, polygon)
    if not polygon.numel():
        return torch.zeros(len(points), dtype=torch.bool, device=points.device)
    m = int(count.max()) if len(count) else 0
    place = torch.arange(m, device=points.device)
    earlier = place[:, None] < place
    row, i, j = (earlier & (place < count[:, None])[:, None]).nonzero(as_tuple=True)
    a, b, c, d = corner[row, i], following[row, i], corner[row, j], following[row, j]
    succeed, around = j == i + 1, (i == 0) & (j == count[row] - 1)
    wrong = (a == c).all(-1)
    for pairs, test in ((~succeed & ~around, _meet), (succeed, _folds), (around & ~succeed, _folds_back)):
        wrong[pairs] |= test(a[pairs], b[pairs], c[pairs], d[pairs])
    return (count >= 3) & ~torch.zeros_like(count, dtype=torch.bool).index_put((row[wrong],), torch.tensor(True))


def _meet(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """Return whether the closed segments ab and cd have a common point."""
    first, second = orientation(a, b, c), orientation(a, b, d)
    third, fourth = orientation(c, d, a), orientation(c, d, b)
    flat = (first == 0) & (second == 0) & (third == 0) & (fourth == 0)
    low, high = torch.minimum(a, b), torch.maximum(a, b)
    boxes = ((torch.maximum(c, d) >= low) & (torch.minimum(c, d) <= high)).all(-1)
    return torch.where(flat, boxes, (first != second) & (third != fourth) & boxes)


def _folds(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """Return whether the edge cd turns back on the edge ab, which ends where it starts."""
    along = (a - b).sign() * (d - b).sign()  # of collinear points, so that one axis decides where it is not zero
    return (orientation(a, b, d) == 0) & (along > 0).any(-1)


def _folds_back(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """Return whether the edge ab turns back on the edge cd, which ends where it starts."""
    return _folds(c, d, a, b)


def _ring(points: Tensor, polygon: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return corners and their successors in float64, `(batch, m, 2)`, and the number of vertices."""
    if points.dim() != 3 or points.shape[-1] != 2 or polygon.dim() != 2 or len(polygon) != len(points):
        raise InputError(
            "points must have shape (batch, n, 2) and polygon (batch, m), got "
            f"{tuple(points.shape)} and {tuple(polygon.shape)}"
        )
    count = (polygon >= 0).sum(1)
    if polygon.numel() and (bool(((polygon >= 0).long().diff(dim=1) > 0).any()) or polygon.max() >= points.shape[1]):
        raise InputError(f"polygon must have indices below {points.shape[1]}, then -1 only")
    if not polygon.shape[1] or not points.shape[1]:
        empty = points.new_zeros(len(points), polygon.shape[1], 2, dtype=torch.float64)
        return empty, empty, count
    place = torch.arange(polygon.shape[1], device=points.device)
    following = torch.where(place + 1 < count[:, None], place + 1, 0)
    corner = points.double().gather(1, polygon.clamp(min=0)[..., None].expand(-1, -1, 2))
    corner = torch.where((place < count[:, None])[..., None], corner, corner[:, :1])
    return corner, corner.gather(1, following[..., None].expand(-1, -1, 2)), count


def _counts(lengths: Tensor, batch: int, n: int) -> np.ndarray:
    if (
        not isinstance(lengths, Tensor)
        or lengths.is_floating_point()
        or lengths.dtype == torch.bool
        or tuple(lengths.shape) != (batch,)
    ):
        given = f"{lengths.dtype} {tuple(lengths.shape)}" if isinstance(lengths, Tensor) else repr(lengths)
        raise InputError(f"lengths must be integers of shape ({batch},), got {given}")
    counts = lengths.cpu().numpy()
    if batch and not (counts.min() >= 0 and counts.max() <= n):
        raise InputError(f"lengths must lie in 0..{n}, got {counts.min()} to {counts.max()}")
    return counts


def _reversed(p: np.ndarray, order: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sorted points of each set from the last one to the first one, and their numbers."""
    back = (counts[:, None] - 1 - np.arange(p.shape[1])) % max(p.shape[1], 1)
    return np.take_along_axis(p, np.take_along_axis(order, back, 1)[..., None], 1), counts


def _chain(p: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the stack of points that turn left, and its size, for all sets in lock step (Andrew 1979)."""
    batch, n = p.shape[:2]
    stack, size, cursor = (
        np.zeros((batch, n + 2), dtype=np.int64),
        np.zeros(batch, dtype=np.int64),
        np.zeros(batch, int),
    )
    rows = np.flatnonzero(counts)
    while len(rows):
        now, high = p[rows, cursor[rows]], size[rows]
        top = p[rows, stack[rows, np.maximum(high - 1, 0)]]
        below = p[rows, stack[rows, np.maximum(high - 2, 0)]]
        pop = (high >= 2) & (_side(below, top, now) <= 0)
        skip = ~pop & (high >= 1) & (top == now).all(-1)
        push = ~pop & ~skip
        size[rows] -= pop
        stack[rows[push], size[rows[push]]] = cursor[rows[push]]
        size[rows] += push
        cursor[rows] += ~pop
        rows = rows[cursor[rows] < counts[rows]]
    return stack, size


def _array(name: str, x: Tensor) -> np.ndarray:
    if not isinstance(x, Tensor) or not x.is_floating_point() or not x.dim() or x.shape[-1] != 2:
        given = f"{x.dtype} of shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise InputError(f"{name} must be floating-point points of the plane, (..., 2), got {given}")
    found = x.detach().double().cpu().numpy()
    if not np.isfinite(found).all():
        raise InputError(f"{name} must be finite, got NaN or infinite coordinates")
    return found


def _side(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Return the sign of the area of each triangle, exact."""
    with np.errstate(over="ignore", invalid="ignore"):
        return _sign(a, b, c)


def _sign(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    x1, y1, x2, y2 = a[..., 0] - c[..., 0], b[..., 1] - c[..., 1], b[..., 0] - c[..., 0], a[..., 1] - c[..., 1]
    left, right = x1 * y1, y2 * x2
    area = np.asarray(left - right)
    sign = np.asarray(np.sign(np.nan_to_num(area)).astype(np.int64))
    zero = ((x1 == 0) | (y1 == 0)) & ((x2 == 0) | (y2 == 0))  # a difference is zero for equal coordinates only
    sure = np.abs(area) > _FILTER * (np.abs(left) + np.abs(right)) + 1e-300  # False for NaN, after an overflow
    unsure = ~zero & ~(sure & np.isfinite(area))
    if unsure.any():
        a, b, c = np.broadcast_arrays(a, b, c)
        for place in np.argwhere(unsure):
            sign[tuple(place)] = _exact_side(*(q[tuple(place)] for q in (a, b, c)))
    return sign


def _exact_side(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> int:
    (ax, ay), (bx, by), (cx, cy) = ([Fraction(float(v)) for v in p] for p in (a, b, c))
    area = (ax - cx) * (by - cy) - (ay - cy) * (bx - cx)
    return (area > 0) - (area < 0)
