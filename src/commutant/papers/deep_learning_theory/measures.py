"""Measurements for the claims on criticality and finite width: on random networks and on digits."""

from __future__ import annotations

import itertools
import math
from functools import partial

import torch
from torch import nn

from ...algebra import Activation
from ...data import image_classes, load_table
from ...evidence import Context, Measurement
from ...theory import (
    autoscale_,
    critical_,
    criticality,
    depth_scale,
    diagnose,
    finite_width,
    four_point_exact,
    kernel_flow,
    layer_shares,
    measure_ensemble,
)
from .._shared.networks import mlp
from .._shared.plain_training import best_of

CRITICAL = {"relu": 2.0, "linear": 1.0, "tanh": 1.0}
SCALES = {"relu": (0.5, 1.0, 2.0), "tanh": (0.5, 0.8, 1.0, 1.5, 4.0)}
CURES = ("as torch has it", "outputs", "critical", "autoscale")
ASPECTS = {"relu": nn.ReLU, "tanh": nn.Tanh}
VERTICES = ("four_point", "tangent_signal", "tangent_cross", "tangent_mixed", "tangent_variance")


def measure_ensembles(context: Context) -> Measurement:
    """Return kernels and four-point vertices of networks at criticality by layer, with first order and all orders."""
    return context.arms({name: partial(_ensemble, context, name) for name in CRITICAL})


def _ensemble(context: Context, name: str) -> Measurement:
    settings, weight = context.settings, CRITICAL[name]
    n, depth, act = settings["width"], settings["depth"], Activation(name, kinks=(0.0,) if name == "relu" else ())
    theory = finite_width(act, [n] * (depth - 1), weight_variance=weight, gram=1 / weight)  # unit kernel at first
    found = measure_ensemble(
        act, [n] * depth, settings["networks"], gram=1 / weight, weight_variance=weight, generator=context.generator(1)
    )
    expected, kernel = theory.kernel.flatten(), found.kernel.value
    out: Measurement = {}
    for layer in range(1, depth):
        place = f"@{layer + 1}"
        out[f"{name}-kernel{place}"] = float(kernel[layer] / expected[layer])
        out[f"_{name}-theory{place}"] = float(expected[layer])
        out[f"_{name}-spread{place}"] = float(found.kernel.error[layer]) * settings["networks"] ** 0.5
        # Divided by the ensemble's own kernel: its shift at finite width is another vertex.
        out[f"{name}-measured{place}"] = float(found.four_point.value[layer] / kernel[layer].square())
        out[f"{name}-first{place}"] = float(theory.four_point.flatten()[layer] / expected[layer].square())
        if act.homogeneous:
            out[f"{name}-all{place}"] = n * float(four_point_exact(act, [n] * (depth - 1))[layer])
    return out


def measure_vertices(context: Context) -> Measurement:
    """Return every vertex of signal and tangent kernel at the last layer, its standard error and first order."""
    return context.arms({name: partial(_vertices, context, name) for name in ("tanh", "gelu")})


def _vertices(context: Context, name: str) -> Measurement:
    settings = context.settings
    n, depth = settings["width"], settings["depth"]
    b, w, lb, lw = (0.1, 1.3, 0.3, 0.7) if name == "tanh" else (0.17292239, 1.98305826, 0.5, 1.0)
    act = Activation(name, kinks=())
    layers = {"bias_variance": b, "weight_variance": w, "bias_rate": lb, "weight_rate": lw}
    theory = finite_width(act, [n] * (depth - 1), **layers)
    generator = context.generator(2)
    found = measure_ensemble(act, [n] * depth, settings["networks"], **layers, tangent=True, generator=generator)
    out: Measurement = {}
    for vertex in VERTICES:
        estimate = getattr(found, vertex)
        out[f"{name}-{vertex}@measured"] = float(estimate.value[-1])
        out[f"{name}-{vertex}@theory"] = float(getattr(theory, vertex)[-1].squeeze())
        out[f"{name}-{vertex}@error"] = float(estimate.error[-1])
    return out


def measure_training(context: Context) -> Measurement:
    """Return the test accuracy of deep plain networks by the variance of their weights."""
    arms = [(name, scale) for name, scales in SCALES.items() for scale in scales]
    return context.arms({f"{name}-{scale}": partial(_trained, context, name, scale) for name, scale in arms})


