"""Measurements of the experiments."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ...evidence import Context, Measurement
from ...permutations import InversePermutation, causal_floor, min_scratch
from .models import Decoder, disentangled

Batch = tuple[Tensor, Tensor]


def drawn(generator: torch.Generator, count: int, d: int, scratch: int, order: str = "PY") -> Batch:
    """Draw permutations and rows of fair bits: the sequence of the network, and the rows that it should write.

    Args:
        generator: Source of randomness.
        count: Number of sequences.
        d: Number of rows, and bits of a row.
        scratch: Number of scratch tokens, which are zero.
        order: "PY" if the permutation comes before the permuted rows, "YP" if it comes after them.
    """
    p = torch.rand(count, d, generator=generator).argsort(1)
    y = (torch.rand(count, d, d, generator=generator) < 0.5).float()
    parts = [torch.eye(d)[p], y.gather(1, p[..., None].expand_as(y))]
    return torch.cat([*(parts if order == "PY" else parts[::-1]), torch.zeros(count, scratch, d)], 1), y


def measure_construction(context: Context) -> Measurement:
    """Return the largest error of the explicit weights, on bits and on normal values, in float64."""
    s, cases = context.settings, 0
    out: Measurement = {}
    generator = context.generator(1)
    for variant in ("robust", "paper"):
        for mask in ("none", "causal"):
            bits = other = 0.0
            for d in s["sizes"]:
                model = InversePermutation(d, mask, beta=s["beta"], variant=variant).double()  # type: ignore[arg-type]
                p = torch.rand(s["test"], d, generator=generator).argsort(1)
                normal = 10 * torch.randn(s["test"], d, d, generator=generator, dtype=torch.float64)
                for y in ((normal > 0).double(), normal):
                    found = model(p, y.gather(1, p[..., None].expand_as(y)))
                    error = float((found - y).abs().max())
                    bits, other = (max(bits, error), other) if y is not normal else (bits, max(other, error))
                    cases += s["test"]
            out |= {f"{variant}-{mask}-bits": bits, f"{variant}-{mask}-normal": other}
    return out | {"cases": float(cases)}


def _arms(d: int) -> dict[str, tuple[int, bool, str, str]]:
    """Return scratch tokens, causality, order and the rows that are read of each arm."""
    last = min_scratch(d)
    return {
        "first": (0, True, "PY", "first"),
        "free": (0, False, "PY", "first"),
        **{f"scratch@{s}": (s, True, "PY", "last") for s in sorted({0, d // 2, last - 1, last, d})},
        **{f"reversed@{s}": (s, True, "YP", "last") for s in sorted({0, last - 1, last})},
    }


def measure_learning(context: Context) -> Measurement:
    """Return the test error of each arm, summed over the features of a row, and the least possible one."""
    s, d = context.settings, context.settings["d"]

    def of_arm(name: str, scratch: int, causal: bool, order: str, rows: str) -> Measurement:
        read = slice(0, d) if rows == "first" else slice(-d, None)
        model = _trained(
            context, name, partial(disentangled, d, scratch, causal), s,
            lambda g, count: drawn(g, count, d, scratch, order),
            lambda out, y: (out[:, read] - y).square().sum(-1).mean(),
        )  # fmt: skip
        x, y = (t.to(context.device) for t in drawn(context.generator(1), s["test"], d, scratch, order))
        with torch.no_grad():
            out = model(x)[:, read]
        exact = ((out > 0.5) == (y > 0.5)).all(-1)
        return {name: float((out - y).square().sum(-1).mean()), f"exact-{name}": float(exact.double().mean())}

    found = context.arms({name: partial(of_arm, name, *how) for name, how in _arms(d).items()})
    floors = {f"floor@{scratch}": causal_floor(d, scratch) for scratch in range(d + 1)}
    return found | floors | {"floor-first": d / 4}


def measure_decoder(context: Context) -> Measurement:
    """Return how many rows a standard decoder gets right, with and without scratch tokens; as vectors and as tokens."""
    s, d = context.settings, context.settings["d"]

    def vectors(name: str, scratch: int) -> Measurement:
        model = _trained(
            context, name, lambda: Decoder(d, 2 * d + scratch, d), s,
            lambda g, count: drawn(g, count, d, scratch),
            lambda out, y: nn.functional.binary_cross_entropy_with_logits(out[:, -d:], y),
        )  # fmt: skip
        x, y = (t.to(context.device) for t in drawn(context.generator(1), s["test"], d, scratch))
        with torch.no_grad():
            right = ((model(x)[:, -d:] > 0) == (y > 0.5)).all(-1)
        return {name: float(right.double().mean())}

    def tokens(name: str, scratch: int) -> Measurement:
        model = _trained(
            context, name, lambda: Decoder(d + s["letters"] + 1, 2 * d + scratch, s["letters"], True), s,
            lambda g, count: _letters(g, count, d, scratch, s["letters"]),
            lambda out, y: nn.functional.cross_entropy(out[:, -d:].flatten(0, 1), y.flatten()),
        )  # fmt: skip
        x, y = (t.to(context.device) for t in _letters(context.generator(1), s["test"], d, scratch, s["letters"]))
        with torch.no_grad():
            return {name: float((model(x)[:, -d:].argmax(-1) == y).double().mean())}

    few, enough = 0, min_scratch(d)
    arms = {f"vectors@{n}": partial(vectors, f"vectors@{n}", n) for n in (few, enough)}
    arms |= {f"tokens@{n}": partial(tokens, f"tokens@{n}", n) for n in (few, enough)}
    visible = sum(min(1.0, (j + 1) / d) for j in range(d)) / d
    most = {"most-vectors@0": visible + (1 - visible) / 2**d, "most-tokens@0": visible + (1 - visible) / s["letters"]}
    return context.arms(arms) | most


def _letters(generator: torch.Generator, count: int, d: int, scratch: int, letters: int) -> Batch:
    """Draw permutations as numbers and strings of letters, as token ids; scratch tokens have an id of their own."""
    p = torch.rand(count, d, generator=generator).argsort(1)
    y = torch.randint(letters, (count, d), generator=generator)
    return torch.cat([p, d + y.gather(1, p), torch.full((count, scratch), d + letters)], 1), y


def _trained(
    context: Context,
    name: str,
    make: Callable[[], nn.Module],
    settings: dict[str, Any],
    draw: Callable[[torch.Generator, int], Batch],
    loss: Callable[[Tensor, Tensor], Tensor],
) -> nn.Module:
    return context.train(
        name,
        make,
        lambda generator, count: tuple(t.to(context.device) for t in draw(generator, count)),
        lambda model, batch: loss(model(batch[0]), batch[1]),
        steps=settings["steps"],
        batch_size=settings["batch_size"],
        learning_rate=settings["learning_rate"],
        clip=None,
    ).eval()
