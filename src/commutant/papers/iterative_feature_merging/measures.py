"""Measurements for the claims on iterative feature merging."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ...evidence import Context, Measurement
from ...weights import FeatureMerger, resize
from .._shared.classifiers import Part, accuracy, cross_entropy, image_parts
from .._shared.networks import mlp

SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.25, 0.2, 0.15, 0.1, 0.07, 0.05, 0.035)
RULES: dict[str, dict[str, Any]] = {
    "ifm": {"rule": "ifm", "reference": "current"},
    "fold": {"rule": "fold", "criterion": "inout", "reference": "initial"},
    "saliency": {"criterion": "saliency"},
    "activations": {"criterion": "activations"},
}


def measure_merging(context: Context) -> Measurement:
    """Return the accuracy of networks of several widths as their channels are merged or pruned."""
    widths = context.settings["widths"]
    return context.arms({f"width-{width}": partial(_at_width, context, width) for width in widths})


def _network(kind: str, width: int, shape: Sequence[int]) -> nn.Module:
    if kind == "mlp":
        inputs = int(torch.Size(shape).numel())
        return nn.Sequential(nn.Flatten(), *mlp([inputs, width, width, 10]))
    layers: list[nn.Module] = []
    for before, after in pairwise([shape[0], width, width, 2 * width, 2 * width]):  # a small VGG
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if len(layers) > 3 else []
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, 10))


def _at_width(context: Context, width: int) -> Measurement:
    train, test = image_parts(context)
    x, y = train

    def make() -> nn.Module:
        torch.manual_seed(context.seed * 7_919 + 211)
        return _network(context.settings["network"], width, x.shape[1:])

    def draw(generator: torch.Generator, count: int) -> Part:
        rows = torch.randint(0, len(x), (count,), generator=generator).to(x.device)
        return x[rows], y[rows]

    model = context.train(
        f"net-{width}", make, draw, cross_entropy, steps=context.settings["steps"], batch_size=128, learning_rate=1e-3
    ).eval()
    example, generator = x[:1000], context.generator(3)
    base = accuracy(model, test)
    tag = f"w{width}"
    out: Measurement = {f"{tag}@accuracy": base}
    mergers = {
        arm: FeatureMerger(model, example, **options, batches=[example] if arm == "activations" else None)
        for arm, options in RULES.items()
    }
    for arm, merger in mergers.items():
        curve = []
        for share in SHARES:
            small = merger.shrink(parameters=share)
            curve.append((small.kept, accuracy(small.module, test)))
            out[f"{tag}-{arm}@at-{share:g}"] = curve[-1][1]
            if arm == "ifm":  # other ways to the same widths
                left = {g: n for g, (n, _) in small.widths.items()}
                out[f"{tag}-random@at-{share:g}"] = accuracy(_pruned(merger, left, generator), test)
                out[f"{tag}-magnitude@at-{share:g}"] = accuracy(_pruned(merger, left, None), test)
                out[f"{tag}-pairs@at-{share:g}"] = accuracy(_paired(merger, left, generator), test)
        out[f"{tag}-{arm}@kept"] = _kept(curve, base)
    for arm in ("random", "magnitude"):
        out[f"{tag}-{arm}@kept"] = _kept([(s, out[f"{tag}-{arm}@at-{s:g}"]) for s in SHARES], base)
    out |= _planted(tag, model, example, generator)
    first = next(iter(mergers["ifm"].groups))
    steps = [step for step in mergers["ifm"].path if step.group == first]
    if width <= 64:
        for i, step in enumerate(steps):
            out |= {f"_{tag}@tree-{i}-{n}": v for n, v in zip("abl", (step.kept, step.gone, step.level), strict=True)}
    return out


def _kept(curve: Sequence[tuple[float, float]], base: float) -> float:
    """Return the smallest share of parameters before accuracy falls by more than one point."""
    kept = 1.0
    for share, reached in curve:
        if reached < base - 0.01:
            break
        kept = share
    return kept


def _pruned(merger: FeatureMerger, left: Mapping[str, int], generator: torch.Generator | None) -> nn.Module:
    """Prune the channels with the smallest norm over all their weights or, with a generator, random channels."""
    state = dict(merger.model.state_dict())
    norms: dict[str, Tensor] = {}
    for group, sites in merger.sites.items():
        rows = [site.rows(state[site.key]).double() for site in sites if site.key not in merger.spec.buffers]
        norms[group] = torch.stack([r.square().sum(1) for r in rows]).sum(0)
    gone = {}
    for group, scores in norms.items():
        order = scores.argsort() if generator is None else torch.randperm(len(scores), generator=generator)
        gone[group] = order[: len(scores) - left[group]].tolist()
    return resize(merger.model, merger.dropped(state, gone)).eval()


def _paired(merger: FeatureMerger, left: Mapping[str, int], generator: torch.Generator) -> nn.Module:
    """Merge random clusters, of the sizes that the paper's rule found, by that rule."""
    clusters = {}
    for group, own in merger.clusters(widths=left).items():
        order = torch.randperm(merger.groups[group], generator=generator).tolist()
        clusters[group] = [sorted(order.pop() for _ in members) for members in own]
    return resize(merger.model, merger.merged(clusters)).eval()


def _planted(tag: str, model: nn.Module, example: Tensor, generator: torch.Generator) -> Measurement:
    """Duplicate every channel and split its outgoing weights at random; return whether merging finds the copies."""
    spread = FeatureMerger(model, example)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    for sites in spread.sites.values():
        for site in sites:
            value = state[site.key]
            if site.reads:
                shape = [1] * value.dim()
                shape[site.axis] = -1
                part = torch.rand(value.shape[site.axis], generator=generator).view(shape).to(value)
                state[site.key] = torch.cat([value * part, value * (1 - part)], site.axis)
            else:
                state[site.key] = torch.cat([value, value], site.axis)
    wide = resize(model, state).eval()
    out: Measurement = {}
    for arm in ("ifm", "saliency"):
        small = FeatureMerger(wide, example, **RULES[arm]).shrink(beta=1e-9)
        right = [after == spread.groups[g] for g, (after, _) in small.widths.items()]
        with torch.no_grad():
            gap = (small.module(example) - model(example)).abs().max() / model(example).abs().max()
        out[f"{tag}-{arm}@planted"] = sum(right) / len(right)
        out[f"{tag}@layers"] = float(len(right))
        out[f"{tag}-{arm}@planted-gap"] = float(gap)
    return out
