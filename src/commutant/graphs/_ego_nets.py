"""Ego-nets of all nodes of a graph, as a transform of PyTorch Geometric."""

from __future__ import annotations

import copy
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from .._checks import one_of, whole
from .._errors import InputError, require

try:
    from torch_geometric.data import Data as _Data
    from torch_geometric.transforms import BaseTransform as _Transform
except ImportError:  # EgoNets says which extra is missing
    _Data = _Transform = object

Direction = Literal["both", "out", "in"]
Indices: TypeAlias = NDArray[np.int64]
NAMES = ("ego_size", "ego_index", "pair_index", "ego_pair", "ego_pair_count")
_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


class EgoNets(_Transform):  # type: ignore[misc, valid-type]
    """Transform of PyTorch Geometric that adds the k-hop ego-net of each node.

    It adds these attributes, which batch like any others: `ego_size`, the number of members of the ego-net of each
    node; `ego_index`, the nodes of the members of each ego-net, the root first; `pair_index`, the ordered pairs of
    nodes that share an ego-net, `(2, pairs)`; and `ego_pair`, the row of `pair_index` of each ordered pair of members,
    counted within the graph, of which `ego_pair_count` is the number. Apply it last and before batching: transforms
    that change nodes or edges make it stale. `Neighborhoods.from_data` reads the attributes.

    The ego-net of a node, its root, consists of all nodes within k hops. With undirected edges the direction does not
    matter. Isolated nodes have an ego-net of one node, and parallel edges and self-loops change no ego-net.

    Args:
        k: Number of hops. For k = 0 each node is alone; from the diameter on each ego-net is the whole graph.
        max_size: Largest number of nodes of an ego-net; None for no limit. A tensor of pairs has the square of this
            number of entries, so a limit protects against hubs.
        direction: Whether a hop follows edges from source to target (`"out"`), from target to source (`"in"`) or
            either way.

    Raises:
        InputError: If an ego-net has more than `max_size` nodes, if the graph has no `edge_index` or attributes of its
            own with these names, or if an edge names a node that does not exist.

    Example:
        >>> from torch_geometric.data import Data
        >>> path = Data(edge_index=torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]), num_nodes=3)
        >>> EgoNets(k=1)(path).ego_size
        tensor([2, 3, 2])
    """

    def __init__(self, k: int = 1, max_size: int | None = None, *, direction: Direction = "both") -> None:
        require("torch_geometric", "graphs")
        whole("k", k, 0)
        if max_size is not None:
            whole("max_size", max_size)
        one_of("direction", direction, get_args(Direction))
        self.k, self.max_size, self.direction = k, max_size, direction

    def forward(self, data: Any) -> Any:
        """Return a copy of a graph with its ego-nets.

        Args:
            data: Graph, a PyG `Data`.
        """
        edges, n = _checked(data)
        members, sizes = self._members(edges, n)
        out = copy.copy(data)
        out.num_nodes = n
        device = data.edge_index.device
        out.ego_index, out.ego_size = torch.from_numpy(members).to(device), torch.from_numpy(sizes).to(device)
        starts, squares = np.cumsum(sizes) - sizes, sizes**2
        place = np.arange(squares.sum()) - np.repeat(np.cumsum(squares) - squares, squares)
        block, width = np.repeat(starts, squares), np.repeat(sizes, squares)
        first, second = members[block + place // width], members[block + place % width]
        keys, rows = np.unique(first * n + second, return_inverse=True)
        out.pair_index = torch.from_numpy(np.stack([keys // max(n, 1), keys % max(n, 1)])).to(device)
        out.ego_pair = torch.from_numpy(rows.reshape(-1)).to(device)
        out.ego_pair_count = torch.tensor([len(keys)], device=device)
        return out

    def _members(self, edges: Indices, n: int) -> tuple[Indices, Indices]:
        """Return the members of all ego-nets, one after the other with the root first, and their numbers."""
        source, target = edges if self.direction != "in" else edges[::-1]
        if self.direction == "both":
            source, target = np.concatenate(edges), np.concatenate(edges[::-1])
        ones = np.ones(len(source), dtype=bool)
        step = sparse.csr_array((ones, (source, target)), shape=(n, n)) + sparse.eye_array(n, dtype=bool, format="csr")
        reach = sparse.eye_array(n, dtype=bool, format="csr")
        for _ in range(self.k):
            before, reach = reach.nnz, (reach @ step).astype(bool)
            sizes = np.diff(reach.indptr)
            if self.max_size is not None and sizes.max(initial=0) > self.max_size:
                raise InputError(
                    f"the ego-net of node {int(sizes.argmax())} has {int(sizes.max())} nodes or more for k = {self.k}, "
                    f"above max_size = {self.max_size}; raise max_size, lower k, or remove the hub"
                )
            if reach.nnz == before:
                break
        root, member = reach.nonzero()
        order = np.lexsort((member, member != root, root))
        return member[order].astype(np.int64), np.diff(reach.indptr).astype(np.int64)

    def __repr__(self) -> str:
        return f"EgoNets(k={self.k}, max_size={self.max_size}, direction={self.direction!r})"


def is_graph(data: Any) -> bool:
    """Return whether an object is a `Data` or `Batch` of PyG for one kind of nodes."""
    return _Data is not object and isinstance(data, _Data)


def _checked(data: Any) -> tuple[Indices, int]:
    """Return the edges and the number of nodes of a graph after a check of both."""
    if not is_graph(data):
        raise InputError(f"EgoNets takes a PyG Data, got {type(data).__name__}")
    taken = [name for name in NAMES if name in data]
    if taken and len(taken) < len(NAMES):
        raise InputError(f"the graph has an attribute {taken[0]} of its own, which EgoNets would overwrite; rename it")
    edge_index = data.get("edge_index")
    if not isinstance(edge_index, Tensor):
        raise InputError("the graph has no edge_index; set data.edge_index, of shape (2, 0) for a graph without edges")
    whole_numbers = edge_index.dtype in _INTEGERS and edge_index.layout == torch.strided
    if edge_index.dim() != 2 or edge_index.shape[0] != 2 or not whole_numbers:
        given = f"{edge_index.dtype} of shape {tuple(edge_index.shape)}"
        raise InputError(f"edge_index must be a dense tensor of integers of shape (2, edges), got {given}")
    if data.get("batch") is not None:
        raise InputError("EgoNets takes one graph at a time; apply it before batching, for instance as pre_transform")
    n = data.num_nodes or 0
    if n != int(n) or n < 0:
        raise InputError(f"num_nodes must be a whole number of at least 0, got {n}")
    n = int(n)
    if edge_index.numel() and (int(edge_index.min()) < 0 or int(edge_index.max()) >= n):
        bad = int(edge_index.max()) if int(edge_index.max()) >= n else int(edge_index.min())
        raise InputError(f"edge_index names node {bad}, but the graph has {n} nodes, 0 to {n - 1}")
    return edge_index.cpu().numpy().astype(np.int64), n
