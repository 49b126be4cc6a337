"""Depth relative to width: optimal ratio, effect of a skip, and four-point vertices of deep networks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from scipy.optimize import brentq
from torch import Tensor

from ..._checks import is_real, positive, whole
from ..._errors import InputError
from ...algebra import Activation, gaussian_expectation
from ._criticality import Source, as_activation, check_variances, critical_point


def nonlinearity(activation: Source, gamma: float = 0.0, *, three_point: bool = True) -> float:
    """Return $\\nu$ of $V / n K^2 = \\nu\\, L / n$ at criticality, with a skip of weight gamma around every layer.

    $\\nu = (1 - \\gamma^2)\\,[(1 - \\gamma^2)\\, c_4 + 4 \\gamma^2 + 2 \\gamma (1 + \\gamma)\\, c_3^2]$ with
    $c_4 = C_W^2 (E s^4 - (E s^2)^2) / K^2$ and $c_3 = C_W E z s^2 / K^{3/2}$ at the critical point. If the kernel
    decays to zero, $\\nu$ is a third of that: $(2/3)(1 - \\gamma^4)$ for tanh. The term with $c_3$ is a three-point
    vertex, which a skip creates for every activation that is not odd; the published formula omits it.

    Args:
        activation: Name, module, function or `Activation`.
        gamma: Weight of the identity skip, in [0, 1].
        three_point: Whether to include the three-point vertex; the published formula omits it.

    Raises:
        InputError: For an activation without a critical point, or a gamma outside [0, 1].

    Example:
        >>> round(nonlinearity("relu"), 9), round(nonlinearity("relu", 0.5**0.5, three_point=False), 9)
        (5.0, 2.25)
    """
    if not 0 <= gamma <= 1:
        raise InputError(f"gamma, the weight of the skip, must lie between 0 and 1, got {gamma}")
    return _nu(*_cumulants(as_activation(activation)), gamma, three_point)


def _nu(fourth: float, third: float, share: float, gamma: float, three_point: bool) -> float:
    free, skip = 1 - gamma**2, 2 * gamma * (1 + gamma) * third**2 if three_point else 0.0
    return share * free * (free * fourth + 4 * gamma**2 + skip)


def optimal_ratio(activation: Source, outputs: int, gamma: float = 0.0) -> float:
    """Return the optimal depth over width of a critical network, $r^* = 4 / ((20 + 3 n_L)\\, \\nu(\\gamma))$.

    At this ratio the mutual information between the outputs of nearby inputs is largest.

    Args:
        activation: Name, module, function or `Activation`.
        outputs: Number $n_L$ of outputs.
        gamma: Weight of the identity skip, in [0, 1].

    Example:
        >>> round(optimal_ratio("relu", 10), 4), round(optimal_ratio("tanh", 10), 4)
        (0.016, 0.12)
    """
    if not is_real(outputs) or not 1 <= outputs < math.inf:
        raise InputError(f"outputs must be a number of at least 1, got {outputs!r}")
    nu = nonlinearity(activation, gamma)
    return 4 / ((20 + 3 * outputs) * nu) if nu else float("inf")


def skip_for(activation: Source, depth: int, width: int, outputs: int) -> float:
    """Return the skip weight that makes a depth optimal for a width: the root of $r^*(\\gamma) = L / n$ nearest 1.

    Args:
        activation: Name, module, function or `Activation`.
        depth: Number L of layers.
        width: Width n of the hidden layers.
        outputs: Number of outputs.

    Raises:
        InputError: If no skip is optimal, as for a network that is too shallow to need one.

    Example:
        >>> round(skip_for("tanh", 64, 128, 10), 6) == round((1 - 0.5 / 0.5 * 0.24) ** 0.25, 6)
        True
    """
    if not all(is_real(n) and n >= 1 for n in (depth, width, outputs)):
        raise InputError(f"depth, width and outputs must be at least 1, got {depth!r}, {width!r} and {outputs!r}")
    act = as_activation(activation)
    cumulants, wanted = _cumulants(act), 4 * width / ((20 + 3 * outputs) * depth)
    # search downward from gamma = 1, where nu is zero, for the first gamma that reaches the wanted nu
    grid = [1 - i / 400 for i in range(401)]
    for high, low in itertools.pairwise(grid):
        if _nu(*cumulants, low, True) >= wanted:
            return float(brentq(lambda g: _nu(*cumulants, g, True) - wanted, low, high, xtol=1e-12))
    raise InputError(
        f"no skip makes {depth} layers of {width} optimal for {outputs} outputs: without one "
        f"r* = {optimal_ratio(act, outputs):.3g} is above {depth / width:.3g} already"
    )


def four_point_exact(activation: Source, widths: Sequence[int], kernel: float = 1.0) -> Float[Tensor, "layers"]:
    """Return $E \\hat G^2 - K^2$ of a critical network with a scale-invariant activation, to all orders in 1/width.

    It equals $K^2 (\\prod_l (1 + \\nu / n_l) - 1)$, the variance over networks of a layer's mean square; times $n$ and
    to first order it is V. The first order breaks down where depth approaches width.

    Args:
        activation: Name, module, function or `Activation` that is scale-invariant.
        widths: Widths of the hidden layers.
        kernel: Kernel K of the first layer.

    Example:
        >>> [round(float(v), 6) for v in four_point_exact("relu", [50, 50])]
        [0.0, 0.1, 0.21]
    """
    act = as_activation(activation)
    if act.slopes is None:
        raise InputError(f"all orders in 1/width are known only for scale-invariant activations, got {act.name}")
    positive("kernel", kernel)
    if not isinstance(widths, Sequence) or isinstance(widths, str):
        raise InputError(f"widths must be a list of numbers, got {widths!r}")
    if any(not is_real(n) or not 1 <= n < math.inf for n in widths):
        raise InputError(f"widths must be at least 1, got {list(widths)}")
    nu = nonlinearity(act)
    growth = torch.log1p(nu / torch.tensor([float(n) for n in widths], dtype=torch.float64)).cumsum(0)
    return kernel**2 * torch.cat([torch.zeros(1, dtype=torch.float64), torch.expm1(growth)])


def residual_four_point(
    activation: Source,
    depth: int,
    kernel: float = 1.0,
    *,
    gamma: float,
    bias_variance: float = 0.0,
    weight_variance: float,
    three_point: bool = True,
) -> tuple[Float[Tensor, "layers"], Float[Tensor, "layers"], Float[Tensor, "layers"]]:
    """Return K, V and the three-point vertex T of a residual network of equal widths, to first order in 1/width.

    Layers are $z' = W s(z) + b + \\gamma z$. An identity skip breaks the symmetry $z_i \\to -z_i$ unless s is odd, and
    $E z_i^2 z_j = T / n$ appears: $T' = \\gamma(\\gamma^2 + C_W g') T + \\gamma C_W E z s^2$,
    $V' = \\chi^2 V + 4 \\gamma^2 K^2 C_W g' + C_W^2 (E s^4 - g^2) + 2 \\chi C_W E (s^2)' T$,
    $\\chi = \\gamma^2 + C_W g'$.

    Args:
        activation: Name, module, function or `Activation`.
        depth: Number of layers, including the first.
        kernel: Kernel of the first layer.
        gamma: Weight of the identity skip.
        bias_variance: Variance $C_b$ of biases.
        weight_variance: Variance $C_W$ of a weight times its fan-in.
        three_point: Whether to include T; the published formula omits it.

    Example:
        >>> K, V, T = residual_four_point("relu", 3, gamma=0.5**0.5, weight_variance=1.0)
        >>> [round(float(v), 2) for v in V]
        [0.0, 2.25, 5.4]
    """
    positive("kernel", kernel)
    whole("depth", depth)
    check_variances(bias_variance=bias_variance, weight_variance=weight_variance, gamma=gamma)
    act = as_activation(activation)
    k, v, t = (torch.tensor(x, dtype=torch.float64) for x in (kernel, 0.0, 0.0))
    out = [(k, v, t)]
    for _ in range(depth - 1):
        square, fourth, third = _moments(act, float(k))
        drift = weight_variance * float(act.chi(k).parallel)
        grown = gamma**2 + drift
        new = grown**2 * v + 4 * gamma**2 * k**2 * drift + weight_variance**2 * (fourth - square**2)
        if three_point:
            new = new + 2 * grown * weight_variance * third / k * t
            t = gamma * grown * t + gamma * weight_variance * third
        k, v = bias_variance + weight_variance * square + gamma**2 * k, new
        out.append((k, v, t))
    stacked = [torch.stack([layer[i] for layer in out]) for i in range(3)]
    return stacked[0], stacked[1], stacked[2]


def _moments(act: Activation, kernel: float) -> tuple[float, float, float]:
    """Return $E s^2$, $E s^4$ and $E z s^2$."""
    fourth = gaussian_expectation(lambda z: act(z) ** 4, kernel, kinks=act.kinks)
    third = gaussian_expectation(lambda z: z * act(z) ** 2, kernel, kinks=act.kinks)
    return float(act.g(kernel)), float(fourth), float(third)


def _cumulants(act: Activation) -> tuple[float, float, float]:
    """Return $c_4$ and $c_3$ at the critical point, and the share of them that remains as the kernel decays."""
    found = critical_point(act)
    if found.kind == "zero":
        below, above = act.slopes_beside_zero()
        square = (below**2 + above**2) / 2
        fourth_power = (below**4 + above**4) / 2
        third = (above**2 - below**2) / square * (2 / math.pi) ** 0.5
        # the kernel decays and V / K^2 loses a fraction 2 / l at layer l, for any power: a third remains
        return 3 * fourth_power / square**2 - 1, third, 1 / 3
    square, fourth, third = _moments(act, found.kernel)
    weight = found.weight_variance
    return weight**2 * (fourth - square**2) / found.kernel**2, weight * third / found.kernel**1.5, 1.0
