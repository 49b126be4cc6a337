"""Orders of the nodes of a graph that move with it: spectral signatures, colour refinement, canonical forms.

Colours are small integers, the same for nodes that an isomorphism may exchange; every comparison that decides is one of
integers. Weights and features become integers by equality; eigenvectors, which carry rounding, by gaps in their sorted
values, and not at all where a gap is of a size that rounding might make.
"""

from __future__ import annotations

from itertools import permutations, product
from math import factorial, prod

import numpy as np
from numpy.typing import NDArray

from .._errors import InputError

Colours = NDArray[np.int64]


def as_colours(values: NDArray[np.float64]) -> Colours:
    """Integers in the order of the values, the same for equal ones alone: what is permuted is not rounded."""
    return np.unique(values, return_inverse=True)[1].reshape(values.shape).astype(np.int64)


def ranked(rows: NDArray[np.int64]) -> Colours:
    """The rank of each row among the distinct rows, in lexicographic order."""
    if not rows.shape[1]:
        return np.zeros(len(rows), dtype=np.int64)
    return np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)


def spectral_signature(adjacency: NDArray[np.float64]) -> NDArray[np.int64] | None:
    """`S_ij = |P_j e_i|`: how much of node i lies in the j-th eigenspace of the Laplacian, as colours `(n, spaces)`.

    None where eigenvalues are neither clearly equal nor clearly apart, so that rounding would decide.
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


def refined(colours: Colours, edges: NDArray[np.int64]) -> Colours:
    """The coarsest equitable colouring finer than the given one (colour refinement, with colours of edges)."""
    number = len(np.unique(colours))
    while True:
        keys = edges * (int(colours.max(initial=0)) + 1) + colours[None, :]
        colours = ranked(np.concatenate([colours[:, None], np.sort(keys, axis=1)], axis=1))
        if (found := len(np.unique(colours))) == number:
            return colours
        number = found


def orders_of(colours: Colours, most: int) -> list[Colours]:
    """All orders of the nodes that sort their colours: the product of the factorials of the sizes of the classes."""
    classes = [np.flatnonzero(colours == c) for c in np.unique(colours)]
    number = prod(factorial(len(c)) for c in classes)
    if number > most:
        raise InputError(
            f"{number} orders sort the spectral signatures of this graph of {len(colours)} nodes, more than "
            f'max_frames={most}; take kind="refined"'
        )
    return [
        np.concatenate(p).astype(np.int64) for p in product(*[list(map(np.array, permutations(c))) for c in classes])
    ]


def canonical_orders(colours: Colours, edges: NDArray[np.int64], most: int, whole: bool) -> list[Colours]:
    """Orders under which the graph takes its canonical form, the least that its search tree reaches.

    Individualise a node of the first smallest class that is not single, refine, go on: the leaves are orders, and an
    isomorphism carries the leaves of one graph to those of the other. Orders with the same form differ by an
    automorphism, which spares the search all branches that it maps to one seen before. Classes of twins, which can be
    exchanged without changing anything else, are not searched.

    Args:
        colours: of the nodes, where an isomorphism must keep them.
        edges: colours of the pairs, `(n, n)`.
        most: leaves, beyond which the graph is refused.
        whole: all such orders (a coset of the automorphism group), or one of them.
    """
    first = colours
    best: tuple[bytes, Colours] | None = None
    found: list[Colours] = []
    automorphisms: list[Colours] = []
    leaves = 0

    def leaf(colours: Colours) -> None:
        nonlocal best, leaves
        leaves += 1
        if leaves > most:
            raise InputError(
                f"this graph of {len(colours)} nodes has too many symmetries: more than max_frames={most} leaves in "
                "the search for its canonical form"
                + ("; outputs that are scalars need fewer, and more can be allowed" if whole else "; allow more")
            )
        order = np.argsort(colours, kind="stable")
        form = edges[np.ix_(order, order)].tobytes() + first[order].tobytes()
        if best is None or form < best[0]:
            best = (form, order)
            found[:] = [order]
        elif form == best[0]:
            found.append(order)
            image = np.empty_like(order)
            image[best[1]] = order
            automorphisms.append(image)

    def visit(colours: Colours, path: list[int]) -> None:
        names, sizes = np.unique(colours, return_counts=True)
        open_ = [(size, name) for name, size in zip(names, sizes, strict=True) if size > 1]
        if not open_:
            leaf(colours)
            return
        members = np.flatnonzero(colours == min(open_)[1])
        if not whole and _twins(members, edges):
            split = colours * len(colours)
            split[members] += np.arange(len(members))
            visit(refined(ranked(split[:, None]), edges), [*path, *members.tolist()])
            return
        seen: set[int] = set()
        for node in members.tolist():
            if not whole and node in _orbit(seen, [g for g in automorphisms if all(g[p] == p for p in path)]):
                continue
            seen.add(node)
            split = 2 * colours + 1  # below its class and above all that come before
            split[node] -= 1
            visit(refined(ranked(split[:, None]), edges), [*path, node])

    visit(refined(colours, edges), [])
    return found if whole else found[:1]


def _orbit(nodes: set[int], automorphisms: list[Colours]) -> set[int]:
    """Where the nodes go under products of automorphisms."""
    reached, new = set(nodes), set(nodes)
    while new:
        new = {int(g[v]) for g in automorphisms for v in new} - reached
        reached |= new
    return reached


def _twins(members: Colours, edges: NDArray[np.int64]) -> bool:
    """Whether the nodes can be exchanged at will: the same edges to all others, and among themselves all alike."""
    others = np.ones(len(edges), dtype=bool)
    others[members] = False
    first = members[0]
    if np.any(edges[np.ix_(members, np.flatnonzero(others))] != edges[first, others]):
        return False
    inner = edges[np.ix_(members, members)]
    off = inner[~np.eye(len(members), dtype=bool)]
    return bool(np.all(off == off[0]) and np.all(np.diag(inner) == inner[0, 0]))
