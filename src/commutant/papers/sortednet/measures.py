"""Measurements of the experiments."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ...data import character_text
from ...evidence import Context, Measurement
from ...weights import Budget, Menu, SortedModule, sorted_loss
from .._shared.classifiers import Part, cross_entropy, image_parts
from .models import ResidualMLP, ResNet, accuracies, decoder, next_token_loss, normed_mlp

Loss = Callable[[Any, Any], Tensor]


def _draw(part: Part, generator: torch.Generator, count: int) -> Part:
    rows = torch.randint(0, len(part[0]), (count,), generator=generator).to(part[0].device)
    return part[0][rows], part[1][rows]


def _full(nested: SortedModule, batch: Part) -> Tensor:
    """Return the loss of the full network."""
    return cross_entropy(nested, batch)


def _sandwich(wrapped: Any, batch: Part) -> Tensor:
    """Return the loss of a universally slimmable network: others learn from the largest sub-network."""
    nested: SortedModule = wrapped.module if not isinstance(wrapped, SortedModule) else wrapped
    nested.set_budget(None)
    logits = wrapped(batch[0])
    total, soft = functional.cross_entropy(logits, batch[1]), logits.detach().softmax(1)
    for budget in (nested.menu[0], nested.draw(), nested.draw()):
        nested.set_budget(budget)
        total = total + functional.cross_entropy(wrapped(batch[0]), soft)
    nested.set_budget(None)
    return total / 4


def measure_digits(context: Context) -> Measurement:
    """Return the accuracy of all sub-networks of a residual MLP, trained in several ways at equal passes."""
    s = context.settings
    train, test = image_parts(context)
    train, test = ((x.flatten(1), y) for x, y in (train, test))
    menu = Menu.product(depth=list(range(1, s["blocks"] + 1)), width=s["widths"])
    options = {"batch_size": 128, "learning_rate": 1e-3}

    def make(depth: int = s["blocks"], width: int = s["widths"][-1]) -> SortedModule:
        model = ResidualMLP(train[0].shape[1], width, depth)
        own = menu if (depth, width) == (s["blocks"], s["widths"][-1]) else Menu.product(depth=[depth], width=[width])
        return SortedModule(model, train[0][:4], {"depth": "blocks.*", "width": "blocks.*.up"}, own)

    def trained(name: str, loss: Loss, steps: int, build: Callable[[], SortedModule] = make) -> Tensor:
        nested = context.train(name, build, partial(_draw, train), loss, steps=steps, **options)
        return accuracies(nested, *test)

    out: Measurement = {}
    arms: dict[str, tuple[Loss, int]] = {
        "cut": (_full, s["steps"]),
        "sorted": (partial(sorted_loss, loss_fn=cross_entropy), s["steps"]),
    }
    if s["rivals"]:
        arms |= {
            "sandwich": (_sandwich, s["steps"] // 4),
            "sum": (partial(sorted_loss, loss_fn=cross_entropy, mode="sum"), -(-s["steps"] // len(menu))),
        }
    for name, (loss, steps) in arms.items():
        found = trained(name, loss, steps)
        out |= {
            f"{name}-mean": float(found.mean()),
            f"{name}-worst": float(found.min()),
            f"{name}-full": float(found[-1]),
        }
        if name == "sorted":
            own = dict(zip(menu, found.tolist(), strict=True))
        for budget, value in zip(menu, found.tolist(), strict=True):
            if budget["depth"] == s["blocks"]:
                out[f"{name}@{budget['width']}"] = value
    gaps = []
    for depth, width in s["alone"]:
        alone = trained(f"alone-{depth}-{width}", _full, s["steps"], partial(make, depth, width))
        gaps.append(own[Budget({"depth": depth, "width": width})] - float(alone[-1]))
    if gaps:
        out |= {"alone-gap": statistics.mean(gaps), "alone-worst": min(gaps)}
    return out


def measure_batch_norm(context: Context) -> Measurement:
    """Return the accuracy of sub-networks with batch norms, with shared statistics and with their own."""
    s = context.settings
    train, test = image_parts(context)
    train, test = ((x.flatten(1), y) for x, y in (train, test))
    menu = Menu.product(width=s["widths"])

    def make() -> SortedModule:
        return SortedModule(normed_mlp(train[0].shape[1], s["widths"][-1]), train[0][:4], {"width": "auto"}, menu)

    out: Measurement = {}
    for name, loss in (("sorted", partial(sorted_loss, loss_fn=cross_entropy)), ("cut", _full)):
        nested: Any = context.train(
            name, make, partial(_draw, train), loss, steps=s["steps"], batch_size=128, learning_rate=1e-3
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the statistics are not calibrated on purpose
            shared = accuracies(nested, *test)
        nested.calibrate(train[0].split(128))
        own = accuracies(nested, *test)
        out |= {
            f"{name}-shared": float(shared.mean()),
            f"{name}-own": float(own.mean()),
            f"{name}-full": float(own[-1]),
        }
        out |= {f"{name}-{kind}@{b['width']}": float(v) for kind, found in (("shared", shared), ("own", own))
                for b, v in zip(menu, found, strict=True)}  # fmt: skip
    return out


def measure_residual(context: Context) -> Measurement:
    """Return the accuracy of the sub-networks of a residual network on CIFAR-10, with statistics of their own."""
    s = context.settings
    train, test = image_parts(context)
    menu = Menu.product(depth=s["depths"], width=s["widths"])

    def make() -> SortedModule:
        model = ResNet(s["channels"], s["depths"][-1])
        return SortedModule(model, train[0][:2], {"depth": "stages.*.*", "width": "auto"}, menu)

    out: Measurement = {}
    for name, loss in (("sorted", partial(sorted_loss, loss_fn=cross_entropy)), ("cut", _full)):
        nested: Any = context.train(
            name, make, partial(_draw, train), loss, steps=s["steps"], batch_size=64, learning_rate=3e-3
        )
        nested.calibrate(train[0][:1024].split(128))
        found = accuracies(nested, *test)
        out |= {
            f"{name}-mean": float(found.mean()),
            f"{name}-worst": float(found.min()),
            f"{name}-full": float(found[-1]),
        }
    return out


def measure_language(context: Context) -> Measurement:
    """Return the loss of a character model at several depths, and its speed with a sub-network as a draft."""
    from ...weights.huggingface import SelfSpeculative

    s = context.settings
    text = character_text(s["text"], context.data_dir)
    menu = Menu.product(depth=s["depths"])

    def make() -> SortedModule:
        model = decoder(len(text.alphabet), s["width"], s["depths"][-1], 2 * s["context"])
        example = {"input_ids": torch.zeros(1, 8, dtype=torch.long)}
        return SortedModule(model, example, {"depth": "model.layers.*"}, menu, outputs=lambda out: out.logits)

    def loss(model: Any, tokens: Tensor) -> Tensor:
        return next_token_loss(model(input_ids=tokens, use_cache=False).logits, tokens)

    def draw(generator: torch.Generator, count: int) -> Tensor:
        return text.batch(generator, count, s["context"]).to(context.device)

    held = text.batch(context.generator(9), s["held"], s["context"], part="valid").to(context.device)
    arms: dict[str, Loss] = {"cut": loss, "sorted": partial(sorted_loss, loss_fn=loss, mode="sum")}
    out: Measurement = {}
    for name, objective in arms.items():
        nested: Any = context.train(
            name, make, draw, objective, steps=s["steps"], batch_size=s["batch"], learning_rate=2e-3, warmup=50
        )
        for budget in menu:
            with torch.no_grad(), nested.budget(**budget):
                out[f"{name}@{budget['depth']}"] = float(loss(nested, held))
        decoding = SelfSpeculative(nested, menu[0])
        ratios, equal = [], 0
        for row in held[: s["prompts"], : s["context"] // 4]:
            prompt, seconds = row[None], []
            options = {"max_new_tokens": s["tokens"], "attention_mask": torch.ones_like(prompt)}
            for generate in (decoding.generate, partial(nested.module.generate, do_sample=False)):
                start = time.perf_counter()
                seconds.append((generate(prompt, **options), time.perf_counter() - start))
            equal += torch.equal(seconds[0][0], seconds[1][0])
            ratios.append(seconds[1][1] / seconds[0][1])
        out |= {f"{name}-speed": statistics.median(ratios), f"{name}-equal": equal / s["prompts"]}
    return {**out, "cases": float(2 * s["prompts"])}
