"""Networks that predict charged particles: message passing with and without frames, and EGNN."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from ...geometry import FrameAverage, LatentFrameAverage

_CLOSE = 0.05  # added to squared distances, so that features of close pairs stay bounded
_FAR = 10.0  # squared distances beyond it are clamped
PAIR = 12


def pair_features(pos: Tensor, vel: Tensor, edge_index: Tensor, charges: Tensor) -> Tensor:
    """Return the features of pairs, `(edges, 12)`.

    They are the product of the charges, the clamped squared distance, the potential, the Coulomb force, and the
    relative position and velocity.

    Args:
        pos: Positions, `(points, 3)`.
        vel: Velocities, `(points, 3)`.
        edge_index: Source and target of each edge, `(2, edges)`.
        charges: Product of the charges of each edge, `(edges, 1)`.
    """
    source, target = edge_index
    apart, drift = pos[source] - pos[target], vel[source] - vel[target]
    far = apart.square().sum(-1, keepdim=True)
    near = (far + _CLOSE).rsqrt()
    return torch.cat([charges, far.clamp(max=_FAR), charges * near, charges * near**3 * apart, apart, drift], -1)


class Message(nn.Module):
    """Layer of message passing with features of edges and a residual connection.

    The first linear map of a message is computed on nodes and gathered, which costs less.

    Args:
        width: Width of the nodes.
        features: Number of features of an edge.
    """

    def __init__(self, width: int, features: int) -> None:
        super().__init__()
        self.head, self.tail = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.edge = nn.Linear(features, width, bias=False)
        self.second = nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.update = nn.Sequential(nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, h: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        """Return the updated nodes, `(points, width)`."""
        source, target = edge_index
        sent = self.second(self.head(h)[source] + self.tail(h)[target] + self.edge(edge_attr))
        heard = torch.zeros_like(h).index_add(0, source, sent)
        return cast(Tensor, h + self.update(torch.cat([h, heard], -1)))


class Particles(nn.Module):
    """Message-passing network from positions and velocities to positions, without a symmetry in space.

    Args:
        width: Width of the nodes.
        layers: Number of layers.
        features: Number of features of an edge.
    """

    def __init__(self, width: int, layers: int, features: int = PAIR) -> None:
        super().__init__()
        self.lift = nn.Linear(6, width)
        self.layers = nn.ModuleList([Message(width, features) for _ in range(layers)])
        self.head = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 3))

    def forward(self, pos: Tensor, vel: Tensor, edge_index: Tensor, edge_attr: Tensor, batch: Tensor) -> Tensor:
        """Return the predicted positions, `(points, 3)`, as corrections to one unit of straight motion."""
        h = self.lift(torch.cat([pos, vel], -1))
        pairs = pair_features(pos, vel, edge_index, edge_attr[:, :1])
        for layer in self.layers:
            h = layer(h, edge_index, pairs)
        return cast(Tensor, pos + vel + self.head(h))


class LatentParticles(nn.Module):
    """Network of the layers of `Particles`, each in its own frames, with invariant features of pairs.

    Args:
        width: Width of the nodes.
        layers: Number of layers.
    """

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        base = Particles(width, layers, 4)
        self.net = LatentFrameAverage(base.lift, list(base.layers), base.head)

    def forward(self, pos: Tensor, vel: Tensor, edge_index: Tensor, edge_attr: Tensor, batch: Tensor) -> Tensor:
        """Return the predicted positions, `(points, 3)`, as corrections to one unit of straight motion."""
        charges, far = edge_attr.split(1, -1)
        near = (far + _CLOSE).rsqrt()
        pairs = torch.cat([charges, far.clamp(max=_FAR), charges * near, near], -1)
        found = self.net(pos, vel[:, None], edge_index=edge_index, edge_attr=pairs, batch=batch)
        number = int(batch[-1]) + 1
        center = pos.unflatten(0, (number, -1)).mean(1)[batch]
        return cast(Tensor, found - center + pos + vel)


class EGNN(nn.Module):
    """E(n)-equivariant graph network (Satorras, Hoogeboom and Welling, 2021), equations 3 to 7.

    Edges carry velocities and charges. The first linear map of a message is computed on nodes and gathered.

    Args:
        width: Width of the nodes.
        layers: Number of layers.
        features: Whether messages also see the invariants of the features that `Particles` sees.
    """

    def __init__(self, width: int, layers: int, features: bool = False) -> None:
        super().__init__()
        two = lambda a, b: nn.Sequential(nn.Linear(a, width), nn.SiLU(), nn.Linear(width, b))  # noqa: E731
        self.features, seen = features, 2 * width + (6 if features else 2)
        self.lift = nn.Linear(1, width)
        self.edge = nn.ModuleList([nn.Sequential(two(seen, width), nn.SiLU()) for _ in range(layers)])
        self.push = nn.ModuleList([two(width, 1) for _ in range(layers)])
        self.keep = nn.ModuleList([two(width, 1) for _ in range(layers)])
        self.node = nn.ModuleList([two(2 * width, width) for _ in range(layers)])
        for push in self.push:  # as in the authors' code: positions hardly move at first
            nn.init.xavier_uniform_(cast(nn.Linear, cast(nn.Sequential, push)[-1]).weight, gain=1e-3)

    def forward(self, pos: Tensor, vel: Tensor, edge_index: Tensor, edge_attr: Tensor, batch: Tensor) -> Tensor:
        """Return the predicted positions, `(points, 3)`."""
        source, target = edge_index
        h, charges = self.lift(vel.norm(dim=-1, keepdim=True)), edge_attr[:, :1]
        for edge, push, keep, node in zip(self.edge, self.push, self.keep, self.node, strict=True):
            apart = pos[source] - pos[target]
            far = apart.square().sum(-1, keepdim=True)
            seen = [charges, far]
            if self.features:
                drift, near = vel[source] - vel[target], (far + _CLOSE).rsqrt()
                turned = (apart * drift).sum(-1, keepdim=True), drift.square().sum(-1, keepdim=True)
                seen = [charges, far.clamp(max=_FAR), charges * near, charges * near**3, *turned]
            message = self._message(cast(nn.Sequential, edge), h, source, target, torch.cat(seen, -1))
            moved = torch.zeros_like(pos).index_add(0, source, apart * push(message)) / 4
            pos = pos + keep(h) * vel + moved
            h = h + node(torch.cat([h, torch.zeros_like(h).index_add(0, source, message)], -1))
        return pos

    @staticmethod
    def _message(edge: nn.Sequential, h: Tensor, source: Tensor, target: Tensor, pair: Tensor) -> Tensor:
        """Return `edge` of `[h[source], h[target], pair]`."""
        first, *rest = cast(nn.Sequential, edge[0])
        width = h.shape[1]
        head, tail, own = cast(nn.Linear, first).weight.split([width, width, pair.shape[1]], 1)
        linear = nn.functional.linear
        found = linear(h, head, cast(nn.Linear, first).bias)[source] + linear(h, tail)[target] + linear(pair, own)
        for step in (*rest, edge[1]):
            found = step(found)
        return found


class BestByValidation(nn.Module):
    """Network that keeps the weights of its smallest validation error and evaluates with them.

    Args:
        net: Network to train.
        inputs: Arguments of the network for the validation systems.
        target: Ground truth of the validation systems.
        every: Number of training steps between two validations.
    """

    def __init__(self, net: nn.Module, inputs: tuple[Tensor, ...], target: Tensor, every: int) -> None:
        super().__init__()
        self.net, self.every, self.count = net, every, len(inputs)
        for number, value in enumerate((*inputs, target)):
            self.register_buffer(f"validation_{number}", value, persistent=False)
        self.names = [name for name, _ in net.named_parameters()]
        for number, value in enumerate(net.parameters()):
            self.register_buffer(f"best_{number}", value.detach().clone())
        self.least: Tensor
        self.calls: Tensor
        self.register_buffer("least", torch.tensor(torch.inf))
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, *args: Any) -> Any:
        """Return the output of the network, with its current weights in training and its best weights in evaluation."""
        if not self.training:
            best = {name: getattr(self, f"best_{number}") for number, name in enumerate(self.names)}
            return torch.func.functional_call(self.net, best, args)
        if int(self.calls) % self.every == 0:
            self._validate()
        self.calls += 1
        return self.net(*args)

    @torch.no_grad()
    def _validate(self) -> None:
        *inputs, target = (getattr(self, f"validation_{number}") for number in range(self.count + 1))
        self.net.eval()
        error = (self.net(*inputs) - target).square().mean()
        self.net.train()
        if bool(error < self.least):
            self.least.copy_(error)
            for number, value in enumerate(self.net.parameters()):
                getattr(self, f"best_{number}").copy_(value)


def particle_network(arm: str, width: int, layers: int) -> nn.Module:
    """Build the network of an arm of the experiment on particles."""
    if arm == "latent-frames":
        return LatentParticles(width, layers)
    if arm.startswith("egnn"):
        return EGNN(width, layers, arm == "egnn-features")
    net = Particles(width, layers)
    if arm == "sampled":
        return FrameAverage(net, "E(3)", outputs="points", samples=1)
    if arm == "frames":
        return FrameAverage(net, "E(3)", outputs="points")
    return FrameAverage(net, "T(3)", outputs="points") if arm == "centred" else net
