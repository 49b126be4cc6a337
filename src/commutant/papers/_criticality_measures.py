"""How the claims on criticality and finite width are measured: by thousands of random networks, and on digits."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn

from ..algebra import Activation
from ..data import image_classes
from ..evidence import Context, Measurement
from ..theory import FiniteWidth, criticality, finite_width, four_point_exact, layer_shares

_BATCH = 200  # networks at a time
CRITICAL = {"relu": 2.0, "linear": 1.0, "tanh": 1.0}
SCALES = {"relu": (0.5, 1.0, 2.0), "tanh": (0.5, 0.8, 1.0, 1.5, 4.0)}
VERTICES = ("four_point", "tangent_signal", "tangent_cross", "tangent_mixed", "tangent_variance")


def measure_ensembles(context: Context) -> Measurement:
    """Kernels and four-point vertices of networks at criticality, layer by layer, beside first and all orders."""
    out: Measurement = {}
    context.total_arms = len(CRITICAL)
    for name in CRITICAL:
        out |= context.arm(name, partial(_ensemble, context, name))
    return out


def _ensemble(context: Context, name: str) -> Measurement:
    settings, generator = context.settings, context.generator(1)
    n, depth, weight = settings["width"], settings["depth"], CRITICAL[name]
    act, sums = Activation(name, kinks=(0.0,) if name == "relu" else ()), torch.zeros(depth, 2, dtype=torch.float64)
    theory = finite_width(act, [n] * (depth - 1), weight_variance=weight, gram=1 / weight)
    expected, count = theory.kernel.flatten(), 0
    for _ in range(settings["networks"] // _BATCH):
        z = torch.randn(_BATCH, n, generator=generator)  # unit kernel at the first layer
        for layer in range(depth):
            if layer:
                weights = torch.randn(_BATCH, n, n, generator=generator) * (weight / n) ** 0.5
                z = torch.bmm(weights, act(z)[..., None])[..., 0]
            q = z.double().square() - expected[layer]  # centred: far less noise in what varies together
            pairs = (q.sum(1).square() - q.square().sum(1)) / (n * (n - 1))
            sums[layer] += torch.stack([q.mean(1).sum(), pairs.sum()])
        count += _BATCH
    shift, second = (sums / count).unbind(1)
    kernel, first = expected + shift, theory.four_point.flatten() / expected.square()
    out: Measurement = {}
    for layer in range(1, depth):
        place = f"@{layer + 1}"
        out[f"{name}-kernel{place}"] = float(kernel[layer] / expected[layer])
        # Over the ensemble's own kernel: its shift at finite width is another vertex.
        out[f"{name}-measured{place}"] = float(n * (second[layer] - shift[layer].square()) / kernel[layer].square())
        out[f"{name}-first{place}"] = float(first[layer])
        if act.homogeneous:
            out[f"{name}-all{place}"] = n * float(four_point_exact(act, [n] * (depth - 1))[layer])
    return out


def measure_vertices(context: Context) -> Measurement:
    """Every vertex of signal and tangent kernel at the last layer, with standard errors, beside first order."""
    out: Measurement = {}
    context.total_arms = 2
    for name in ("tanh", "gelu"):
        out |= context.arm(name, partial(_vertices, context, name))
    return out


def _vertices(context: Context, name: str) -> Measurement:
    settings, generator = context.settings, context.generator(2)
    n, depth = settings["width"], settings["depth"]
    b, w, lb, lw = (0.1, 1.3, 0.3, 0.7) if name == "tanh" else (0.17292239, 1.98305826, 0.5, 1.0)
    act, blocks = Activation(name, kinks=()), []
    theory = finite_width(act, [n] * (depth - 1), bias_variance=b, weight_variance=w, bias_rate=lb, weight_rate=lw)
    for _ in range(settings["networks"] // _BATCH):
        z = torch.randn(_BATCH, n, generator=generator) * (b + w) ** 0.5
        tangent = (lb + lw) * torch.eye(n).expand(_BATCH, n, n)
        for _ in range(depth - 1):
            weights = torch.randn(_BATCH, n, n, generator=generator) * (w / n) ** 0.5
            s, passed = act(z), weights * act.slope(z)[:, None]
            grown = lb + lw * s.square().mean(1)
            tangent = grown[:, None, None] * torch.eye(n) + torch.bmm(torch.bmm(passed, tangent), passed.mT)
            z = torch.bmm(weights, s[..., None])[..., 0] + torch.randn(_BATCH, n, generator=generator) * b**0.5
        blocks.append(_products(z.double(), tangent.double(), theory))
    return _against(name, torch.stack(blocks), theory, n)


def _products(z: Tensor, tangent: Tensor, theory: FiniteWidth) -> Tensor:
    """Averages over networks and different neurons of what the vertices are made of, about the infinite width."""
    n = z.shape[1]
    q = z.square() - theory.kernel[-1].squeeze()
    own = tangent.diagonal(dim1=1, dim2=2) - theory.tangent[-1].squeeze()

    def different(a: Tensor, b: Tensor) -> Tensor:
        return ((a.sum(1) * b.sum(1) - (a * b).sum(1)) / (n * (n - 1))).mean()

    off = tangent - torch.diag_embed(tangent.diagonal(dim1=1, dim2=2))
    mixed, crossed = off.square().sum((1, 2)), (z[:, :, None] * z[:, None] * off).sum((1, 2))
    means = [q.mean(), own.mean(), different(q, q), different(q, own), different(own, own)]
    return torch.stack([*means, (crossed / (n * (n - 1))).mean(), (mixed / (n * (n - 1))).mean()])


def _against(name: str, products: Tensor, theory: FiniteWidth, n: int) -> Measurement:
    mean, error = products.mean(0), products.std(0) / len(products) ** 0.5
    k, t = float(mean[0]), float(mean[1])
    found = {
        "four_point": (n * (float(mean[2]) - k * k), float(error[2])),
        "tangent_signal": (n * (float(mean[3]) - k * t), float(error[3])),
        "tangent_variance": (n * (float(mean[4]) - t * t), float(error[4])),
        "tangent_cross": (n * float(mean[5]), float(error[5])),
        "tangent_mixed": (n * float(mean[6]), float(error[6])),
    }
    out: Measurement = {}
    for vertex, (value, deviation) in found.items():
        out[f"{name}-{vertex}@measured"] = value
        out[f"{name}-{vertex}@theory"] = float(getattr(theory, vertex)[-1].squeeze())
        out[f"{name}-{vertex}@error"] = n * deviation
    return out


def measure_training(context: Context) -> Measurement:
    """Test accuracy of deep plain networks after a few hundred steps, by the variance of their weights."""
    arms = [(name, scale) for name, scales in SCALES.items() for scale in scales]
    out: Measurement = {}
    context.total_arms = len(arms)
    for name, scale in arms:
        out |= context.arm(f"{name}-{scale}", partial(_trained, context, name, scale))
    return out


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
        widths = [x.shape[1], *[settings["width"]] * (settings["depth"] - 1), 10]
        layers: list[nn.Module] = []
        for i in range(settings["depth"]):
            layer = nn.Linear(widths[i], widths[i + 1])
            nn.init.normal_(layer.weight, std=(weight / widths[i]) ** 0.5, generator=generator)
            nn.init.zeros_(layer.bias)
            layers += [layer, activation()] if i < settings["depth"] - 1 else [layer]
        net = nn.Sequential(*layers)
        optimiser, loss = torch.optim.SGD(net.parameters(), lr=rate), torch.zeros(())
        for _ in range(settings["steps"]):
            batch = torch.randint(len(x), (128,), generator=generator)
            loss = nn.functional.cross_entropy(net(x[batch]), y[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            accuracy = float((net(x_test).argmax(1) == y_test).float().mean())
            last = float(nn.functional.cross_entropy(net(x), y))
        if math.isfinite(last) and last < best["loss"]:
            best = {"loss": last, "accuracy": accuracy}
    return {f"{name}-{scale}@accuracy": best["accuracy"], f"{name}-{scale}@loss": min(best["loss"], 1e9)}


def measure_shares(context: Context) -> Measurement:
    """What the biases of each layer add to the tangent kernel of a tanh network, under one rate and under the rule."""
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
    rule = 1 / layer_shares(
        "tanh", depth, weight_variance=1.0, of="biases"
    )  # the learning rates that make all layers equal
    out: Measurement = {}
    for name, rates in (("uniform", torch.ones(depth, dtype=torch.float64)), ("rule", rule)):
        shares = totals * rates / (totals * rates).sum()
        out[f"{name}@spread"] = float(shares.max() / shares.min())
        out |= {f"_{name}@{i + 1}": float(share) for i, share in enumerate(shares)}
    return out
