"""Measurements for the claims on exact permutation learning, with hundreds of trained networks."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from ...evidence import Context, Measurement
from ...permutations import PermutationNTK, ReLUEnsemble, round_outputs
from ...permutations import every_binary_input as every_input

SIZES = tuple(dict.fromkeys(round(1.12**n) for n in range(60)))
"""Sizes of ensembles, 12 % apart where they are large."""
_BATCH = 50  # networks at a time, for memory


def measure_learning(context: Context) -> Measurement:
    """Train ensembles of the size of the bound in NTK parametrization; return their accuracy and variance."""
    return context.arms({f"k{k}": partial(_learn, context, k) for k in context.settings["ks"]})


def _learn(context: Context, k: int) -> Measurement:
    generator, width = context.generator(k), context.settings["width"]
    law, x = PermutationNTK(k), every_input(k)
    y = torch.eye(k)[torch.randperm(k, generator=generator)]
    want, weights = (x @ y.double()).to(torch.uint8), x.sum(1).long()
    needed = law.ensemble_size(0.05, "sign")
    outputs = _outputs(k, y, needed, width, generator)
    sizes = [n for n in SIZES if n < needed] + [needed]
    out: Measurement = {
        f"k{k}@needed": float(needed),
        f"k{k}@needed-midpoint": float(law.ensemble_size(0.05, "midpoint")),
    }
    for rule in ("sign", "midpoint", "topn"):
        for size in sizes:
            groups = outputs[: needed // size * size].unflatten(0, (-1, size)).mean(1)
            right = torch.stack([(round_outputs(g, weights, law, rule) == want).all(1) for g in groups])  # type: ignore[arg-type]
            name = "bound" if size == needed else str(size)
            out[f"k{k}-{rule}@{name}"] = float(right.double().mean())
    variance = torch.tensor([law.variance(int(n)) for n in weights], dtype=torch.float64)
    out[f"k{k}@variance"] = float((outputs.var(0).mean(1)[variance > 0] / variance[variance > 0]).mean())
    mirrored = _outputs(k, y, 5, width, generator, antithetic=True).mean(0)
    out[f"k{k}-antithetic@5"] = _share_right(round_outputs(mirrored, weights, law, "sign"), want)
    weights_of_linear = torch.zeros(k, k, dtype=torch.float64)
    for _ in range(100):  # gradient descent on the same k examples
        weights_of_linear -= 0.5 * (weights_of_linear - y.double())
    linear = x @ weights_of_linear
    out[f"k{k}-linear@1"] = _share_right((linear > 0.5).to(torch.uint8), want)
    return out


def measure_regime(context: Context) -> Measurement:
    """Return the number of networks needed for 90 % of the inputs with two ones, by way of training."""
    settings = context.settings
    k = settings["k"]
    out: Measurement = {f"{r}@predicted": float(_predicted(k, r)) for r in ("ntk", "nngp")}
    out |= context.arms({arm: partial(_needed, context, arm) for arm in ("standard", "ntk")})
    return out


def _needed(context: Context, arm: str) -> Measurement:
    settings, generator = context.settings, context.generator(1)
    k, width, models = settings["k"], settings["width"], settings["models"][arm]
    y = torch.eye(k)[torch.randperm(k, generator=generator)]
    x = every_input(k)
    x = x[x.sum(1) == 2]
    outputs = _outputs(k, y, models, width, generator, x=x, last_layer=arm == "standard")
    want = (x @ y.double()).bool()
    for size in range(4, models + 1, 4):
        picks = torch.stack([torch.randperm(models, generator=generator)[:size] for _ in range(24)])
        right = ((outputs[picks].mean(1) > 0) == want).all(-1).double().mean()
        if float(right) >= 0.9:
            return {f"{arm}@needed": float(size)}
    return {f"{arm}@needed": float(models)}


def _outputs(
    k: int, y: Tensor, models: int, width: int, generator: torch.Generator, *, x: Tensor | None = None,
    antithetic: bool = False, last_layer: bool = False,
) -> Tensor:  # fmt: skip
    """Return trained outputs `(models, inputs, k)` in float64, on all nonzero inputs or on `x`."""
    x = every_input(k) if x is None else x
    unit = (x / x.norm(dim=1, keepdim=True)).float()
    top = ((math.pi if last_layer else 2 * math.pi) + k - 1) / (2 * math.pi * k)
    done = []
    for start in range(0, models, _BATCH):
        ensemble = ReLUEnsemble(
            k, k, width=width, models=min(_BATCH, models - start), antithetic=antithetic, generator=generator
        )
        # Standard parametrization with one learning rate: the first layer learns k / width as fast as the last.
        ensemble.fit(torch.eye(k), y, 1 / top, first=k / width if last_layer else 1.0, tolerance=1e-5)
        with torch.no_grad():
            done.append(ensemble(unit).double())
    return torch.cat(done)


def _predicted(k: int, regime: str) -> int:
    """Return the size at which an ensemble of the limit law gets 90 % of the inputs with two ones right by sign."""
    law = PermutationNTK(k, regime)  # type: ignore[arg-type]
    (one, zero), spread = law.mean(2), math.sqrt(law.variance(2))
    size = 1
    while True:
        ones, zeros = (math.erfc(-z * math.sqrt(size / 2) / spread) / 2 for z in (one, -zero))
        if zeros ** (k - 2) * ones**2 >= 0.9:
            return size
        size += 1


def _share_right(found: Tensor, want: Tensor) -> float:
    return float((found == want).all(1).double().mean())
