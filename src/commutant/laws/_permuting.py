"""Groups that move elements: permutations of sets, batches and graphs, shifts in time."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from .._errors import InputError
from ._actions import Action, GroupElement
from ._inputs import Inputs, Sets, is_graph_data, map_tensors, named_tensors


class SetPermutation(Action):
    """Reorder the elements of a set: $(g x)_i = x_{g(i)}$ along an axis, or inside each set of a ragged batch.

    Args:
        dim: the axis of the elements in tensors; 1 where the batch comes first, 0 for a single set.
    """

    name = "permutation"

    def __init__(self, dim: int = 1) -> None:
        self.dim = dim

    def _size(self, x: Inputs) -> int:
        if isinstance(x, Sets):
            return x.x.shape[0]
        for _, tensor in named_tensors(x):
            if tensor.dim() > self.dim:
                return tensor.shape[self.dim]
        raise InputError(f"no tensor of the input has an axis {self.dim} to permute")

    def sample(self, x: Inputs, generator: torch.Generator) -> Tensor:
        if isinstance(x, Sets):
            keys = torch.rand(x.x.shape[0], generator=generator, dtype=torch.float64)
            return (keys + x.index.cpu()).argsort()
        return torch.randperm(self._size(x), generator=generator)

    def identity(self, x: Inputs) -> Tensor:
        return torch.arange(self._size(x))

    def compose(self, g: Tensor, h: Tensor) -> Tensor:
        return h[g]

    def inverse(self, g: Tensor) -> Tensor:
        return g.argsort()

    def act(self, g: Tensor, x: Inputs) -> Inputs:
        if isinstance(x, Sets):
            return Sets(x.x[g.to(x.x.device)], x.index)
        n = g.numel()

        def permute(_: str, tensor: Tensor) -> Tensor:
            if tensor.dim() <= self.dim or tensor.shape[self.dim] != n:
                return tensor
            return tensor.index_select(self.dim, g.to(tensor.device))

        return map_tensors(permute, x)

    def on_output(self, x: Inputs) -> Action:
        return SetPermutation(0) if isinstance(x, Sets) else self

    def variants(self) -> tuple[Action, ...]:
        return (self, *(SetPermutation(dim) for dim in range(4) if dim != self.dim))

    def shrink(self, g: Tensor, x: Inputs) -> Iterator[tuple[Tensor, Inputs]]:
        moved = (g != torch.arange(g.numel())).nonzero().flatten().tolist()
        if len(moved) > 2:
            for i in moved[:8]:
                swap = torch.arange(g.numel())
                swap[[i, int(g[i])]] = swap[[int(g[i]), i]]
                yield swap, x
        fixed = (g == torch.arange(g.numel())).nonzero().flatten()
        for drop in (fixed, fixed[: len(fixed) // 2], fixed[len(fixed) // 2 :], *fixed[:8].split(1)):
            if len(drop):
                keep = torch.ones(g.numel(), dtype=torch.bool)
                keep[drop] = False
                yield _relabel(g, keep), self._keep(x, keep)

    def _keep(self, x: Inputs, keep: Tensor) -> Inputs:
        if isinstance(x, Sets):
            _, index = x.index[keep].unique(return_inverse=True)
            return Sets(x.x[keep], index)
        where = keep.nonzero().flatten()
        return map_tensors(
            lambda _, t: (
                t.index_select(self.dim, where) if t.dim() > self.dim and t.shape[self.dim] == keep.numel() else t
            ),
            x,
        )


def _relabel(g: Tensor, keep: Tensor) -> Tensor:
    new = keep.cumsum(0) - 1
    return new[g[keep]]


class BatchPermutation(SetPermutation):
    """Reorder the samples of a batch (the leading axis of every tensor)."""

    name = "batch-permutation"

    def __init__(self) -> None:
        super().__init__(dim=0)


class GraphPermutation(Action):
    """Relabel the nodes of a graph and reorder its list of edges.

    Acts on `(x, edge_index, *edge_features)`, on dicts with these names and on PyG `Data`: node tensors have as many
    rows as there are nodes, tensors named `edge_*` (or placed after `edge_index`) as many as there are edges. On a
    plain tensor (a model's output) it permutes the rows, or leaves a tensor without a row per node alone.
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
            return x[nodes.to(x.device)] if x.dim() and x.shape[0] == nodes.numel() else x
        if not any(_is_edge_index(name, t) for name, t in named_tensors(x)):
            return map_tensors(lambda _, tensor: self.act(g, tensor), x)
        seen_edges = False

        def move(name: str, tensor: Tensor) -> Tensor:
            nonlocal seen_edges
            if _is_edge_index(name, tensor):
                seen_edges = True
                return nodes.argsort().to(tensor)[tensor[:, edges.to(tensor.device)]]
            of_nodes = tensor.dim() == 1 and not tensor.is_floating_point() and tensor.shape == nodes.shape  # `batch`
            after = name.isdigit() and seen_edges and not of_nodes and tensor.shape[:1] == edges.shape
            if name.startswith("edge") or after:
                return tensor[edges.to(tensor.device)]
            return tensor[nodes.to(tensor.device)] if tensor.dim() and tensor.shape[0] == nodes.numel() else tensor

        return map_tensors(move, x)

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


def _is_edge_index(name: str, tensor: Tensor) -> bool:
    named = name.endswith("edge_index") or name.lstrip("x").isdigit()
    return named and tensor.dim() == 2 and tensor.shape[0] == 2 and not tensor.is_floating_point()


class TimeShift(Action):
    """Shift a sequence in time, cyclically, so that the shifts are a group.

    Args:
        dim: the axis of time; 1 where the batch comes first.
    """

    name = "time-shift"

    def __init__(self, dim: int = 1) -> None:
        self.dim = dim

    def _length(self, x: Inputs) -> int:
        for _, tensor in named_tensors(x):
            if tensor.dim() > self.dim:
                return tensor.shape[self.dim]
        raise InputError(f"no tensor of the input has an axis {self.dim} to shift")

    def sample(self, x: Inputs, generator: torch.Generator) -> int:
        length = self._length(x)
        return int(torch.randint(1, length, (), generator=generator)) if length > 1 else 0

    def identity(self, x: Inputs) -> int:
        return 0

    def compose(self, g: int, h: int) -> int:
        return g + h

    def inverse(self, g: int) -> int:
        return -g

    def act(self, g: int, x: Inputs) -> Inputs:
        return map_tensors(lambda _, t: t.roll(g, self.dim) if t.dim() > self.dim else t, x)

    def _cut(self, length: int, _: str, tensor: Tensor) -> Tensor:
        return tensor.narrow(self.dim, 0, length) if tensor.dim() > self.dim else tensor

    def shrink(self, g: int, x: Inputs) -> Iterator[tuple[int, Inputs]]:
        if abs(g) > 1:
            yield 1, x
        length = self._length(x)
        for short in {max(2, length // 2), length - 1}:
            if 1 < short < length:
                cut = map_tensors(partial(self._cut, short), x)
                yield (g if abs(g) < short else 1), cut
