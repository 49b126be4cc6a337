"""Measurements for the claims on frame averaging: normals, graphs on 7 vertices, particles, exactness."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..._errors import require
from ...algebra import GraphFrame, graph_frame, pca_frame, weighted_frame
from ...data import Surfaces, Trajectories, charged_particles, solid_surfaces
from ...evidence import Context, Measurement
from .._shared.rotations import random_rotations
from .models import normal_network
from .particles import BestByValidation, particle_network

NORMALS = ("plain", "augmented", "one-frame", "frames")
PARTICLES = ("plain", "centred", "augmented", "egnn", "egnn-features", "sampled", "frames", "latent-frames")
SLOW = ("frames", "latent-frames")


def measure_normals(context: Context) -> Measurement:
    """Return `1 - cos^2` of predicted normals on upright and rotated clouds, for four ways to train a PointNet."""
    settings = context.settings
    train, test = (
        solid_surfaces(settings[n], settings["points"], context.generator(i)) for i, n in ((1, "train"), (2, "test"))
    )
    turns = random_rotations(len(test.points), context.generator(3)).float()
    turned = Surfaces(test.points @ turns.mT, test.normals @ turns.mT)
    out: Measurement = {"clouds": float(len(test.points))}
    out |= context.arms({arm: partial(_normals_of, context, arm, train, test, turned) for arm in NORMALS})
    return out


def _normals_of(context: Context, arm: str, train: Surfaces, test: Surfaces, turned: Surfaces) -> Measurement:
    settings, device = context.settings, context.device

    def draw(generator: torch.Generator, count: int) -> tuple[Tensor, ...]:
        rows = torch.randint(0, len(train.points), (count,), generator=generator)
        return train.points[rows].to(device), train.normals[rows].to(device)

    def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        found = nn.functional.normalize(model(batch[0]), dim=-1)
        return 1 - (found * batch[1]).sum(-1).square().mean()

    steps = settings["epochs"] * settings["train"] // 20
    model = context.train(
        arm, partial(normal_network, arm), draw, loss, steps=steps, batch_size=20, learning_rate=3e-3
    ).eval()
    out: Measurement = {}
    with torch.no_grad():
        for name, surfaces in (("upright", test), ("turned", turned)):
            out[f"{arm}@{name}"] = float(loss(model, (surfaces.points.to(device), surfaces.normals.to(device))))
        flat = (test.normals.abs().amax(-1) > 0.99).double().mean(1)
        shown = int((flat > 0.5).double().argmax())  # the picture shows the first cloud that is mostly flat
        found = nn.functional.normalize(model(turned.points[shown : shown + 1].to(device)), dim=-1).cpu()[0]
    for i, (x, n, y) in enumerate(zip(turned.points[shown], turned.normals[shown], found, strict=True)):
        out |= {f"_{arm}-{i}-{axis}": float(x[k]) for k, axis in enumerate("xyz")}
        out |= {f"_{arm}-{i}-n{axis}": float(y[k] * (1 if n @ y >= 0 else -1)) for k, axis in enumerate("xyz")}
        out[f"_{arm}-{i}-loss"] = float(1 - (n @ y) ** 2)
    return out


def measure_separation(context: Context) -> Measurement:
    """Return the number of pairs of graphs that random networks do not tell apart, and of copies that they do."""
    nodes, nx = context.settings["nodes"], require("networkx", "graphs")
    graphs = [g for g in nx.graph_atlas_g() if g.number_of_nodes() == nodes and nx.is_connected(g)]
    first = torch.tensor(np.stack([nx.to_numpy_array(g) for g in graphs]))
    order = torch.stack([torch.randperm(nodes, generator=context.generator(i)) for i in range(len(graphs))])
    rows = torch.arange(len(graphs))[:, None]
    second = first[rows[..., None], order[:, :, None], order[:, None, :]]
    torch.manual_seed(context.seed)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(nodes**2, 64), nn.Tanh(), nn.Linear(64, 32), nn.Tanh(),
                         nn.Linear(32, 10)).double()  # fmt: skip
    plain, numbered = Gin(2).double(), Gin(2 + nodes).double()
    spectral = [graph_frame(a, kind="spectral") for a in (first, second)]
    refined = [graph_frame(a, invariant=True) for a in (first, second)]
    whole = [None, None]
    drawn = [f.sample(1, context.generator(20 + i)) for i, f in enumerate(spectral)]
    shuffled = [_any_order(len(graphs), nodes, context.generator(30 + i)) for i in range(2)]
    arms: dict[str, tuple[nn.Module, Any]] = {
        "gin": (plain, whole),
        "numbered-gin": (numbered, whole),
        "random-order-mlp": (flat, shuffled),
        "one-frame-mlp": (flat, drawn),
        "spectral-mlp": (flat, spectral),
        "spectral-gin": (numbered, spectral),
        "refined-mlp": (flat, refined),
        "refined-gin": (numbered, refined),
    }
    out: Measurement = {"graphs": float(len(graphs))}
    for name, (net, frames) in arms.items():
        with torch.no_grad():
            one, two = (_embedded(net, a, f) for a, f in zip((first, second), frames, strict=True))
        apart = torch.cdist(one, one, p=1)[torch.triu_indices(len(graphs), len(graphs), 1).unbind()]
        off = (one - two).abs().sum(1)
        out |= {
            f"{name}@merged": float((apart <= 1e-6).sum()),
            f"{name}@copies": float((off > 1e-6).sum()),
            f"{name}@difference": float(off.max()),
        }
    counts = torch.bincount(spectral[0].graph).double()
    out |= {"orders@mean": float(counts.mean()), "orders@median": float(counts.median())}
    return out


def _embedded(net: nn.Module, adjacency: Tensor, frame: GraphFrame | None) -> Tensor:
    if frame is None:
        return net(adjacency)  # type: ignore[no-any-return]
    return frame.pool(net(frame.canonicalize(adjacency, "pairs")))


def _any_order(graphs: int, nodes: int, generator: torch.Generator) -> GraphFrame:
    order = torch.stack([torch.randperm(nodes, generator=generator) for _ in range(graphs)])
    return GraphFrame(order, torch.ones(graphs, dtype=torch.float64), torch.arange(graphs), graphs, exact=False)


class Gin(nn.Module):
    """Graph isomorphism network (GIN) with three layers on ones, degrees and further features of the nodes.

    Args:
        inputs: Number of features of a node, including ones and degrees. Missing features are one-hot node indices.
    """

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.inputs = inputs
        sizes = (inputs, 64, 64, 64)
        self.layers = nn.ModuleList([nn.Linear(a, b) for a, b in pairwise(sizes)])
        self.head = nn.Linear(64, 10)

    def forward(self, adjacency: Tensor, features: Tensor | None = None) -> Tensor:
        """Return outputs `(graphs, 10)` of adjacency matrices `(graphs, n, n)`."""
        h = torch.stack([torch.ones_like(adjacency[..., 0]), adjacency.sum(-1)], -1)
        if self.inputs > 2:
            more = torch.eye(adjacency.shape[1]).to(h).expand(len(h), -1, -1) if features is None else features
            h = torch.cat([h, more], -1)
        for layer in self.layers:
            h = torch.tanh(layer(1.3 * h + adjacency @ h))
        return torch.tanh(self.head(h.sum(1)))


def measure_particles(context: Context) -> Measurement:
    """Return the squared error of predicted positions on systems as generated, rotated and shifted, by network."""
    settings = context.settings
    many = [
        charged_particles(settings[n], context.generator(i), warm_up=settings["warm_up"], horizon=settings["horizon"])
        for i, n in ((1, "train"), (2, "test"), (3, "validation"))
    ]
    out: Measurement = {"straight@error": _straight(*many[:2])}
    out |= context.arms({arm: partial(_particles_of, context, arm, *many) for arm in PARTICLES})
    return out


def _straight(train: Trajectories, test: Trajectories) -> float:
    """Return the error of the best straight line, x + a v."""
    gone = train.target - train.position
    a = float((gone * train.velocity).sum() / train.velocity.square().sum())
    return float((test.target - test.position - a * test.velocity).square().mean())


def flattened(data: Trajectories, rows: Tensor, device: torch.device, turn: Tensor | None = None) -> tuple[Any, Tensor]:
    """Return the arguments of a network and its target.

    Args:
        data: Systems of particles.
        rows: Indices of the systems.
        device: Device of the result.
        turn: Rotation to apply, `(3, 3)`, or None.
    """
    x, v, q, y = (part[rows].to(device) for part in data)
    if turn is not None:
        turn = turn.to(device)
        x, v, y = x @ turn.mT, v @ turn.mT, y @ turn.mT
    systems, n = q.shape
    pair = torch.combinations(torch.arange(n)).t()
    pair = torch.cat([pair, pair.flip(0)], 1).to(device)
    edges = (pair[:, None] + n * torch.arange(systems, device=device)[None, :, None]).flatten(1)
    charge, flat = q.flatten(), x.flatten(0, 1)
    far = (flat[edges[0]] - flat[edges[1]]).square().sum(-1)
    attributes = torch.stack([charge[edges[0]] * charge[edges[1]], far], -1)
    batch = torch.arange(systems, device=device).repeat_interleave(n)
    return (flat, v.flatten(0, 1), edges, attributes, batch), y.flatten(0, 1)


def _particles_of(
    context: Context, arm: str, train: Trajectories, test: Trajectories, validation: Trajectories
) -> Measurement:
    settings, device = context.settings, context.device

    def draw(generator: torch.Generator, count: int) -> tuple[Any, Tensor]:
        rows = torch.randint(0, len(train.charge), (count,), generator=generator)
        turn = random_rotations(1, generator)[0].float() if arm == "augmented" else None
        return flattened(train, rows, device, turn)

    def loss(model: nn.Module, batch: tuple[Any, Tensor]) -> Tensor:
        return (model(*batch[0]) - batch[1]).square().mean()

    # all frames are eight copies of every system: with fewer epochs they still take the most time
    steps = settings["epochs"] * settings["train"] // 100 // (settings["slower"] if arm in SLOW else 1)

    def make() -> nn.Module:
        held_out = flattened(validation, torch.arange(len(validation.charge)), torch.device("cpu"))
        return BestByValidation(
            particle_network(arm, settings["width"], settings["layers"]), *held_out, every=max(1, steps // 50)
        )

    model = context.train(
        arm,
        make,
        draw,
        loss,
        steps=steps,
        batch_size=100,
        learning_rate=settings["learning_rate"],
    ).eval()
    out: Measurement = {}
    rows = torch.arange(len(test.charge))
    turn = random_rotations(1, context.generator(9))[0].float()
    with torch.no_grad():
        for name, rotation, shift in (("error", None, 0.0), ("turned", turn, 0.0), ("shifted", None, 3.0)):
            (pos, *rest), target = flattened(test, rows, device, rotation)
            out[f"{arm}@{name}"] = float((model(pos + shift, *rest) - target - shift).square().mean())
    return out


def measure_exactness(context: Context) -> Measurement:
    """Return jumps of averages near a cube, and torques of forces, with and without the library's remedies."""
    generator = context.generator(1)
    weights = torch.randn(3, 32, generator=generator, dtype=torch.float64)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731

    def net(x: Tensor) -> Tensor:
        return torch.tanh(x @ weights + weights[0]).mean(-2).cumsum(-1).sin().sum(-1)

    def average(x: Tensor, build: Callable[..., Any], **options: Any) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # plain axes are degenerate here on purpose
            frame = build(x, "SE", **options)
        return frame.pool(net(frame.canonicalize(x)))

    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "axes": lambda x: average(x, pca_frame, on_degenerate="warn"),
        "blended": lambda x: average(x, pca_frame),
        "weighted": lambda x: average(x, weighted_frame),
    }
    cube = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 3)
    pairs = context.settings["pairs"]
    out: Measurement = {"clouds": float(pairs)}
    for power in (1, 2, 3, 4, 5):
        one, two = (cube + 10.0**-power * draw(pairs, 8, 3) for _ in range(2))
        for name, way in ways.items():
            out[f"{name}@jump-{power}"] = float((way(one) - way(two)).abs().max())
    turn = random_rotations(1, generator)[0]
    for name, way in ways.items():
        out[f"{name}@cube"] = float((way(cube[None]) - way(cube[None] @ turn.mT)).abs().max())
    x = draw(pairs, 10, 3).requires_grad_()
    for name, detached in (("through", False), ("detached", True)):
        frame = pca_frame(x, "SE")
        frame = frame.detach() if detached else frame
        (force,) = torch.autograd.grad(frame.pool(net(frame.canonicalize(x))).sum(), x)
        out[f"{name}@torque"] = float(torch.linalg.cross(x.detach(), force).sum(1).norm(dim=-1).mean())
        out[f"{name}@force"] = float(force.sum(1).norm(dim=-1).mean())
        if name == "through":
            exact = force
    out["detached@error"] = float((force - exact).norm() / exact.norm())
    return out
