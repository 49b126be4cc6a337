"""How deep a network may be for its width: the emergent scale depth / width, and what a skip does to it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from scipy.optimize import brentq
from torch import Tensor

from ..._checks import is_real
from ..._errors import InputError
from ...algebra import Activation, gaussian_expectation
from ._criticality import Source, as_activation, check_variances, critical_point


def nonlinearity(activation: Source, gamma: float = 0.0, *, three_point: bool = True) -> float:
    """$\\nu$ of $V / n K^2 = \\nu\\, L / n$ at criticality, with an identity skip of weight gamma around every layer.

    $\\nu = (1 - \\gamma^2)\\,[(1 - \\gamma^2)\\, c_4 + 4 \\gamma^2 + 2 \\gamma (1 + \\gamma)\\, c_3^2]$ with
    $c_4 = C_W^2 (E s^4 - (E s^2)^2) / K^2$ and $c_3 = C_W E z s^2 / K^{3/2}$ at the critical point; a third of it where
    the kernel decays to zero, $(2/3)(1 - \\gamma^4)$ for tanh. The term of $c_3$ is a three-point vertex that a skip
    brings about for every activation that is not odd; the published formula has it not.

    Args:
        activation: a name, a module, a function or an `Activation`.
        gamma: weight of the skip, in [0, 1].
        three_point: False for the formula as published.

    Raises:
        InputError: for an activation without a critical point, or a gamma outside [0, 1].

    Example:
        >>> round(nonlinearity("relu"), 9), round(nonlinearity("relu", 0.5**0.5, three_point=False), 9)
        (5.0, 2.25)
    """
    if not 0 <= gamma <= 1:
        raise InputError(f"gamma, the weight of the skip, lies between 0 and 1, got {gamma}")
    return _nu(*_cumulants(as_activation(activation)), gamma, three_point)


def _nu(fourth: float, third: float, share: float, gamma: float, three_point: bool) -> float:
    free, skip = 1 - gamma**2, 2 * gamma * (1 + gamma) * third**2 if three_point else 0.0
    return share * free * (free * fourth + 4 * gamma**2 + skip)


def optimal_ratio(activation: Source, outputs: int, gamma: float = 0.0) -> float:
    """The depth over width at which a critical network knows most: $r^* = 4 / ((20 + 3 n_L)\\, \\nu(\\gamma))$.

    Example:
        >>> round(optimal_ratio("relu", 10), 4), round(optimal_ratio("tanh", 10), 4)
        (0.016, 0.12)
    """
    if not is_real(outputs) or not 1 <= outputs < math.inf:
        raise InputError(f"a network has at least one output, got {outputs!r}")
    nu = nonlinearity(activation, gamma)
    return 4 / ((20 + 3 * outputs) * nu) if nu else float("inf")


def skip_for(activation: Source, depth: int, width: int, outputs: int) -> float:
    """The weight of the skip that makes a depth optimal for a width: the root of $r^*(\\gamma) = L / n$ nearest 1.

    Raises:
        InputError: when no skip does, for a network so shallow that none is wanted.

    Example:
        >>> round(skip_for("tanh", 64, 128, 10), 6) == round((1 - 0.5 / 0.5 * 0.24) ** 0.25, 6)
        True
    """
    if not all(is_real(n) and n >= 1 for n in (depth, width, outputs)):
        raise InputError(f"depth, width and outputs are at least 1, got {depth!r}, {width!r} and {outputs!r}")
    act = as_activation(activation)
    cumulants, wanted = _cumulants(act), 4 * width / ((20 + 3 * outputs) * depth)
    # From 1, where nu is zero, down to the first gamma at which nu is what is wanted.
    grid = [1 - i / 400 for i in range(401)]
    for high, low in itertools.pairwise(grid):
        if _nu(*cumulants, low, True) >= wanted:
            return float(brentq(lambda g: _nu(*cumulants, g, True) - wanted, low, high, xtol=1e-12))
    raise InputError(
        f"no skip makes {depth} layers of {width} optimal for {outputs} outputs: without one "
        f"r* = {optimal_ratio(act, outputs):.3g} is above {depth / width:.3g} already"
    )


def four_point_exact(activation: Source, widths: Sequence[int], kernel: float = 1.0) -> Float[Tensor, "layers"]:
    """$E \\hat G^2 - K^2$ of a critical network of a scale-invariant activation, to all orders in 1/width.

    $K^2 (\\prod_l (1 + \\nu / n_l) - 1)$, the variance over networks of a neuron's second moment (times $n$ and to
    first order it is V). Where depth nears width it departs from the first order: the breakdown at $r \\sim 1$.

    Example:
        >>> [round(float(v), 6) for v in four_point_exact("relu", [50, 50])]
        [0.0, 0.1, 0.21]
    """
    act = as_activation(activation)
    if act.slopes is None:
        raise InputError(f"all orders are known for scale-invariant activations alone, got {act.name}")
    if not 0 < kernel < math.inf:
        raise InputError(f"the kernel must be finite and positive, got {kernel}")
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
    """K, V and the three-point vertex T of a residual network of equal widths, to first order in 1/width.

    $z' = W s(z) + b + \\gamma z$. An identity skip breaks the symmetry $z_i \\to -z_i$ unless s is odd, and
    $E z_i^2 z_j = T / n$ appears: $T' = \\gamma(\\gamma^2 + C_W g') T + \\gamma C_W E z s^2$,
    $V' = \\chi^2 V + 4 \\gamma^2 K^2 C_W g' + C_W^2 (E s^4 - g^2) + 2 \\chi C_W E (s^2)' T$,
    $\\chi = \\gamma^2 + C_W g'$.

    Args:
        activation, bias_variance, weight_variance, kernel: as in `kernel_flow`.
        depth: layers, the first included.
        gamma: weight of the skip.
        three_point: False leaves T out, as published.

    Example:
        >>> K, V, T = residual_four_point("relu", 3, gamma=0.5**0.5, weight_variance=1.0)
        >>> [round(float(v), 2) for v in V]
        [0.0, 2.25, 5.4]
    """
    if not 0 < kernel < math.inf:
        raise InputError(f"the kernel of the first layer must be positive and finite, got {kernel}")
    if depth < 1 or not 0 <= gamma < math.inf:
        raise InputError(f"depth is at least 1 and gamma finite and not negative, got {depth} and {gamma}")
    check_variances(bias_variance=bias_variance, weight_variance=weight_variance)
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
    """$E s^2$, $E s^4$ and $E z s^2$."""
    fourth = gaussian_expectation(lambda z: act(z) ** 4, kernel, kinks=act.kinks)
    third = gaussian_expectation(lambda z: z * act(z) ** 2, kernel, kinks=act.kinks)
    return float(act.g(kernel)), float(fourth), float(third)


def _cumulants(act: Activation) -> tuple[float, float, float]:
    """$c_4$, $c_3$ and the share that is left of them, at the critical point."""
    found = critical_point(act)
    if found.kind == "zero":
        below, above = act.slopes_beside_zero()
        square = (below**2 + above**2) / 2
        fourth_power = (below**4 + above**4) / 2
        third = (above**2 - below**2) / square * (2 / math.pi) ** 0.5
        # The kernel decays, and V / K^2 loses 2 / l of itself at layer l, whatever the power: a third is left.
        return 3 * fourth_power / square**2 - 1, third, 1 / 3
    square, fourth, third = _moments(act, found.kernel)
    weight = found.weight_variance
    return weight**2 * (fourth - square**2) / found.kernel**2, weight * third / found.kernel**1.5, 1.0
