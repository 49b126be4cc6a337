"""Measurements of the experiments."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from itertools import combinations, product
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...data import (
    SubsetExamples,
    anomalous_sets,
    image_classes,
    load_table,
    planted_subsets,
    training_panels,
)
from ...evidence import Context, Measurement
from ...sets import FacilityLocation, SetUtility, SubsetSelector, continuous_greedy
from .models import Arm, Selector, function_of, network_of
from .training import Schedule, figures_of, overlap, scores_of, train

Parts = tuple[SubsetExamples, SubsetExamples, SubsetExamples]


def perceptron(features: int, width: int) -> nn.Module:
    """Return an encoder with one hidden layer.

    Args:
        features: Number of features of an element.
        width: Width of the hidden layer and of the result.
    """
    return nn.Sequential(nn.Linear(features, width), nn.ReLU(), nn.Linear(width, width))


def convolutions(channels: int, width: int) -> nn.Module:
    """Return an encoder of images: three convolutions of stride 2, and the maximum over pixels.

    Args:
        channels: Number of channels of an image.
        width: Width of the result.
    """
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3, 2), nn.ReLU(), nn.Conv2d(16, 32, 3, 2), nn.ReLU(), nn.Conv2d(32, width, 3, 2),
        nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(width, width),
    )  # fmt: skip


def _trained(
    context: Context, arm: Arm, encoder: Callable[[], nn.Module], parts: Parts, start: float, **options: Any
) -> nn.Module:
    """Build and train the network of an arm; all arms of a seed share seeds."""
    s = context.settings
    torch.manual_seed(context.seed * 7919 + 1)
    net = network_of(arm, encoder, s["width"], 2 * s["width"], start, s["samples"], **options)
    schedule = Schedule(s["epochs"], s["batch_size"], s["learning_rate"], context.seed * 7919 + 2)
    return train(net, parts[0], parts[1], schedule)


def _images_of(context: Context, name: str) -> list[tuple[Tensor, Tensor]]:
    """Return images and classes to train, validate and test on."""
    data = image_classes(name, context.data_dir)
    order = torch.randperm(len(data.train[0]), generator=context.generator(1))
    held = len(order) * 2 // 7
    (x, y), test = data.train, data.test
    return [(x[order[held:]], y[order[held:]]), (x[order[:held]], y[order[:held]]), test]


def _anomalies(
    context: Context, sizes: tuple[int, ...], noise: float, flat: bool, data: str = "digits"
) -> list[SubsetExamples]:
    """Return training, validation and test sets of anomalies; one test part for each size."""
    s, out = context.settings, []
    for part, ((x, y), count) in enumerate(zip(_images_of(context, data), s["sets"], strict=True)):
        for size in sizes if part == 2 else sizes[:1]:
            few = (size // 4, size * 3 // 8)
            drawn = anomalous_sets(
                context.generator(2 + part),
                x.flatten(1) if flat else x,
                y,
                count,
                size=size,
                anomalies=few,
                noise=noise,
            )
            out.append(drawn)
    return out


def measure_anomalies(context: Context) -> Measurement:
    """Return the overlap of each arm on sets of digits with anomalies, hard and easy."""
    s = context.settings
    hard = _anomalies(context, (8,), s["noise"], True)
    easy = _anomalies(context, (8,), 0.0, True)
    features = hard[0].x.shape[2]

    def of_arm(arm: Arm, parts: list[SubsetExamples], start: float, end: str) -> Measurement:
        encoder = partial(perceptron, features, s["width"])
        net = _trained(context, arm, encoder, (parts[0], parts[1], parts[2]), start)
        return figures_of(arm, net, parts[1], [(end, parts[2])])

    def estimator(inference: str) -> Measurement:
        selector = SubsetSelector(
            s["width"],
            inference=inference,  # type: ignore[arg-type]
            epochs=s["epochs"],
            patience=s["epochs"],
            batch_size=s["batch_size"],
            learning_rate=s["learning_rate"],
            n_samples=s["samples"],
            validation_fraction=0.2,
            random_state=context.seed,
        )
        x, chosen = (torch.cat([getattr(part, name) for part in hard[:2]]) for name in ("x", "chosen"))
        selector.fit(list(x.numpy()), list(chosen.numpy()))
        sets, wanted = list(hard[2].x.numpy()), hard[2].chosen
        scores = torch.from_numpy(np.stack(selector.decision_function(sets)))
        return {
            f"selector-{inference}": overlap(scores, wanted),
            f"selector-{inference}-unsized": selector.score(sets, list(wanted.numpy())),
        }

    arms: dict[str, Callable[[], Measurement]] = {
        arm: partial(of_arm, arm, hard, s["start"], "")  # type: ignore[arg-type]
        for arm in ("none", "complement", "concat", "added", "deepsets", "set-transformer")
    }
    arms |= {f"{arm}-easy": partial(of_arm, arm, easy, 0.5, "-easy") for arm in ("none", "complement")}  # type: ignore
    arms |= {f"selector-{name}": partial(estimator, name) for name in ("mean-field", "exact")}
    return context.arms(arms)


def measure_cancellation(context: Context) -> Measurement:
    """Return the largest change of a gain when a random function is added to a trained utility, from its values."""
    parts = _anomalies(context, (8,), context.settings["noise"], True)
    encoder = partial(perceptron, parts[0].x.shape[2], context.settings["width"])

    def gains(utility: SetUtility) -> Tensor:
        """Return all gains as differences of two values."""
        x = parts[2].x.flatten(0, 1).double()
        index = torch.arange(len(parts[2])).repeat_interleave(8)
        subset = torch.rand(len(x), generator=context.generator(5)) < 0.3
        found = []
        for i in range(8):
            one = (torch.arange(8) == i).repeat(len(parts[2]))
            found.append(utility(x, subset | one, index) - utility(x, subset & ~one, index))
        return torch.stack(found, 1)

    def difference() -> Measurement:
        net = _trained(context, "none", encoder, (parts[0], parts[1], parts[2]), context.settings["start"])
        assert isinstance(net, Selector)
        plain = net.infer.utility.double()
        out: Measurement = {}
        with torch.no_grad():
            before = gains(plain)
            for side in ("whole", "outside"):
                more = copy.deepcopy(plain)
                torch.manual_seed(context.seed)
                more.branches.append(function_of(side, plain.features, 2 * plain.features).double())
                out[side] = float((gains(more) - before).abs().max())
        return out | {"gains": before.numel()}

    return context.arms({"difference": difference})


def measure_growth(context: Context) -> Measurement:
    """Return the overlap on ground sets larger than in training, for pools by sums and by means."""
    s = context.settings
    parts = _anomalies(context, tuple(s["sizes"]), s["noise"], True)
    tests = [(f"@{size}", part) for size, part in zip(s["sizes"], parts[2:], strict=True)]
    encoder = partial(perceptron, parts[0].x.shape[2], s["width"])

    def of_arm(arm: Arm, pool: str) -> Measurement:
        options = {} if arm in ("deepsets", "set-transformer") else {"pool": pool}
        net = _trained(context, arm, encoder, (parts[0], parts[1], parts[2]), s["start"], **options)
        return figures_of(f"{arm}-{pool}", net, parts[1], tests)

    pairs = [("complement", "sum"), ("complement", "mean"), ("none", "sum"), ("set-transformer", "sum")]
    return context.arms({f"{arm}-{pool}": partial(of_arm, arm, pool) for arm, pool in pairs})  # type: ignore[arg-type]


def measure_planted(context: Context) -> Measurement:
    """Return the overlap on points of one cluster with a few of another, at the paper's size."""
    s = context.settings

    def of_arm(shape: Any, arm: Arm, start: float, name: str) -> Measurement:
        parts = [
            planted_subsets(context.generator(i), shape, n, size=s["size"], chosen=s["chosen"])
            for i, n in enumerate(s["sets"])
        ]
        net = _trained(context, arm, partial(perceptron, 2, s["width"]), (parts[0], parts[1], parts[2]), start)
        return figures_of(name, net, parts[1], [("", parts[2])])

    arms: dict[str, Callable[[], Measurement]] = {}
    utilities: tuple[Arm, ...] = ("none", "complement")
    taggers: tuple[Arm, ...] = ("deepsets", "set-transformer")
    for shape in ("moons", "gaussian"):
        for start, arm in product(s["starts"], utilities):
            name = f"{arm}-{shape}@{start}"
            arms[name] = partial(of_arm, shape, arm, start, name)
        for arm in taggers:
            arms[f"{arm}-{shape}"] = partial(of_arm, shape, arm, 0.0, f"{arm}-{shape}")
    return context.arms(arms)


