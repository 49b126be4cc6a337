"""Measurements for the claims on linear mode connectivity by weight matching."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from ...evidence import Context, Measurement
from ...parameters import Permutation, PermutationSpec
from ...weights import (
    activation_matching,
    distance,
    interpolate,
    loss_barrier,
    reset_batchnorm_stats,
    singular_alignment,
    ste_matching,
    taylor_barrier,
    weight_matching,
)
from .._shared.classifiers import Part, accuracy, cross_entropy, image_parts
from .._shared.networks import mlp

POINTS = 11
THRESHOLDS = (0.0, 0.1, 0.2, 0.3, 0.5)
DIRECTIONS = 12


def measure_matching(context: Context) -> Measurement:
    """Return barriers, distances and alignment of networks before and after matching, at each width."""
    widths = context.settings["widths"]
    return context.arms({f"width-{width}": partial(_at_width, context, width) for width in widths})


def _data(context: Context) -> tuple[Part, Part]:
    """Return the training and test images with their classes; images are flattened for an MLP."""
    train, test = image_parts(context)
    if context.settings["network"] == "mlp":
        return (train[0].flatten(1), train[1]), (test[0].flatten(1), test[1])
    return train, test


class _Block(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        stride = 1 if before == after else 2
        self.a, self.b = (
            nn.Conv2d(before, after, 3, stride, 1, bias=False),
            nn.Conv2d(after, after, 3, 1, 1, bias=False),
        )
        self.norm_a, self.norm_b = nn.BatchNorm2d(after), nn.BatchNorm2d(after)
        self.shortcut = nn.Identity() if before == after else nn.Conv2d(before, after, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.norm_a(self.a(x)))
        return torch.relu(self.norm_b(self.b(h)) + self.shortcut(x))  # type: ignore[no-any-return]


def _resnet(width: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(), _Block(width, width),
        _Block(width, 2 * width), _Block(2 * width, 4 * width), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4 * width, 10),
    )  # fmt: skip


def _trained(context: Context, train: Part, width: int, name: str) -> nn.Module:
    x, y = train
    number = "abc".index(name)
    order = torch.randperm(len(x), generator=context.generator(17 + number))

    def make() -> nn.Module:
        torch.manual_seed(context.seed * 7_919 + 101 + number)
        return mlp([x.shape[1], width, width, width, 10]) if context.settings["network"] == "mlp" else _resnet(width)

    def draw(generator: torch.Generator, count: int) -> Part:
        rows = order[torch.randint(0, len(x), (count,), generator=generator)]  # each network has its own batches
        return x[rows.to(x.device)], y[rows.to(y.device)]

    return context.train(
        f"{name}-{width}",
        make,
        draw,
        cross_entropy,
        steps=context.settings["steps"],
        batch_size=128,
        learning_rate=1e-3,
    ).eval()


def _at_width(context: Context, width: int) -> Measurement:
    train, test = _data(context)
    a, b, c = (_trained(context, train, width, name) for name in "abc")
    spec = PermutationSpec.from_module(a, train[0][:4], verify=False)
    generator = context.generator(5)
    calibration = [(train[0][i],) for i in torch.arange(min(len(train[0]), 1000), device=train[0].device).split(500)]

    def evaluate(model: nn.Module, temperature: float = 1.0) -> float:
        reset_batchnorm_stats(model, calibration)
        with torch.no_grad():
            parts = zip(test[0].split(1000), test[1].split(1000), strict=True)
            lost = [nn.functional.cross_entropy(model(x) / temperature, y, reduction="sum") for x, y in parts]
        return float(sum(lost)) / len(test[1])

    def by_loss(model: nn.Module, projection: Literal["lap", "sinkhorn"]) -> nn.Module:
        steps, start = _batches(train, context.settings["search"], context.generator(7)), context.generator(11)
        return ste_matching(spec, a, model, steps, cross_entropy, projection=projection, generator=start).apply(model)

    arms: dict[str, Callable[[nn.Module], nn.Module]] = {
        "none": lambda m: m,
        "random": lambda m: Permutation.random(spec, generator).apply(m),
        "wm": lambda m: weight_matching(spec, a, m).apply(m),
    }
    if context.settings["network"] == "mlp":
        spread = PermutationSpec.from_module(a, train[0][:1000], verify=False)
        arms["am"] = lambda m: activation_matching(spread, a, m, [(train[0][:1000],)]).apply(m)
    if width in context.settings["searched"]:
        arms |= {"ste": lambda m: by_loss(m, "sinkhorn"), "shadow": lambda m: by_loss(m, "lap")}
    moved = {arm: (make(b), make(c)) for arm, make in arms.items()}

    tag = f"w{width}"
    out: Measurement = {f"{tag}@accuracy": accuracy(a, test), f"{tag}@distance": distance(a, b)}
    for arm, (second, third) in moved.items():
        barrier = loss_barrier(a, second, evaluate, points=POINTS)
        out[f"{tag}-{arm}@barrier"] = barrier.sup
        out[f"{tag}-{arm}@pair"] = loss_barrier(second, third, evaluate, points=POINTS).sup
        out[f"{tag}-{arm}@nearer"] = 1 - distance(a, second) / distance(a, b)
        out |= {f"{tag}-{arm}@curve-{i}": value for i, value in enumerate(barrier.curve)}
        for threshold in THRESHOLDS:
            out[f"{tag}-{arm}@R-{threshold:g}"] = singular_alignment(a, second, threshold).total
    if context.settings["network"] != "mlp":
        return out
    out[f"{tag}-none@cooled"] = _cooled_barrier(a, b, train, evaluate)
    part = train[0][:1300], train[1][:1300]
    for arm in ("none", "wm"):
        second = moved[arm][0]
        out[f"{tag}-{arm}@taylor"] = taylor_barrier(a, second, partial(cross_entropy, batch=part))
        real = loss_barrier(a, second, lambda m: float(cross_entropy(m, part).detach()), points=3).midpoint
        out[f"{tag}-{arm}@train-midpoint"] = real
    if "ste" in arms:
        for arm in ("none", "wm", "ste"):
            out |= _directions(f"{tag}-{arm}", a, moved[arm][0])
    return out


def _batches(train: Part, steps: int, generator: torch.Generator) -> Iterator[Part]:
    for _ in range(steps):
        rows = torch.randint(0, len(train[0]), (256,), generator=generator).to(train[0].device)
        yield train[0][rows], train[1][rows]


def _directions(tag: str, a: nn.Module, b: nn.Module) -> Measurement:
    """Return the similarity (u_i . u_j)(v_i . v_j) of the largest singular directions of the second layer."""
    first, second = (torch.linalg.svd(m.state_dict()["2.weight"].double(), full_matrices=False) for m in (a, b))
    alike = (first.U.T @ second.U) * (first.Vh @ second.Vh.T)
    return {f"_{tag}@D-{i}-{j}": float(alike[i, j]) for i in range(DIRECTIONS) for j in range(DIRECTIONS)}


def _cooled_barrier(a: nn.Module, b: nn.Module, train: tuple[Tensor, ...], evaluate: object) -> float:
    """Return the barrier halfway without a permutation, at the temperature that fits the training data best."""
    middle = copy.deepcopy(a)
    middle.load_state_dict(interpolate([a, b]))
    grid = torch.logspace(-2, 1, 61)
    with torch.no_grad():
        logits = middle(train[0][:1300])
        losses = [float(nn.functional.cross_entropy(logits / t, train[1][:1300])) for t in grid]
    best = float(grid[int(torch.tensor(losses).argmin())])
    score = evaluate
    return score(middle, best) - (score(a) + score(b)) / 2  # type: ignore[operator,no-any-return]
