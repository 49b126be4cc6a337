"""Phase diagram of order and chaos in the plane of variances, with the layers of a network."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..._errors import InputError, require
from ..criticality._criticality import Source, as_activation, criticality
from ._initialize import layers_and_activations

_TEAL, _CRIMSON, _GREY = "#0b7a75", "#c8374a", "#6b6b6b"


def edge_of_chaos(activation: Source, points: int = 200) -> Float[Tensor, "points 2"]:
    """Return pairs $(C_b, C_W)$ on the border of order and chaos, where $\\chi_\\perp = 1$ at an attracting kernel.

    To the left, at smaller weights, the outputs of two inputs converge with depth. To the right, the outputs of nearby
    inputs diverge (Poole et al. 2016, figure 1). For piecewise linear activations it is a straight line $C_W$ = const.

    Args:
        activation: Name, module, function or `Activation`.
        points: Number of kernels tried, from 1e-6 to 100; those that repel or need $C_b < 0$ are left out.

    Raises:
        InputError: For an activation with a jump or a constant one.

    Example:
        >>> edge_of_chaos("tanh")[0].round(decimals=4)
        tensor([0., 1.], dtype=torch.float64)
    """
    act = as_activation(activation)
    kernels = torch.logspace(-6, 2, points, dtype=torch.float64)
    chi = act.chi(kernels)
    weights = 1 / chi.perpendicular
    if not bool(torch.isfinite(weights).all()):
        raise InputError(f"{act.name} has slope zero, so there is no border of order and chaos")
    if act.homogeneous:
        return torch.stack([kernels, weights], 1)
    biases = kernels - weights * act.g(kernels)
    stays = (biases > -1e-12) & (chi.parallel * weights < 1 + 1e-9)
    return torch.stack([biases.clamp(min=0), weights], 1)[stays]


def phase_diagram(module: nn.Module, *, activation: Source | None = None) -> Any:
    """Draw the plane $(C_W, C_b)$ of a module's activation as a matplotlib figure, with the layers as dots.

    Filled dots are layers after an activation, darker for deeper ones. Hollow dots are layers that read inputs, to
    which the border does not apply. The star is the critical point, if there is one.

    Args:
        module: Network of linear and convolutional layers with one activation.
        activation: Its activation, if tracing can't find it.

    Raises:
        InputError: For a module with several activations or none, or without such layers.
    """
    figure_class = require("matplotlib.figure", "evidence").Figure
    before = layers_and_activations(module, activation)
    found = list({id(act): act for act in before.values() if act is not None}.values())
    if len(found) != 1:
        names = ", ".join(act.name for act in found) or "none"
        raise InputError(f"a phase diagram needs one activation, but {type(module).__name__} has {names}")
    act, edge, point = found[0], edge_of_chaos(found[0]), criticality(found[0])
    inputs = [_variances(module, layer) for layer, reads in before.items() if reads is None]
    hidden = [_variances(module, layer) for layer, reads in before.items() if reads is not None]
    critical = [(point.weight_variance, point.bias_variance)] if point else []
    marks = [*inputs, *hidden, *critical]
    right, top = 1.25 * max(w for w, _ in marks), max(0.25, 1.35 * max(b for _, b in marks))
    in_view = len(edge) > 0 and float(edge[0, 0]) < top
    right = max(right, 1.4 * float(edge[0, 1])) if in_view else right
    figure = figure_class(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.add_subplot()
    biases, weights = edge.T.numpy()
    if in_view:
        axes.fill_betweenx(biases, weights, right, color=_CRIMSON, alpha=0.08, linewidth=0)
        axes.plot(weights, biases, color=_GREY, linewidth=1.4)
    low, ends = (biases, weights) if in_view else ([0, top], min([right, *weights]))
    axes.fill_betweenx(low, 0, ends, color=_TEAL, alpha=0.08, linewidth=0)
    if inputs:
        axes.scatter(*zip(*inputs, strict=True), s=44, facecolors="none", edgecolors="black", zorder=3)
    shades = {"c": range(len(hidden)), "cmap": "Greys", "vmin": -len(hidden), "vmax": len(hidden)}
    axes.scatter(*zip(*hidden, strict=True), s=34, zorder=3, **shades)
    for place in critical:
        axes.plot(*place, "*", color=_GREY, markersize=13, zorder=2, clip_on=False)
    axes.text(0.02, 0.96, "ordered: outputs of two inputs converge", transform=axes.transAxes, color=_TEAL, va="top")
    beyond = "signals explode" if act.homogeneous else "chaotic: nearby inputs diverge" if in_view else ""
    axes.text(0.98, 0.96, beyond, transform=axes.transAxes, color=_CRIMSON, va="top", ha="right")
    axes.set(xlim=(0, right), ylim=(-0.03 * top, top), title=f"layers of {type(module).__name__}, {act.name}")
    axes.set(xlabel="variance of weights times fan-in", ylabel="variance of biases")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _variances(module: nn.Module, layer: str) -> tuple[float, float]:
    """Return $(C_W, C_b)$ of a layer from the mean squares of its current weights."""
    weight, bias = (getattr(module.get_submodule(layer), kind) for kind in ("weight", "bias"))
    spread = 0.0 if bias is None else float(bias.detach().double().square().mean())
    return float(weight.detach().double().square().mean()) * weight[0].numel(), spread
