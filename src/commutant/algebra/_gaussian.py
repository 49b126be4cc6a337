"""Expectations over a Gaussian variable, certified: Gauss-Legendre rules on panels that resolve kinks and scales."""

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

RADIUS = 12.0  # standard deviations that are integrated: the mass beyond is 4e-33
_CHUNK = 1 << 22  # values of a function held at once
_ORDER, _CHECK = 20, 12  # nodes of a panel, for the value and for its check
_SPLITS = (1, 4, 16)  # panels are cut into so many until the two orders agree


def gaussian_expectation(
    f: Elementwise,
    variance: Scalar,
    mean: Scalar = 0.0,
    *,
    kinks: Iterable[float] | None = None,
    tolerance: float = 1e-10,
) -> Float[Tensor, "..."]:
    """$E f(z)$ over $z \\sim N(m, v)$, in float64, for any elementwise function of a real number.

    The line is cut into panels at the kinks of f, at multiples of the standard deviation and at powers of two (so
    that tanh is resolved at variance 1e-8 and at 1e8 alike), with a Gauss-Legendre rule in each. Two orders are
    compared; panels are cut finer until they agree, and it is an error if they never do. f is taken at fixed points
    and the *density* is differentiated, so gradients by v and m are those of
    $\\partial_v E f = E f (z^2 - v)/2v^2$ (Stein, Price), right for functions that have no derivative, too.

    Args:
        f: elementwise; its parameters get gradients as well.
        variance: at least zero; at zero the value is f(m) and its derivative by the variance is f''(m) / 2, the mean
            of both sides where f'' jumps. Where f or f' jumps, the derivative is infinite and 0 is given.
        mean: broadcast with the variance.
        kinks: where f or a derivative jumps; by default looked for (or taken from f where it states them). What is
            narrower than 1e-4, or than the nodes outside [-20, 20], must be stated: no rule sees it.
        tolerance: error allowed, relative to $E |f|$.

    Returns:
        the shape of variance and mean broadcast, float64.

    Raises:
        InputError: for a negative or non-finite variance, a function with values that are not finite, or one whose
            integral does not converge.

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
        with torch.no_grad():
            errors = [_disagreement(f, *part, edges) for part, edges in zip(parts, cut, strict=True)]
        error = max(float(part.max()) for part in errors)
        if error <= tolerance:
            values = [_integral(f, *part, edges, _ORDER)[0] for part, edges in zip(parts, cut, strict=True)]
            return (torch.cat(values) + _bend_at_zero(f, v, m, points)).reshape(shape)
    raise InputError(
        f"the Gaussian expectation of {name_of(f)} does not converge: two orders of quadrature differ by {error:.1e} "
        f"of E|f|, where {tolerance:.0e} is allowed; it grows too fast, or jumps where no kink was found or given"
    )


def _bend_at_zero(f: Elementwise, variance: Tensor, mean: Tensor, kinks: tuple[float, ...]) -> Tensor | float:
    """Zero, with the derivative $f''(m) / 2$ by a variance of zero."""
    zero = variance.detach() == 0
    if not variance.requires_grad or not bool(zero.any()):
        return 0.0
    return torch.where(zero, mean_bend(f, mean.detach(), kinks) / 2 * (variance - variance.detach()), 0.0)


def kinks_of(f: Elementwise) -> tuple[float, ...]:
    """Where f or its first two derivatives jump: what f states, or else what is found."""
    stated = getattr(f, "kinks", None)
    return tuple(stated) if isinstance(stated, tuple) else find_kinks(f)


def stated_kinks(kinks: Iterable[float]) -> tuple[float, ...]:
    """Kinks as a user states them, checked."""
    given = tuple(kinks)
    if not all(isinstance(k, int | float) and math.isfinite(k) for k in given):
        raise InputError(f"kinks must be finite numbers, got {given[:4]}")
    return tuple(float(k) for k in given)


def gauss_legendre(order: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes in [-1, 1] and weights that sum to 2, both `(order,)`, on the device of `like`."""
    nodes, weights = _legendre(order)
    return torch.from_numpy(nodes).to(like.device), torch.from_numpy(weights).to(like.device)


@lru_cache(maxsize=8)
def _legendre(order: int) -> tuple[np.ndarray, np.ndarray]:
    nodes, weights = np.polynomial.legendre.leggauss(order)
    return nodes, weights


def powers_of_two(widest: float) -> list[float]:
    """Powers of two of both signs, up to what is integrated, where a function of its own scale may turn."""
    top = max(0, math.ceil(math.log2(max(widest, 1.0))))
    powers = [2.0**power for power in range(-2, top + 1)]
    return [-power for power in reversed(powers)] + [0.0] + powers


def panel_edges(mean: Tensor, sigma: Tensor, points: Tensor, splits: int = 1, extra: Sequence[Tensor] = ()) -> Tensor:
    """Borders of panels `(batch, panels + 1)`: multiples of sigma and given points, each panel cut into `splits`."""
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
    """Nodes and weights `(batch, panels * order)` of a Gauss-Legendre rule in every panel."""
    nodes, weights = gauss_legendre(order, edges)
    middle, half = (edges[:, 1:] + edges[:, :-1]) / 2, edges.diff(dim=-1) / 2
    return (middle[..., None] + half[..., None] * nodes).flatten(1), (half[..., None] * weights).flatten(1)


