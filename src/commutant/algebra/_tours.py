"""Search for the shortest tours through all points: Held-Karp, local search, and a lower bound by 1-trees."""

from __future__ import annotations

from itertools import combinations

import numpy as np


def held_karp(d: np.ndarray) -> np.ndarray:
    """Return the shortest tours, `(batch, n)`, from point 0.

    Dynamic programming over subsets of the other points, for all distances at once: `best[S, j]` is the length of the
    best path 0 -> S -> j.
    """
    batch, n = len(d), d.shape[1] - 1
    inner, first = np.moveaxis(d[:, 1:, 1:], 0, -1), np.moveaxis(d[:, 0, 1:], 0, -1)
    best = np.full((1 << n, n, batch), np.inf)
    before = np.zeros((1 << n, n, batch), dtype=np.int8)
    best[1 << np.arange(n), np.arange(n)] = first
    for size in range(2, n + 1):
        for chosen in combinations(range(n), size):
            members = np.array(chosen)
            whole = (1 << members).sum()
            without = whole - (1 << members)
            ways = best[np.ix_(without, members)] + inner[np.ix_(members, members)]  # last point by the one before
            best[whole, members] = ways.min(1)
            before[whole, members] = members[ways.argmin(1)]
    rows = np.arange(batch)
    whole, end = np.full(batch, (1 << n) - 1), (best[-1] + first).argmin(0)
    order = np.zeros((batch, n + 1), dtype=np.int64)
    for place in range(n, 0, -1):
        order[:, place] = end + 1
        whole, end = whole - (1 << end), before[whole, end, rows].astype(np.int64)
    return order


def local_search(d: np.ndarray, order: np.ndarray | None = None) -> np.ndarray:
    """Return a tour that no reversal of a segment and no move of a short one shortens.

    Args:
        d: Distances, `(n, n)`.
        order: Tour to start from; by default the shortest edges that fit together.
    """
    order = np.array(_greedy_edges(d)) if order is None else order
    while True:
        better = _two_opt(d, order)
        better = better if better is not None else _or_opt(d, order)
        if better is None:
            return order
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


def one_tree_bounds(d: np.ndarray, steps: int) -> np.ndarray:
    """Return lower bounds of the lengths of the shortest tours, `(batch,)`.

    A 1-tree is a spanning tree of all points but one and the two shortest edges of that point. The weights of points
    that lengthen the shortest 1-tree most are searched by subgradient steps (Volgenant and Jonker 1982).
    """
    batch, n = d.shape[:2]
    weights, best = np.zeros((batch, n)), np.full(batch, -np.inf)
    previous, first = np.zeros((batch, n)), np.zeros(batch)
    for k in range(1, steps + 1):
        length, degree = _one_trees(d + weights[:, :, None] + weights[:, None])
        value = length - 2 * weights.sum(1)
        best = np.maximum(best, value)
        if k == 1:
            first, previous = np.abs(value) / (2 * n), degree - 2
        size = first * (1 - (k - 1) / steps) ** 2
        weights += size[:, None] * (0.6 * (degree - 2) + 0.4 * previous)
        previous = degree - 2
    return best


def _one_trees(d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return length and degrees of the shortest 1-trees, by Prim's algorithm for all distances at once."""
    batch, n = d.shape[:2]
    rows = np.arange(batch)
    degree = np.zeros((batch, n))
    two = np.argpartition(d[:, 0, 1:], 1, axis=1)[:, :2] + 1
    length = d[rows[:, None], 0, two].sum(1)
    degree[:, 0] = 2
    degree[rows[:, None], two] += 1
    near, parent = d[:, 1].copy(), np.ones((batch, n), dtype=np.int64)
    near[:, :2] = np.inf
    for _ in range(n - 2):
        new = near.argmin(1)
        length += near[rows, new]
        degree[rows, new] += 1
        degree[rows, parent[rows, new]] += 1
        closer = (d[rows, new] < near) & np.isfinite(near)
        near[closer] = d[rows, new][closer]
        parent[closer] = np.broadcast_to(new[:, None], (batch, n))[closer]
        near[rows, new] = np.inf
    return length, degree
