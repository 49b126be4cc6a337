"""Shortest paths and tours through all points: exact for few points, local search for many, lower bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from .._checks import whole
from .._errors import InputError
from ._tours import held_karp, local_search, one_tree_bounds

_EXACT = 12  # most points for which the 2^n n^2 steps of the exact search are the default
_MOST = 20  # most points for which 2^n n numbers fit into memory
_NUMBERS = 1 << 24  # numbers of the exact search at once


def shortest_hamiltonian_path(
    distance: Float[Tensor, "*batch n n"], *, closed: bool = False, exact: bool | None = None
) -> Int[Tensor, "*batch n"]:
    """Return an order of all points with the smallest sum of successive distances.

    Up to twelve points, the path is found exactly by dynamic programming over subsets (Held-Karp), for a whole batch at
    once. For more points, the search joins shortest edges, then reverses segments (2-opt) and moves short segments
    (or-opt) until neither shortens the path.

    Args:
        distance: Symmetric finite distances, `(*batch, n, n)`.
        closed: Whether the path is a tour that returns to its start.
        exact: Whether to use the exact method (up to 20 points) instead of local search; None to choose by size.

    Returns:
        Indices of the points in order, `(*batch, n)`.

    Raises:
        InputError: For NaN, infinite or asymmetric distances.

    Example:
        >>> places = torch.tensor([0.0, 5.0, 1.0, 3.0])
        >>> shortest_hamiltonian_path((places[:, None] - places).abs())
        tensor([0, 2, 3, 1])
    """
    d, _ = _symmetric(distance)
    n = d.shape[-1]
    if exact and n > _MOST:
        raise InputError(
            f"an exact path of {n} points needs too much memory, at most {_MOST} are possible; use exact=False"
        )
    if n <= 2:
        return torch.arange(n, device=distance.device).expand(distance.shape[:-1]).clone()
    if not closed:  # with a point at distance zero from all others, the path becomes a tour
        d = np.pad(d, ((0, 0), (0, 1), (0, 1)))
    orders = _tours(d, n <= _EXACT if exact is None else exact)
    if not closed:
        cut = (orders == n).argmax(1)[:, None]
        orders = np.take_along_axis(orders, (cut + 1 + np.arange(n)) % (n + 1), 1)
        turned = orders[:, 0] > orders[:, -1]
        orders[turned] = orders[turned, ::-1]
    return torch.from_numpy(orders).to(distance.device).reshape(distance.shape[:-1])


def _tours(d: np.ndarray, exact: bool) -> np.ndarray:
    """Return a tour for each distance matrix, `(batch, n)`."""
    if not exact or not len(d):
        return np.array([local_search(one) for one in d], dtype=np.int64).reshape(d.shape[:2])
    size = max(1, _NUMBERS // (d.shape[1] << (d.shape[1] - 1)))
    return np.concatenate([held_karp(d[i : i + size]) for i in range(0, len(d), size)])


def improve_tour(distance: Float[Tensor, "*batch n n"], tour: Int[Tensor, "*batch n"]) -> Int[Tensor, "*batch n"]:
    """Return a tour that is never longer: reversals of segments (2-opt) and moves of short segments (or-opt).

    Args:
        distance: Symmetric finite distances, `(*batch, n, n)`.
        tour: Tours through all points, `(*batch, n)`.

    Raises:
        InputError: If a tour is not a permutation of the points.
    """
    d, _ = _symmetric(distance)
    if tour.is_floating_point() or tour.dtype == torch.bool:
        raise InputError(f"tour must hold integers, got {tour.dtype}")
    given = tour.detach().cpu().numpy()
    if tour.shape != distance.shape[:-1] or not (np.sort(given, -1) == np.arange(d.shape[-1])).all():
        raise InputError(
            f"tour must have shape {tuple(distance.shape[:-1])} and visit each point once, got shape "
            f"{tuple(tour.shape)}, first row {given.reshape(-1, given.shape[-1])[:1].tolist()}"
        )
    if not given.size:
        return tour.clone()
    flat = given.reshape(-1, d.shape[-1])
    better = [local_search(one, order) for one, order in zip(d, flat, strict=True)]
    return torch.from_numpy(np.array(better, dtype=np.int64).reshape(given.shape)).to(tour.device)


def tour_lower_bound(distance: Float[Tensor, "*batch n n"], steps: int = 100) -> Float[Tensor, "*batch"]:
    """Return a lower bound of the length of the shortest tour, by 1-trees with weights of points (Held-Karp bound).

    On uniform points of the plane it is about 1 % below the optimum.

    Args:
        distance: Symmetric finite distances, `(*batch, n, n)`.
        steps: Number of subgradient steps.

    Returns:
        Bounds in float64, `(*batch,)`.
    """
    whole("steps", steps)
    d, scale = _symmetric(distance, np.minimum)
    n = d.shape[-1]
    if n <= 3:
        bound = d[:, 0].sum(-1) + (d[:, 1, 2] if n == 3 else d[:, 0].sum(-1)) if n > 1 else np.zeros(len(d))
    else:
        bound = one_tree_bounds(d, steps)
    return torch.from_numpy(np.asarray(bound) * scale).to(distance.device).reshape(distance.shape[:-2])


def _symmetric(distance: Tensor, joined: Callable[..., Any] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return distances in float64, `(batch, n, n)`, with a zero diagonal, and the scale of each matrix, after a check.

    Args:
        distance: Distances, symmetric up to rounding.
        joined: Function of both directions, for instance the smaller one; by default their mean.
    """
    if not isinstance(distance, Tensor) or distance.is_complex():
        given = str(distance.dtype) if isinstance(distance, Tensor) else type(distance).__name__
        raise InputError(f"distance must be a real tensor, got {given}")
    d = distance.detach().double().cpu().numpy()
    if d.ndim < 2 or d.shape[-1] != d.shape[-2] or not np.isfinite(d).all():
        raise InputError(f"distance must be a square matrix, finite and symmetric, got shape {tuple(distance.shape)}")
    if (gap := _asymmetry(d)) > 64 * (torch.finfo(distance.dtype).eps if distance.is_floating_point() else 0):
        raise InputError(
            "distance must be a square matrix, finite and symmetric; squared entries of the two directions differ by "
            f"{gap:.1e} of the largest; symmetrize it by (d + d.mT) / 2"
        )
    count = int(np.prod(d.shape[:-2], dtype=np.int64))
    d = d.reshape(count, *d.shape[-2:])
    largest = np.abs(d).max((1, 2), initial=0.0)
    scale = np.where((largest > 1e150) | ((largest < 1e-150) & (largest > 0)), largest, 1.0)  # sums stay finite
    d = d / scale[:, None, None]
    other = d.swapaxes(-1, -2)
    d = (d + other) / 2 if joined is None else joined(d, other)
    place = np.arange(d.shape[-1])
    d[:, place, place] = 0
    return d, scale


def _asymmetry(d: np.ndarray) -> float:
    """Return the largest difference of squared distances in both directions, since `torch.cdist` rounds squares."""
    scaled = d / np.maximum(np.abs(d).max((-1, -2), keepdims=True, initial=0.0), np.finfo(float).tiny)
    squares = scaled * np.abs(scaled)
    return float(np.abs(squares - squares.swapaxes(-1, -2)).max(initial=0.0))


def path_length(
    distance: Float[Tensor, "*batch n n"], order: Int[Tensor, "*batch n"], *, closed: bool = False
) -> Float[Tensor, "*batch"]:
    """Return the sum of distances along an order.

    Args:
        distance: Distances, `(*batch, n, n)`.
        order: Indices of the points in order, `(*batch, n)`.
        closed: Whether to add the distance from the last point to the first.
    """
    following = order.roll(-1, -1) if closed else order[..., 1:]
    start = order if closed else order[..., :-1]
    rows = distance.gather(-2, start[..., None].expand(*start.shape, distance.shape[-1]))
    return rows.gather(-1, following[..., None])[..., 0].sum(-1)
