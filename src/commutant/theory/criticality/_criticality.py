"""Critical variances of weights and biases, at which signals neither explode nor vanish with depth."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor, nn

from ..._errors import InputError
from ...algebra import Activation

UniversalityClass = Literal["scale-invariant", "zero", "half-stable", "none"]
Source = str | nn.Module | type[nn.Module] | Activation | Callable[[Tensor], Tensor]

_CLASSES: dict[str, type[nn.Module]] = {name.lower(): getattr(nn, name) for name in nn.modules.activation.__all__}
_SMALL = (1e-4, 1e-3, 1e-2, 0.1, 1.0)  # kernels at which the direction of the flow is tested, smallest first
_TINY = 1e-10  # a kernel at which exponents are measured
_GRID = torch.logspace(-3, 4, 141, dtype=torch.float64)


@dataclass(frozen=True)
class Criticality:
    """Critical point of an activation with the residuals that certify it; falsy if the activation has none.

    Attributes:
        activation: Name of the activation.
        kind: Universality class. `"scale-invariant"`: critical at every kernel (linear, ReLU). `"zero"`: the kernel
            decays to zero, like 1 / depth for smooth activations (tanh, erf). `"half-stable"`: an isolated kernel that
            attracts from one side (GELU, SiLU, Mish). `"none"`: no critical point (sigmoid, softplus).
        kernel: Fixed point $K^*$; 1 by convention where every kernel is a fixed point; NaN where there is none.
        bias_variance: Variance $C_b$ of biases.
        weight_variance: Variance $C_W$ of a weight times its fan-in.
        decay: Coefficient $-a_1$ of $K' = K + a_1 K^2 + ...$ in the class `"zero"` of activations smooth at zero, else
            NaN.
        exponent: Power $p_\\perp$ of the decay of angles with depth, $l^{-p_\\perp}$, in the class `"zero"`, else 0 or
            NaN.
        residuals: Residuals of $K^* = C_b + C_W g(K^*)$, $\\chi_\\parallel = 1$ and $\\chi_\\perp = 1$; zero to
            rounding.
        sentence: Summary in one sentence.
    """

    activation: str
    kind: UniversalityClass
    kernel: float
    bias_variance: float
    weight_variance: float
    decay: float
    exponent: float
    residuals: tuple[float, float, float]
    sentence: str

    def __bool__(self) -> bool:
        return self.kind != "none"


def as_activation(source: Source) -> Activation:
    """Return an `Activation` from a name in any case, a function, a module, or a module class without arguments."""
    if isinstance(source, Activation):
        return source
    if isinstance(source, np.ufunc):
        raise InputError(
            f"np.{source.__name__} takes no gradients of torch tensors: pass torch.{source.__name__} or a name"
        )
    if isinstance(source, type) and issubclass(source, nn.Module):
        try:
            return Activation(source())
        except TypeError as error:
            raise InputError(f"{source.__name__} is a class that needs arguments: pass an instance") from error
    if isinstance(source, type):
        raise InputError(f"an activation is a name, an nn.Module or a function, got the class {source.__name__}")
    if isinstance(source, str) and not source.islower() and source.lower() in _CLASSES:
        return as_activation(_CLASSES[source.lower()])
    return Activation(source.lower() if isinstance(source, str) else source)


def check_variances(**values: float) -> None:
    """Check that each value is a finite number of at least zero."""
    for name, value in values.items():
        if not 0 <= value < math.inf:
            raise InputError(f"{name} must be finite and not negative, got {value}")


def criticality(activation: Source) -> Criticality:
    """Find $(C_b, C_W, K^*)$ at which both susceptibilities are one, for any activation.

    Eliminating the variances leaves one equation, $E z s s' / K = E s'^2$. Its root gives $C_W = 1 / E s'^2$ and
    $C_b = K - C_W g(K)$; a root with negative $C_b$ is rejected. Activations with $s(0) = 0$ are first tested for
    criticality at $K = 0$. There the kernel must decay when $C_W$ is the inverse square of the slope, or of the root
    mean square of both slopes at a kink.

    Args:
        activation: Name, module, function or `Activation`.

    Returns:
        A `Criticality`, which is falsy if there is no critical point; an approximate one is never returned.

    Raises:
        InputError: For an activation with a jump.

    Example:
        >>> found = criticality("gelu")
        >>> found.kind, round(found.weight_variance, 6), round(found.bias_variance, 6)
        ('half-stable', 1.983058, 0.172922)
        >>> bool(criticality("sigmoid"))
        False
    """
    act = as_activation(activation)
    if act.jumps:
        raise InputError(
            f"{act.name} jumps at {act.jumps[0]:g}: gradients through it are zero or infinite, never critical"
        )
    if act.slopes is not None:
        return _scale_invariant(act)
    return _at_zero(act) or _half_stable(act) or _none(act)


def critical_point(act: Activation) -> Criticality:
    """Return the critical point of an activation; raise an `InputError` if there is none."""
    found = criticality(act)
    if not found:
        raise InputError(found.sentence)
    return found


def _scale_invariant(act: Activation) -> Criticality:
    below, above = act.slopes or (0.0, 0.0)
    square = (below**2 + above**2) / 2
    if square == 0:
        return _none(act)
    return Criticality(
        act.name, "scale-invariant", 1.0, 0.0, 1 / square, math.nan, 0.0, (0.0, 0.0, 0.0),
        f"{act.name} is scale-invariant: with weights of variance {1 / square:.6g} / fan-in and no biases every kernel "
        "stays as it is.",
    )  # fmt: skip


def _at_zero(act: Activation) -> Criticality | None:
    """Return the critical point at kernel zero if the kernel of the activation decays to zero, else None."""
    zero = torch.zeros((), dtype=torch.float64)
    if abs(float(act(zero))) > 1e-12:
        return None
    slope = float(act.chi(0.0).perpendicular)
    if slope < 1e-12:
        return None
    drifts = (float(act.g(k)) / (slope * k) - 1 for k in _SMALL)
    drift = next((d for d in drifts if abs(d) > 1e-12), 0.0)  # hardtanh is linear to rounding below 0.01
    if drift >= 0:
        return None
    first, second, third = act.at_zero(3)[1:]
    smooth = not math.isnan(second)
    decay = -(third / first + 0.75 * (second / first) ** 2) if smooth else math.nan
    if smooth and decay > 0:
        exponent = -(third / first + (second / first) ** 2) / decay
        law = f"its kernel falls like {1 / decay:.3g} / depth"
    else:
        exponent = _measured_exponent(act, slope)
        law = "its kernel falls, but not like 1 / depth, as it is not smooth at zero"
    small = torch.tensor(1e-12, dtype=torch.float64)
    chi = act.chi(small)
    residuals = (
        float(act.g(small)) / slope - float(small),
        float(chi.parallel) / slope - 1,
        float(chi.perpendicular) / slope - 1,
    )
    return Criticality(
        act.name, "zero", 0.0, 0.0, 1 / slope, decay, exponent, residuals,
        f"{act.name} is critical at zero: with weights of variance {1 / slope:.6g} / fan-in and no biases {law}.",
    )  # fmt: skip


def _measured_exponent(act: Activation, slope: float) -> float:
    """Return the exponent of the decay of angles, from the rates of angle, norm and kernel at a tiny kernel."""
    k = torch.tensor(_TINY, dtype=torch.float64)
    chi = act.chi(k)
    angle, norm = float(chi.perpendicular) / slope - 1, float(chi.parallel) / slope - 1
    kernel = float(act.g(k)) / (slope * float(k)) - 1
    if abs(kernel) < 1e-12:
        return math.nan
    # K' / K = 1 - a K^q gives K ~ l^(-1/q), and chi_par = 1 - (1 + q) a K^q.
    power = 1 / (norm / kernel - 1)
    return power * angle / kernel


def _half_stable(act: Activation) -> Criticality | None:
    def gap(k: float) -> float:
        chi = act.chi(k)
        return float(chi.parallel / chi.perpendicular) - 1

    gaps = _gaps(act)
    for i in range(len(gaps) - 1):
        if not gaps[i] * gaps[i + 1] < 0 or min(abs(gaps[i]), abs(gaps[i + 1])) < 1e-9:  # rounding
            continue
        k = brentq(gap, float(_GRID[i]), float(_GRID[i + 1]), xtol=1e-13, rtol=1e-14)
        weight = 1 / float(act.chi(k).perpendicular)
        bias = k - weight * float(act.g(k))
        if bias < -1e-9:
            continue
        found = act.chi(k)
        residuals = (
            bias + weight * float(act.g(k)) - k,
            weight * float(found.parallel) - 1,
            weight * float(found.perpendicular) - 1,
        )
        step = 0.01 * k
        bend = weight * float(act.g(k + step) + act.g(k - step) - 2 * act.g(k)) / step**2 / 2
        side = "above and repels below" if bend < 0 else "below and repels above"
        return Criticality(
            act.name, "half-stable", k, bias, weight, math.nan, math.nan, residuals,
            f"{act.name} is critical at the kernel {k:.4g}, with weights of variance {weight:.6g} / fan-in and biases "
            f"of variance {bias:.6g}; it attracts from {side}, slowly.",
        )  # fmt: skip
    return None


def _gaps(act: Activation) -> list[float]:
    """Return chi_parallel / chi_perp - 1 on the part of the grid where the activation can be integrated."""
    for count in (len(_GRID), 101, 61):  # kernels up to 1e4, 100 and 1: exp overflows beyond
        try:
            chi = act.chi(_GRID[:count])
        except InputError:
            continue
        return (chi.parallel / chi.perpendicular - 1).tolist()
    return []


def _none(act: Activation) -> Criticality:
    nan = math.nan
    return Criticality(
        act.name, "none", nan, nan, nan, nan, nan, (nan, nan, nan),
        f"{act.name} has no critical point: no variances of weights and biases (at least zero) keep both the size of a "
        "signal and the angle between two; use a residual path, a normalization or another activation.",
    )  # fmt: skip
