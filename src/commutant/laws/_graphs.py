"""Permutations of the nodes and edges of graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from .._errors import InputError
from ._actions import Action, GroupElement
from ._along_axes import AlongAxes, sizes_of
from ._inputs import Inputs, is_graph_data, map_tensors, named_tensors


class GraphPermutation(Action):
    """Permutation of the nodes of a graph and of its list of edges.

    Acts on `(x, edge_index, *edge_features)`, on dicts with these names and on PyG `Data`. Node tensors have one row
    per node; tensors named `edge_*`, or placed after `edge_index`, have one row per edge. A plain tensor, such as an
    output, is permuted along its rows if it has one row per node or edge, and left unchanged otherwise. `check` adds
    nodes and edges to find out which axes of an output index nodes, pairs of nodes or edges.
    """

    name = "graph-permutation"

    def sample(self, x: Inputs, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        nodes, edges = self._counts(x)
        order = torch.rand(nodes, generator=generator, dtype=torch.float64)
        if is_graph_data(x) and isinstance(getattr(x, "batch", None), Tensor):
            order = order + x.batch.cpu()  # the graphs of a batch keep their places
        return order.argsort(), torch.randperm(edges, generator=generator)

    def identity(self, x: Inputs) -> tuple[Tensor, Tensor]:
        nodes, edges = self._counts(x)
        return torch.arange(nodes), torch.arange(edges)

    def compose(self, g: GroupElement, h: GroupElement) -> GroupElement:
        return h[0][g[0]], h[1][g[1]]

    def inverse(self, g: GroupElement) -> GroupElement:
        return g[0].argsort(), g[1].argsort()

    def act(self, g: GroupElement, x: Inputs) -> Inputs:
        nodes, edges = g
        if isinstance(x, Tensor):
            rows = x.shape[0] if x.dim() else -1
            table = nodes if rows == nodes.numel() else edges if rows == edges.numel() else None
            return x if table is None else x[table.to(x.device)]
        roles = iter(self._roles(x, nodes.numel(), edges.numel()))

        def move(_: str, tensor: Tensor) -> Tensor:
            role = next(roles)
            if role == "index":
                return nodes.argsort().to(tensor)[tensor[:, edges.to(tensor.device)]]
            if role is None:
                return tensor
            return tensor[(nodes if role == "nodes" else edges).to(tensor.device)]

        return map_tensors(move, x)

    def _roles(self, x: Inputs, nodes: int, edges: int) -> list[str | None]:
        """Return the role of each tensor of x: "index" for the list of edges, else what its rows stand for."""
        tensors = list(named_tensors(x))
        graph = any(_is_edge_index(name, t) for name, t in tensors)
        roles: list[str | None] = []
        for name, tensor in tensors:
            rows = tensor.shape[0] if tensor.dim() else -1
            last = name.rpartition(".")[2]
            # after a list of edges, a vector of one integer per node is `batch`
            whole = tensor.dim() == 1 and not tensor.is_floating_point() and rows == nodes
            after = _is_position(name) and "index" in roles and not whole
            if _is_edge_index(name, tensor):
                roles.append("index")
            elif rows == edges and (last.startswith("edge") or after or rows != nodes):
                roles.append("edges" if edges or not graph else None)
            else:
                roles.append("nodes" if rows == nodes and not (last.startswith("edge") and graph) else None)
        return roles

    def resized(self, x: Inputs) -> Inputs | None:
        """Return x with one more node and two more edges from that node to itself."""
        if isinstance(x, Tensor):
            return None
        nodes, edges = self._counts(x)
        if not nodes:
            return None
        roles = iter(self._roles(x, nodes, edges))

        def grow(_: str, tensor: Tensor) -> Tensor:
            role = next(roles)
            if role == "index":
                return torch.cat([tensor, tensor.new_full((2, 2), nodes)], 1)
            if role == "nodes":
                return torch.cat([tensor, tensor[-1:]])
            return torch.cat([tensor, tensor[-1:], tensor[-1:]]) if role == "edges" and edges else tensor

        grown = map_tensors(grow, x)
        if is_graph_data(grown) and "num_nodes" in grown:
            grown.num_nodes = nodes + 1
        return grown

    def settled(self, f: Callable[[Inputs], Any], x: Inputs, source: Action) -> Action:
        resized = source.resized(x)
        if not isinstance(source, GraphPermutation) or resized is None or type(self).act is not GraphPermutation.act:
            return self
        (nodes, edges), sizes = self._counts(x), sizes_of(f, resized)
        axes: dict[str, tuple[tuple[int, int], ...]] = {}
        for name, t in named_tensors(f(x)):
            if _is_edge_index(name, t):
                return self  # the output is a graph, whose parts are known by name
            if len(sizes.get(name, ())) != t.dim():
                if nodes == edges and t.dim() and t.shape[0] == nodes and not name.startswith("edge"):
                    raise InputError(
                        f"the output of shape {tuple(t.shape)} may have a row for each of {nodes} nodes or edges; pass "
                        "an example with a different number of edges"
                    )
                return self
            known = {(nodes, nodes + 1): 0, (edges, edges + 2): 1}
            pairs = zip(t.shape, sizes[name], strict=True)
            axes[name] = tuple((axis, known[pair]) for axis, pair in enumerate(pairs) if pair in known)
        return AlongAxes(self, axes)

    def _counts(self, x: Inputs) -> tuple[int, int]:
        if isinstance(x, Tensor):
            return x.shape[0], 0
        edges = [t for name, t in named_tensors(x) if _is_edge_index(name, t)]
        if not edges:
            raise InputError("a graph permutation needs an edge_index of shape (2, edges) in the input")
        if is_graph_data(x):
            return int(x.num_nodes), edges[0].shape[1]
        nodes = [t for _, t in named_tensors(x) if t.is_floating_point() and t.dim()]
        return (nodes[0].shape[0] if nodes else int(edges[0].max()) + 1), edges[0].shape[1]

    def shrink(self, g: GroupElement, x: Inputs) -> Iterator[tuple[GroupElement, Inputs]]:
        nodes, edges = g
        still_nodes, still_edges = torch.arange(nodes.numel()), torch.arange(edges.numel())
        for simpler in ((nodes, still_edges), (still_nodes, edges)):
            if not (torch.equal(simpler[0], nodes) and torch.equal(simpler[1], edges)):
                yield simpler, x
        for which, permutation in enumerate(g):
            moved = (permutation != torch.arange(permutation.numel())).nonzero().flatten().tolist()
            for i in moved[:8] if len(moved) > 2 else []:
                swap = torch.arange(permutation.numel())
                swap[[i, int(permutation[i])]] = swap[[int(permutation[i]), i]]
                yield ((swap, edges) if which == 0 else (nodes, swap)), x


def _is_position(name: str) -> bool:
    return name.lstrip("x").isdigit()


def _is_edge_index(name: str, tensor: Tensor) -> bool:
    named = name.endswith("edge_index") or _is_position(name)
    return named and tensor.dim() == 2 and tensor.shape[0] == 2 and not tensor.is_floating_point()
