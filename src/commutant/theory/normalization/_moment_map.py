"""Mean and variance from layer to layer: the map, its fixed points, and whether they attract."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..._checks import is_real
from ..._errors import InputError
from ...algebra import Activation
from ...algebra.arithmetic import clip
from ..criticality._criticality import Source, as_activation

ALPHA = 1.6732632423543772848170429916717
SCALE = 1.0507009873554804934193349852946

Scalar = float | int | Tensor
DOMAIN = ((-0.1, 0.1), (0.8, 1.5), (-0.1, 0.1), (0.95, 1.1))  # of theorem 1: mean, variance, omega, tau


@runtime_checkable
class HasMoments(Protocol):
    """An activation that knows its moments in closed form."""

    def moments(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of s(z) over $z \\sim N(mean, variance)$."""


def moment_map(
    mean: Scalar,
    variance: Scalar,
    omega: Scalar = 0.0,
    tau: Scalar = 1.0,
    *,
    activation: Source | HasMoments = "selu",
) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
    """Mean and variance of a unit from those of its inputs, in a wide layer (Klambauer et al. 2017, eq. 3).

    The net input is Gaussian, $N(\\mu\\omega, \\nu\\tau)$, with $\\omega = \\sum_i w_i$ and $\\tau = \\sum_i w_i^2$
    of the unit's weights. Broadcast over the four, differentiable in them, float64.

    Args:
        mean: $\\mu$ of the inputs.
        variance: $\\nu$, at least zero.
        omega: sum of the weights; zero in expectation at LeCun's initialisation.
        tau: sum of their squares; one in expectation there.
        activation: anything that names an `Activation`, or a module with closed-form `moments`, like `SELU`.

    Raises:
        InputError: for what is not finite, or a negative variance or tau.

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
    """Mean and variance of $\\lambda\\,(z$ above zero, $\\alpha (e^z - 1)$ below$)$ over a Gaussian, in closed form."""
    line, bend, line2, bend2 = selu_parts(mean, variance)
    first = scale * (line + alpha * bend)
    return first, scale**2 * (line2 + alpha**2 * bend2) - first.square()


def selu_parts(mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """$E z_+$, $E (e^z - 1) 1_{z<0}$, $E z_+^2$ and $E (e^z - 1)^2 1_{z<0}$ over a Gaussian, of the same shape."""
    m, v = torch.broadcast_tensors(mean.to(torch.float64), variance.to(torch.float64))
    random = v > 0
    safe = torch.where(random, v, 1.0)
    spread = (2 * safe).sqrt()
    at = m / spread
    above, below = torch.special.erfc(-at) / 2, torch.special.erfc(at) / 2
    peak = torch.exp(-at.square()) * (safe / (2 * math.pi)).sqrt()
    once, twice = (_exponential_below(m, safe, k) for k in (1, 2))
    parts = (m * above + peak, once - below, (m.square() + safe) * above + m * peak, twice - 2 * once + below)
    # by |m|, whose slope at zero is zero: there each side has half of the mass
    up, down = (m + m.abs()) / 2, torch.expm1((m - m.abs()) / 2)
    limits = (up, down, up.square(), down.square())
    out = [torch.where(random, part, limit) for part, limit in zip(parts, limits, strict=True)]
    return out[0], out[1], out[2], out[3]


def _exponential_below(m: Tensor, v: Tensor, k: int) -> Tensor:
    """$E e^{kz} 1_{z<0}$; by the scaled error function where e^{km} would overflow."""
    at = (m + k * v) / (2 * v).sqrt()
    scaled = torch.exp(-m.square() / (2 * v)) * torch.special.erfcx(at.clamp(min=0))
    plain = torch.exp((k * m + k**2 * v / 2).clamp(max=0)) * torch.special.erfc(clip(at, high=0.0))
    return torch.where(at > 0, scaled, plain) / 2


@dataclass(frozen=True)
class FixedPoint:
    """Where mean and variance stay, layer after layer.

    Attributes:
        mean, variance: the point.
        jacobian: of the map there, rows (mean, variance), columns likewise, `(2, 2)`.
        spectral_norm: its largest singular value.
        eigenvalue: the largest absolute eigenvalue; below one, the point attracts.
        attracting: whether it does.
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
    """The fixed point of mean and variance nearest to where the iteration starts, by iteration and Newton's method.

    Raises:
        InputError: when the iteration leaves every bound, or none is found.

    Example:
        >>> point = fixed_point()
        >>> round(point.spectral_norm, 6), round(point.eigenvalue, 6)
        (0.787673, 0.782648)
    """
    if not start[1] >= 0:
        raise InputError(f"a variance is at least zero, got the start {start}")
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
    """A point that is known to be fixed under zero-mean weights of unit variance, whether it attracts or not."""

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
    """Whether mean and variance contract everywhere in a box of moments and weights, on a grid of it.

    Attributes:
        holds: the box is mapped into itself and the map contracts.
        contraction: the largest singular value of the Jacobian on the grid, below one for a contraction.
        worst: the (mean, variance, omega, tau) at which it is.
        image: ranges of mean and of variance that the box is mapped to.
        sentence: what it says, in words.
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
    """Check theorem 1 for any activation: is the map of mean and variance a contraction of a box into itself?

    The Jacobian is evaluated on a grid of the box, its corners included; the paper's proof for SELU bounds it between
    the points by computer, which is not repeated here.

    Args:
        activation: anything that names an `Activation`, or a module with closed-form `moments`.
        box: ranges of mean, variance, omega and tau.
        points: of the grid along each.

    Example:
        >>> found = is_self_normalizing("selu", points=5)
        >>> found.holds, round(found.contraction, 4)
        (True, 0.8976)
    """
    if points < 2:
        raise InputError(f"the grid has at least its corners, 2 points along an axis, got {points}")
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
