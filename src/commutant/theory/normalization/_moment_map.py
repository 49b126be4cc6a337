"""Map of mean and variance from layer to layer, with its fixed points and their stability."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..._checks import is_real, whole
from ..._errors import InputError
from ...algebra import Activation
from ...algebra.arithmetic import clip
from ..criticality._criticality import Source, as_activation

ALPHA = 1.6732632423543772848170429916717
SCALE = 1.0507009873554804934193349852946

Scalar = float | int | Tensor
DOMAIN = ((-0.1, 0.1), (0.8, 1.5), (-0.1, 0.1), (0.95, 1.1))  # domain of theorem 1: mean, variance, omega, tau


@runtime_checkable
class HasMoments(Protocol):
    """Activation with moments in closed form."""

    def moments(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and variance of s(z) over $z \\sim N(mean, variance)$."""


def moment_map(
    mean: Scalar,
    variance: Scalar,
    omega: Scalar = 0.0,
    tau: Scalar = 1.0,
    *,
    activation: Source | HasMoments = "selu",
) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
    """Return mean and variance of a unit of a wide layer from those of its inputs (Klambauer et al. 2017, eq. 3).

    The net input is Gaussian, $N(\\mu\\omega, \\nu\\tau)$, with $\\omega = \\sum_i w_i$ and $\\tau = \\sum_i w_i^2$
    over the unit's weights. The four arguments broadcast; results are float64 and differentiable.

    Args:
        mean: Mean $\\mu$ of the inputs.
        variance: Variance $\\nu$ of the inputs, at least zero.
        omega: Sum of the weights; zero in expectation at LeCun's initialization.
        tau: Sum of the squared weights; one in expectation at LeCun's initialization.
        activation: Name, module, function or `Activation`, or a module with closed-form `moments` such as `SELU`.

    Raises:
        InputError: For values that are not finite, or a negative variance or tau.

    Example:
        >>> [round(float(m), 12) for m in moment_map(0.0, 1.0)]
        [0.0, 1.0]
    """
    for name, given in (("mean", mean), ("variance", variance), ("omega", omega), ("tau", tau)):
        if not isinstance(given, Tensor) and not is_real(given):
            raise InputError(f"{name} must be a number or a tensor, got {given!r}")
    mu, nu, w, t = (torch.as_tensor(x, dtype=torch.float64) for x in (mean, variance, omega, tau))
    for name, value in (("mean", mu), ("variance", nu), ("omega", w), ("tau", t)):
        if not bool(torch.isfinite(value).all()):
            raise InputError(f"{name} must be finite, got {value.detach().flatten()[:4].tolist()}")
        if name in ("variance", "tau") and bool((value < 0).any()):
            raise InputError(f"{name} must not be negative, got {float(value.detach().min())}")
    m, v = torch.broadcast_tensors(mu * w, nu * t)
    return _moments_of(activation)(m, v)


def _moments_of(activation: Source | HasMoments):  # type: ignore[no-untyped-def]
    if activation == "selu" or isinstance(activation, nn.SELU):
        return lambda mean, variance: selu_moments(mean, variance, ALPHA, SCALE)
    if hasattr(activation, "moments") and not isinstance(activation, Activation):
        return activation.moments
    act = as_activation(activation)  # type: ignore[arg-type]
    return act.moments


def selu_moments(mean: Tensor, variance: Tensor, alpha: Scalar, scale: Scalar) -> tuple[Tensor, Tensor]:
    """Return mean and variance of SELU over a Gaussian in closed form."""
    line, bend, line2, bend2 = selu_parts(mean, variance)
    first = scale * (line + alpha * bend)
    return first, scale**2 * (line2 + alpha**2 * bend2) - first.square()


