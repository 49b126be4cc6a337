"""How the kernel of an input, and the angle between two, move with depth."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..._checks import is_real, is_whole
from ..._errors import InputError
from ...algebra.arithmetic import clip
from ._criticality import Source, as_activation, check_variances

_LARGEST = 1e90  # kernel that is integrated over


@dataclass(frozen=True)
class KernelFlow:
    """The kernels of a plain or residual network, layer by layer.

    Attributes:
        kernel: $K$ of every layer, `(layers, ...)`; infinite where it left the range of float64.
        log_kernel: its logarithm, right beyond that range for scale-invariant activations without biases.
        parallel: $\\chi_\\parallel$ from a layer to the next, `(layers - 1, ...)`.
        perpendicular: $\\chi_\\perp$, likewise; their product is the mean square of a gradient's growth.
        correlation: of two inputs of equal norm, `(layers, ...)`, or None when none was given.
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
    """Follow $K' = C_b + C_W g(K) + \\gamma^2 K$ from the first layer's kernel, and its susceptibilities.

    Args:
        activation: a name, a module, a function or an `Activation`.
        depth: layers of weights, the first included.
        kernel: $K^{(1)} = C_b + C_W |x|^2 / n_0$ of one or more inputs.
        bias_variance: $C_b$.
        weight_variance: $C_W$, the variance of a weight times its fan-in.
        gamma: weight of an identity skip around every layer but the first.
        correlation: $\\rho$ of two inputs of equal kernel at the first layer, to be followed as well.

    Raises:
        InputError: for a depth below 1, a negative kernel, a correlation beyond 1, or a kernel that overflows where it
            can't be followed in logarithms.

    Example:
        >>> flow = kernel_flow("relu", 1000, weight_variance=8.0)  # four times the critical variance
        >>> float(flow.kernel[-1]), round(float(flow.log_kernel[-1]) / 999, 6)  # log 4
        (inf, 1.386294)
    """
    act = as_activation(activation)
    if not is_whole(depth) or depth < 1:
        raise InputError(f"depth counts layers of weights and is at least 1, got {depth!r}")
    check_variances(bias_variance=bias_variance, weight_variance=weight_variance, gamma=gamma)
    for name, value in (("kernel", kernel), ("correlation", 0.0 if correlation is None else correlation)):
        if not is_real(value) and (not isinstance(value, Tensor) or value.is_complex()):
            raise InputError(f"{name} is a number or a real tensor, got {type(value).__name__}")
    k = torch.as_tensor(kernel, dtype=torch.float64)
    if not bool(((k >= 0) & torch.isfinite(k)).all()):
        raise InputError(f"kernel must be finite and not negative, got {k.flatten()[:4].tolist()}")
    rho = None if correlation is None else torch.as_tensor(correlation, dtype=torch.float64)
    if rho is not None and not bool((rho.abs() <= 1).all()):
        raise InputError(f"a correlation lies between -1 and 1, got {float(rho.abs().max())}")
    logs = act.slopes is not None and bias_variance == 0
    log_k, steps = k.log(), []
    kernels, log_kernels, correlations = [k], [log_k], [rho]
    for layer in range(1, depth):
        if logs:
            square = torch.full_like(k, sum(slope**2 for slope in act.slopes or ()) / 2)
            chi = (weight_variance * square, weight_variance * square)
            # Everything is a function of angles: the kernel itself may leave the range of float64.
            log_k = log_k + torch.log(gamma**2 + chi[0])
            new, unit = log_k.exp(), torch.ones_like(k)
        else:
            if bool((k > _LARGEST).any()):
                raise InputError(
                    f"the kernel of {act.name} exceeds {_LARGEST:g} at layer {layer} of {depth}: far off criticality "
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
    """Layers over which a perturbation changes by a factor e: $\\xi = 1 / |\\log \\chi|$, infinite at criticality.

    Example:
        >>> round(depth_scale(0.9), 3)
        9.491
    """
    if not is_real(susceptibility) or not 0 < susceptibility < math.inf:
        raise InputError(f"a susceptibility is positive and finite, got {susceptibility}")
    rate = abs(math.log(susceptibility))
    return 1 / rate if rate else math.inf
