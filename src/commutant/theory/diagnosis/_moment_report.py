"""Self-normalization of a given network: measured and predicted moments, and conversion from ReLU."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..._checks import one_of
from ..._errors import InputError
from ..normalization._moment_map import moment_map
from ..normalization._selu import SELU, AlphaDropout, Normalized, lecun_normal_
from ._initialize import is_pointwise
from ._record import Call, recorded


@dataclass(frozen=True)
class Moments:
    """Moments of one layer and the activation that follows it.

    Attributes:
        layer: Name of the layer.
        activation: Name of the activation.
        mean: Measured mean of the activations.
        variance: Measured variance of the activations.
        predicted_mean: Mean predicted from the moments measured one layer before.
        predicted_variance: Variance predicted from the moments measured one layer before.
        omega: Mean over units of the sum of a unit's weights.
        omega_spread: Standard deviation over units of the sum of a unit's weights.
        tau: Mean over units of the sum of a unit's squared weights; 1 for `lecun_normal_`.
        tau_spread: Standard deviation over units of the sum of a unit's squared weights.
        tolerance: Standard deviation of the measured variance over initializations at this width, to first order.
    """

    layer: str
    activation: str
    mean: float
    variance: float
    predicted_mean: float
    predicted_variance: float
    omega: float
    omega_spread: float
    tau: float
    tau_spread: float
    tolerance: float


@dataclass(frozen=True)
class MomentReport:
    """Moments of all layers, with warnings where the recipe of self-normalizing networks is broken.

    Attributes:
        layers: Moments of the layers in the order of the forward pass.
        warnings: One sentence for each broken part of the recipe; empty if the recipe holds.
    """

    layers: tuple[Moments, ...]
    warnings: tuple[str, ...]

    def __str__(self) -> str:
        wide = max([len(m.layer) for m in self.layers] + [5])
        columns = f"{'mean':>8} {'expected':>8}  {'variance':>8} {'expected':>8}    {'omega':>7} {'tau':>6}"
        lines = [f"{'layer':<{wide}}  {columns}"]
        for m in self.layers:
            lines.append(
                f"{m.layer:<{wide}}  {m.mean:>8.3f} {m.predicted_mean:>8.3f}  {m.variance:>8.3f} "
                f"{m.predicted_variance:>8.3f}    {m.omega:>7.3f} {m.tau:>6.3f}"
            )
        return "\n".join([*lines, *(f"warning: {w}" for w in self.warnings)])


def moment_report(model: nn.Module, x: Any) -> MomentReport:
    """Compare mean and variance of every hidden layer's activations with the predictions of the map of moments.

    The report covers linear layers whose output goes straight to an activation, both called as modules. Dropout is
    off. Each prediction starts from the moments measured one layer before, so a deviating row identifies the layer
    that breaks the recipe.

    Args:
        model: Network of linear layers and activations.
        x: Batch of inputs, as for `diagnose`.

    Raises:
        InputError: As `diagnose`, and for a model in which no linear layer is followed by an activation.

    Example:
        >>> from commutant.theory import SNN
        >>> report = moment_report(SNN(16, 2, hidden=256, depth=3, dropout=0.0), torch.randn(512, 16))
        >>> [abs(m.variance - 1) < 0.3 for m in report.layers], report.warnings
        ([True, True, True], ())
    """
    with recorded(model, x) as record:
        calls = [c for c in record.calls if not c.block]
        pairs = [
            (layer, act)
            for layer, act in itertools.pairwise(calls)
            if isinstance(layer.module, nn.Linear) and is_pointwise(act.module) and act.input is layer.passed
        ]
        if not pairs:
            raise InputError(f"{type(model).__name__} has no linear layer followed by an activation module")
        layers = tuple(_moments(layer, act) for layer, act in pairs)
        return MomentReport(layers, tuple(recipe_breaks(model, record.inputs)))


def _moments(layer: Call, act: Call) -> Moments:
    assert isinstance(layer.module, nn.Linear)
    assert layer.input is not None
    w = layer.module.weight.detach().double()
    sums, squares = w.sum(1), w.square().sum(1)
    z, a = layer.input.detach().double(), act.output.detach().double()
    mean, variance = float(z.mean()), float(z.var(correction=0))
    # means of single inputs differ from the overall mean, and their second moment is what a unit sees
    omega, tau = float(sums.mean()), float(squares.mean())
    given: Any = act.module if isinstance(act.module, SELU | Normalized) else None
    given = "selu" if isinstance(act.module, nn.SELU) else given or act.module
    second = variance + (mean**2 * float((sums - omega).square().mean()) / tau if tau else 0.0)
    bias = torch.zeros(1) if layer.module.bias is None else layer.module.bias.detach().double()
    at = mean * omega + float(bias.mean()), second * tau + float(bias.var(correction=0))
    expected = moment_map(*at, 1.0, 1.0, activation=given)  # these are the moments of the net input itself
    width = w.shape[0]
    centered = a - a.mean()
    fourth = float(centered.square().var(correction=0))
    return Moments(
        layer.name, act.name, float(a.mean()), float(a.var(correction=0)), float(expected[0]), float(expected[1]),
        omega, float(sums.std(correction=0)), tau, float(squares.std(correction=0)), math.sqrt(fourth / width),
    )  # fmt: skip


def recipe_breaks(model: nn.Module, inputs: list[Tensor]) -> list[str]:
    """Return the reasons why a network with SELU does not normalize itself; nothing for networks without SELU."""
    modules = list(model.modules())
    if not any(isinstance(m, SELU | nn.SELU | Normalized) for m in modules):
        return []
    out = []
    norms = [m for m in modules if "Norm" in type(m).__name__ and not isinstance(m, Normalized)]
    if norms:
        out.append(f"{type(norms[0]).__name__} normalizes what the activation would")
    if any(type(m) in (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d) and getattr(m, "p", 0) for m in modules):
        out.append("Dropout shifts mean and variance; AlphaDropout does not")
    weights = [m.weight.detach().double() for m in modules if isinstance(m, nn.Linear | nn.Conv1d | nn.Conv2d)]
    taus = [float(w.flatten(1).square().sum(1).mean()) for w in weights]
    off = [tau for tau in taus if not 0.9 < tau < 1.1]
    if off:
        name = " (He initialization)" if abs(off[0] - 2) < 0.2 else " (gain 3/4)" if abs(off[0] - 0.5625) < 0.06 else ""
        out.append(f"weights times fan-in have variance {off[0]:.2f}{name} instead of 1; use lecun_normal_")
    biases = [m.bias for m in modules if isinstance(m, nn.Linear | nn.Conv1d | nn.Conv2d) and m.bias is not None]
    largest = max((float(b.detach().square().mean()) for b in biases), default=0.0)
    if largest > 0.05:  # compared with a variance of one
        out.append(f"biases have a mean square of {largest:.2g} instead of zero")
    for x in inputs[:1]:
        z = x.detach().double()
        mean, variance = float(z.mean()), float(z.var(correction=0))
        if z.numel() > 1 and (abs(mean) > 0.3 or not 0.6 < variance < 1.6):
            out.append(f"inputs have mean {mean:.2f} and variance {variance:.2f}; standardize them to 0 and 1")
    return out


def swap(model: nn.Module, what: str = "relu->selu", *, generator: torch.Generator | None = None) -> nn.Module:
    """Turn a plain ReLU network into a self-normalizing one in place: activations, dropout and weights together.

    Every `nn.ReLU` becomes `SELU`, and dropout becomes `AlphaDropout` with a tenth of its rate, at most 0.1. Linear and
    convolutional layers get `lecun_normal_` weights and zero biases; frozen ones keep theirs. None of these changes
    helps without the others.

    Args:
        model: Network with its activations as modules.
        what: `"relu->selu"`, the only conversion.
        generator: Source of randomness of the weights.

    Returns:
        The model.

    Raises:
        InputError: For another conversion, a model without `nn.ReLU` modules, or one with normalization layers.

    Example:
        >>> net = swap(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 1)))
        >>> [type(m).__name__ for m in net]
        ['Linear', 'SELU', 'AlphaDropout', 'Linear']
    """
    one_of("what", what, ("relu->selu",))
    if not isinstance(model, nn.Module):
        raise InputError(f"model must be an nn.Module, got {type(model).__name__}")
    norms = [name for name, m in model.named_modules() if "Norm" in type(m).__name__]
    if norms:
        raise InputError(f"{norms[0]} normalizes already: remove normalization layers from a self-normalizing network")
    found = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.ReLU)]
    if not found or isinstance(model, nn.ReLU):
        raise InputError(f"{type(model).__name__} has no nn.ReLU inside; F.relu in a forward method can't be swapped")
    made: dict[int, nn.Module] = {}  # a module used in several places stays shared
    for name, module in list(model.named_modules(remove_duplicate=False)):
        new = made.get(id(module))
        if new is not None:
            pass
        elif isinstance(module, nn.ReLU):
            new = SELU()
        elif type(module) in (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d):
            new = AlphaDropout(min(0.1, module.p / 10), featurewise=type(module) is not nn.Dropout)
        elif isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d) and module.weight.requires_grad:
            lecun_normal_(module.weight, generator=generator)
            if module.bias is not None and module.bias.requires_grad:
                nn.init.zeros_(module.bias)
        if new is not None:
            made[id(module)] = new
            parent, _, leaf = name.rpartition(".")
            new.train(module.training)
            setattr(model.get_submodule(parent), leaf, new)
    return model