def selu_parts(mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return $E z_+$, $E (e^z - 1) 1_{z<0}$, $E z_+^2$ and $E (e^z - 1)^2 1_{z<0}$ over a Gaussian."""
    m, v = torch.broadcast_tensors(mean.to(torch.float64), variance.to(torch.float64))
    random = v > 0
    safe = torch.where(random, v, 1.0)
    spread = (2 * safe).sqrt()
    at = m / spread
    above, below = torch.special.erfc(-at) / 2, torch.special.erfc(at) / 2
    peak = torch.exp(-at.square()) * (safe / (2 * math.pi)).sqrt()
    once, twice = (_exponential_below(m, safe, k) for k in (1, 2))
    parts = (m * above + peak, once - below, (m.square() + safe) * above + m * peak, twice - 2 * once + below)
    # |m| has slope zero at zero, where each side has half of the mass
    up, down = (m + m.abs()) / 2, torch.expm1((m - m.abs()) / 2)
    limits = (up, down, up.square(), down.square())
    out = [torch.where(random, part, limit) for part, limit in zip(parts, limits, strict=True)]
    return out[0], out[1], out[2], out[3]


def _exponential_below(m: Tensor, v: Tensor, k: int) -> Tensor:
    """Return $E e^{kz} 1_{z<0}$, by the scaled error function where e^{km} would overflow."""
    at = (m + k * v) / (2 * v).sqrt()
    scaled = torch.exp(-m.square() / (2 * v)) * torch.special.erfcx(at.clamp(min=0))
    plain = torch.exp((k * m + k**2 * v / 2).clamp(max=0)) * torch.special.erfc(clip(at, high=0.0))
    return torch.where(at > 0, scaled, plain) / 2


@dataclass(frozen=True)
class FixedPoint:
    """Fixed point of the map of mean and variance.

    Attributes:
        mean: Mean at the fixed point.
        variance: Variance at the fixed point.
        jacobian: Jacobian of the map there, with rows and columns (mean, variance), `(2, 2)`.
        spectral_norm: Largest singular value of the Jacobian.
        eigenvalue: Largest absolute eigenvalue of the Jacobian; the point attracts if it is below one.
        attracting: Whether the point attracts.
    """

    mean: float
    variance: float
    jacobian: Float[Tensor, "2 2"]
    spectral_norm: float
    eigenvalue: float
    attracting: bool


def fixed_point(
    omega: float = 0.0,
    tau: float = 1.0,
    *,
    activation: Source | HasMoments = "selu",
    start: tuple[float, float] = (0.0, 1.0),
) -> FixedPoint:
    """Find a fixed point of mean and variance by iteration from a start, followed by Newton's method.

    Args:
        omega: Sum of a unit's weights.
        tau: Sum of a unit's squared weights.
        activation: Name, module, function or `Activation`, or a module with closed-form `moments`.
        start: Mean and variance at the start.

    Raises:
        InputError: If the iteration diverges or finds no fixed point.

    Example:
        >>> point = fixed_point()
        >>> round(point.spectral_norm, 6), round(point.eigenvalue, 6)
        (0.787673, 0.782648)
    """
    if not start[1] >= 0:
        raise InputError(f"the variance of start must not be negative, got {start}")
    if not hasattr(activation, "moments"):
        activation = as_activation(activation)  # type: ignore[arg-type]
    state = torch.tensor(start, dtype=torch.float64)

    def step(x: Tensor) -> Tensor:
        return torch.stack(moment_map(x[0], x[1].clamp(min=0), omega, tau, activation=activation))

    for _ in range(200):
        new = step(state)
        if not bool(torch.isfinite(new).all()) or float(new.abs().max()) > 1e12:
            raise InputError(f"mean and variance diverge from {start} under omega = {omega:g}, tau = {tau:g}")
        moved, state = float((new - state).abs().max()), new
        if moved < 1e-9:
            break
    for _ in range(20):
        jacobian = _jacobian(step, state)
        residual = step(state) - state
        if float(residual.abs().max()) < 1e-15:
            break
        system = jacobian - torch.eye(2, dtype=torch.float64)
        state = state - torch.linalg.lstsq(system, residual[:, None], driver="gelsd").solution[:, 0]
        state = torch.stack([state[0], state[1].clamp(min=0)])
    if float((step(state) - state).abs().max()) > 1e-9:
        raise InputError(f"no fixed point of mean and variance was found from {start}")
    if float(state[1]) < 1e-9:
        raise InputError(f"from {start} the variance falls to zero, where the map has no derivative")
    return _described(step, state)


def fixed_point_at(activation: HasMoments, mean: float, variance: float) -> FixedPoint:
    """Return a known fixed point under zero-mean weights of unit variance, with its stability."""

    def step(x: Tensor) -> Tensor:
        return torch.stack(moment_map(x[0], x[1], activation=activation))

    return _described(step, torch.tensor([mean, variance], dtype=torch.float64))


def _described(step: Callable[[Tensor], Tensor], state: Tensor) -> FixedPoint:
    jacobian = _jacobian(step, state)
    eigenvalue = float(torch.linalg.eigvals(jacobian).abs().max())
    norm = float(torch.linalg.matrix_norm(jacobian, 2))
    return FixedPoint(float(state[0]), float(state[1]), jacobian, norm, eigenvalue, eigenvalue < 1 - 1e-9)


def _jacobian(step: Callable[[Tensor], Tensor], state: Tensor) -> Tensor:
    return cast(Tensor, torch.autograd.functional.jacobian(step, state.detach()))


@dataclass(frozen=True)
class SelfNormalization:
    """Result of testing on a grid whether mean and variance contract in a box of moments and weights.

    Attributes:
        holds: Whether the map contracts and maps the box into itself.
        contraction: Largest singular value of the Jacobian on the grid, below one for a contraction.
        worst: Grid point (mean, variance, omega, tau) of that singular value.
        image: Ranges of mean and of variance over the image of the box.
        sentence: Summary in one sentence.
    """

    holds: bool
    contraction: float
    worst: tuple[float, float, float, float]
    image: tuple[tuple[float, float], tuple[float, float]]
    sentence: str


def is_self_normalizing(
    activation: Source | HasMoments = "selu",
    box: tuple[tuple[float, float], ...] = DOMAIN,
    *,
    points: int = 9,
) -> SelfNormalization:
    """Check whether the map of mean and variance contracts a box into itself (theorem 1, for any activation).

    The Jacobian is evaluated on a grid that includes the corners of the box. The paper's computer-aided proof for SELU
    also bounds it between grid points; this function does not.

    Args:
        activation: Name, module, function or `Activation`, or a module with closed-form `moments`.
        box: Ranges of mean, variance, omega and tau.
        points: Number of grid points along each axis, at least 2.

    Example:
        >>> found = is_self_normalizing("selu", points=5)
        >>> found.holds, round(found.contraction, 4)
        (True, 0.8976)
    """
    whole("points", points, 2)
    axes = [torch.linspace(low, high, points, dtype=torch.float64) for low, high in box]
    mu, nu, omega, tau = (axis.reshape(-1) for axis in torch.meshgrid(*axes, indexing="ij"))
    mu.requires_grad_(), nu.requires_grad_()
    mean, variance = moment_map(mu, nu, omega, tau, activation=activation)
    rows = [torch.autograd.grad(out.sum(), (mu, nu), retain_graph=True) for out in (mean, variance)]
    jacobian = torch.stack([torch.stack(row, -1) for row in rows], -2)
    norms = torch.linalg.matrix_norm(jacobian, 2)
    at = int(norms.argmax())
    worst = tuple(float(x.detach()[at]) for x in (mu, nu, omega, tau))
    image = tuple((float(x.detach().min()), float(x.detach().max())) for x in (mean, variance))
    inside = all(low >= b[0] and high <= b[1] for (low, high), b in zip(image, box, strict=False))
    contraction = float(norms.max())
    sentence = (
        f"on a grid of {points}^4 points the map {'stays in' if inside else 'leaves'} the box (means "
        f"{image[0][0]:.3f} to {image[0][1]:.3f}, variances {image[1][0]:.3f} to {image[1][1]:.3f}) and "
        f"{'contracts' if contraction < 1 else 'does not contract'}: largest singular value {contraction:.4f}"
    )
    return SelfNormalization(inside and contraction < 1, contraction, worst, image, sentence)  # type: ignore[arg-type]
