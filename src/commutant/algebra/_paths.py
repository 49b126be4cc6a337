"""The shortest path through all points: exact where there are few, by local search where there are many."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from .._errors import InputError

_EXACT = 12  # points up to which 2^n n^2 steps are taken
_MOST = 20  # points of which 2^n n numbers fit into memory


def shortest_hamiltonian_path(
    distance: Float[Tensor, "n n"], *, closed: bool = False, exact: bool | None = None
) -> Int[Tensor, " n"]:
    """An order of all points in which the sum of successive distances is least.

    Up to twelve points by dynamic programming over subsets (Held and Karp), which is exact; beyond by joining shortest
    edges, then reversing stretches (2-opt) and moving short ones (or-opt) until nothing shortens the path.

    Args:
        distance: symmetric, finite, `(n, n)`.
        closed: a tour, which returns to its start.
        exact: force one or the other; exact takes 20 points at most.

    Returns:
        The points in their order.

    Raises:
        InputError: NaN, infinite or asymmetric distances.

    Example:
        >>> places = torch.tensor([0.0, 5.0, 1.0, 3.0])
        >>> shortest_hamiltonian_path((places[:, None] - places).abs())
        tensor([0, 2, 3, 1])
    """
    if not isinstance(distance, Tensor) or distance.is_complex():
        given = str(distance.dtype) if isinstance(distance, Tensor) else type(distance).__name__
        raise InputError(f"distances must be a real tensor, got {given}")
    d = distance.detach().double().cpu().numpy()
    if d.ndim != 2 or d.shape[0] != d.shape[1] or not np.isfinite(d).all():
        raise InputError(f"distances must be a square matrix, finite and symmetric, got shape {tuple(distance.shape)}")
    if (gap := _asymmetry(d)) > 64 * (torch.finfo(distance.dtype).eps if distance.is_floating_point() else 0):
        raise InputError(
            "distances must be a square matrix, finite and symmetric; squares of the two directions differ by "
            f"{gap:.1e} of the largest: symmetrize them, (d + d.mT) / 2"
        )
    if exact and len(d) > _MOST:
        raise InputError(
            f"an exact path of {len(d)} points takes too much memory, the most is {_MOST}; use exact=False"
        )
    n, d = len(d), (d + d.T) / 2
    if n <= 2:
        return torch.arange(n, device=distance.device)
    if not closed:  # a point at distance zero from all turns the path into a tour
        d = np.pad(d, (0, 1))
    order = _held_karp(d) if (n <= _EXACT if exact is None else exact) else _local_search(d)
    if not closed:
        cut = order.index(n)
        order = order[cut + 1 :] + order[:cut]
    if order[0] > order[-1] and not closed:
        order = order[::-1]
    return torch.tensor(order, device=distance.device)


def _asymmetry(d: np.ndarray) -> float:
    """The largest difference of squares of the two directions: `torch.cdist` rounds squares, not distances."""
    scaled = d / (np.abs(d).max(initial=0.0) or 1.0)
    squares = scaled * np.abs(scaled)
    return float(np.abs(squares - squares.T).max(initial=0.0))


def path_length(distance: Float[Tensor, "n n"], order: Int[Tensor, " n"], *, closed: bool = False) -> Float[Tensor, ""]:
    """The sum of distances along an order, for a tour with the way back."""
    following = order.roll(-1) if closed else order[1:]
    return distance[order if closed else order[:-1], following].sum()


def _held_karp(d: np.ndarray) -> list[int]:
    """`best[S][j]`: the shortest way from point 0 through the set S of the others, ending in j."""
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
    """Join the shortest edges that close no cycle and give no point a third neighbour."""
    n = len(d)
    rows, columns = np.triu_indices(n, 1)
    group, neighbours = list(range(n)), [[] for _ in range(n)]  # type: ignore[var-annotated]

    def find(i: int) -> int:
        while group[i] != i:
            group[i] = group[group[i]]
            i = group[i]
        return i

    for k in np.argsort(d[rows, columns], kind="stable"):
        i, j = int(rows[k]), int(columns[k])
        if len(neighbours[i]) < 2 and len(neighbours[j]) < 2 and find(i) != find(j):
            neighbours[i].append(j)
            neighbours[j].append(i)
            group[find(i)] = find(j)
    at, came, order = next(i for i in range(n) if len(neighbours[i]) < 2), -1, []
    while at >= 0:
        order.append(at)
        at, came = next((j for j in neighbours[at] if j != came), -1), at
    return order


def _two_opt(d: np.ndarray, order: np.ndarray) -> np.ndarray | None:
    """The best reversal of a stretch, all pairs at once."""
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
    """The first move of one to three successive points elsewhere that shortens the tour."""
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
