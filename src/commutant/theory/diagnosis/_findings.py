"""Findings from the measurements of a network: known problems with their remedies."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..._errors import InputError
from ..criticality._depth import nonlinearity
from ._initialize import activations_before, has_skips
from ._moment_report import recipe_breaks
from ._record import NORMS, Call, Record

_DRIFT = 1e3  # tolerated change of mean squares over all layers
_VANISH, _EXPLODE = 1e6, 1e4  # tolerated change of squared gradients; within it, gradient descent trains
_STEEP = 1.1  # tolerated change of squared gradients in each layer; below it, even very deep networks train
_FEW = 5  # fewest layers that show a trend
_ALIKE = 1e-4  # smallest 1 - cosine between the gradients of two inputs that counts as different
_MOST_IDLE = 0.9


@dataclass(frozen=True)
class ModuleStatistics:
    """Statistics of one module in one forward and backward pass.

    Attributes:
        name: Name of the module.
        kind: Name of its class.
        block: Whether it is a block of a stack rather than a single layer.
        mean: Mean of its outputs over inputs and units.
        variance: Variance of its outputs over inputs and units.
        kernel: Mean square of its outputs.
        correlation: Mean cosine between the outputs of different inputs; NaN for one input.
        gradient: Squared gradient $E |\\partial (v \\cdot f) / \\partial z|^2$ of one input, over random unit vectors v
            of the network's output; NaN if the output doesn't depend on the module.
        gain: Mean square growth $\\chi_\\perp$ of gradients from the module back to the nearest layer or normalization
            (for a block, back to its input); NaN if there is none.
        skip: Weight of the identity in a block whose output has the shape of its input, else 0.
        share: Contribution $E |\\partial (v \\cdot f) / \\partial \\theta|^2$ of its own parameters to the tangent
            kernel; NaN without parameters.
        idle: Fraction of units that are zero or saturated for every input; 0 for modules that are not activations.
    """

    name: str
    kind: str
    block: bool
    mean: float
    variance: float
    kernel: float
    correlation: float
    gradient: float
    gain: float
    skip: float
    share: float
    idle: float


@dataclass(frozen=True)
class Finding:
    """Problem of a network, with a remedy.

    Attributes:
        what: Short name, such as `"gradients vanish"`.
        sentence: Description with numbers.
        remedy: Recommended change.
        severe: Whether the problem prevents gradient descent from training the network well; otherwise it is a remark.
    """

    what: str
    sentence: str
    remedy: str
    severe: bool = True


def not_finite(call: Call | None) -> Finding:
    """Return the finding that a module, or the network after its last module, gives NaN or infinity."""
    where = (
        "the model itself, after its last module," if call is None else f"{call.name} ({type(call.module).__name__})"
    )
    return Finding(
        "not finite",
        f"{where} gives NaN or infinity on this input",
        "check the computation there; everything after it is lost",
    )


def findings(model: nn.Module, record: Record, stages: list[ModuleStatistics], tangent: float) -> list[Finding]:
    """Return all findings; `tangent` is the mean cosine between the gradients of different inputs."""
    weighted = {c.name for c in record.layers}
    layers = [s for s in stages if s.name in weighted]
    return [
        *_inputs(record),
        *_angles(record, layers, tangent),
        *_gradients(layers, stages),
        *_signals(layers),
        *_idle_units(stages),
        *_width(model, record),
        *_self_normalizing(model),
    ]


def no_gradient(names: list[str], among: int) -> Finding:
    """Return the finding that layers are cut off from the output."""
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return Finding(
        "no gradient",
        f"the parameters of {shown} ({len(names)} of {among} layers) get a gradient of exactly zero, and no training "
        "of other parameters changes that",
        "check what follows them: a detach, argmax or rounding, units that are off for every input, two zero factors",
    )


def _inputs(record: Record) -> list[Finding]:
    if not record.inputs:
        return []
    x = record.inputs[0].detach().double()
    if bool(((x == 0) | (x == 1)).all()):
        return []  # a mask or one-hot categories
    mean, spread = float(x.mean()), float(x.std(correction=0))
    if x.numel() > 1 and (abs(mean) > spread or not 0.1 < spread < 10):
        return [
            Finding(
                "inputs not standardized",
                f"the inputs have mean {mean:.3g} and standard deviation {spread:.3g}",
                "standardize each feature to mean 0 and variance 1, as every initialization assumes",
                severe=False,
            )
        ]
    return []


def _angles(record: Record, layers: list[ModuleStatistics], tangent: float) -> list[Finding]:
    """Return a finding if gradient descent can't distinguish inputs that differ at the start."""
    known = [s.correlation for s in layers if s.correlation == s.correlation]
    start = [correlation(t.detach().double()) for t in record.inputs[:1]] or known[:1]
    if not 1 - tangent <= _ALIKE or (start and 1 - start[0] < 1e-2):
        return []
    where = next((s for s in layers if 1 - s.correlation <= 10 * _ALIKE), None)
    return [
        Finding(
            "inputs look alike",
            f"parameter gradients of different inputs have a mean cosine of {_near_one(tangent)}"
            + (f", the inputs one of {start[0]:.2f}" if start and start[0] == start[0] else "")
            + (f"; from {where.name} on outputs have one of {_near_one(where.correlation)}" if where else ""),
            "",
        )
    ]


def _near_one(cosine: float) -> str:
    return f"1 - {1 - cosine:.0e}" if 1 - cosine > 1e-12 else "1"


