"""Measurements for the claims on self-normalizing networks: moments by depth, deep plain networks on tables."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import nn

from ...data import load_table
from ...evidence import Context, Measurement
from ...theory import SELU, SNN, critical_, gamma_for_growth, is_self_normalizing, lecun_normal_
from .._shared.plain_training import best_of

INITIALIZATIONS = {"lecun": 1.0, "he": 2.0, "gain 3/4": 0.5625}
METHODS = ("selu", "relu", "batch", "layer")


def measure_moments(context: Context) -> Measurement:
    """Return moments, angles and gradients of SELU networks by layer, and the contraction of the moment map."""
    layers = {name: partial(_moments, context, name) for name in INITIALIZATIONS}
    return context.arms({**layers, "map": _contraction})


@torch.no_grad()
def _moments(context: Context, name: str) -> Measurement:
    settings, generator = context.settings, context.generator(1)
    width, depth = settings["width"], settings["depth"]
    act = SELU()
    z = torch.randn(settings["inputs"], width, generator=generator)
    z = torch.cat([z, 0.9 * z + math.sqrt(1 - 0.81) * torch.randn(z.shape, generator=generator)])
    half, out, layers = len(z) // 2, {}, []
    for layer in range(1, depth + 1):
        weight = torch.randn(width, width, generator=generator) * (INITIALIZATIONS[name] / width) ** 0.5
        z = z @ weight.T
        layers.append((weight, z))
        z = act(z)
        rows = z.double()
        out[f"{name}-mean@{layer}"] = float(rows.mean())
        out[f"{name}-variance@{layer}"] = float(rows.var(correction=0))
        a, b = rows[:half], rows[half:]
        out[f"{name}-cosine@{layer}"] = float(nn.functional.cosine_similarity(a, b).mean())
    back = torch.randn(z.shape, generator=generator)
    start = float(back.double().square().mean())
    for layer, (weight, before) in zip(range(depth, 0, -1), reversed(layers), strict=True):
        slope = act.scale * torch.where(before > 0, 1.0, act.alpha * before.clamp(max=0).exp())
        back = (back * slope) @ weight
        out[f"{name}-gradient@{layer}"] = float(back.double().square().mean()) / start
    return out


def _contraction() -> Measurement:
    points = 9
    found = is_self_normalizing("selu", points=points)
    (low, high), (least, most) = found.image
    return {
        "contraction": found.contraction,
        "grid": float(points**4),
        "mean-low": low,
        "mean-high": high,
        "var-low": least,
        "var-high": most,
    }


def measure_depths(context: Context) -> Measurement:
    """Return the test accuracy of plain networks on tables, by depth and method."""
    settings = context.settings
    arms = [
        (table, depth, method) for table in settings["tables"] for depth in settings["depths"] for method in METHODS
    ]
    out: Measurement = {}
    out |= context.arms(
        {
            f"{table}-{depth}-{method}": partial(_on_table, context, table, depth, method)
            for table, depth, method in arms
        }
    )
    for depth in settings["depths"]:
        for method in METHODS:
            rows = [out[f"{table}-{method}@{depth}"] for table in settings["tables"]]
            out[f"mean-{method}@{depth}"] = sum(rows) / len(rows)
    return out


def _on_table(context: Context, name: str, depth: int, method: str) -> Measurement:
    settings = context.settings
    table = load_table(name, context.data_dir)
    parts = table.split(context.generator(2), 0.75, 0.15)
    classes = int(table.y.max()) + 1

    def make(generator: torch.Generator) -> nn.Module:
        return plain(method, parts[0][0].shape[1], settings["width"], depth, classes, generator)

    accuracy = best_of(context, [make], parts, settings["rates"], settings["steps"])
    return {f"{name}-{method}@{depth}": accuracy}


def plain(method: str, features: int, width: int, depth: int, classes: int, generator: torch.Generator) -> nn.Module:
    """Build a plain network: SELU, or ReLU without normalization, with batch norm or with layer norm.

    Args:
        method: One of `METHODS`.
        features: Number of inputs.
        width: Width of the hidden layers.
        depth: Number of hidden layers.
        classes: Number of outputs.
        generator: Source of randomness.
    """
    if method == "selu":
        return SNN(features, classes, hidden=width, depth=depth, dropout=0.0, generator=generator)
    norm = {"relu": nn.Identity, "batch": nn.BatchNorm1d, "layer": nn.LayerNorm}[method]
    layers: list[nn.Module] = []
    for i in range(depth):
        layer = nn.Linear(width if i else features, width)
        nn.init.normal_(layer.weight, std=(2 / layer.in_features) ** 0.5, generator=generator)
        nn.init.zeros_(layer.bias)
        layers += [layer, norm(width), nn.ReLU()]
    last = nn.Linear(width, classes)
    lecun_normal_(last.weight, generator=generator)
    nn.init.zeros_(last.bias)
    return nn.Sequential(*layers, last)


def measure_very_deep(context: Context) -> Measurement:
    """Return the test accuracy on digits of very deep networks: SELU, SELU with a skip, and critical ReLU."""
    return context.arms({arm: partial(_very_deep, context, arm) for arm in ("plain", "skip", "relu")})


def _very_deep(context: Context, arm: str) -> Measurement:
    settings = context.settings
    parts = load_table("digits").split(context.generator(2), 0.6, 0.15)
    depth, width = settings["depth"], settings["width"]

    def make(generator: torch.Generator) -> nn.Module:
        if arm == "relu":
            net = plain("relu", 64, width, depth, 10, generator)
            critical_(net, generator=generator)
            return net
        gamma = gamma_for_growth(depth) if arm == "skip" else 0.0
        return SNN(64, 10, hidden=width, depth=depth, dropout=0.0, gamma=gamma, generator=generator)

    return {f"{arm}@accuracy": best_of(context, [make], parts, settings["rates"], settings["steps"])}
