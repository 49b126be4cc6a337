"""Subgraph permutation-equivariant network (SPEN)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .._checks import check_features, first_weight, is_real, one_of, whole
from .._errors import InputError, require
from ..algebra import Monoid
from ..laws import Equivariance, GraphPermutation, Invariance, obeys
from ._law_cases import network_on_batches, network_on_graphs
from ._neighborhoods import Neighborhoods
from ._spen_conv import SPENConv

Level = Literal["graph", "node", "pair"]


@obeys(
    "invariance under relabeling",
    lambda draw: network_on_graphs(draw, lambda c: SPEN(c, 16, 2, 2), Invariance(GraphPermutation())),
)
@obeys(
    "equivariance of node outputs",
    lambda draw: network_on_graphs(
        draw, lambda c: SPEN(c, 16, 2, 1, rooted=True, level="node"), Equivariance(GraphPermutation())
    ),
)
@obeys("batch independence", lambda draw: network_on_batches(draw, lambda c: SPEN(c, 16, 2, 1, rooted=True)))
class SPEN(nn.Module):
    """Subgraph permutation-equivariant network for graphs to which `EgoNets` was applied.

    The first layer reads the adjacency matrix, the identity and `edge_attr` as features of pairs, and `x` as features
    of nodes. Each layer applies `SPENConv`, ELU and GraphNorm, and keeps features of pairs and of nodes. The network
    distinguishes graphs that message passing (1-WL) cannot, such as regular graphs with different numbers of triangles.

    Use it for small and sparse graphs such as molecules. The cost grows with the squares of the sizes of the ego-nets,
    so a hub of 1000 neighbors costs as much as 60 000 nodes with three neighbors.

    Args:
        in_channels: Number of features of a node; 0 for graphs without `x`.
        hidden_channels: Number of channels of pairs and of nodes in the hidden layers.
        out_channels: Number of outputs.
        num_layers: Number of equivariant layers before the last one.
        edge_dim: Number of features of an edge; 0 for graphs without `edge_attr`.
        rooted: Whether the maps know the root of each ego-net.
        size_bins: Sizes of ego-nets with weights of their own, as for `SPENConv`.
        reinsertion: Combination of the ego-nets that share a pair or a node, as for `SPENConv`.
        level: What the outputs belong to: each graph, each node, or each pair of `pair_index`.
        readout: Combination of the ego-nets of a graph: `"mean"` or `"sum"`. A sum counts, and grows with the graph.
        norm: Whether to apply GraphNorm, with statistics of each graph, after each hidden layer.
        dropout: Probability of dropout in the MLP after the readout.

    Shapes:
        Returns `(graphs, out_channels)`, `(nodes, out_channels)` or `(pairs, out_channels)`.

    Raises:
        InputError: If an argument is not valid, the ego-nets are missing, or the features do not fit.

    References:
        Mitton and Murray-Smith (2021), "Subgraph Permutation Equivariant Networks".

    Example:
        >>> from torch_geometric.data import Batch, Data
        >>> from commutant.graphs import EgoNets
        >>> ring = Data(edge_index=torch.tensor([[0, 1, 2, 1, 2, 0], [1, 2, 0, 0, 1, 2]]), x=torch.randn(3, 4))
        >>> batch = Batch.from_data_list([EgoNets(k=1)(ring)] * 2)
        >>> SPEN(4, 16, out_channels=1, rooted=True)(batch).shape
        torch.Size([2, 1])
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        num_layers: int = 3,
        *,
        edge_dim: int = 0,
        rooted: bool = False,
        size_bins: Sequence[int] | Literal["log"] | None = None,
        reinsertion: Literal["mean", "sum"] | Monoid | nn.Module = "mean",
        level: Level = "graph",
        readout: Literal["mean", "sum"] = "mean",
        norm: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("in_channels", in_channels, 0),
            ("hidden_channels", hidden_channels, 1),
            ("out_channels", out_channels, 1),
            ("num_layers", num_layers, 1),
            ("edge_dim", edge_dim, 0),
        ):
            whole(name, value, least)
        one_of("level", level, get_args(Level))
        one_of("readout", readout, ("mean", "sum"))
        one_of("norm", norm, (False, True))
        if not is_real(dropout) or not 0 <= dropout <= 1:
            raise InputError(f"dropout must be a probability between 0 and 1, got {dropout!r}")
        self.in_channels, self.edge_dim, self.level, self.readout = in_channels, edge_dim, level, readout
        h = hidden_channels
        first = {2: 2 + edge_dim} | ({1: in_channels} if in_channels else {})
        last = {"graph": {0: h}, "node": {1: h, 0: h}, "pair": {2: h}}[level]
        options: dict[str, Any] = {"rooted": rooted, "size_bins": size_bins, "reinsertion": reinsertion}
        widths = [first, *({2: h, 1: h} for _ in range(num_layers))]
        self.convs = nn.ModuleList(SPENConv(a, b, **options) for a, b in pairwise(widths))
        self.last = SPENConv(widths[-1], last, **options)
        graph_norm = require("torch_geometric.nn", "graphs").GraphNorm
        self.norms = nn.ModuleList(
            nn.ModuleDict({str(k): graph_norm(h) for k in (2, 1) if norm}) for _ in range(num_layers)
        )
        self.mlp = nn.Sequential(
            nn.Linear(sum(last.values()), h), nn.ReLU(), nn.Dropout(dropout), nn.Linear(h, out_channels)
        )

    def reset_parameters(self) -> None:
        """Reinitialize all parameters."""
        for module in (*self.convs, self.last, *self.norms.modules(), *self.mlp):
            if callable(reset := getattr(module, "reset_parameters", None)):
                reset()

    def forward(self, data: Any) -> Float[Tensor, "rows out_channels"]:
        """Return the outputs of a graph or a batch of graphs.

        Args:
            data: PyG `Data` or `Batch` with the ego-nets of `EgoNets`.
        """
        n = Neighborhoods.from_data(data)
        weight = first_weight(self)
        if weight is not None and n.members.device != weight.device:
            raise InputError(
                f"the graphs are on {n.members.device} and the network is on {weight.device}; move one with .to(device)"
            )
        found = data.get("batch")
        nodes = torch.zeros_like(n.blocks.sizes) if found is None else found
        graphs = len(data.ego_pair_count)
        batch = {2: nodes[n.pair_index[0]], 1: nodes}
        x = self._features(data, n)
        conv: Any
        norms: Any
        for conv, norms in zip(self.convs, self.norms, strict=True):
            x = {k: nn.functional.elu(t) for k, t in conv(x, n).items()}
            x = {k: norms[str(k)](t, batch[k], graphs) for k, t in x.items()} if len(norms) else x
        out = [nn.functional.elu(t) for t in self.last(x, n).values()]
        merged = out[0] if len(out) == 1 else torch.cat(out, 1)
        if self.level != "graph":
            return self.mlp(merged)  # type: ignore[no-any-return]
        pooled = merged.new_zeros(graphs, merged.shape[1]).index_add(0, nodes, merged)
        if self.readout == "mean":
            pooled = pooled / torch.bincount(nodes, minlength=graphs).clamp(min=1)[:, None]
        return self.mlp(pooled)  # type: ignore[no-any-return]

    @torch.compiler.disable  # which edges are pairs depends on the data
    def _features(self, data: Any, n: Neighborhoods) -> dict[int, Tensor]:
        """Return the features of pairs and of nodes of the first layer."""
        weight = first_weight(self)
        assert weight is not None
        if not isinstance(data.get("edge_index"), Tensor):
            raise InputError("the graph has no edge_index; SPEN reads it beside the ego-nets")
        pairs = weight.new_zeros(n.count(2), 2 + self.edge_dim)
        row = n.find(data.edge_index)
        if bool((row < 0).any()) and bool((n.blocks.sizes > 1).any()):
            source, target = data.edge_index[:, (row < 0).nonzero()[0, 0]].tolist()
            raise InputError(
                f"no ego-net holds the edge from node {source} to node {target}; apply EgoNets last, "
                "after all transforms that change edges"
            )
        edges = weight.new_ones(len(row), 1)
        if self.edge_dim:
            edges = torch.cat([edges, self._given(data, "edge_attr", len(row), self.edge_dim)], 1)
        inside = row >= 0  # without hops only self-loops are pairs
        summed = pairs.new_zeros(len(pairs), edges.shape[1]).index_add(0, row[inside], edges[inside])
        pairs[:, 0], pairs[n.loops, 1], pairs[:, 2:] = summed[:, 0], 1, summed[:, 1:]
        if not self.in_channels:
            return {2: pairs}
        return {2: pairs, 1: self._given(data, "x", n.count(1), self.in_channels)}

    def _given(self, data: Any, name: str, rows: int, channels: int) -> Tensor:
        value = data.get(name)
        if isinstance(value, Tensor) and value.dim() == 1:
            value = value[:, None]
        check_features(f"data.{name}", value, first_weight(self))
        if value.shape != (rows, channels):
            raise InputError(f"data.{name} must have shape ({rows}, {channels}), got {tuple(value.shape)}")
        return value
