"""Flow of the kernel of an input, and of the angle between two inputs, with depth."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..._checks import is_real, positive, whole
from ..._errors import InputError
from ...algebra.arithmetic import clip
from ._criticality import Source, as_activation, check_variances

_LARGEST = 1e90  # largest kernel for which expectations are integrated


@dataclass(frozen=True)
class KernelFlow:
    """Kernels and susceptibilities of each layer of a plain or residual network.

    Attributes:
        kernel: Kernel $K$ of every layer, `(layers, ...)`; infinite beyond the range of float64.
        log_kernel: Logarithm of the kernel, `(layers, ...)`; exact beyond the range of float64 for scale-invariant
            activations without biases.
        parallel: Susceptibility $\\chi_\\parallel$ from each layer to the next, `(layers - 1, ...)`.
        perpendicular: Susceptibility $\\chi_\\perp$ from each layer to the next, `(layers - 1, ...)`; the product over
            layers is the mean square growth of a gradient.
        correlation: Correlation of two inputs of equal norm, `(layers, ...)`, or None if no correlation was given.
    """

    kernel: Float[Tensor, "layers ..."]
    log_kernel: Float[Tensor, "layers ..."]
    parallel: Float[Tensor, "steps ..."]
    perpendicular: Float[Tensor, "steps ..."]
    correlation: Float[Tensor, "layers ..."] | None


def kernel_flow(
    activation: Source,
    depth: int,
    kernel: float | Tensor = 1.0,
    *,
    bias_variance: float = 0.0,
    weight_variance: float,
    gamma: float = 0.0,
    correlation: float | Tensor | None = None,
) -> KernelFlow:
    """Iterate $K' = C_b + C_W g(K) + \\gamma^2 K$ and its susceptibilities from the kernel of the first layer.

    Args:
        activation: Name, module, function or `Activation`.
        depth: Number of layers of weights, including the first.
        kernel: Kernel $K^{(1)} = C_b + C_W |x|^2 / n_0$ of one or more inputs.
        bias_variance: Variance $C_b$ of biases.
        weight_variance: Variance $C_W$ of a weight times its fan-in.
        gamma: Weight of an identity skip around every layer but the first.
        correlation: Correlation $\\rho$ of two inputs of equal kernel at the first layer, or None.

    Raises:
        InputError: For a depth below 1, a negative kernel, a correlation outside [-1, 1], or a kernel that overflows
            and can't be followed in logarithms.

    Example:
        >>> flow = kernel_flow("relu", 1000, weight_variance=8.0)  # four times the critical variance
        >>> float(flow.kernel[-1]), round(float(flow.log_kernel[-1]) / 999, 6)  # log 4
        (inf, 1.386294)
    """
    act = as_activation(activation)
    whole("depth", depth)
    check_variances(bias_variance=bias_variance, weight_variance=weight_variance, gamma=gamma)
    for name, value in (("kernel", kernel), ("correlation", 0.0 if correlation is None else correlation)):
        if not is_real(value) and (not isinstance(value, Tensor) or value.is_complex()):
            raise InputError(f"{name} must be a number or a real tensor, got {type(value).__name__}")
    k = torch.as_tensor(kernel, dtype=torch.float64)
    if not bool(((k >= 0) & torch.isfinite(k)).all()):
        raise InputError(f"kernel must be finite and not negative, got {k.flatten()[:4].tolist()}")
    rho = None if correlation is None else torch.as_tensor(correlation, dtype=torch.float64)
    if rho is not None and not bool((rho.abs() <= 1).all()):
        raise InputError(f"correlation must lie between -1 and 1, got {float(rho.abs().max())}")
    logs = act.slopes is not None and bias_variance == 0
    log_k, steps = k.log(), []
    kernels, log_kernels, correlations = [k], [log_k], [rho]
    for layer in range(1, depth):
        if logs:
            square = torch.full_like(k, sum(slope**2 for slope in act.slopes or ()) / 2)
            chi = (weight_variance * square, weight_variance * square)
            # the flow depends on angles alone, and the kernel may leave the range of float64
            log_k = log_k + torch.log(gamma**2 + chi[0])
            new, unit = log_k.exp(), torch.ones_like(k)
        else:
            if bool((k > _LARGEST).any()):
                raise InputError(
                    f"the kernel of {act.name} exceeds {_LARGEST:g} at layer {layer} of {depth}, far from criticality "
                    f"(weight variance {weight_variance:g}); ask for fewer layers"
                )
            found = act.chi(k)
            chi = (weight_variance * found.parallel, weight_variance * found.perpendicular)
            new = bias_variance + weight_variance * act.g(k) + gamma**2 * k
            log_k, unit = new.log(), k
        if rho is not None:
            both = bias_variance + weight_variance * act.dual(unit, unit, rho * unit) + gamma**2 * rho * unit
            same = bias_variance + weight_variance * act.g(unit) + gamma**2 * unit
            rho = torch.where(same > 0, both / torch.where(same > 0, same, 1.0), rho)
            rho = clip(rho, -1.0, 1.0)
        k = new
        kernels.append(k)
        log_kernels.append(log_k)
        correlations.append(rho)
        steps.append((gamma**2 + chi[0], gamma**2 + chi[1]))
    empty = torch.zeros(0, *k.shape, dtype=torch.float64)
    return KernelFlow(
        kernel=torch.stack(kernels),
        log_kernel=torch.stack(log_kernels),
        parallel=torch.stack([s[0] for s in steps]) if steps else empty,
        perpendicular=torch.stack([s[1] for s in steps]) if steps else empty,
        correlation=None if rho is None else torch.stack([c for c in correlations if c is not None]),
    )


def depth_scale(susceptibility: float) -> float:
    """Return the number of layers over which a perturbation changes by a factor e, $\\xi = 1 / |\\log \\chi|$.

    Args:
        susceptibility: Factor $\\chi$ of one layer; at 1, criticality, the result is infinite.

    Example:
        >>> round(depth_scale(0.9), 3)
        9.491
    """
    positive("susceptibility", susceptibility)
    rate = abs(math.log(susceptibility))
    return 1 / rate if rate else math.inf
