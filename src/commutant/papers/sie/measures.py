"""Measurements for the claims on split representations."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import cast

import numpy as np
import scipy
import torch
from torch import Tensor, nn

from ...data import OBJECT_CLASSES, Pairs, Views, object_clouds, shapes3d
from ...evidence import Context, Measurement
from ...geometry import HyperPredictor, collapse_floor, quaternion_code, retrieval, rotation_r2
from .models import DIM, SelfSupervised

ARMS = ("vicreg", "sie", "bias", "mlp", "quaternion")
FLOORS = ("any pose", "as drawn", "up to 90 degrees")


def measure_views(context: Context) -> Measurement:
    """Return class accuracy and pose R^2 of frozen representations, and the retrieval ranks of predicted views."""
    settings = context.settings
    train, test = (
        shapes3d(object_clouds(settings[n], settings["points"], g), settings["views"], g, size=settings["size"])
        for n, g in (("train", context.generator(1)), ("test", context.generator(2)))
    )
    pixels = [nn.functional.avg_pool2d(_seen(v.images.flatten(0, 1)), 2).flatten(1) for v in (train, test)]
    features = [x.unflatten(0, v.images.shape[:2]) for x, v in zip(pixels, (train, test), strict=True)]
    out: Measurement = {"pixels@top-1": _top1(features, train.labels, test.labels, context)}
    out |= context.arms({arm: partial(_views_of, context, arm, train, test) for arm in ARMS})
    return out


def _seen(images: Tensor) -> Tensor:
    return ((images.float() / 255 - 0.45) / 0.2).contiguous(memory_format=torch.channels_last)


def _views_of(context: Context, arm: str, train: Views, test: Views) -> Measurement:
    settings, device = context.settings, context.device

    def draw(generator: torch.Generator, count: int) -> tuple[Tensor, Tensor, Tensor]:
        pairs = train.pairs(count, generator)
        return _seen(pairs.first).to(device), _seen(pairs.second).to(device), quaternion_code(*pairs.poses).to(device)

    model = cast(
        SelfSupervised,
        context.train(
            arm,
            lambda: SelfSupervised(arm, settings["width"]).to(memory_format=torch.channels_last),  # type: ignore[call-overload]
            draw,
            lambda model, batch: cast(Tensor, model(*batch)),
            steps=settings["steps"],
            batch_size=settings["batch"],
            learning_rate=2e-3,
            warmup=settings["steps"] // 10,
            clip=None,
            weight_decay=1e-6,
        ),
    )
    features = [_features(model, v, device) for v in (train, test)]
    mean, deviation = features[0].mean((0, 1)), features[0].std((0, 1)) + 1e-6
    features = [(f - mean) / deviation for f in features]
    out = {f"{arm}@top-1": _top1(features, train.labels, test.labels, context)}
    for part, columns in {
        "all": slice(None),
        "first half": slice(DIM // 2),
        "second half": slice(DIM // 2, None),
    }.items():
        score = _rotation([f[..., columns] for f in features], train, test, context)
        out |= {f"{arm}@pose {part}": score[0], f"{arm}@pose {part}, as published": score[1]}
        out["constant@pose, as published"] = score[2]
    if arm != "vicreg":
        out |= _found(model, test, device, arm)
    return out


@torch.no_grad()
def _features(model: SelfSupervised, views: Views, device: torch.device) -> Tensor:
    images = views.images.flatten(0, 1)
    found = torch.cat([model.encoder(_seen(part).to(device)).cpu() for part in images.split(500)])
    return found.unflatten(0, views.images.shape[:2])


def _probe(
    net: nn.Module, draw: Callable[[torch.Generator], tuple[Tensor, Tensor]], loss: Callable, context: Context
) -> nn.Module:
    """Train a small network on frozen features."""
    generator = context.generator(5)
    steps = context.settings["probe"]
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        x, y = draw(generator)
        optimizer.zero_grad()
        loss(net(x), y).backward()
        optimizer.step()
        schedule.step()
    return net.eval()


def _top1(features: list[Tensor], train: Tensor, test: Tensor, context: Context) -> float:
    def draw(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        row = torch.randint(0, len(train), (256,), generator=generator)
        view = torch.randint(0, features[0].shape[1], (256,), generator=generator)
        return features[0][row, view], train[row]

    torch.manual_seed(context.seed)
    net = _probe(nn.Linear(features[0].shape[-1], len(OBJECT_CLASSES)), draw, nn.functional.cross_entropy, context)
    with torch.no_grad():
        return float((net(features[1]).argmax(-1) == test[:, None]).float().mean())


def _rotation(features: list[Tensor], train: Views, test: Views, context: Context) -> tuple[float, float, float]:
    """Return the R^2 of the rotation between two views: by component, as published, and of a constant as published."""

    def pairs(which: int, views: Views, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        # the same draws as for images, with features in their place
        placed = views._replace(images=features[which])
        found: Pairs = placed.pairs(count, generator)
        return torch.cat([found.first, found.second], -1), quaternion_code(*found.poses)

    torch.manual_seed(context.seed)
    wide = 2 * features[0].shape[-1]
    net = nn.Sequential(nn.Linear(wide, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 4))
    _probe(net, lambda g: pairs(0, train, 256, g), nn.functional.mse_loss, context)
    x, code = pairs(1, test, 4000, context.generator(6))
    with torch.no_grad():
        score = rotation_r2(net(x), code)
    return score.per_component, score.pooled, score.pooled_constant


@torch.no_grad()
def _found(model: SelfSupervised, test: Views, device: torch.device, arm: str) -> Measurement:
    """Predict every view of an object from its first view; return its retrieval scores among the views."""
    shape = test.images.shape[:2]
    embedded = torch.cat(
        [model.split(_seen(part).to(device)).equivariant.cpu() for part in test.images.flatten(0, 1).split(500)]
    ).unflatten(0, shape)
    turns = quaternion_code(test.poses[:, :1].expand_as(test.poses), test.poses)[:, 1:]
    source = embedded[:, :1].expand_as(embedded)[:, 1:]
    predicted = model.predictor(source.flatten(0, 1).to(device), turns.flatten(0, 1).to(device)).cpu()
    score = retrieval(predicted.unflatten(0, source.shape[:2]), embedded[:, 1:], at=(1, 5))
    return {
        f"{arm}@mrr": score.mrr,
        f"{arm}@hit 1": score.hits[1],
        f"{arm}@hit 5": score.hits[5],
        "chance@mrr": score.mrr_chance,
        "chance@hit 1": score.hits_chance[1],
    }


def measure_floor(context: Context) -> Measurement:
    """Return the error of trained predictors on a constant representation, and the floor by the formula."""
    return context.arms({name: partial(_floor_of, context, name) for name in FLOORS})


def _floor_of(context: Context, name: str) -> Measurement:
    settings = context.settings
    codes = _codes(name, 50_000, context.seed)
    out = {f"{name}@floor": collapse_floor(codes)}
    for kind, hyper_bias in (("without", False), ("with", True)):

        def draw(generator: torch.Generator, count: int) -> tuple[Tensor, Tensor]:
            rows = torch.randint(0, len(codes), (count,), generator=generator)
            return torch.randn(count, 16, generator=generator), codes[rows]

        model = context.train(
            f"{name} {kind}",
            partial(HyperPredictor, 16, 4, hyper_bias=hyper_bias),
            draw,
            lambda model, batch: (model(*batch) - batch[0]).square().mean(),
            steps=settings["steps"],
            batch_size=512,
            learning_rate=3e-3,
        )
        with torch.no_grad():
            z, g = draw(context.generator(7), 20_000)
            out[f"{name}@{kind}"] = float((model(z, g) - z).square().mean() / z.square().mean())
    return out


def _codes(name: str, count: int, seed: int) -> Tensor:
    """Return quaternions (x, y, z, w) with nonnegative w, `(count, 4)`, of rotations between two poses."""
    random = np.random.default_rng(seed)
    if name == "any pose":
        turns = scipy.spatial.transform.Rotation.random(count, random)
    elif name == "as drawn":
        first, second = (
            scipy.spatial.transform.Rotation.from_euler("xyz", random.uniform(-np.pi / 2, np.pi / 2, (count, 3)))
            for _ in "ab"
        )
        turns = first.inv() * second
    else:
        axis = random.normal(size=(count, 3))
        axis /= np.linalg.norm(axis, axis=1, keepdims=True)
        turns = scipy.spatial.transform.Rotation.from_rotvec(axis * random.uniform(0, np.pi / 2, (count, 1)))
    return torch.from_numpy(turns.as_quat(canonical=True)).float()
