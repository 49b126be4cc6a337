"""Expectations over a Gaussian variable by Gauss-Legendre rules on panels, with an error estimate."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from .._errors import InputError
from ._kinks import find_kinks, mean_bend, name_of, real_values

Scalar = float | int | Tensor
Elementwise = Callable[[Tensor], Tensor]

RADIUS = 12.0  # half-width of the integral in standard deviations; the mass beyond is 4e-33
_CHUNK = 1 << 22  # most function values held at once
_ORDER, _CHECK = 20, 12  # nodes per panel, for the value and for its check
_SPLITS = (1, 4, 16)  # numbers of parts into which panels are split until the two orders agree


def gaussian_expectation(
    f: Elementwise,
    variance: Scalar,
    mean: Scalar = 0.0,
    *,
    kinks: Iterable[float] | None = None,
    tolerance: float = 1e-10,
) -> Float[Tensor, "..."]:
    """Return $E f(z)$ for $z \\sim N(m, v)$ in float64, for any elementwise real function.

    The line is split into panels at the kinks of f, at multiples of the standard deviation and at powers of two. This
    resolves tanh at variance 1e-8 as well as at 1e8. Each panel has a Gauss-Legendre rule. Panels are split
    until two orders of the rule agree; if they never do, an error is raised. Gradients with respect to v and m
    differentiate the density, not f: $\\partial_v E f = E f (z^2 - v)/2v^2$ (Stein, Price). They are therefore also
    correct for functions without a derivative.

    Args:
        f: Elementwise function; gradients flow to its parameters.
        variance: Variance v, at least zero. At zero the value is f(m) and its derivative with respect to v is
            f''(m) / 2, or the mean of both sides where f'' jumps. Where f or f' jumps, that derivative is infinite and
            0 is returned.
        mean: Mean m, broadcast with the variance.
        kinks: Points where f or a derivative jumps; by default the `kinks` of f, or the result of a search. The search
            misses features narrower than 1e-4, and coarser ones outside [-20, 20]; pass these explicitly.
        tolerance: Largest accepted error, relative to $E |f|$.

    Returns:
        Expectations in float64, in the broadcast shape of variance and mean.

    Raises:
        InputError: For a negative or infinite variance, non-finite function values, or an integral that does not
            converge.

    Example:
        >>> round(float(gaussian_expectation(torch.relu, 1.0)), 12) == round((2 * torch.pi) ** -0.5, 12)
        True
    """
    v, m = torch.broadcast_tensors(*checked(variance=variance, mean=mean))
    points = kinks_of(f) if kinks is None else stated_kinks(kinks)
    shape, v, m = v.shape, v.reshape(-1), m.reshape(-1)
    if not v.numel():
        return torch.zeros(shape, dtype=torch.float64, device=v.device)
    sigma = v.detach().sqrt()
    widest = float((RADIUS * sigma + m.detach().abs()).max())
    edges_at = torch.tensor([*points, *powers_of_two(widest)], dtype=torch.float64, device=v.device)
    error = math.inf
    for splits in _SPLITS:
        size = (len(edges_at) + 17) * splits * _ORDER
        parts = list(zip(v.split(max(1, _CHUNK // size)), m.split(max(1, _CHUNK // size)), strict=True))
        cut = [panel_edges(part_m.detach(), part_v.detach().sqrt(), edges_at, splits) for part_v, part_m in parts]
        found = [_checked_integral(f, *part, edges) for part, edges in zip(parts, cut, strict=True)]
        error = max(float(errors.max()) for _, errors in found)
        if error <= tolerance:
            values = torch.cat([value for value, _ in found])
            return (values + _bend_at_zero(f, v, m, points)).reshape(shape)
    raise InputError(
        f"the Gaussian expectation of {name_of(f)} does not converge: two orders of quadrature differ by {error:.1e} "
        f"of E|f|, where {tolerance:.0e} is allowed; f grows too fast, or jumps at a point to be passed in kinks"
    )


def _bend_at_zero(f: Elementwise, variance: Tensor, mean: Tensor, kinks: tuple[float, ...]) -> Tensor | float:
    """Return zero, with the derivative $f''(m) / 2$ with respect to a variance of zero."""
    zero = variance.detach() == 0
    if not variance.requires_grad or not bool(zero.any()):
        return 0.0
    return torch.where(zero, mean_bend(f, mean.detach(), kinks) / 2 * (variance - variance.detach()), 0.0)


def kinks_of(f: Elementwise) -> tuple[float, ...]:
    """Return the points where f or its first two derivatives jump: the `kinks` of f, or the result of a search."""
    stated = getattr(f, "kinks", None)
    return tuple(stated) if isinstance(stated, tuple) else find_kinks(f)


def stated_kinks(kinks: Iterable[float]) -> tuple[float, ...]:
    """Return kinks stated by a user, after a check."""
    given = tuple(kinks)
    if not all(isinstance(k, int | float) and math.isfinite(k) for k in given):
        raise InputError(f"kinks must be finite numbers, got {given[:4]}")
    return tuple(float(k) for k in given)


def gauss_legendre(order: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return nodes in [-1, 1] and weights that sum to 2, both `(order,)`, on the device of `like`."""
    nodes, weights = _legendre(order)
    return torch.from_numpy(nodes).to(like.device), torch.from_numpy(weights).to(like.device)


