"""Elementwise activations and their Gaussian expectations."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .._errors import InputError
from ._duals import GELU, ClosedForm, Erf, Exponential, PiecewiseLinear, Wave
from ._gaussian import Scalar, all_finite, checked, checked_pair, evaluate, gaussian_expectation
from ._gaussian_pairs import gaussian_pair_expectation, slope_at
from ._hermite import hermite_coefficients
from ._kinks import derivatives, find_kinks, jumps_of


def _linear(z: Tensor) -> Tensor:
    return z


def _gelu_tanh(z: Tensor) -> Tensor:
    return F.gelu(z, approximate="tanh")


def _step(z: Tensor) -> Tensor:
    return torch.where(z == 0, 0.5, (z > 0).to(z.dtype))


_NAMED: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": _linear,
    "relu": F.relu,
    "relu6": F.relu6,
    "tanh": torch.tanh,
    "erf": torch.erf,
    "sin": torch.sin,
    "cos": torch.cos,
    "atan": torch.atan,
    "exp": torch.exp,
    "abs": torch.abs,
    "sign": torch.sign,
    "sigmoid": torch.sigmoid,
    "gelu": F.gelu,
    "gelu_tanh": _gelu_tanh,
    "silu": F.silu,
    "swish": F.silu,
    "mish": F.mish,
    "elu": F.elu,
    "selu": F.selu,
    "celu": F.celu,
    "leaky_relu": F.leaky_relu,
    "softplus": F.softplus,
    "softsign": F.softsign,
    "hardtanh": F.hardtanh,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "step": _step,
}
_FORMULAS: dict[str, ClosedForm] = {
    "erf": Erf(),
    "sin": Wave(odd=True),
    "cos": Wave(odd=False),
    "exp": Exponential(),
    "gelu": GELU(),
}
_PROBES = torch.tensor([-7.3, -2.1, -1.0, -0.37, -1e-3, 1e-3, 0.37, 1.0, 2.1, 7.3], dtype=torch.float64)


@dataclass(frozen=True)
class Susceptibilities:
    """Factors by which a layer of unit weight variance changes small differences between two inputs.

    For a layer of weight variance $C_W$, multiply all three by $C_W$.

    Attributes:
        parallel: $\\chi_\\parallel = g'(K)$, the factor on differences in norm.
        perpendicular: $\\chi_\\perp = E s'(z)^2$, the factor on squared distances at equal norm, and on gradients.
        curvature: $h = \\chi_\\perp'(K) / 2$, the contribution of a difference in norm to the squared distance.
    """

    parallel: Float[Tensor, "..."]
    perpendicular: Float[Tensor, "..."]
    curvature: Float[Tensor, "..."]


class Activation:
    """Elementwise activation with its Gaussian expectations in float64.

    Closed forms are used for piecewise linear functions (found automatically), erf, sine, cosine, exp and GELU. All
    other functions are integrated by quadrature with an error estimate, after a search for kinks by bisection. Use it
    instead of a table of gains: `Activation("silu").g(1.0)` is the second moment of SiLU under a standard normal.

    Args:
        function: Name (`"relu"`, `"gelu"`, `"gelu_tanh"`, `"silu"`, `"selu"` ...), elementwise `nn.Module`, or
            elementwise torch function.
        kinks: Points where the function or one of its derivatives jumps; by default found by a search.

    Attributes:
        name: Name for display.
        kinks: Points where the function or a derivative jumps, in ascending order.
        jumps: Kinks at which the function itself jumps. If there are any, $s'$ and the NTK do not exist.
        slopes: Slopes `(below, above)` of a piecewise linear function with its only kink at zero, else None.

    Raises:
        InputError: For an unknown name, a function that is not elementwise, non-finite values, or more kinks than
            quadrature can handle.

    Example:
        >>> act = Activation("gelu")
        >>> round(float(act.g(0.5)), 10), round(float(act.dual(1.0, 1.0, 0.5)), 10)
        (0.1895565418, 0.227294915)
    """

    def __init__(
        self, function: str | nn.Module | Callable[[Tensor], Tensor], *, kinks: Iterable[float] | None = None
    ) -> None:
        self._function, self.name = _resolve(function)
        self._need_elementwise()
        self.kinks = find_kinks(self) if kinks is None else tuple(sorted(float(k) for k in kinks))
        self.jumps = tuple(at for at, _ in jumps_of(self, self.kinks))
        self.slopes = self._find_slopes()
        self._formula = self._find_formula()

    def __repr__(self) -> str:
        return f"Activation({self.name!r})"

    def __call__(self, z: Tensor) -> Tensor:
        if z.dtype != torch.float64 and isinstance(self._function, nn.Module) and _has_state(self._function):
            return self._function(z.double()).to(z.dtype)
        return self._function(z)

    def slope(self, z: Tensor) -> Tensor:
        """Return $s'$ at points, by autograd."""
        return slope_at(self, z)

    @property
    def homogeneous(self) -> bool:
        """True if $s(a z) = a\\, s(z)$ for every $a > 0$: linear, ReLU, leaky ReLU, absolute value."""
        return self.slopes is not None

    @property
    def odd(self) -> bool:
        """True if $s(-z) = -s(z)$ at ten probes."""
        return bool(torch.allclose(self(_PROBES), -self(-_PROBES), rtol=1e-9, atol=1e-12))

    def at_zero(self, order: int = 3) -> list[float]:
        """Return $s(0), s'(0), s''(0) ...$ by autograd, with NaN for derivatives at a kink.

        Args:
            order: Order of the highest derivative.
        """
        values = [float(v) for v in derivatives(self._function, torch.zeros(1, dtype=torch.float64), order)]
        return values[:1] + [math.nan] * order if 0.0 in self.kinks else values

    def slopes_beside_zero(self) -> tuple[float, float]:
        """Return $s'$ just below and just above zero."""
        below, above = self.slope(torch.tensor([-1e-15, 1e-15], dtype=torch.float64)).tolist()
        return below, above

    def g(self, variance: Scalar) -> Float[Tensor, "..."]:
        """Return $g(K) = E s(z)^2$ for $z \\sim N(0, K)$, in the shape of K.

        Args:
            variance: Variance K.
        """
        if self._formula is not None:
            (k,) = checked(variance=variance)
            return self._finite(self._formula.dual(k, k, k))
        return gaussian_expectation(lambda z: self(z).square(), variance, kinks=self.kinks)

    def mean(self, variance: Scalar) -> Float[Tensor, "..."]:
        """Return $E s(z)$ for $z \\sim N(0, K)$, in the shape of K.

        Args:
            variance: Variance K.
        """
        if self.slopes is not None:
            (k,) = checked(variance=variance)
            return (self.slopes[1] - self.slopes[0]) * (k / (2 * math.pi)).sqrt()
        return gaussian_expectation(self, variance, kinks=self.kinks)

    def chi(self, variance: Scalar) -> Susceptibilities:
        """Return the susceptibilities at a kernel K for unit weight variance, with their limits at $K = 0$.

        Args:
            variance: Kernel K.

        Raises:
            InputError: If the activation jumps, since $E s'^2$ is then infinite.
        """
        self._need_slope("susceptibilities")
        (k,) = checked(variance=variance)
        if not k.numel():
            return Susceptibilities(k, k.clone(), k.clone())
        if self.slopes is not None:
            value = torch.full_like(k, (self.slopes[0] ** 2 + self.slopes[1] ** 2) / 2)
            return Susceptibilities(value, value.clone(), torch.zeros_like(k))
        with torch.enable_grad():
            point = k.detach().requires_grad_()
            perpendicular = gaussian_expectation(lambda z: self.slope(z).square(), point, kinks=self.kinks)
            (by_k,) = torch.autograd.grad(perpendicular.sum(), point)
        parallel = gaussian_expectation(lambda z: z * self(z) * self.slope(z), k.detach(), kinks=self.kinks)
        zero = k.detach() == 0
        safe = torch.where(zero, 1.0, k.detach())
        parts = (parallel / safe, perpendicular.detach(), by_k / 2)
        if not bool(zero.any()):
            return Susceptibilities(*parts)
        limit = self._limits_at_zero()
        return Susceptibilities(*(torch.where(zero, at, part) for at, part in zip(limit, parts, strict=True)))

    def dual(self, variance_u: Scalar, variance_v: Scalar, covariance: Scalar) -> Float[Tensor, "..."]:
        """Return $E s(u) s(v)$ for a centered Gaussian pair; arguments broadcast and get gradients.

        Args:
            variance_u: Variance of u.
            variance_v: Variance of v.
            covariance: Covariance of u and v.
        """
        if self._formula is not None:
            return self._finite(self._formula.dual(*checked_pair(variance_u, variance_v, covariance)))
        kinks = (self.kinks, self.kinks)
        return gaussian_pair_expectation(self, self, variance_u, variance_v, covariance, kinks=kinks)

    def dual_dot(self, variance_u: Scalar, variance_v: Scalar, covariance: Scalar) -> Float[Tensor, "..."]:
        """Return $E s'(u) s'(v)$, the derivative of `dual` with respect to the covariance.

        Args:
            variance_u: Variance of u.
            variance_v: Variance of v.
            covariance: Covariance of u and v.

        Raises:
            InputError: If the activation jumps.
        """
        self._need_slope("derivative's dual")
        if self._formula is not None:
            return self._finite(self._formula.dual_dot(*checked_pair(variance_u, variance_v, covariance)))
        kinks = (self.kinks, self.kinks)
        return gaussian_pair_expectation(self.slope, self.slope, variance_u, variance_v, covariance, kinks=kinks)

    def duals(
        self, variance_u: Scalar, variance_v: Scalar, covariance: Scalar
    ) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
        """Return `dual` and `dual_dot` together, which is faster than two calls if there is a closed form.

        Args:
            variance_u: Variance of u.
            variance_v: Variance of v.
            covariance: Covariance of u and v.

        Raises:
            InputError: If the activation jumps.
        """
        self._need_slope("derivative's dual")
        if self._formula is None:
            at = (variance_u, variance_v, covariance)
            return self.dual(*at), self.dual_dot(*at)
        value, slope = self._formula.both(*checked_pair(variance_u, variance_v, covariance))
        return self._finite(value), self._finite(slope)

    def moments(self, mean: Scalar, variance: Scalar) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
        """Return mean and variance of $s(z)$ for $z \\sim N(m, v)$, differentiable in m and v.

        Args:
            mean: Mean m.
            variance: Variance v.
        """
        first = gaussian_expectation(self, variance, mean, kinks=self.kinks)
        second = gaussian_expectation(lambda z: self(z).square(), variance, mean, kinks=self.kinks)
        spread = second - first.square()
        # where the difference nearly cancels, the function is linear over the width of the Gaussian
        point = torch.as_tensor(mean, dtype=torch.float64)
        line = (self.slope(point.detach()).square() * torch.as_tensor(variance, dtype=torch.float64)).expand_as(spread)
        return first, torch.where(spread < 1e-9 * second, line, spread)

    def hermite(self, variance: Scalar, terms: int) -> Float[Tensor, "... terms"]:
        """Return $a_k = E s(\\sqrt q\\, x)\\, he_k(x)$ for orthonormal Hermite polynomials; $\\sum_k a_k^2 = g(q)$.

        Args:
            variance: Variance q.
            terms: Number of coefficients.
        """
        return hermite_coefficients(self, variance, terms, self.kinks)

    def _finite(self, values: Tensor) -> Tensor:
        if not all_finite(values):
            raise InputError(f"an expectation of {self.name} exceeds the range of float64; use a smaller variance")
        return values

    def _need_elementwise(self) -> None:
        try:
            found = self(_PROBES.clone())
        except Exception as error:
            raise InputError(f"an activation must be elementwise, {self.name} fails on a vector: {error}") from error
        if not isinstance(found, Tensor) or found.shape != _PROBES.shape or not found.is_floating_point():
            what = f"{found.dtype}, {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise InputError(
                f"an activation must be elementwise and real, but {self.name} maps {len(_PROBES)} numbers to {what}"
            )

    def _need_slope(self, what: str) -> None:
        if self.jumps:
            raise InputError(f"{self.name} jumps at {self.jumps[0]:g}, so it has no {what}")

    def _limits_at_zero(self) -> tuple[float, float, float]:
        """Return the limits of the susceptibilities for K to zero."""
        value = float(self(torch.zeros(1, dtype=torch.float64)))
        below, above = self.slopes_beside_zero()
        square = (below**2 + above**2) / 2
        _, _, second, third = self.at_zero(3)
        if 0.0 in self.kinks:
            return (square if value == 0 else math.nan), square, math.nan
        return square + value * second, square, (second**2 + below * third) / 2

    def _find_slopes(self) -> tuple[float, float] | None:
        if not set(self.kinks) <= {0.0}:
            return None
        ratio = evaluate(self, _PROBES).detach() / _PROBES
        below, above = ratio[_PROBES < 0], ratio[_PROBES > 0]
        if bool(((below - below[0]).abs() < 1e-12).all() & ((above - above[0]).abs() < 1e-12).all()):
            return float(below[0]), float(above[0])
        return None

    def _find_formula(self) -> ClosedForm | None:
        if self.slopes is not None:
            return PiecewiseLinear(above=self.slopes[1], below=self.slopes[0])
        values = evaluate(self, _PROBES).detach()
        for name, formula in _FORMULAS.items():
            if torch.allclose(values, _NAMED[name](_PROBES), rtol=1e-13, atol=1e-14):
                return formula
        return None


def _has_state(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def _resolve(function: str | nn.Module | Callable[[Tensor], Tensor]) -> tuple[Callable[[Tensor], Tensor], str]:
    if isinstance(function, Activation):
        return function._function, function.name
    if isinstance(function, str):
        if function not in _NAMED:
            raise InputError(
                f"unknown activation {function!r}; known are {', '.join(sorted(_NAMED))}, or pass a function"
            )
        return _NAMED[function], function
    if isinstance(function, nn.Module):
        # an activation with parameters (PReLU) must accept float64 points
        own = copy.deepcopy(function).double().requires_grad_(False) if _has_state(function) else function
        return cast(Callable[[Tensor], Tensor], own), repr(function)
    if isinstance(function, type):
        raise InputError(f"an activation must be an instance, got the class {function.__name__}; instantiate it")
    if not callable(function):
        raise InputError(f"an activation must be a name, an nn.Module or a function, got {type(function).__name__}")
    return function, getattr(function, "__name__", repr(function))
