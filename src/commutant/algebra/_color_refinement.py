"""Permutation-equivariant orders of the nodes of a graph: spectral signatures, color refinement, canonical forms.

Colors are small integers, equal for nodes that an isomorphism may exchange. All decisions compare integers. Weights and
features become integers by equality. Entries of eigenvectors, which carry rounding errors, become integers by the gaps
between their sorted values, unless a gap is so small that it may be rounding.
"""

from __future__ import annotations

from itertools import permutations, product
from math import factorial, prod

import numpy as np
from numpy.typing import NDArray

from .._errors import InputError

Colors = NDArray[np.int64]


def as_colors(values: NDArray[np.float64]) -> Colors:
    """Return integers in the order of the values, equal only for exactly equal values."""
    return np.unique(values, return_inverse=True)[1].reshape(values.shape).astype(np.int64)


def ranked(rows: NDArray[np.int64]) -> Colors:
    """Return the rank of each row among the distinct rows, in lexicographic order."""
    if not rows.shape[1]:
        return np.zeros(len(rows), dtype=np.int64)
    return np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)


def spectral_signature(adjacency: NDArray[np.float64]) -> NDArray[np.int64] | None:
    """Return colors `(n, spaces)` of the norms `S_ij = |P_j e_i|`, where P_j projects on a Laplacian eigenspace.

    Returns None if some eigenvalues are neither clearly equal nor clearly distinct, since rounding would then decide.
    """
    laplacian = np.diag(adjacency.sum(1)) - adjacency
    values, vectors = np.linalg.eigh(laplacian)
    size = max(np.abs(values).max(initial=0.0), 1e-300)
    gaps = np.diff(values) / size
    if np.any((gaps > 1e-10) & (gaps < 1e-7)):
        return None
    starts = np.flatnonzero(np.concatenate([[True], gaps >= 1e-7]))
    shares = np.add.reduceat(vectors**2, starts, axis=1)
    order = np.argsort(shares, axis=0, kind="stable")
    steps = np.diff(np.take_along_axis(shares, order, 0), axis=0)
    if np.any((steps > 1e-10) & (steps < 1e-7)):
        return None
    ranks = np.concatenate([np.zeros((1, shares.shape[1])), np.cumsum(steps >= 1e-7, axis=0)]).astype(np.int64)
    found = np.empty_like(ranks)
    np.put_along_axis(found, order, ranks, 0)
    return found


def refined(colors: Colors, edges: NDArray[np.int64]) -> Colors:
    """Return the coarsest equitable coloring that refines the given one, by color refinement with colored edges."""
    number = len(np.unique(colors))
    while True:
        keys = edges * (int(colors.max(initial=0)) + 1) + colors[None, :]
        colors = ranked(np.concatenate([colors[:, None], np.sort(keys, axis=1)], axis=1))
        if (found := len(np.unique(colors))) == number:
            return colors
        number = found


def orders_of(colors: Colors, most: int) -> list[Colors]:
    """Return all orders of the nodes that sort their colors.

    Their number is the product of the factorials of the class sizes; more than `most` are refused.
    """
    classes = [np.flatnonzero(colors == c) for c in np.unique(colors)]
    number = prod(factorial(len(c)) for c in classes)
    if number > most:
        raise InputError(
            f"{number} orders sort the spectral signatures of this graph of {len(colors)} nodes, more than "
            f'max_frames={most}; use kind="refined"'
        )
    return [
        np.concatenate(p).astype(np.int64) for p in product(*[list(map(np.array, permutations(c))) for c in classes])
    ]


def canonical_orders(colors: Colors, edges: NDArray[np.int64], most: int, whole: bool) -> list[Colors]:
    """Return orders under which the graph takes its canonical form, the smallest form in the search tree.

    The search individualizes each node of the first smallest class with more than one node, refines and recurses. Its
    leaves are orders, and an isomorphism maps the leaves of one graph to those of the other. Two orders with the same
    form differ by an automorphism, so the search skips branches that known automorphisms map to earlier branches.
    Classes of twins, which can be exchanged without any other change, are not searched.

    Args:
        colors: Colors of the nodes that an isomorphism must preserve, `(n,)`.
        edges: Colors of pairs of nodes, `(n, n)`.
        most: Number of leaves above which the graph is refused.
        whole: Whether to return all such orders (a coset of the automorphism group) or only one.
    """
    first = colors
    best: tuple[bytes, Colors] | None = None
    found: list[Colors] = []
    automorphisms: list[Colors] = []
    leaves = 0

    def leaf(colors: Colors) -> None:
        nonlocal best, leaves
        leaves += 1
        if leaves > most:
            raise InputError(
                f"this graph of {len(colors)} nodes has too many symmetries: more than max_frames={most} leaves in "
                "the search for its canonical form; raise max_frames"
                + (", or use invariant=True for scalar outputs" if whole else "")
            )
        order = np.argsort(colors, kind="stable")
        form = edges[np.ix_(order, order)].tobytes() + first[order].tobytes()
        if best is None or form < best[0]:
            best = (form, order)
            found[:] = [order]
        elif form == best[0]:
            found.append(order)
            image = np.empty_like(order)
            image[best[1]] = order
            automorphisms.append(image)

    def visit(colors: Colors, path: list[int]) -> None:
        names, sizes = np.unique(colors, return_counts=True)
        open_ = [(size, name) for name, size in zip(names, sizes, strict=True) if size > 1]
        if not open_:
            leaf(colors)
            return
        members = np.flatnonzero(colors == min(open_)[1])
        if not whole and _twins(members, edges):
            split = colors * len(colors)
            split[members] += np.arange(len(members))
            visit(refined(ranked(split[:, None]), edges), [*path, *members.tolist()])
            return
        seen: set[int] = set()
        for node in members.tolist():
            if not whole and node in _orbit(seen, [g for g in automorphisms if all(g[p] == p for p in path)]):
                continue
            seen.add(node)
            split = 2 * colors + 1  # leaves room for a color below the class and above all earlier classes
            split[node] -= 1
            visit(refined(ranked(split[:, None]), edges), [*path, node])

    visit(refined(colors, edges), [])
    return found if whole else found[:1]


def _orbit(nodes: set[int], automorphisms: list[Colors]) -> set[int]:
    """Return the images of the nodes under products of automorphisms."""
    reached, new = set(nodes), set(nodes)
    while new:
        new = {int(g[v]) for g in automorphisms for v in new} - reached
        reached |= new
    return reached


def _twins(members: Colors, edges: NDArray[np.int64]) -> bool:
    """Return whether all members have the same edges to other nodes, and equal edges among themselves."""
    others = np.ones(len(edges), dtype=bool)
    others[members] = False
    first = members[0]
    if np.any(edges[np.ix_(members, np.flatnonzero(others))] != edges[first, others]):
        return False
    inner = edges[np.ix_(members, members)]
    off = inner[~np.eye(len(members), dtype=bool)]
    return bool(np.all(off == off[0]) and np.all(np.diag(inner) == inner[0, 0]))