@lru_cache(maxsize=8)
def _legendre(order: int) -> tuple[np.ndarray, np.ndarray]:
    nodes, weights = np.polynomial.legendre.leggauss(order)
    return nodes, weights


def powers_of_two(widest: float) -> list[float]:
    """Return powers of two of both signs up to `widest`, where a function may change on its own scale."""
    top = max(0, math.ceil(math.log2(max(widest, 1.0))))
    powers = [2.0**power for power in range(-2, top + 1)]
    return [-power for power in reversed(powers)] + [0.0] + powers


def panel_edges(mean: Tensor, sigma: Tensor, points: Tensor, splits: int = 1, extra: Sequence[Tensor] = ()) -> Tensor:
    """Return edges of panels `(batch, panels + 1)`, at multiples of sigma and given points, with panels split."""
    grid = torch.linspace(-RADIUS, RADIUS, 17, dtype=torch.float64, device=mean.device)
    low, high = (mean - RADIUS * sigma)[:, None], (mean + RADIUS * sigma)[:, None]
    given = torch.cat([points.expand(len(mean), -1), *extra], -1).clamp(low, high)
    edges = torch.cat([mean[:, None] + sigma[:, None] * grid, given], -1).sort(-1).values
    if splits == 1:
        return edges
    part = torch.arange(splits, dtype=torch.float64, device=mean.device) / splits
    inner = (edges[:, :-1, None] + edges.diff(dim=-1)[..., None] * part).flatten(1)
    return torch.cat([inner, edges[:, -1:]], -1)


def panel_nodes(edges: Tensor, order: int) -> tuple[Tensor, Tensor]:
    """Return nodes and weights `(batch, panels * order)` of a Gauss-Legendre rule in every panel."""
    nodes, weights = gauss_legendre(order, edges)
    middle, half = (edges[:, 1:] + edges[:, :-1]) / 2, edges.diff(dim=-1) / 2
    return (middle[..., None] + half[..., None] * nodes).flatten(1), (half[..., None] * weights).flatten(1)


def density(z: Tensor, variance: Tensor, mean: Tensor) -> Tensor:
    """Return the Gaussian density at points `(batch, nodes)`, and zero for a variance of zero."""
    v, m = variance[:, None], mean[:, None]
    safe = torch.where(v > 0, v, 1.0)
    return torch.where(v > 0, torch.exp(-0.5 * (z - m).square() / safe) * torch.rsqrt(2 * torch.pi * safe), 0.0)


def checked_pair(variance_u: Scalar, variance_v: Scalar, covariance: Scalar) -> list[Tensor]:
    """Return two variances and a covariance as tensors, after a check that some Gaussian pair has them."""
    tensors = checked(variance_u=variance_u, variance_v=variance_v, covariance=covariance)
    u, v, c = (t.detach() for t in tensors)
    try:
        # compares squares to save a root; where these leave the range of float64, the check is less strict
        impossible = c.square() > u * (1 + 2e-6) * v
    except RuntimeError as error:
        shapes = ", ".join(str(tuple(t.shape)) for t in tensors)
        raise InputError(f"two variances and a covariance must broadcast, got {shapes}") from error
    if bool(impossible.any()):
        raise InputError("covariance must not exceed the geometric mean of the two variances in absolute value")
    return tensors


