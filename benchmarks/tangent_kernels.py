"""Tangent kernels of many inputs, of a network at hand, and ensembles, beside what one would write in plain torch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from commutant.algebra import Activation
from commutant.theory import Dense, empirical_ntk, measure_ensemble, plain_network, wide_kernel

from ._measure import peak_memory

_ROWS, _FEATURES, _DEPTH = 10_000, 64, 5


def layer_by_layer(x: Tensor, bias: float, weight: float) -> Tensor:
    """The formula of the arc-cosine kernel, layer by layer, on the whole matrix."""
    kernel = bias + weight * (x @ x.T) / x.shape[1]
    tangent = kernel
    for _ in range(_DEPTH - 1):
        diagonal = kernel.diagonal()
        norms = (diagonal[:, None] * diagonal[None]).sqrt()
        angle = torch.acos((kernel / norms).clamp(-1, 1))
        dual = norms * (angle.sin() + (math.pi - angle) * angle.cos()) / (2 * math.pi)
        slope = (math.pi - angle) / (2 * math.pi)
        kernel = bias + weight * dual
        tangent = kernel + weight * slope * tangent
    return tangent


def _inputs(*, sphere: bool) -> Tensor:
    x = torch.randn(_ROWS, _FEATURES, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return x / x.square().mean(1, keepdim=True).sqrt() if sphere else x


def _timed(way: Callable[[], Any], repeats: int = 3) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        way()
        times.append(time.perf_counter() - start)
    return sorted(times)[repeats // 2]


def wide_kernels() -> dict[str, Any]:
    rows = []
    for name, act, bias, sphere in (
        ("ReLU, no biases, any norms", "relu", 0.0, False),
        ("ReLU, biases, inputs of one norm", "relu", 0.1, True),
        ("ReLU, biases, any norms", "relu", 0.1, False),
        ("tanh, biases, inputs of one norm", "tanh", 0.1, True),
    ):
        x, network = _inputs(sphere=sphere), plain_network(Activation(act), _DEPTH, Dense(bias, 2.0))
        ours = _timed(lambda n=network, x=x: wide_kernel(n, x))
        plain = _timed(lambda x=x, b=bias: layer_by_layer(x, b, 2.0), 1) if act == "relu" else math.nan
        code = (
            "import torch, math\nfrom commutant.algebra import Activation\nfrom commutant.theory import *\n"
            "from benchmarks.tangent_kernels import _inputs, _DEPTH, layer_by_layer\n"
            f"x = _inputs(sphere={sphere})\nnet = plain_network(Activation({act!r}), _DEPTH, Dense({bias}, 2.0))\n"
            "wide_kernel(net, x[:500]); layer_by_layer(x[:100], 0.1, 2.0)\n# MARK\n"
        )
        size = _ROWS**2 * 8 / 2**30
        memory = peak_memory(code + "out = wide_kernel(net, x)") / size
        rival = peak_memory(code + f"out = layer_by_layer(x, {bias}, 2.0)") / size if act == "relu" else math.nan
        rows.append({
            "name": name,
            "wide_kernel, s": ours,
            "layer by layer, s": plain if plain == plain else "no formula",
            "times faster": plain / ours if plain == plain else "–",
            "memory, kernels": memory,
            "layer by layer, kernels": rival if rival == rival else "–",
        })  # fmt: skip
    first, x = rows[0], _inputs(sphere=False)
    return {
        "name": "wide-kernels",
        "title": "The tangent kernel of 10 000 inputs",
        "description": f"{_ROWS} x {_ROWS} in float64, {_FEATURES} features, {_DEPTH} layers. *Layer by layer* is the "
        "formula in plain torch on the whole matrix. Memory is the peak beyond the inputs, as a multiple of the size "
        "of the result.",
        "columns": ["wide_kernel, s", "layer by layer, s", "times faster", "memory, kernels", "layer by layer, kernels"],
        "rows": rows,
        "reading": f"If the kernel depends only on angles: {first['times faster']:.1f} times faster (bar: 3) in "
        f"{first['memory, kernels']:.2f} times the memory of the kernel (bar: 1.5). Otherwise every tile goes "
        f"through the layers: {rows[2]['times faster']:.1f} times faster. The product of the inputs alone takes "
        f"{_timed(lambda: x @ x.T):.1f} s.",
    }  # fmt: skip


def empirical_kernels() -> dict[str, Any]:
    rows = []
    for width, inputs in ((256, 100), (512, 200)):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))
        x = torch.randn(inputs, 64)
        ours = _timed(lambda n=net, x=x: empirical_ntk(n, x))
        jacobians = _timed(lambda n=net, x=x: _by_jacobians(n, x))
        rows.append({
            "name": f"3 layers of {width}, {inputs} inputs, 10 outputs",
            "empirical_ntk, s": ours,
            "Jacobian contraction, s": jacobians,
            "times faster": jacobians / ours,
        })  # fmt: skip
    return {
        "name": "empirical-kernels",
        "title": "The tangent kernel of a given network",
        "description": "Mean over outputs, float32. *Jacobian contraction* is `vmap(jacrev)` and a product, as in the "
        "tutorial of torch.func.",
        "columns": ["empirical_ntk, s", "Jacobian contraction, s", "times faster"],
        "rows": rows,
        "reading": "Linear layers need no Jacobian: inputs times inputs, times gradients times gradients.",
    }


def _by_jacobians(net: nn.Module, x: Tensor) -> Tensor:
    parameters = {name: p.detach() for name, p in net.named_parameters()}
    found = vmap(jacrev(lambda p, row: functional_call(net, p, (row[None],))[0]), (None, 0))(parameters, x)
    return sum(j.flatten(1) @ j.flatten(1).T for j in found.values()) / 10


def ensembles() -> dict[str, Any]:
    rows = []
    for width, depth in ((32, 8), (64, 16)):
        ours = _timed(lambda w=width, d=depth: measure_ensemble("relu", [w] * d, 10_000, weight_variance=2.0))
        few = _timed(lambda w=width, d=depth: _one_by_one(w, d, 200))
        rows.append({
            "name": f"10 000 ReLU networks, {depth} layers of {width}",
            "measure_ensemble, s": ours,
            "one by one, s": few * 50,
            "times faster": few * 50 / ours,
        })  # fmt: skip
    return {
        "name": "ensembles",
        "title": "Kernel and four-point vertex of random networks",
        "description": "*One by one*: 200 networks `nn.Sequential` are made, initialized and run; the time is "
        "multiplied by 50.",
        "columns": ["measure_ensemble, s", "one by one, s", "times faster"],
        "rows": rows,
        "reading": "The remaining time is that of drawing the weights.",
    }


@torch.no_grad()
def _one_by_one(width: int, depth: int, networks: int) -> Tensor:
    x, outputs = torch.ones(1, width), []
    for _ in range(networks):
        layers = [m for _ in range(depth) for m in (nn.Linear(width, width, bias=False), nn.ReLU())][:-1]
        for layer in layers[::2]:
            nn.init.normal_(layer.weight, std=(2 / width) ** 0.5)
        outputs.append(nn.Sequential(*layers)(x))
    z = torch.cat(outputs).square()
    return ((z.sum(1).square() - z.square().sum(1)) / (width * (width - 1))).mean() - z.mean().square()


ALL = (wide_kernels, empirical_kernels, ensembles)
