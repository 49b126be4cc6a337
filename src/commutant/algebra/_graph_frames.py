"""Frames of graphs under permutations of their nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from .._checks import one_of, whole
from .._errors import InputError
from ._color_refinement import as_colors, canonical_orders, orders_of, ranked, refined, spectral_signature
from ._frame import drawn_elements, weighted_sum
from ._permutations import inverse

GraphKind: TypeAlias = Literal["nodes", "pairs", "scalars"]
"""Axes of a value that a permutation of the nodes acts on: one (`nodes`), two (`pairs`) or none (`scalars`)."""


@dataclass(frozen=True)
class GraphFrame:
    """Weighted orders of the nodes of each graph that are permutation-equivariant: `F(P A) = P F(A)`.

    Puny et al., ICLR 2022, section 3.
    """

    order: Int[Tensor, "frames n"]
    """Orders of the nodes: `order[m, i]` is the node at position i."""
    weight: Float[Tensor, " frames"]
    """Weight of each order; the weights of a graph sum to one."""
    graph: Int[Tensor, " frames"]
    """Index of the graph of each order."""
    graphs: int
    """Number of graphs."""
    exact: bool = True
    """False if orders were drawn, so that an average is exact only in expectation."""

    def __len__(self) -> int:
        return len(self.graph)

    def __repr__(self) -> str:
        kind = "" if self.exact else ", sampled"
        return f"GraphFrame({len(self)} orders of {self.graphs} graphs with up to {self.order.shape[1]} nodes{kind})"

    def canonicalize(self, x: Shaped[Tensor, "graphs ..."], kind: GraphKind = "nodes") -> Shaped[Tensor, "frames ..."]:
        """Return the values of every graph in each of its orders.

        Args:
            x: Values of `nodes`, `(graphs, n, *features)`, of `pairs`, `(graphs, n, n, *features)`, or of graphs
                (`scalars`), `(graphs, ...)`.
            kind: Axes that a permutation acts on.
        """
        self._check(x, kind, self.graphs)
        return self._moved(x[self.graph], self.order, kind)

    def restore(self, y: Shaped[Tensor, "frames ..."], kind: GraphKind) -> Shaped[Tensor, "frames ..."]:
        """Return values of reordered graphs in the original order of the nodes.

        Args:
            y: Values, one row for each order.
            kind: Axes that a permutation acts on.
        """
        self._check(y, kind, len(self))
        return self._moved(y, inverse(self.order), kind)

    def pool(self, y: Shaped[Tensor, "frames ..."]) -> Shaped[Tensor, "graphs ..."]:
        """Return the weighted mean over the orders of each graph.

        Args:
            y: Real or complex values, one row for each order.
        """
        if not isinstance(y, Tensor) or not y.dim() or len(y) != len(self):
            given = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
            raise InputError(f"{len(self)} rows are needed, one per order, got {given}")
        if not (y.is_floating_point() or y.is_complex()):
            raise InputError(f"values must be real or complex to have a mean over orders, got {y.dtype}")
        return weighted_sum(y, self.weight, self.graph, self.graphs)

    def sample(self, number: int, generator: torch.Generator | None = None) -> GraphFrame:
        """Return a frame of orders drawn with replacement, whose mean is exact only in expectation.

        Args:
            number: Number of orders to draw for each graph.
            generator: Source of the draws; by default torch's global generator.
        """
        chosen = drawn_elements(self.weight, self.graph, number, generator)
        weight = torch.full_like(self.weight[:1], 1 / number).expand(len(chosen))
        return GraphFrame(self.order[chosen], weight, self.graph[chosen], self.graphs, exact=False)

    def _check(self, x: Tensor, kind: str, rows: int) -> None:
        one_of("kind", kind, ("nodes", "pairs", "scalars"))
        if not isinstance(x, Tensor):
            raise InputError(f"{kind} must be a tensor, got {type(x).__name__}")
        need = (rows, *(self.order.shape[1],) * {"scalars": 0, "nodes": 1, "pairs": 2}[kind])
        if tuple(x.shape[: len(need)]) != need:
            raise InputError(f"{kind} must have a shape that begins with {need}, got {tuple(x.shape)}")

    @staticmethod
    def _moved(x: Tensor, order: Tensor, kind: str) -> Tensor:
        rows = torch.arange(len(order), device=x.device)[:, None]
        if kind == "nodes":
            return x[rows, order]
        if kind == "pairs":
            return x[rows[..., None], order[:, :, None], order[:, None, :]]
        return x


def graph_frame(
    adjacency: Float[Tensor, "graphs n n"],
    features: Shaped[Tensor, "graphs n f"] | None = None,
    *,
    mask: Bool[Tensor, "graphs n"] | None = None,
    kind: Literal["refined", "spectral"] = "refined",
    invariant: bool = False,
    max_frames: int = 10_000,
) -> GraphFrame:
    """Return permutation-equivariant orders of the nodes of graphs, whose mean does not depend on the labeling.

    Args:
        adjacency: Symmetric adjacency matrices, with optional weights and self-loops, `(graphs, n, n)`.
        features: Features of the nodes that the orders respect, `(graphs, n, f)`. Features and weights are equal only
            if they are exactly equal.
        mask: True for valid nodes, `(graphs, n)`; other nodes come last, in stored order.
        kind: `"spectral"` for all orders that sort the rows of `S_ij = |P_j e_i|`, with projections P on the
            eigenspaces of the Laplacian, as in the paper. `"refined"` for the orders under which the graph takes a
            canonical form, found by individualization and refinement from the same rows. There are as many as
            automorphisms of the graph, which is the smallest possible frame. For a strongly regular graph without
            symmetries this is one order, where `"spectral"` has many.
        invariant: Whether to return only one order of each graph, which suffices for invariant outputs. It applies only
            to `"refined"`, whose orders all give the same reordered graph.
        max_frames: Largest number of orders of a graph, and of leaves in the search for them.

    Raises:
        InputError: For matrices that are not square or not symmetric, NaN, or a graph with more than `max_frames`
            orders.

    Example:
        >>> path = torch.tensor([[[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]])
        >>> graph_frame(path)
        GraphFrame(2 orders of 1 graphs with up to 3 nodes)
    """
    _check_graphs(adjacency, features, mask)
    one_of("kind", kind, ("refined", "spectral"))
    whole("max_frames", max_frames)
    graphs, n = adjacency.shape[:2]
    rounding = max(1e-6, 8 * torch.finfo(adjacency.dtype).eps) if adjacency.is_floating_point() else 0.0
    matrices = adjacency.detach().double().cpu().numpy()
    rows = None if features is None else features.detach().double().cpu().numpy().reshape(graphs, n, -1)
    there = np.ones((graphs, n), dtype=bool) if mask is None else mask.cpu().numpy().astype(bool)
    if not np.isfinite(matrices[there[:, :, None] & there[:, None, :]]).all():
        raise InputError("adjacency must be finite, got NaN or infinities")
    if rows is not None and not np.isfinite(rows[there]).all():
        raise InputError("features must be finite, got NaN or infinities")
    orders: list[np.ndarray] = []
    counts = []
    for g in range(graphs):
        nodes = np.flatnonzero(there[g])
        own = matrices[g][np.ix_(nodes, nodes)]
        if np.abs(own - own.T).max(initial=0.0) > rounding * np.abs(own).max(initial=0.0):
            raise InputError(
                f"the adjacency of graph {g} is not symmetric; symmetrize it by (adjacency + adjacency.mT) / 2"
            )
        own = (own + own.T) / 2
        found = _orders(own, None if rows is None else rows[g][nodes], kind, invariant, max_frames)
        rest = np.flatnonzero(~there[g])
        orders += [np.concatenate([nodes[p], rest]) for p in found]
        counts.append(len(found))
    number = torch.tensor(counts, device=adjacency.device, dtype=torch.long)
    order = torch.from_numpy(np.array(orders, dtype=np.int64).reshape(len(orders), n)).to(adjacency.device)
    weight = torch.repeat_interleave(1 / number.clamp(min=1).double(), number)
    return GraphFrame(order, weight, torch.repeat_interleave(number), graphs)


def graph_certificate(adjacency: Shaped[Tensor, "n n"], max_leaves: int = 10_000) -> bytes:
    """Return a canonical form of a graph, equal for two graphs exactly if they are isomorphic.

    Args:
        adjacency: Symmetric adjacency matrix, with optional weights and self-loops, `(n, n)`. Weights are equal only if
            they are exactly equal.
        max_leaves: Largest number of leaves in the search for the canonical form. Twins and known symmetries are not
            searched, so small graphs need a few. Graphs with many equal parts need many, and long.

    Raises:
        InputError: For matrices that are not square or not symmetric, NaN, or a graph that needs more leaves.

    Example:
        >>> path = torch.tensor([[0, 1, 0], [1, 0, 1], [0, 1, 0]])
        >>> graph_certificate(path) == graph_certificate(path[[1, 0, 2]][:, [1, 0, 2]])
        True
    """
    if not isinstance(adjacency, Tensor) or adjacency.dim() != 2 or adjacency.shape[0] != adjacency.shape[1]:
        given = tuple(adjacency.shape) if isinstance(adjacency, Tensor) else type(adjacency).__name__
        raise InputError(f"adjacency must be a matrix (n, n), got {given}")
    if adjacency.layout != torch.strided or adjacency.is_complex():
        raise InputError(
            f"adjacency must be a dense real matrix, got {adjacency.layout} {adjacency.dtype}; use .to_dense()"
        )
    whole("max_leaves", max_leaves)
    if not adjacency.is_floating_point() and adjacency.numel() and int(adjacency.long().abs().max()) > 2**53:
        raise InputError("whole-number weights must be at most 2^53, beyond which float64 can't tell them apart")
    matrix = adjacency.detach().double().cpu().numpy() + 0.0  # minus zero is zero
    if not np.isfinite(matrix).all():
        raise InputError("adjacency must be finite, got NaN or infinities")
    if (matrix != matrix.T).any():
        raise InputError("adjacency must be symmetric; symmetrize it by (adjacency + adjacency.T) / 2")
    values, edges = np.unique(matrix, return_inverse=True)
    edges = edges.reshape(matrix.shape).astype(np.int64)
    colors = ranked(np.diag(edges)[:, None])
    try:
        order = canonical_orders(colors, edges, max_leaves, whole=False)[0] if len(edges) else np.arange(0)
    except InputError:
        raise InputError(
            f"this graph of {len(edges)} nodes needs more than max_leaves={max_leaves} leaves in the search for its "
            "canonical form; raise max_leaves"
        ) from None
    return len(edges).to_bytes(8, "little") + values.tobytes() + edges[np.ix_(order, order)].tobytes()


def _check_graphs(adjacency: Tensor, features: Tensor | None = None, mask: Tensor | None = None) -> None:
    """Check the types and shapes of the arguments of `graph_frame`."""
    for name, value in (("adjacency", adjacency), ("features", features), ("mask", mask)):
        if value is not None and (not isinstance(value, Tensor) or value.is_complex()):
            kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise InputError(f"{name} must be a tensor of real numbers, got {kind}")
    if adjacency.dim() != 3 or adjacency.shape[1] != adjacency.shape[2]:
        raise InputError(f"adjacency must be (graphs, n, n), got {tuple(adjacency.shape)}")
    for name, value in (("features", features), ("mask", mask)):
        if value is not None and tuple(value.shape[:2]) != tuple(adjacency.shape[:2]):
            raise InputError(f"{name} must begin with {tuple(adjacency.shape[:2])}, got shape {tuple(value.shape)}")
    if mask is not None and (mask.dim() != 2 or mask.dtype != torch.bool):
        raise InputError(f"mask must hold booleans (graphs, n), got {mask.dtype} {tuple(mask.shape)}")


def _orders(
    adjacency: np.ndarray, features: np.ndarray | None, kind: str, invariant: bool, most: int
) -> list[np.ndarray]:
    """Return orders of the nodes of one graph."""
    edges = as_colors(adjacency)
    first = np.zeros(len(adjacency), dtype=np.int64)
    if features is not None and features.size:
        first = ranked(np.stack([as_colors(column) for column in features.T], 1))
    if not len(adjacency):
        return [first]
    signature = spectral_signature(adjacency)
    if kind == "spectral":
        if signature is None:
            raise InputError('some eigenvalues of the Laplacian are too close to each other; use kind="refined"')
        return orders_of(ranked(np.concatenate([first[:, None], signature], 1)), most)
    colors = first if signature is None else ranked(np.concatenate([first[:, None], signature], 1))
    colors = refined(ranked(np.stack([colors, np.diag(edges)], 1)), edges)
    return canonical_orders(colors, edges, most, whole=not invariant)
