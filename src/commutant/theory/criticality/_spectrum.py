"""Singular values of the input-output Jacobian at initialization, measured and as predicted for wide networks."""

from __future__ import annotations

import contextlib
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..._errors import InputError
from ...algebra import gaussian_expectation
from ...parameters import unchanged
from ._criticality import Source, as_activation
from ._flow import kernel_flow


def jacobian_spectrum(model: nn.Module, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch values"]:
    """Return the singular values of $\\partial f(x) / \\partial x$ for every input, largest first.

    If all of them are near one (dynamical isometry), errors propagate without distortion and deep networks train fast.

    Args:
        model: Module or function with one input tensor and one output tensor.
        x: Inputs `(batch, ...)` of real numbers.

    Example:
        >>> layer = nn.Linear(3, 3, bias=False)
        >>> _ = nn.init.orthogonal_(layer.weight)
        >>> jacobian_spectrum(layer, torch.randn(2, 3)).round(decimals=5)
        tensor([[1., 1., 1.],
                [1., 1., 1.]])
    """
    if not callable(model):
        raise InputError(f"model must be a module or a function, got {type(model).__name__}")
    if not isinstance(x, Tensor) or not x.ndim:
        got = f"a {x.ndim}-dimensional tensor" if isinstance(x, Tensor) else type(x).__name__
        raise InputError(f"inputs must be tensors (batch, ...), got {got}")
    if not x.is_floating_point() or not bool(torch.isfinite(x).all()):
        raise InputError(f"a Jacobian needs finite inputs of real numbers, got {x.dtype}")
    rows = []
    with unchanged(model) if isinstance(model, nn.Module) else contextlib.nullcontext():
        found = [_jacobian(model, row) for row in x]
    for jacobian in found:
        if not bool(torch.isfinite(jacobian).all()):
            raise InputError(f"the Jacobian of {type(model).__name__} is not finite on these inputs")
        rows.append(torch.linalg.svdvals(jacobian.flatten(1)))
    return torch.stack(rows).detach() if rows else torch.zeros(0, 0, dtype=x.dtype)


def _jacobian(model: nn.Module, row: Tensor) -> Tensor:
    def one(z: Tensor) -> Tensor:
        try:
            out = model(z[None].clone())
        except Exception as error:
            raise InputError(
                f"{type(model).__name__} fails on these inputs ({type(error).__name__}: {error})"
            ) from error
        if not isinstance(out, Tensor) or not out.is_floating_point():
            raise InputError(f"a Jacobian needs a model with one tensor of real numbers, got {type(out).__name__}")
        return out.flatten()

    return cast(Tensor, torch.autograd.functional.jacobian(one, row.detach()))


def spectrum_moments(
    activation: Source,
    depth: int,
    kernel: float = 1.0,
    *,
    bias_variance: float = 0.0,
    weight_variance: float,
    orthogonal: bool = False,
) -> tuple[float, float]:
    """Return mean and variance of the squared singular values of $\\prod_l D_l W_l$ in wide networks.

    They are $m = \\prod \\chi_\\perp$ and $m^2 \\sum_l (\\mu_2 / \\mu_1^2 - 1 - s_1)$ with $\\mu_k = E s'(z)^{2k}$,
    $s_1 = -1$ for Gaussian weights and 0 for scaled orthogonal ones (Pennington et al. 2017). Dynamical isometry means
    that the sum stays of order one. It takes orthogonal weights and an activation that is nearly linear at its kernel;
    ReLU never has it.

    Args:
        activation: Name, module, function or `Activation` without a jump.
        depth: Number of layers, each of weights followed by the activation.
        kernel: Kernel of the preactivations of the first layer.
        bias_variance: Variance $C_b$ of biases.
        weight_variance: Variance $C_W$ of a weight times its fan-in.
        orthogonal: Whether weights are orthogonal rather than Gaussian.

    Example:
        >>> spectrum_moments("relu", 5, weight_variance=2.0)
        (1.0, 10.0)
        >>> spectrum_moments("relu", 5, weight_variance=2.0, orthogonal=True)
        (1.0, 5.0)
    """
    act = as_activation(activation)
    if act.jumps:
        raise InputError(f"{act.name} jumps at {act.jumps[0]:g}, so it has no Jacobian")
    flow = kernel_flow(act, depth, kernel, bias_variance=bias_variance, weight_variance=weight_variance)
    mean, spread = 1.0, 0.0
    for k in flow.kernel:
        if act.slopes is not None:
            below, above = act.slopes
            first, second = (below**2 + above**2) / 2, (below**4 + above**4) / 2
        else:
            first = float(act.chi(k).perpendicular)
            second = float(gaussian_expectation(lambda z: act.slope(z) ** 4, k, kinks=act.kinks))
        mean *= weight_variance * first
        spread += second / first**2 - 1 + (0 if orthogonal else 1)
    return mean, mean**2 * spread