def density(z: Tensor, variance: Tensor, mean: Tensor) -> Tensor:
    """The Gaussian density at `(batch, nodes)`, and zero for a variance of zero."""
    v, m = variance[:, None], mean[:, None]
    safe = torch.where(v > 0, v, 1.0)
    return torch.where(v > 0, torch.exp(-0.5 * (z - m).square() / safe) * torch.rsqrt(2 * torch.pi * safe), 0.0)


def checked_pair(variance_u: Scalar, variance_v: Scalar, covariance: Scalar) -> list[Tensor]:
    """Two variances and their covariance, checked to be those of some pair."""
    tensors = checked(variance_u=variance_u, variance_v=variance_v, covariance=covariance)
    u, v, c = (t.detach() for t in tensors)
    try:
        # Squared, which spares a root: where squares leave the range of float64 more is let through.
        impossible = c.square() > u * (1 + 2e-6) * v
    except RuntimeError as error:
        shapes = ", ".join(str(tuple(t.shape)) for t in tensors)
        raise InputError(f"two variances and a covariance must broadcast, got {shapes}") from error
    if bool(impossible.any()):
        raise InputError("no pair of Gaussians has a covariance above the geometric mean of its two variances")
    return tensors


def geometric_mean(u: Tensor, v: Tensor) -> Tensor:
    """$\\sqrt{u v}$: u itself to the last bit where the two are equal, and in range where their product is not."""
    product = u * v
    sides = [t.detach().abs() for t in (u, v) if t.numel()]
    if len(sides) == 2 and all(float(t.min()) > 1e-140 and float(t.max()) < 1e140 for t in sides):
        return product.sqrt()
    plain = (product > 1e-280) & (product < 1e280)
    return torch.where(plain, torch.where(plain, product, 1.0).sqrt(), u.sqrt() * v.sqrt())


def _integral(
    f: Elementwise, variance: Tensor, mean: Tensor, edges: Tensor, order: int
) -> tuple[Tensor, Tensor, Tensor]:
    """E f and E |f|, `(batch,)` each, and the part of each panel `(batch, panels)`.

    f at the mean is taken off first: less cancels where the variance is small.
    """
    z, weights = panel_nodes(edges, order)
    values = evaluate(f, z)
    centre = evaluate(f, torch.where(variance > 0, mean.detach(), mean))  # a constant, but where it is the value
    mass = weights * density(z, variance, mean)
    size = (values.abs() * mass).sum(-1)
    # near a singularity the mean is no typical value, and would cancel every digit
    centre = torch.where((variance > 0) & (centre.abs() > 2 * size), 0.0, centre)
    parts = ((values - centre.detach()[:, None]) * mass).unflatten(-1, (-1, order)).sum(-1)
    return centre + parts.sum(-1), torch.where(variance > 0, size, centre.abs()), parts


def _disagreement(f: Elementwise, variance: Tensor, mean: Tensor, edges: Tensor) -> Tensor:
    """How far two orders differ, and what the outermost standard deviation still holds, relative to E |f|."""
    _, size, parts = _integral(f, variance, mean, edges, _ORDER)
    _, _, others = _integral(f, variance, mean, edges, _CHECK)
    ends = edges[:, [0, -1]]
    tail = (evaluate(f, ends).abs() * density(ends, variance, mean)).sum(-1) * variance.sqrt()
    # Panel by panel: beside a pole the errors of two panels cancel, and the integral does not exist.
    return ((parts - others).abs().sum(-1) + tail) / size.clamp(min=torch.finfo(torch.float64).tiny)


def evaluate(f: Elementwise, z: Tensor) -> Tensor:
    """f at float64 points, checked: elementwise, and finite."""
    values = real_values(f, z)
    if not bool(torch.isfinite(values).all()):
        where = float(z.detach()[~torch.isfinite(values)].abs().min())
        raise InputError(
            f"{name_of(f)} is not finite everywhere (nearest to 0 at |z| = {where:.3g}), which no mean allows"
        )
    return values


def all_finite(x: Tensor) -> bool:
    """Whether no entry is NaN or infinite, most often in one pass: a finite sum has finite terms."""
    return bool(torch.isfinite(x.detach().sum())) or bool(torch.isfinite(x).all())


def checked(**values: Scalar) -> list[Tensor]:
    # With its dtype from the start: a Python number would pass through float32.
    for name, value in values.items():
        if not isinstance(value, int | float | Tensor) or (isinstance(value, Tensor) and value.is_complex()):
            given = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise InputError(f"{name} must be a real number or tensor, got {given}")
    tensors = [torch.as_tensor(value, dtype=torch.float64) for value in values.values()]
    for name, tensor in zip(values, tensors, strict=True):
        if not all_finite(tensor):
            raise InputError(f"{name} must be finite, got {tensor.detach().flatten()[:4].tolist()}")
        if name.startswith("variance") and bool((tensor < 0).any()):
            raise InputError(f"{name} must not be negative, got {float(tensor.detach().min())}")
    return tensors
