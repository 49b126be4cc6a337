"""Learning rates layer by layer: how much each adds to the tangent kernel, and the rates that make all add the same."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..._errors import InputError
from ..criticality._criticality import Source, as_activation
from ..criticality._flow import kernel_flow
from ._record import parameter_shares, recorded


def layer_shares(
    activation: Source,
    depth: int,
    kernel: float = 1.0,
    *,
    bias_variance: float = 0.0,
    weight_variance: float,
    of: str = "weights",
) -> Float[Tensor, "layers"]:
    """What every layer would add to the tangent kernel of a plain network under $\\lambda = 1$, first layer first.

    $E s^2_{K^{(l-1)}} \\prod_{l' = l}^{L - 1} \\chi_\\perp^{(l')}$ for weights, the product alone for biases. Dividing
    a layer's learning rate by its share makes all layers learn alike (the equivalence principle of Roberts, Yaida and
    Hanin, ch. 9), for any activation and depth.

    Args:
        activation, kernel, bias_variance, weight_variance: as in `kernel_flow`.
        depth: layers of weights.
        of: `"weights"` or `"biases"`.

    Example:
        >>> shares = layer_shares("tanh", 50, weight_variance=1.0, of="biases")
        >>> [round(float(s / shares.sum()), 4) for s in (shares[0], shares[24], shares[-1])]
        [0.0006, 0.0195, 0.04]
    """
    if of not in ("weights", "biases"):
        raise InputError(f"of is 'weights' or 'biases', got {of!r}")
    if not weight_variance > 0 or not kernel >= bias_variance:
        raise InputError(
            "weight_variance is positive and kernel, of the first layer, at least bias_variance, got "
            f"{weight_variance}, {kernel} and {bias_variance}"
        )
    act = as_activation(activation)
    flow = kernel_flow(
        act, depth, kernel, bias_variance=bias_variance, weight_variance=weight_variance
    )  # fmt: skip
    after = torch.cat([flow.perpendicular, torch.ones(1, dtype=torch.float64)]).flip(0).cumprod(0).flip(0)
    if of == "biases":
        return after
    first = (flow.kernel[:1] - bias_variance) / weight_variance  # |x|^2 / n_0
    return torch.cat([first, act.g(flow.kernel[:-1])]) * after


def param_groups(
    model: nn.Module, x: Any, rate: float, *, probes: int = 4, generator: torch.Generator | None = None
) -> list[dict[str, Any]]:
    """Groups of parameters for `torch.optim.SGD` under which all layers add alike to the tangent kernel.

    The equivalence principle (Roberts, Yaida and Hanin, ch. 9) measured on the network at hand: a tensor's rate is
    `rate` times the mean share of tensors of its kind (weights, or biases and gains) over its own share
    $E |\\partial (v \\cdot f) / \\partial \\theta|^2$. The tangent kernel's trace stays that of one rate. Made for SGD;
    Adam divides by the size of gradients already.

    Args:
        model, x, probes, generator: as for `diagnose`.
        rate: the learning rate that you would give to all of it.

    Returns:
        dictionaries with `params` and `lr`, one a tensor.

    Raises:
        InputError: as `diagnose`; for shares that range over more than a million within a kind: a network so
            far off criticality needs another initialisation, not other rates.

    Example:
        >>> net = nn.Sequential(nn.Linear(8, 256), nn.Tanh(), nn.Linear(256, 1))
        >>> groups = param_groups(net, torch.randn(64, 8), 0.1)
        >>> optimiser = torch.optim.SGD(groups, lr=0.1)
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"model is an nn.Module, got {type(model).__name__}")
    if not 0 < rate < float("inf") or probes < 1:
        raise InputError(f"rate is positive and finite, probes at least 1, got {rate} and {probes}")
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if not named:
        raise InputError(f"{type(model).__name__} has no parameter to train")
    with recorded(model, x) as record:
        found = parameter_shares(record, [p for _, p in named], probes, generator or torch.Generator().manual_seed(0))
    broken = [name for (name, _), share in zip(named, found, strict=True) if not math.isfinite(share)]
    if broken:
        raise InputError(f"gradients of {broken[0]} are not finite: see what diagnose says")
    rates = [rate] * len(named)
    for matrix in (True, False):
        kind = [i for i, (_, p) in enumerate(named) if (p.ndim >= 2) == matrix and found[i] > 0]
        if not kind:
            continue
        low, high = min(kind, key=found.__getitem__), max(kind, key=found.__getitem__)
        if found[high] > 1e6 * found[low]:
            raise InputError(
                f"{named[high][0]} adds {found[high] / found[low]:.0e} times as much as {named[low][0]}: bring the "
                "network to criticality first, with critical_ or autoscale_"
            )
        mean = sum(found[i] for i in kind) / len(kind)
        for i in kind:
            rates[i] = rate * mean / found[i]
    return [{"params": [p], "lr": r} for (_, p), r in zip(named, rates, strict=True)]
