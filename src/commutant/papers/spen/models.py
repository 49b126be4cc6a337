"""Rivals of SPEN: message passing (GIN), subgraph networks (NGNN, SSWL) and GNN-AK."""

from __future__ import annotations

import warnings
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch_geometric.nn import GINConv, global_add_pool, global_mean_pool
from torch_geometric.transforms import RootedEgoNets
from torch_geometric.utils import to_dense_adj


def mlp(in_channels: int, channels: int, norm: bool = True) -> nn.Sequential:
    """Return two linear layers with ReLU, and batch normalization in between."""
    between = nn.BatchNorm1d(channels) if norm else nn.Identity()
    return nn.Sequential(nn.Linear(in_channels, channels), between, nn.ReLU(), nn.Linear(channels, channels), nn.ReLU())


class GIN(nn.Module):
    """Graph isomorphism network, whose power is that of color refinement (1-WL).

    Constant features are not normalized: their variance over a batch is zero or nearly so.

    Args:
        in_channels: Number of features of a node; 0 for a constant.
        channels: Width.
        out_channels: Number of outputs.
        num_layers: Number of layers.
        readout: `"mean"` or `"sum"` over nodes.
    """

    def __init__(
        self, in_channels: int, channels: int, out_channels: int, num_layers: int = 3, readout: str = "mean"
    ) -> None:
        super().__init__()
        widths = [max(in_channels, 1), *[channels] * num_layers]
        self.constant = not in_channels
        self.convs = nn.ModuleList(
            GINConv(mlp(a, b, norm=not self.constant), train_eps=True) for a, b in pairwise(widths)
        )
        self.pool = global_mean_pool if readout == "mean" else global_add_pool
        self.head = nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, out_channels))

    def forward(self, data: Any) -> Tensor:
        """Return the outputs of a PyG batch, `(graphs, out_channels)`."""
        x = torch.ones(data.num_nodes, 1).to(next(self.parameters())) if self.constant else data.x
        for conv in self.convs:
            x = conv(x, data.edge_index)
        return self.head(self.pool(x, data.batch, data.num_graphs))  # type: ignore[no-any-return]


class SubgraphNetwork(nn.Module):
    """Subgraph network on pairs (root, node): message passing in each ego-net (NGNN), and also across roots (SSWL).

    Pairs farther apart than `hops` are left out. Initial features are the distances.

    Args:
        kind: `"ngnn"` or `"sswl"`.
        hops: Radius of the ego-nets.
        channels: Width.
        out_channels: Number of outputs.
        num_layers: Number of layers.
    """

    def __init__(
        self, kind: Literal["ngnn", "sswl"], hops: int, channels: int, out_channels: int, num_layers: int = 3
    ) -> None:
        super().__init__()
        self.hops, self.across = hops, kind == "sswl"
        self.embed = nn.Embedding(hops + 1, channels)
        self.layers = nn.ModuleList(mlp((3 if self.across else 2) * channels, channels) for _ in range(num_layers))
        self.head = nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, out_channels))

    def forward(self, data: Any) -> Tensor:
        """Return the outputs of a PyG batch, `(graphs, out_channels)`."""
        adjacency = to_dense_adj(data.edge_index, data.batch, batch_size=data.num_graphs).clamp(max=1)
        n = adjacency.shape[1]
        sizes = torch.bincount(data.batch, minlength=data.num_graphs)
        exists = torch.arange(n, device=sizes.device) < sizes[:, None]
        distance = torch.full_like(adjacency, self.hops + 1, dtype=torch.long)
        reach = torch.eye(n, device=adjacency.device).expand_as(adjacency)
        for hop in range(self.hops + 1):
            distance = torch.where((reach > 0) & (distance > self.hops), hop, distance)
            reach = reach @ adjacency
        inside = (distance <= self.hops) & exists[:, :, None] & exists[:, None]
        x = self.embed(distance.clamp(max=self.hops)) * inside[..., None]
        for layer in self.layers:
            parts = [x, torch.einsum("bvwc,bwu->bvuc", x, adjacency)]
            if self.across:
                parts.append(torch.einsum("bvw,bwuc->bvuc", adjacency, x))
            x = x + torch.zeros_like(x).masked_scatter(inside[..., None], layer(torch.cat(parts, -1)[inside]))
        subgraphs = x.sum(2) / inside.sum(2).clamp(min=1)[..., None]
        return self.head(subgraphs.sum(1) / sizes[:, None])  # type: ignore[no-any-return]


class GNNAK(nn.Module):
    """GNN-AK with GIN as its base: each node reads its ego-net through a GIN layer.

    Graphs come from `rooted_ego_nets`.

    Args:
        in_channels: Number of features of a node.
        channels: Width.
        out_channels: Number of outputs.
        num_layers: Number of layers.
    """

    def __init__(self, in_channels: int, channels: int, out_channels: int, num_layers: int = 2) -> None:
        super().__init__()
        self.embed = nn.Linear(in_channels, channels)
        self.inner = nn.ModuleList(GINConv(mlp(channels, channels), train_eps=True) for _ in range(num_layers))
        self.outer = nn.ModuleList(mlp(3 * channels, channels) for _ in range(num_layers))
        self.head = nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, out_channels))

    def forward(self, data: Any) -> Tensor:
        """Return the outputs of a PyG batch, `(graphs, out_channels)`."""
        x = self.embed(data.x)
        roots = (data.n_id == data.n_sub_batch).nonzero().squeeze(1)
        for inner, outer in zip(self.inner, self.outer, strict=True):
            h = inner(x[data.n_id], data.sub_edge_index)
            subgraph = torch.zeros_like(x).index_add(0, data.n_sub_batch, h)
            x = x + outer(torch.cat([x, h[roots], subgraph], 1))
        return self.head(global_mean_pool(x, data.batch, data.num_graphs))  # type: ignore[no-any-return]


def rooted_ego_nets(graph: Any) -> Any:
    """Return a graph with the ego-nets that `GNNAK` reads.

    Args:
        graph: PyG `Data`.
    """
    with warnings.catch_warnings():  # about torch's sparse tensors, which PyG's transform uses
        warnings.simplefilter("ignore", UserWarning)
        return RootedEgoNets(1)(graph)


def parameters(model: nn.Module) -> int:
    """Return the number of trained parameters."""
    return sum(p.numel() for p in model.parameters())