def _trained(context: Context, name: str, scale: float) -> Measurement:
    settings = context.settings
    images = image_classes("digits")
    (x, y), (x_test, y_test) = images.train, images.test
    x, x_test = x.flatten(1), x_test.flatten(1)
    mean, spread = x.mean(0), x.std(0) + 1e-3
    x, x_test = (x - mean) / spread, (x_test - mean) / spread
    activation = {"relu": nn.ReLU, "tanh": nn.Tanh}[name]
    weight = scale * criticality(name).weight_variance
    best = {"loss": math.inf, "accuracy": 0.1}
    for rate in settings["rates"]:
        generator = context.generator(3)
        net = _plain(activation, x.shape[1], settings["width"], settings["depth"])
        for layer in _linears(net):
            nn.init.normal_(layer.weight, std=(weight / layer.in_features) ** 0.5, generator=generator)
            nn.init.zeros_(layer.bias)
        optimizer, loss = torch.optim.SGD(net.parameters(), lr=rate), torch.zeros(())
        for _ in range(settings["steps"]):
            batch = torch.randint(len(x), (128,), generator=generator)
            loss = nn.functional.cross_entropy(net(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            accuracy = float((net(x_test).argmax(1) == y_test).float().mean())
            last = float(nn.functional.cross_entropy(net(x), y))
        if math.isfinite(last) and last < best["loss"]:
            best = {"loss": last, "accuracy": accuracy}
    return {f"{name}-{scale}@accuracy": best["accuracy"], f"{name}-{scale}@loss": min(best["loss"], 1e9)}


def _plain(activation: type[nn.Module], features: int, width: int, depth: int) -> nn.Sequential:
    """Build an MLP of `depth` linear layers with ten outputs."""
    return mlp([features, *[width] * (depth - 1), 10], activation)


def _linears(net: nn.Sequential) -> list[nn.Linear]:
    return [layer for layer in net if isinstance(layer, nn.Linear)]


def measure_cures(context: Context) -> Measurement:
    """Return the test accuracy of a deep network in PyTorch's default initialization and after each cure."""
    return context.arms({cure: partial(_cured, context, cure) for cure in CURES})


def _cured(context: Context, cure: str) -> Measurement:
    settings = context.settings
    parts = load_table("digits").split(context.generator(5), 0.6, 0.15)
    x = parts[0][0][:256]

    def make(generator: torch.Generator) -> nn.Module:
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
        net = _plain(nn.Tanh, x.shape[1], settings["width"], settings["depth"])
        if cure == "outputs":
            with torch.no_grad():
                _linears(net)[-1].weight.div_(net(x).std(0).mean().clamp(min=1e-12))
        elif cure == "critical":
            critical_(net, generator=generator)
        elif cure == "autoscale":
            autoscale_(net, x, generator=generator)
        return net

    ill = len(diagnose(make(context.generator(6)), x).findings)
    accuracy = best_of(context, [make], parts, settings["rates"], settings["steps"])
    return {f"{cure}@accuracy": accuracy, f"{cure}@ill": ill}


def measure_plane(context: Context) -> Measurement:
    """Return the test accuracy of deep tanh networks over the plane of variances, and the depth scale of theory."""
    settings = context.settings
    points = list(itertools.product(settings["biases"], settings["weights"]))
    arms = {f"{bias}-{weight}": partial(_on_plane, context, bias, weight) for bias, weight in points}
    return context.arms(arms) | {"depth": float(settings["depth"])}


def plane_of(measurement: Measurement) -> list[tuple[float, float]]:
    """Return the variances of biases and weights at the points of a measured plane."""
    keys = [key.removeprefix("accuracy@") for key in measurement if key.startswith("accuracy@")]
    return [(float(bias), float(weight)) for bias, weight in (key.split(",") for key in keys)]


def _on_plane(context: Context, bias: float, weight: float) -> Measurement:
    settings = context.settings
    parts = load_table("digits").split(context.generator(7), 0.6, 0.15)
    features = parts[0][0].shape[1]

    def make(generator: torch.Generator) -> nn.Module:
        net = _plain(nn.Tanh, features, settings["width"], settings["depth"])
        for layer in _linears(net):
            nn.init.normal_(layer.weight, std=(weight / layer.in_features) ** 0.5, generator=generator)
            nn.init.normal_(layer.bias, std=bias**0.5, generator=generator)
        return net

    at = f"@{bias},{weight}"
    accuracy = best_of(context, [make], parts, settings["rates"], settings["steps"])
    return {f"accuracy{at}": accuracy, f"scale{at}": correlation_scale("tanh", bias, weight)}


def correlation_scale(name: str, bias: float, weight: float) -> float:
    """Return the depth over which the correlation of two inputs settles (Schoenholz et al. 2017), at most 1e4.

    Args:
        name: Name of the activation.
        bias: Variance of the biases.
        weight: Variance of the weights times the fan-in.
    """
    act = Activation(name)
    k = float(kernel_flow(act, 100, 1.0, bias_variance=bias, weight_variance=weight).kernel[-1])
    if k < 1e-8:
        slope = weight * float(act.chi(0.0).perpendicular)
    else:
        squares = act.hermite(k, 100).square() * weight / k
        powers = torch.arange(100, dtype=torch.float64)
        rho = torch.tensor(0.5, dtype=torch.float64)
        for _ in range(1000):
            rho = (bias / k + (squares * rho**powers).sum()).clamp(max=1)
        slope = float((squares[1:] * powers[1:] * rho ** powers[:-1]).sum())
    return min(1e4, depth_scale(slope)) if slope != 1 else 1e4


def measure_shares(context: Context) -> Measurement:
    """Return the spread over layers of the biases' contribution to the tangent kernel, with one rate and the rule."""
    settings, generator = context.settings, context.generator(4)
    depth, width = settings["depth"], settings["width"]
    net = nn.Sequential(*[m for _ in range(depth) for m in (nn.Linear(width, width), nn.Tanh())][:-1])
    for layer in net:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=width**-0.5, generator=generator)
            nn.init.zeros_(layer.bias)
    x = torch.randn(settings["inputs"], width, generator=generator)
    biases = [layer.bias for layer in net if isinstance(layer, nn.Linear)]
    totals = torch.zeros(depth, dtype=torch.float64)
    for row in x:
        output = net(row[None])[0]
        for unit in range(settings["outputs"]):
            grads = torch.autograd.grad(output[unit], biases, retain_graph=True)
            totals += torch.tensor([float(g.double().square().sum()) for g in grads], dtype=torch.float64)
    rule = 1 / layer_shares("tanh", depth, weight_variance=1.0, of="biases")  # learning rates that equalize the layers
    out: Measurement = {}
    for name, rates in (("uniform", torch.ones(depth, dtype=torch.float64)), ("rule", rule)):
        shares = totals * rates / (totals * rates).sum()
        out[f"{name}@spread"] = float(shares.max() / shares.min())
        out |= {f"_{name}@{i + 1}": float(share) for i, share in enumerate(shares)}
    return out


def measure_aspects(context: Context) -> Measurement:
    """Return the test accuracy of critical networks with a fixed number of weights, by depth over width."""
    settings = context.settings
    arms = list(itertools.product(ASPECTS, settings["ratios"]))
    return context.arms({f"{name}-{ratio}": partial(_of_aspect, context, name, ratio) for name, ratio in arms})


def _of_aspect(context: Context, name: str, ratio: float) -> Measurement:
    settings = context.settings
    depth = max(2, round((settings["weights"] * ratio**2) ** (1 / 3)))
    width = round((settings["weights"] / depth) ** 0.5)
    parts = load_table(settings["table"], context.data_dir).split(context.generator(10), 0.6, 0.15)

    def make(generator: torch.Generator) -> nn.Module:
        net = _plain(ASPECTS[name], parts[0][0].shape[1], width, depth)
        critical_(net, generator=generator)
        return net

    accuracy = best_of(context, [make], parts, settings["rates"], settings["steps"])
    return {f"{name}-accuracy@{ratio}": accuracy, f"_{name}-depth@{ratio}": depth, f"_{name}-width@{ratio}": width}
