"""The networks of the claims on frame averaging: a PointNet for normals and a message-passing network for particles."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from ..geometry import FrameAverage, LatentFrameAverage
from ..laws import Rotation


class PointNet(nn.Module):
    """A direction for each point, from its own features and the largest of all (Qi et al., 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(3, 32), nn.Linear(32, 64), nn.Linear(64, 128)])
        self.head = nn.Sequential(nn.Linear(352, 96), nn.ReLU(), nn.Linear(96, 48), nn.ReLU(), nn.Linear(48, 3))

    def forward(self, x: Tensor) -> Tensor:
        """`(clouds, n, 3)` to `(clouds, n, 3)`."""
        features = []
        for layer in self.layers:
            x = torch.relu(layer(x))
            features.append(x)
        whole = x.amax(1, keepdim=True).expand_as(x)
        return cast(Tensor, self.head(torch.cat([*features, whole], -1)))


class Rotated(nn.Module):
    """A network that is trained on inputs turned at random, and on outputs turned alike."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """As the network."""
        if not self.training:
            return cast(Tensor, self.net(x))
        turns = random_rotations(len(x), torch.Generator().manual_seed(int(torch.randint(2**31, ())))).to(x)
        return cast(Tensor, self.net(x @ turns.mT) @ turns)


def random_rotations(number: int, generator: torch.Generator) -> Tensor:
    """Rotations of space, `(number, 3, 3)`, in float64."""
    action = Rotation(3)
    return torch.stack([action.sample(torch.zeros(1, 3), generator) for _ in range(number)])


def normal_network(arm: str) -> nn.Module:
    """The network of an arm of the experiment on normals."""
    if arm == "frames":
        return FrameAverage(PointNet(), "E(3)", outputs="vectors")
    if arm == "one-frame":
        return FrameAverage(PointNet(), "E(3)", outputs="vectors", samples=1)
    return Rotated(PointNet()) if arm == "augmented" else PointNet()


class Message(nn.Module):
    """A layer of message passing with attributes of edges, and a residual."""

    def __init__(self, width: int, attributes: int) -> None:
        super().__init__()
        self.message = nn.Sequential(
            nn.Linear(2 * width + attributes, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()
        )
        self.update = nn.Sequential(nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, h: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        """`(points, width)` to the same."""
        sent = self.message(torch.cat([h[edge_index[0]], h[edge_index[1]], edge_attr], -1))
        heard = torch.zeros_like(h).index_add(0, edge_index[0], sent)
        return cast(Tensor, h + self.update(torch.cat([h, heard], -1)))


class Particles(nn.Module):
    """A message-passing network from positions and velocities to positions, with no symmetry in space."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.lift = nn.Linear(6, width)
        self.layers = nn.ModuleList([Message(width, 2) for _ in range(layers)])
        self.head = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 3))

    def forward(self, pos: Tensor, vel: Tensor, edge_index: Tensor, edge_attr: Tensor, batch: Tensor) -> Tensor:
        """Where the points go, `(points, 3)`."""
        h = self.lift(torch.cat([pos, vel], -1))
        for layer in self.layers:
            h = layer(h, edge_index, edge_attr)
        return cast(Tensor, pos + self.head(h))


class LatentParticles(nn.Module):
    """The same layers, each in frames of its own."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        base = Particles(width, layers)
        self.net = LatentFrameAverage(base.lift, list(base.layers), base.head)

    def forward(self, pos: Tensor, vel: Tensor, edge_index: Tensor, edge_attr: Tensor, batch: Tensor) -> Tensor:
        """Where the points go, `(points, 3)`: the mean of what they are taken to, as in the other networks."""
        found = self.net(pos, vel[:, None], edge_index=edge_index, edge_attr=edge_attr, batch=batch)
        number = int(batch[-1]) + 1
        centre = pos.unflatten(0, (number, -1)).mean(1)[batch]
        return cast(Tensor, found - centre + pos)


def particle_network(arm: str, width: int, layers: int) -> nn.Module:
    """The network of an arm of the experiment on particles."""
    if arm == "latent-frames":
        return LatentParticles(width, layers)
    if arm in ("frames", "centred"):  # around the mean: translations alone
        group = "E(3)" if arm == "frames" else "T(3)"
        return FrameAverage(Particles(width, layers), group, outputs="points")
    return Particles(width, layers)