def measure_images(context: Context) -> Measurement:
    """Return the overlap of each arm on sets of images with anomalies, with a convolutional encoder."""
    s = context.settings

    parts = _anomalies(context, (8,), 0.0, False, s["data"])
    encoder = partial(convolutions, parts[0].x.shape[2], s["width"])

    def of_arm(arm: Arm) -> Measurement:
        net = _trained(context, arm, encoder, (parts[0], parts[1], parts[2]), s["start"])
        return figures_of(arm, net, parts[1], [("", parts[2])])

    arms: tuple[Arm, ...] = ("none", "complement", "deepsets", "set-transformer")
    return context.arms({arm: partial(of_arm, arm) for arm in arms})


def measure_panels(context: Context) -> Measurement:
    """Return the overlap, and the accuracy of the chosen training points, beside a choice without labels of panels."""
    s = context.settings
    table = load_table(s["data"], context.data_dir)
    x, y = table.x, table.y
    x = (x - x.mean(0)) / x.std(0).clamp(min=1e-6)
    halves = torch.randperm(len(x), generator=context.generator(1)).tensor_split(2)
    parts, accuracies = [], []
    for i, count in enumerate(s["sets"]):
        rows = halves[1 if i == 2 else 0]
        part, scores = training_panels(
            context.generator(2 + i), x[rows], y[rows], count, size=s["size"], chosen=s["chosen"]
        )
        parts.append(part)
        accuracies.append(scores)
    test, quality = parts[2], accuracies[2]

    def judged(name: str, found: Tensor) -> Measurement:
        """Return the overlap of subsets, and the mean accuracy relative to the best subset."""
        reached = quality.gather(1, _position(found)[:, None])[:, 0]
        both, either = (found & test.chosen).sum(1), (found | test.chosen).sum(1)
        return {name: float((both / either).mean()), f"{name}-accuracy": float((reached / quality.amax(1)).mean())}

    def of_arm(arm: Arm) -> Measurement:
        encoder = partial(perceptron, test.x.shape[2], s["width"])
        net = _trained(context, arm, encoder, (parts[0], parts[1], test), s["start"])
        scores = scores_of(net, test.x)
        return judged(arm, scores.argsort(1, descending=True).argsort(1) < s["chosen"])

    def greedy() -> Measurement:
        """Choose the points that represent the candidates best, by facility location on similarities."""
        found = []
        for one in test.x:
            similarity = (-torch.cdist(one, one).square() / one.shape[1]).exp()
            found.append(continuous_greedy(FacilityLocation(similarity), s["size"], s["chosen"], steps=1).subset)
        return judged("facility-location", torch.stack(found))

    def chance() -> Measurement:
        order = torch.rand(test.chosen.shape, generator=context.generator(9)).argsort(1)
        return judged("random", order < s["chosen"])

    arms: dict[str, Callable[[], Measurement]] = {
        arm: partial(of_arm, arm)  # type: ignore[arg-type]
        for arm in ("none", "complement", "deepsets", "set-transformer")
    }
    return context.arms(arms | {"facility-location": greedy, "random": chance})


def _position(found: Tensor) -> Tensor:
    """Return the position of each subset among all of its size, in the order of `itertools.combinations`."""
    size, chosen = found.shape[1], int(found[0].sum())
    position = {members: i for i, members in enumerate(combinations(range(size), chosen))}
    return torch.tensor([position[tuple(row.nonzero()[:, 0].tolist())] for row in found])
