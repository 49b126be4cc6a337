"""Measurements of random-feature attention on polynomials of queries and keys."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ...algebra import ridge
from ...evidence import Context, Measurement
from ...sets import RandomAttentionFeatures, attention_kernel
from .models import DeepSets, mlp_features

TARGETS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "average-2": lambda query, keys, beta: (keys @ beta).square().mean(1),
    "average-4": lambda query, keys, beta: (keys @ beta).pow(4).mean(1),
    "correlation-1": lambda query, keys, beta: _correlation(query, keys, beta, 1),
    "correlation-2": lambda query, keys, beta: _correlation(query, keys, beta, 2),
    "correlation-3": lambda query, keys, beta: _correlation(query, keys, beta, 3),
    "pairs": lambda query, keys, beta: keys.mean(1).square().sum(1) - 1 / keys.shape[1],
}
"""Functions of unit queries `(sets, d)`, unit keys `(sets, n, d)` and a unit direction `(d,)`."""
DEGREES = {
    "average-2": (0, 2),
    "average-4": (0, 4),
    "correlation-1": (1, 2),
    "correlation-2": (2, 3),
    "correlation-3": (3, 4),
}
"""Degree in the query, and largest degree in query or key, of targets that random-feature attention expresses."""
TRAINED = ("average-2", "correlation-1", "correlation-3")


def _correlation(query: Tensor, keys: Tensor, beta: Tensor, power: int) -> Tensor:
    return ((keys @ query[:, :, None]).squeeze(2).pow(power) * (keys @ beta)).mean(1)


def _unit(*shape: int, generator: torch.Generator) -> Tensor:
    x = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return x / x.norm(dim=-1, keepdim=True)


def relative_error(found: Tensor, wanted: Tensor) -> float:
    """Return the mean squared error over the mean square of the target."""
    return float((found - wanted).square().mean() / wanted.square().mean())


def complexity(target: str, features: int) -> float:
    """Return an upper bound on the complexity B(f) of a target, by which the paper bounds the excess error.

    It is $C_k \\lVert f \\rVert^2$ with $C_k = k^{4.5} 4^k$, where k is the larger of the degrees in query and key; the
    squared norm of the coefficients of degree q in the inner product is at most $d^q$.

    Args:
        target: Name of the target.
        features: Number of features d of a token.
    """
    in_query, largest = DEGREES[target]
    return float(largest**4.5 * 4**largest * features**in_query)


def measure_targets(context: Context) -> Measurement:
    """Return the relative test error of each arm on each target, for each number of training sets."""
    settings = context.settings
    d, n, sizes, tests = (settings[name] for name in ("features", "keys", "sizes", "tests"))
    generator = context.generator(1)
    query, keys = (
        _unit(max(sizes) + tests, d, generator=generator),
        _unit(max(sizes) + tests, n, d, generator=generator),
    )
    beta = _unit(d, generator=generator)
    targets = {name: target(query, keys, beta) for name, target in TARGETS.items()}

    def features_of(arm: str) -> Tensor:
        if arm == "mlp":
            return mlp_features(query, keys, settings["heads"] * (d + 1), context.generator(2))
        bias: Any = "identity" if arm == "biased" else None
        features = RandomAttentionFeatures(d, d, settings["heads"], bias=bias, generator=context.generator(2)).double()
        return torch.cat([features(q, k) for q, k in zip(query.split(500), keys.split(500), strict=True)])

    def convex(arm: str) -> Measurement:
        phi, out = features_of(arm), {}
        for name, y in targets.items():
            for size in sizes:
                fit = ridge(phi[:size], y[:size, None])
                found = phi[-tests:] @ fit.coefficients + fit.intercept
                out[f"{arm}-{name}@{size}"] = relative_error(found[:, 0], y[-tests:])
        return out

    def trained(name: str) -> Measurement:
        size, y = settings["trained_size"], targets[name].float()
        scale = float(y[:size].std())

        def draw(generator: torch.Generator, count: int) -> tuple[Tensor, Tensor, Tensor]:
            rows = torch.randint(size, (count,), generator=generator)
            return tuple(t[rows].float().to(context.device) for t in (query, keys, y / scale))  # type: ignore[return-value]

        def loss(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
            return (model(batch[0], batch[1]) - batch[2]).square().mean()

        model = context.train(
            f"deepsets-{name}",
            lambda: DeepSets(d, settings["width"]),
            draw,
            loss,
            steps=settings["steps"],
            batch_size=128,
            learning_rate=2e-3,
        ).eval()
        with torch.no_grad():
            found = model(query[-tests:].float().to(context.device), keys[-tests:].float().to(context.device)).cpu()
        return {f"deepsets-{name}@{size}": relative_error(found * scale, y[-tests:])}

    arms = {arm: partial(convex, arm) for arm in ("attention", "biased", "mlp")}
    measured = context.arms(arms | {f"deepsets-{name}": partial(trained, name) for name in TRAINED})
    return measured | {f"complexity-{name}": complexity(name, d) for name in DEGREES}


def measure_heads(context: Context) -> Measurement:
    """Return the relative error of the kernel of finitely many heads, for each number of heads."""
    settings = context.settings
    d, n, sets = (settings[name] for name in ("features", "keys", "sets"))
    query, keys = _unit(sets, d, generator=context.generator(1)), _unit(sets, n, d, generator=context.generator(2))
    exact = attention_kernel(query, keys)
    out: Measurement = {}
    for arm, orthogonal in (("gaussian", False), ("orthogonal", True)):
        for heads in settings["heads"]:
            errors = []
            for draw in range(settings["draws"]):
                generator = context.generator(100 + draw)
                phi = RandomAttentionFeatures(d, d, heads, orthogonal=orthogonal, generator=generator).double()(
                    query, keys
                )
                errors.append(float((phi @ phi.T - exact).square().sum() / exact.square().sum()))
            out[f"{arm}@{heads}"] = math.sqrt(sum(errors) / len(errors))
    return out
