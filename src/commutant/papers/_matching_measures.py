"""How the claims on linear mode connectivity by weight matching are measured."""

from __future__ import annotations

import copy
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from ..data import image_classes
from ..evidence import Context, Measurement
from ..parameters import Permutation, PermutationSpec
from ..weights import (
    activation_matching,
    distance,
    interpolate,
    loss_barrier,
    singular_alignment,
    taylor_barrier,
    weight_matching,
)

POINTS = 11
THRESHOLDS = (0.0, 0.1, 0.2, 0.3, 0.5)


def measure_matching(context: Context) -> Measurement:
    """Barriers, distances and alignment of networks from different seeds, before and after matching, at each width."""
    widths = context.settings["widths"]
    context.total_arms = len(widths)
    out: Measurement = {}
    for width in widths:
        out |= context.arm(f"width-{width}", partial(_at_width, context, width))
    return out


def _digits() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Rows of pixels and classes: 1297 images to train on, 500 to test on, the same for every seed."""
    data = image_classes("digits")
    (x, y), (x_test, y_test) = data.train, data.test
    return (x.flatten(1), y), (x_test.flatten(1), y_test)


def _mlp(width: int, start: int) -> nn.Module:
    torch.manual_seed(start)
    sizes = [64, width, width, width, 10]
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(pairwise(sizes)):
        layers += [nn.Linear(a, b), *([nn.ReLU()] if i < 3 else [])]
    return nn.Sequential(*layers)


def _trained(context: Context, width: int, name: str) -> nn.Module:
    (x, y), _ = _digits()
    number = "abc".index(name)
    order = torch.randperm(len(x), generator=context.generator(17 + number))

    def draw(generator: torch.Generator, count: int) -> tuple[Tensor, Tensor]:
        rows = order[torch.randint(0, len(x), (count,), generator=generator)]  # batches of its own for each network
        return x[rows].to(context.device), y[rows].to(context.device)

    return context.train(
        f"{name}-{width}",
        partial(_mlp, width, context.seed * 7_919 + 101 + number),
        draw,
        _loss,
        steps=context.settings["steps"],
        batch_size=128,
        learning_rate=1e-3,
    )


def _loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def _at_width(context: Context, width: int) -> Measurement:
    train, test = (tuple(t.to(context.device) for t in part) for part in _digits())
    a, b, c = (_trained(context, width, name).eval() for name in "abc")
    spec = PermutationSpec.from_module(a, train[0], verify=False)
    generator = context.generator(5)
    moved = {
        "none": (b, c),
        "random": tuple(Permutation.random(spec, generator).apply(m) for m in (b, c)),
        "wm": tuple(weight_matching(spec, a, m).apply(m) for m in (b, c)),
        "am": tuple(activation_matching(spec, a, m, [(train[0],)]).apply(m) for m in (b, c)),
    }

    def evaluate(model: nn.Module, temperature: float = 1.0) -> float:
        with torch.no_grad():
            return float(nn.functional.cross_entropy(model(test[0]) / temperature, test[1]))

    tag = f"w{width}"
    out: Measurement = {f"{tag}@accuracy": _accuracy(a, test), f"{tag}@distance": distance(a, b)}
    for arm, (second, third) in moved.items():
        barrier = loss_barrier(a, second, evaluate, points=POINTS)
        out[f"{tag}-{arm}@barrier"] = barrier.sup
        out[f"{tag}-{arm}@pair"] = loss_barrier(second, third, evaluate, points=POINTS).sup
        out[f"{tag}-{arm}@nearer"] = 1 - distance(a, second) / distance(a, b)
        out |= {f"{tag}-{arm}@curve-{i}": value for i, value in enumerate(barrier.curve)}
        for threshold in THRESHOLDS:
            out[f"{tag}-{arm}@R-{threshold:g}"] = singular_alignment(a, second, threshold).total
    out[f"{tag}-none@cooled"] = _cooled_barrier(a, b, train, evaluate)
    for arm in ("none", "wm"):
        second = moved[arm][0]
        out[f"{tag}-{arm}@taylor"] = taylor_barrier(a, second, partial(_loss, batch=train))
        real = loss_barrier(a, second, lambda m: float(_loss(m, train).detach()), points=3).midpoint
        out[f"{tag}-{arm}@train-midpoint"] = real
    return out


def _accuracy(model: nn.Module, part: tuple[Tensor, ...]) -> float:
    with torch.no_grad():
        return float((model(part[0]).argmax(1) == part[1]).float().mean())


def _cooled_barrier(a: nn.Module, b: nn.Module, train: tuple[Tensor, ...], evaluate: object) -> float:
    """The barrier half way without a permutation, the merge's logits at the temperature best on training data."""
    middle = copy.deepcopy(a)
    middle.load_state_dict(interpolate([a, b]))
    grid = torch.logspace(-2, 1, 61)
    with torch.no_grad():
        logits = middle(train[0])
        losses = [float(nn.functional.cross_entropy(logits / t, train[1])) for t in grid]
    best = float(grid[int(torch.tensor(losses).argmin())])
    score = evaluate
    return score(middle, best) - (score(a) + score(b)) / 2  # type: ignore[operator,no-any-return]
