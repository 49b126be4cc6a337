"""Measurements for the claims on invariant coordinates."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn

from ...data import OBJECT_CLASSES, Objects, object_clouds
from ...evidence import Context, Measurement
from ...geometry import MDSCoordinates
from .._shared.classifiers import cross_entropy
from .._shared.rotations import random_rotations
from .models import Solver, classifier, shortest_tours, tour_length

SHAPES = ("raw", "augmented", "no-rule", "random", "frames", "skew", "maxabs")
ROUTES = ("raw", "no-rule", "maxabs")


_CLEAR = 1e-2  # MDSCoordinates warns below it that axes or signs are in doubt


def _around_z(number: int, generator: torch.Generator) -> Tensor:
    angle = torch.rand(number, generator=generator) * 2 * math.pi
    c, s, zero, one = angle.cos(), angle.sin(), torch.zeros(number), torch.ones(number)
    return torch.stack([c, -s, zero, s, c, zero, zero, zero, one], -1).unflatten(-1, (3, 3))


def measure_shapes(context: Context) -> Measurement:
    """Return the accuracy on objects upright, rotated about z, rotated any way, and also scaled and shifted."""
    settings = context.settings
    train, test = (
        object_clouds(settings[n], settings["points"], context.generator(i)) for i, n in ((1, "train"), (2, "test"))
    )
    out: Measurement = {"objects": float(len(test.points))}
    out |= context.arms({arm: partial(_shapes_of, context, arm, train, test) for arm in SHAPES})
    return out


def _shapes_of(context: Context, arm: str, train: Objects, test: Objects) -> Measurement:
    settings, device = context.settings, context.device

    def draw(generator: torch.Generator, count: int) -> tuple[Tensor, Tensor]:
        rows = torch.randint(0, len(train.points), (count,), generator=generator)
        turn = random_rotations(count, generator).float() if arm == "augmented" else _around_z(count, generator)
        return (train.points[rows] @ turn.mT).to(device), train.labels[rows].to(device)

    model = context.train(
        arm,
        partial(classifier, arm, len(OBJECT_CLASSES)),
        draw,
        cross_entropy,
        steps=settings["epochs"] * settings["train"] // 50,
        batch_size=50,
        learning_rate=3e-3,
    ).eval()
    generator = context.generator(3)
    turns = {"z": _around_z(len(test.points), generator), "any": random_rotations(len(test.points), generator).float()}
    seen = {"upright": test.points} | {name: test.points @ turn.mT for name, turn in turns.items()}
    seen["similar"] = 3 * seen["any"] + 5
    out: Measurement = {}
    with torch.no_grad():
        torch.manual_seed(context.seed)
        logits = {name: model(x.to(device)).cpu() for name, x in seen.items()}
    for name, found in logits.items():
        out[f"{arm}@{name}"] = float((found.argmax(1) == test.labels).float().mean())
    moved = (logits["similar"] - logits["upright"]).abs().amax(1) > 1e-2
    return out | {f"{arm}@moved": float(moved.float().mean())}


def measure_routes(context: Context) -> Measurement:
    """Return the gap of a solver's tours to the shortest ones, and the share of tours that are unchanged by moves.

    Maps with ambiguous axes or signs are counted and excluded from that share.
    """
    x = torch.rand(context.settings["tests"], context.settings["cities"], 2, generator=context.generator(1))
    best = shortest_tours(x)
    frame = MDSCoordinates(on_degenerate="ignore").with_frame(x)[1]
    clear = torch.minimum(frame.gap, frame.margin) >= _CLEAR
    out: Measurement = {"maps": float(clear.sum()), "maps in doubt": float((~clear).sum())}
    out |= context.arms({arm: partial(_routes_of, context, arm, x, best, clear) for arm in ROUTES})
    return out


def _routes_of(context: Context, arm: str, x: Tensor, best: Tensor, clear: Tensor) -> Measurement:
    settings, device = context.settings, context.device
    cities = settings["cities"]
    rule = None if arm == "no-rule" else "maxabs"
    before: nn.Module = nn.Identity() if arm == "raw" else MDSCoordinates(signs=rule, on_degenerate="ignore")  # type: ignore[arg-type]

    def draw(generator: torch.Generator, count: int) -> Tensor:
        return torch.rand(count, cities, 2, generator=generator).to(device)

    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        tours, logs = model(batch, cities, False)
        lengths = tour_length(batch, tours)
        return ((lengths - lengths.mean(1, keepdim=True)) * logs).mean()

    model = context.train(
        arm,
        lambda: Solver(before),
        draw,
        loss,
        steps=settings["steps"],
        batch_size=64,
        learning_rate=1e-3,
    ).eval()
    # each map has its own angle: one angle for all leaves most signs of an eigensolver unchanged
    angle = 2 * math.pi * torch.rand(len(x), generator=context.generator(2))
    c, s = angle.cos(), angle.sin()
    turn = torch.stack([c, -s, s, c], -1).unflatten(-1, (2, 2))
    maps = {"as-is": x, "shifted": x + 5, "turned": x @ turn.mT, "larger": 10 * x, "all": 10 * x @ turn.mT + 5}
    with torch.no_grad():
        tours = {name: model(y.to(device), 1, True)[0].cpu() for name, y in maps.items()}
    out: Measurement = {}
    for name, found in tours.items():
        out[f"{arm}@gap-{name}"] = float((tour_length(x, found)[:, 0].double() / best - 1).mean())
        out[f"{arm}@same-{name}"] = float((found == tours["as-is"]).all(-1)[clear].float().mean())
    return out
