"""Learning rates layer by layer: how much each adds to the tangent kernel, and the rates that make all add the same."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from .._errors import InputError
from ._criticality import Source, as_activation
from ._flow import kernel_flow


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
    act = as_activation(activation)
    flow = kernel_flow(
        act, depth, kernel, bias_variance=bias_variance, weight_variance=weight_variance
    )  # fmt: skip
    after = torch.cat([flow.perpendicular, torch.ones(1, dtype=torch.float64)]).flip(0).cumprod(0).flip(0)
    if of == "biases":
        return after
    first = (flow.kernel[:1] - bias_variance) / weight_variance  # |x|^2 / n_0
    return torch.cat([first, act.g(flow.kernel[:-1])]) * after