def _gradients(layers: list[ModuleStatistics], stages: list[ModuleStatistics]) -> list[Finding]:
    blocks = [s for s in stages if s.block and s.gain == s.gain]
    logs = [math.log(s.gradient) for s in layers if s.gradient > 0]  # a layer before zero weights has no gradient yet
    if len(logs) < _FEW:
        return []
    rate, change = _change(logs)
    vanish = change > 0  # gradients of early layers are smaller
    if abs(change) < math.log(_VANISH if vanish else _EXPLODE) or abs(rate) < math.log(_STEEP):
        return []
    steady = [s.gain for s in blocks if s.skip > 0.1 and s.gain > 0]
    through = f"; the {len(steady)} blocks with a skip multiply by {_mean_gain(steady):.2f} each" if steady else ""
    return [
        Finding(
            "gradients vanish" if vanish else "gradients explode",
            f"on the way back through {len(logs)} layers squared gradients "
            f"{'shrink' if vanish else 'grow'} by {_power(math.exp(abs(change)))}, "
            f"{math.exp(-rate):.2f} per layer{through}",
            "",
        )
    ]


def _signals(layers: list[ModuleStatistics]) -> list[Finding]:
    logs = [math.log(s.kernel) for s in layers if s.kernel > 0]
    if len(logs) < 2:
        return []
    rate, change = _change(logs)
    if abs(change) < math.log(_DRIFT):
        return []
    return [
        Finding(
            "signals vanish" if change < 0 else "signals explode",
            f"mean squares {'shrink' if change < 0 else 'grow'} by {_power(math.exp(abs(change)))} through "
            f"{len(logs)} layers, {math.exp(rate):.2f} per layer",
            "",
        )
    ]


def _idle_units(stages: list[ModuleStatistics]) -> list[Finding]:
    worst = max(stages, key=lambda s: s.idle)
    if worst.idle <= _MOST_IDLE:
        return []
    return [
        Finding(
            "idle units",
            f"{worst.idle:.0%} of the units of {worst.name} ({worst.kind}) are zero or saturated for every input",
            "use smaller weights or biases before it, or an activation with a slope on both sides",
            severe=False,
        )
    ]


def _width(model: nn.Module, record: Record) -> list[Finding]:
    """Return a finding if a plain network is too deep for its width."""
    plain = all(isinstance(c.module, nn.Linear) for c in record.layers) and not has_skips(model)
    plain = plain and not any(c.block for c in record.calls)
    if not plain or any(isinstance(m, NORMS) for m in model.modules()):
        return []
    try:
        before = activations_before(model)
        acts = {id(a): a for a in before.values() if a is not None}
        constant = max(nonlinearity(a) for a in acts.values())
    except (InputError, ValueError):
        return []
    widths = [c.output.shape[-1] for c in record.layers[:-1]]
    ratio = constant * sum(1 / n for n in widths)
    if not ratio > 1:
        return []
    return [
        Finding(
            "too deep for its width",
            f"in {len(widths)} layers of {min(widths)} to {max(widths)} units, the squared output varies by "
            f"{math.sqrt(ratio):.1f} times its mean from one initialization to the next",
            f"use {math.ceil(max(widths) * ratio)} units or more, fewer layers, or a skip with the weight of skip_for",
            severe=False,
        )
    ]


def _self_normalizing(model: nn.Module) -> list[Finding]:
    """Return a finding if a network with SELU breaks a part of the recipe of self-normalizing networks."""
    wrong = recipe_breaks(model, [])
    if not wrong:
        return []
    return [
        Finding(
            "SELU without its recipe",
            "; ".join(wrong),
            "use lecun_normal_ weights, zero biases, AlphaDropout, standardized inputs, no normalization, as SNN(...)",
            severe=False,
        )
    ]


def _change(logs: list[float]) -> tuple[float, float]:
    """Return slope and total change, the latter by the trend or from end to end, whichever is smaller.

    Modules are in the order of the forward pass, which is not a path in networks with skips. Modules off the path from
    the first layer to the last must not decide alone. The output layer, often after pooling, does not count as an end.
    """
    rate, change = trend(logs)
    ends = logs[-2 if len(logs) > 2 else -1] - logs[0]
    return rate, min(change, ends, key=abs) if change * ends > 0 else 0.0


def trend(values: list[float]) -> tuple[float, float]:
    """Return the slope of the regression line through values at 0, 1, 2 ..., and its total rise."""
    n = len(values)
    center = (n - 1) / 2
    slope = sum((i - center) * v for i, v in enumerate(values)) / sum((i - center) ** 2 for i in range(n))
    return slope, slope * (n - 1)


def _mean_gain(gains: list[float]) -> float:
    return math.exp(sum(math.log(g) for g in gains) / len(gains))


def _power(x: float) -> str:
    return f"{x:.0f} times" if x < 1e4 else f"1e{math.log10(x):.0f} times"


def correlation(z: Tensor) -> float:
    """Return the mean cosine between different rows; NaN for one row, rows of one number, or a row of zeros."""
    if z.ndim < 2 or len(z) < 2 or z[0].numel() < 2 or not bool(torch.isfinite(z).all()):
        return math.nan
    rows = z.flatten(1)
    if not bool(rows.any(1).all()):
        return math.nan
    rows = rows / rows.abs().amax(1, keepdim=True).clamp(min=1e-300)
    unit = rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-300)
    n = len(rows)
    return float((unit.sum(0).square().sum() - unit.square().sum()) / (n * (n - 1)))
