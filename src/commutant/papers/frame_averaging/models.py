"""Networks of the claims on normals: a PointNet, rotated in training or averaged over frames."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from ...geometry import FrameAverage
from .._shared.rotations import random_rotations


class PointNet(nn.Module):
    """PointNet that predicts a direction for each point from its features and their maximum (Qi et al., 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(3, 32), nn.Linear(32, 64), nn.Linear(64, 128)])
        self.head = nn.Sequential(nn.Linear(352, 96), nn.ReLU(), nn.Linear(96, 48), nn.ReLU(), nn.Linear(48, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Return directions `(clouds, n, 3)` of clouds `(clouds, n, 3)`."""
        features = []
        for layer in self.layers:
            x = torch.relu(layer(x))
            features.append(x)
        whole = x.amax(1, keepdim=True).expand_as(x)
        return cast(Tensor, self.head(torch.cat([*features, whole], -1)))


class Rotated(nn.Module):
    """Network trained on randomly rotated inputs, with outputs rotated back.

    Args:
        net: Network from `(clouds, n, 3)` to the same.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of the network, on rotated inputs in training."""
        if not self.training:
            return cast(Tensor, self.net(x))
        turns = random_rotations(len(x), torch.Generator().manual_seed(int(torch.randint(2**31, ())))).to(x)
        return cast(Tensor, self.net(x @ turns.mT) @ turns)


def normal_network(arm: str) -> nn.Module:
    """Build the network of an arm of the experiment on normals."""
    if arm == "frames":
        return FrameAverage(PointNet(), "E(3)", outputs="vectors")
    if arm == "one-frame":
        return FrameAverage(PointNet(), "E(3)", outputs="vectors", samples=1)
    return Rotated(PointNet()) if arm == "augmented" else PointNet()
