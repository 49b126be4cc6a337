"""Layers that no gradient reaches, and the similarity of parameter gradients of different inputs."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ._findings import correlation
from ._record import Call, Record, recorded

_INPUTS = 6  # number of inputs whose gradients are compared
_NUMBERS = 10_000_000  # entries of each input's gradient that are compared, evenly spaced in large tensors


def tangent_correlation(record: Record, generator: torch.Generator) -> float:
    """Return the mean cosine between the parameter gradients of different inputs, NaN for one input.

    This is the correlation of the tangent kernel: gradient descent learns differences between inputs `1 / (1 - cosine)`
    times more slowly than what the inputs share.
    """
    output = record.output
    if output.ndim == 0 or len(output) < 2:
        return math.nan
    step = 1 + sum(p.numel() for p in record.trainable) // _NUMBERS
    direction = torch.randn(output.shape[1:], generator=generator).to(output)
    rows = []
    for row in output[:_INPUTS]:
        found = torch.autograd.grad((row * direction).sum(), record.trainable, retain_graph=True, allow_unused=True)
        parts = [_spaced(g, step) for g in found if g is not None]
        rows.append(torch.cat(parts) if parts else torch.zeros(0))
    return correlation(torch.stack(rows))


def _spaced(gradient: Tensor, step: int) -> Tensor:
    """Return evenly spaced entries of a large tensor, scaled to the norm of the whole."""
    flat = gradient.double().flatten()
    return flat if len(flat) < 100 * step else flat[::step] * step**0.5


def without_gradient(record: Record, generator: torch.Generator) -> list[Call]:
    """Return the layers whose trainable parameters get no gradient from any output."""
    reached = {id(p) for p, g in _gradients(record, generator) if g is not None and bool(g.any())}
    trainable = {id(p) for p in record.trainable}
    out = []
    for call in record.layers:
        own = {id(p) for p in call.module.parameters()} & trainable
        if own and call.output.numel() and not own & reached:
            out.append(call)
    return out


def cut_off(model: nn.Module, x: Any, generator: torch.Generator) -> list[Call]:
    """Return the layers that no gradient reaches, even after parameters that start at zero have been trained.

    Zero tensors with a gradient (the weight of a residual branch, a zero head) are repeatedly filled with small
    numbers, as the first steps of training do. The model is left unchanged.
    """
    filled: dict[int, Tensor] = {}
    try:
        while True:
            with recorded(model, x) as record:
                asleep = without_gradient(record, generator)
                waking = [
                    p for p, g in _gradients(record, generator) if g is not None and bool(g.any()) and not p.any()
                ]
            if not asleep or not waking:
                return asleep
            with torch.no_grad():
                for p in waking:
                    filled[id(p)] = p
                    p.copy_(
                        torch.randn(p.shape, generator=generator) * 0.1 * max(1, p[0].numel() if p.ndim else 1) ** -0.5
                    )
    finally:
        with torch.no_grad():
            for p in filled.values():
                p.zero_()


def _gradients(record: Record, generator: torch.Generator) -> list[tuple[Tensor, Tensor | None]]:
    probes = [torch.randn(o.shape, generator=generator).to(o) for o in record.outputs]
    found = torch.autograd.grad(record.outputs, record.trainable, probes, retain_graph=True, allow_unused=True)
    return list(zip(record.trainable, found, strict=True))
