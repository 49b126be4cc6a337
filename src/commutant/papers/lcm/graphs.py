"""Message passing for the claim on graph classification, in a separate file because it needs PyTorch Geometric."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch
from torch_geometric.nn import MessagePassing

from .models import aggregation


class _Layer(MessagePassing):
    """Message-passing layer h_u = MLP(h_u, AGG of the messages of the neighbors), with any aggregation."""

    def __init__(self, channels: int, arm: str) -> None:
        super().__init__(aggr=aggregation(arm, channels))
        self.psi = nn.Sequential(nn.Linear(channels, channels), nn.GELU())
        self.phi = nn.Sequential(nn.Linear(2 * channels, channels), nn.GELU(), nn.Linear(channels, channels))
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return x + self.phi(torch.cat([x, self.propagate(edge_index, x=x)], 1))

    def message(self, x_j: Tensor) -> Tensor:
        return self.psi(self.norm(x_j))


class GraphModel(nn.Module):
    """Graph classifier: three layers of message passing, a mean readout and a linear layer.

    Args:
        in_channels: Number of features of a node.
        channels: Width of the hidden layers.
        classes: Number of classes.
        arm: Name of the aggregation.
    """

    def __init__(self, in_channels: int, channels: int, classes: int, arm: str) -> None:
        super().__init__()
        self.embed = nn.Linear(in_channels, channels)
        self.layers = nn.ModuleList(_Layer(channels, arm) for _ in range(3))
        self.classify = nn.Linear(channels, classes)

    def forward(self, batch: Any) -> Tensor:
        """Return the logits of a PyG batch, `(graphs, classes)`."""
        x = self.embed(batch.x)
        for layer in self.layers:
            x = layer(x, batch.edge_index)
        size = torch.bincount(batch.batch, minlength=batch.num_graphs)[:, None]
        pooled = x.new_zeros(batch.num_graphs, x.shape[1]).index_add(0, batch.batch, x)
        return self.classify(pooled / size)


def batch_graphs(graphs: list[Any], which: Tensor) -> Any:
    """Return the chosen graphs as one PyG batch."""
    return Batch.from_data_list([graphs[i] for i in which.tolist()])
