"""Learning rates of layers that make all layers contribute equally to the tangent kernel."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..._checks import one_of, positive, whole
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
    """Return the contribution of every layer to the tangent kernel of a plain network with $\\lambda = 1$.

    It is $E s^2_{K^{(l-1)}} \\prod_{l' = l}^{L - 1} \\chi_\\perp^{(l')}$ for weights, and the product alone for biases,
    first layer first. Dividing a layer's learning rate by its share makes all layers learn equally fast, for any
    activation and depth (the equivalence principle of Roberts, Yaida and Hanin, ch. 9).

    Args:
        activation: Name, module, function or `Activation`.
        depth: Number of layers of weights.
        kernel: Kernel of the first layer, at least `bias_variance`.
        bias_variance: Variance $C_b$ of biases.
        weight_variance: Variance $C_W$ of a weight times its fan-in.
        of: `"weights"` or `"biases"`.

    Example:
        >>> shares = layer_shares("tanh", 50, weight_variance=1.0, of="biases")
        >>> [round(float(s / shares.sum()), 4) for s in (shares[0], shares[24], shares[-1])]
        [0.0006, 0.0195, 0.04]
    """
    one_of("of", of, ("weights", "biases"))
    positive("weight_variance", weight_variance)
    if not kernel >= bias_variance:
        raise InputError(f"kernel must be at least bias_variance, got {kernel} and {bias_variance}")
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
    """Return parameter groups for `torch.optim.SGD` that make all layers contribute equally to the tangent kernel.

    The shares of the equivalence principle (Roberts, Yaida and Hanin, ch. 9) are measured on the given network. The
    rate of a tensor is `rate` times the mean share of tensors of its kind (weights, or biases and gains) over its own
    share $E |\\partial (v \\cdot f) / \\partial \\theta|^2$. The trace of the tangent kernel stays that of one common
    rate. Use it with SGD; Adam already divides by the size of gradients.

    Args:
        model: Network to train.
        x: Batch of inputs, as for `diagnose`.
        rate: Learning rate for the whole network, which the groups redistribute.
        probes: Number of random vectors for each expectation.
        generator: Source of randomness of the probes.

    Returns:
        One dictionary with `params` and `lr` for each tensor.

    Raises:
        InputError: As `diagnose`, and if shares of one kind differ by more than a factor of a million. Such a network
            is far from criticality and needs another initialization.

    Example:
        >>> net = nn.Sequential(nn.Linear(8, 256), nn.Tanh(), nn.Linear(256, 1))
        >>> groups = param_groups(net, torch.randn(64, 8), 0.1)
        >>> optimizer = torch.optim.SGD(groups, lr=0.1)
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"model must be an nn.Module, got {type(model).__name__}")
    positive("rate", rate)
    whole("probes", probes)
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if not named:
        raise InputError(f"{type(model).__name__} has no parameter to train")
    with recorded(model, x) as record:
        found = parameter_shares(record, [p for _, p in named], probes, generator or torch.Generator().manual_seed(0))
    broken = [name for (name, _), share in zip(named, found, strict=True) if not math.isfinite(share)]
    if broken:
        raise InputError(f"gradients of {broken[0]} are not finite: run diagnose(model, x) to see why")
    rates = [rate] * len(named)
    for matrix in (True, False):
        kind = [i for i, (_, p) in enumerate(named) if (p.ndim >= 2) == matrix and found[i] > 0]
        if not kind:
            continue
        low, high = min(kind, key=found.__getitem__), max(kind, key=found.__getitem__)
        if found[high] > 1e6 * found[low]:
            raise InputError(
                f"{named[high][0]} adds {found[high] / found[low]:.0e} times as much to the tangent kernel as "
                f"{named[low][0]}: bring the network to criticality first, with critical_ or autoscale_"
            )
        mean = sum(found[i] for i in kind) / len(kind)
        for i in kind:
            rates[i] = rate * mean / found[i]
    return [{"params": [p], "lr": r} for (_, p), r in zip(named, rates, strict=True)]