def geometric_mean(u: Tensor, v: Tensor) -> Tensor:
    """Return $\\sqrt{u v}$, which equals u exactly if u = v and does not overflow or underflow."""
    product = u * v
    sides = [t.detach().abs() for t in (u, v) if t.numel()]
    if len(sides) == 2 and all(float(t.min()) > 1e-140 and float(t.max()) < 1e140 for t in sides):
        return product.sqrt()
    plain = (product > 1e-280) & (product < 1e280)
    return torch.where(plain, torch.where(plain, product, 1.0).sqrt(), u.sqrt() * v.sqrt())


def _integral(
    f: Elementwise, variance: Tensor, mean: Tensor, edges: Tensor, order: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return E f and E |f|, `(batch,)` each, and the part of each panel, `(batch, panels)`.

    f at the mean is subtracted first, which reduces cancellation at a small variance.
    """
    z, weights = panel_nodes(edges, order)
    values = evaluate(f, z)
    center = evaluate(f, torch.where(variance > 0, mean.detach(), mean))  # at zero variance this is the value itself
    mass = weights * density(z, variance, mean)
    size = (values.abs() * mass).sum(-1)
    # near a singularity f at the mean is far from typical, and its subtraction would cancel every digit
    center = torch.where((variance > 0) & (center.abs() > 2 * size), 0.0, center)
    parts = ((values - center.detach()[:, None]) * mass).unflatten(-1, (-1, order)).sum(-1)
    return center + parts.sum(-1), torch.where(variance > 0, size, center.abs()), parts


def _checked_integral(f: Elementwise, variance: Tensor, mean: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
    """Return E f, and the difference of two orders plus the integrand in the outermost panel, relative to E |f|."""
    value, size, parts = _integral(f, variance, mean, edges, _ORDER)
    with torch.no_grad():
        _, _, others = _integral(f, variance, mean, edges, _CHECK)
        ends = edges[:, [0, -1]]
        tail = (evaluate(f, ends).abs() * density(ends, variance, mean)).sum(-1) * variance.sqrt()
        # panel by panel, since next to a pole the errors of two panels cancel although the integral does not exist
        gap = (parts - others).abs().sum(-1) + tail
        return value, gap / size.clamp(min=torch.finfo(torch.float64).tiny)


def evaluate(f: Elementwise, z: Tensor) -> Tensor:
    """Return f at float64 points, after a check that it is elementwise and finite."""
    values = real_values(f, z)
    if not bool(torch.isfinite(values).all()):
        where = float(z.detach()[~torch.isfinite(values)].abs().min())
        raise InputError(
            f"{name_of(f)} is not finite everywhere (nearest to 0 at |z| = {where:.3g}), so it has no Gaussian mean"
        )
    return values


def all_finite(x: Tensor) -> bool:
    """Return whether no entry is NaN or infinite, in one pass if the sum is finite."""
    return bool(torch.isfinite(x.detach().sum())) or bool(torch.isfinite(x).all())


def checked(**values: Scalar) -> list[Tensor]:
    """Return numbers as float64 tensors, after a check that they are real and finite and variances not negative."""
    for name, value in values.items():
        if not isinstance(value, int | float | Tensor) or (isinstance(value, Tensor) and value.is_complex()):
            given = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise InputError(f"{name} must be a real number or tensor, got {given}")
    tensors = [torch.as_tensor(value, dtype=torch.float64) for value in values.values()]  # not through float32
    for name, tensor in zip(values, tensors, strict=True):
        if not all_finite(tensor):
            raise InputError(f"{name} must be finite, got {tensor.detach().flatten()[:4].tolist()}")
        if name.startswith("variance") and bool((tensor < 0).any()):
            raise InputError(f"{name} must not be negative, got {float(tensor.detach().min())}")
    return tensors
