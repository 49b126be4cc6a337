"""The plane of variances with its two phases, and where a network at hand lies in it."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..._errors import InputError, require
from ..criticality._criticality import Source, as_activation, criticality
from ._initialise import layers_and_activations

_TEAL, _CRIMSON, _GREY = "#0b7a75", "#c8374a", "#6b6b6b"


def edge_of_chaos(activation: Source, points: int = 200) -> Float[Tensor, "points 2"]:
    """Pairs $(C_b, C_W)$ on the border of order and chaos: $\\chi_\\perp = 1$ at a kernel that attracts.

    Left of it, at smaller weights, two inputs come to look alike with depth; right of it alike inputs drift apart
    (Poole et al. 2016, figure 1). A straight line $C_W$ = const. for piecewise linear activations.

    Args:
        activation: a name, a module, a function or an `Activation`.
        points: kernels tried, from 1e-6 to 100; those that repel, or need $C_b < 0$, are left out.

    Raises:
        InputError: for an activation that jumps, or a constant.

    Example:
        >>> edge_of_chaos("tanh")[0].round(decimals=4)
        tensor([0., 1.], dtype=torch.float64)
    """
    act = as_activation(activation)
    kernels = torch.logspace(-6, 2, points, dtype=torch.float64)
    chi = act.chi(kernels)
    weights = 1 / chi.perpendicular
    if not bool(torch.isfinite(weights).all()):
        raise InputError(f"{act.name} has a slope of zero, so that alike inputs always meet: there is no border")
    if act.homogeneous:
        return torch.stack([kernels, weights], 1)
    biases = kernels - weights * act.g(kernels)
    stays = (biases > -1e-12) & (chi.parallel * weights < 1 + 1e-9)
    return torch.stack([biases.clamp(min=0), weights], 1)[stays]


def phase_diagram(module: nn.Module, *, activation: Source | None = None) -> Any:
    """A matplotlib figure of the plane $(C_W, C_b)$ of the activation of a module, with its layers as dots.

    Filled dots are layers after an activation, darker the deeper; hollow ones read inputs, where the border does not
    apply; the star is the critical point where there is one.

    Args:
        module: of linear and convolutional layers with one activation.
        activation: it, where it can't be found by tracing.

    Raises:
        InputError: for a module with several activations or none, or without such layers.
    """
    figure_class = require("matplotlib.figure", "evidence").Figure
    before = layers_and_activations(module, activation)
    found = list({id(act): act for act in before.values() if act is not None}.values())
    if len(found) != 1:
        names = ", ".join(act.name for act in found) or "none"
        raise InputError(f"a phase diagram is of one activation, {type(module).__name__} has {names}")
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
    axes.text(0.02, 0.96, "ordered: inputs come to look alike", transform=axes.transAxes, color=_TEAL, va="top")
    beyond = "signals explode" if act.homogeneous else "chaotic: alike inputs part" if in_view else ""
    axes.text(0.98, 0.96, beyond, transform=axes.transAxes, color=_CRIMSON, va="top", ha="right")
    axes.set(xlim=(0, right), ylim=(-0.03 * top, top), title=f"layers of {type(module).__name__}, {act.name}")
    axes.set(xlabel="variance of weights times fan-in", ylabel="variance of biases")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _variances(module: nn.Module, layer: str) -> tuple[float, float]:
    """$(C_W, C_b)$ of a layer as its weights are now, by their mean squares."""
    weight, bias = (getattr(module.get_submodule(layer), kind) for kind in ("weight", "bias"))
    spread = 0.0 if bias is None else float(bias.detach().double().square().mean())
    return float(weight.detach().double().square().mean()) * weight[0].numel(), spread
