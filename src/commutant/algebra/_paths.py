"""Shortest path through all points, exact for few points and by local search for many."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from .._errors import InputError

_EXACT = 12  # most points for which the 2^n n^2 steps of the exact search are the default
_MOST = 20  # most points for which 2^n n numbers fit into memory


def shortest_hamiltonian_path(
    distance: Float[Tensor, "n n"], *, closed: bool = False, exact: bool | None = None
) -> Int[Tensor, " n"]:
    """Return an order of all points with the smallest sum of successive distances.

    Up to twelve points, the path is found exactly by dynamic programming over subsets (Held-Karp). For more points, the
    search joins shortest edges, then reverses segments (2-opt) and moves short segments (or-opt) until neither shortens
    the path.

    Args:
        distance: Symmetric finite distances, `(n, n)`.
        closed: Whether the path is a tour that returns to its start.
        exact: Whether to use the exact method (up to 20 points) instead of local search; None to choose by size.

    Returns:
        Indices of the points in order, `(n,)`.

    Raises:
        InputError: For NaN, infinite or asymmetric distances.

    Example:
        >>> places = torch.tensor([0.0, 5.0, 1.0, 3.0])
        >>> shortest_hamiltonian_path((places[:, None] - places).abs())
        tensor([0, 2, 3, 1])
    """
    if not isinstance(distance, Tensor) or distance.is_complex():
        given = str(distance.dtype) if isinstance(distance, Tensor) else type(distance).__name__
        raise InputError(f"distance must be a real tensor, got {given}")
    d = distance.detach().double().cpu().numpy()
    if d.ndim != 2 or d.shape[0] != d.shape[1] or not np.isfinite(d).all():
        raise InputError(f"distance must be a square matrix, finite and symmetric, got shape {tuple(distance.shape)}")
    if (gap := _asymmetry(d)) > 64 * (torch.finfo(distance.dtype).eps if distance.is_floating_point() else 0):
        raise InputError(
            "distance must be a square matrix, finite and symmetric; squared entries of the two directions differ by "
            f"{gap:.1e} of the largest; symmetrize it by (d + d.mT) / 2"
        )
    if exact and len(d) > _MOST:
        raise InputError(
            f"an exact path of {len(d)} points needs too much memory, at most {_MOST} are possible; use exact=False"
        )
    n, d = len(d), (d + d.T) / 2
    if n <= 2:
        return torch.arange(n, device=distance.device)
    if not closed:  # with a point at distance zero from all others, the path becomes a tour
        d = np.pad(d, (0, 1))
    order = _held_karp(d) if (n <= _EXACT if exact is None else exact) else _local_search(d)
    if not closed:
        cut = order.index(n)
        order = order[cut + 1 :] + order[:cut]
    if order[0] > order[-1] and not closed:
        order = order[::-1]
    return torch.tensor(order, device=distance.device)


def _asymmetry(d: np.ndarray) -> float:
    """Return the largest difference of squared distances in both directions, since `torch.cdist` rounds squares."""
    scaled = d / (np.abs(d).max(initial=0.0) or 1.0)
    squares = scaled * np.abs(scaled)
    return float(np.abs(squares - squares.T).max(initial=0.0))


def path_length(distance: Float[Tensor, "n n"], order: Int[Tensor, " n"], *, closed: bool = False) -> Float[Tensor, ""]:
    """Return the sum of distances along an order.

    Args:
        distance: Distances, `(n, n)`.
        order: Indices of the points in order, `(n,)`.
        closed: Whether to add the distance from the last point to the first.
    """
    following = order.roll(-1) if closed else order[1:]
    return distance[order if closed else order[:-1], following].sum()


def _held_karp(d: np.ndarray) -> list[int]:
    """Return the shortest tour by dynamic programming over `best[S][j]`, the length of the best path 0 -> S -> j."""
    n = len(d) - 1
    inner, first = d[1:, 1:], d[0, 1:]
    best = np.full((1 << n, n), np.inf)
    before = np.zeros((1 << n, n), dtype=np.int8)
    best[1 << np.arange(n), np.arange(n)] = first
    for size in range(2, n + 1):
        for chosen in combinations(range(n), size):
            members = np.array(chosen)
            whole = (1 << members).sum()
            without = whole - (1 << members)
            ways = best[without][:, members] + inner[members][:, members].T  # last point by the one before
            best[whole, members] = ways.min(1)
            before[whole, members] = members[ways.argmin(1)]
    whole, end = (1 << n) - 1, int((best[-1] + first).argmin())
    order = []
    while whole:
        order.append(end + 1)
        whole, end = whole - (1 << end), int(before[whole, end])
    return [0, *order[::-1]]


def _local_search(d: np.ndarray) -> list[int]:
    order = np.array(_greedy_edges(d))
    while True:
        better = _two_opt(d, order)
        better = better if better is not None else _or_opt(d, order)
        if better is None:
            return [int(i) for i in order]
        order = better


def _greedy_edges(d: np.ndarray) -> list[int]:
    """Return a path of shortest edges that close no cycle and give no point a third neighbor."""
    n = len(d)
    rows, columns = np.triu_indices(n, 1)
    group, neighbors = list(range(n)), [[] for _ in range(n)]  # type: ignore[var-annotated]

    def find(i: int) -> int:
        while group[i] != i:
            group[i] = group[group[i]]
            i = group[i]
        return i

    for k in np.argsort(d[rows, columns], kind="stable"):
        i, j = int(rows[k]), int(columns[k])
        if len(neighbors[i]) < 2 and len(neighbors[j]) < 2 and find(i) != find(j):
            neighbors[i].append(j)
            neighbors[j].append(i)
            group[find(i)] = find(j)
    at, came, order = next(i for i in range(n) if len(neighbors[i]) < 2), -1, []
    while at >= 0:
        order.append(at)
        at, came = next((j for j in neighbors[at] if j != came), -1), at
    return order


def _two_opt(d: np.ndarray, order: np.ndarray) -> np.ndarray | None:
    """Return the order after the best reversal of a segment, or None if no reversal shortens the tour."""
    n, following = len(order), np.roll(order, -1)
    gain = (
        d[order, following][:, None]
        + d[order, following][None]
        - d[np.ix_(order, order)]
        - d[np.ix_(following, following)]
    )
    gain = np.triu(gain, 1)
    i, j = np.unravel_index(gain.argmax(), (n, n))
    if gain[i, j] <= 1e-12 * np.abs(d).max():
        return None
    better = order.copy()
    better[i + 1 : j + 1] = better[i + 1 : j + 1][::-1]
    return better


def _or_opt(d: np.ndarray, order: np.ndarray) -> np.ndarray | None:
    """Return the order after the first move of one to three successive points that shortens the tour, or None."""
    n = len(order)
    for length in range(1, min(4, n - 2)):
        for start in range(n):
            turned = np.roll(order, -start)
            piece, rest = turned[:length], turned[length:]
            following = np.roll(rest, -1)
            removed = d[rest[-1], piece[0]] + d[piece[-1], rest[0]] - d[rest[-1], rest[0]]
            for ends in (piece, piece[::-1]):
                added = d[rest, ends[0]] + d[ends[-1], following] - d[rest, following]
                k = int(added.argmin())
                if added[k] < removed - 1e-12 * np.abs(d).max():
                    return np.concatenate([rest[: k + 1], ends, rest[k + 1 :]])
    return None
