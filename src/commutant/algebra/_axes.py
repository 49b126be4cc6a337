"""The principal axes of clouds: how far apart their variances are, what their signs may be, and exact gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .._errors import InputError
from ._clouds import Clouds
from ._exporting import exporting

NOTHING = 1e-12
"""Share of the variance below which a direction has no extent but rounding."""


@dataclass(frozen=True)
class Axes:
    """The spectrum of clouds, largest first, with how open each gap is and how likely each sign."""

    points: Float[Tensor, "..."]  # centred, in float64
    origin: Float[Tensor, "clouds d"]
    values: Float[Tensor, "clouds d"]  # shares of the variance
    vectors: Float[Tensor, "clouds d d"]
    open: Float[Tensor, "clouds d-1"]
    gap: Float[Tensor, " clouds"]
    plus: Float[Tensor, "clouds d"]
    margin: Float[Tensor, " clouds"]
    spread: Float[Tensor, " clouds"]


def principal_axes(
    clouds: Clouds, x: Tensor, centred: bool, signs: str, proper: bool, blend: tuple[float, float], directed: bool
) -> Axes:
    clouds.check(x)
    points = clouds.here(clouds.flat(x)).double()
    count = clouds.count(points).clamp(min=torch.finfo(torch.float64).tiny)
    d = x.shape[-1]
    origin = points.new_zeros(clouds.number, d)
    if centred:
        # from near the mean on, so that a large shift does not cost digits
        origin = clouds.mean(points)
        origin = origin + clouds.mean(points - clouds.spread(origin))
    points = clouds.here(points - clouds.spread(origin))
    largest = clouds.largest(points.detach().abs().amax(-1))
    unit = torch.where(largest > 0, largest, 1.0)  # squares neither overflow nor vanish
    scaled = points / clouds.spread(unit)[..., None]
    covariance = clouds.gram(scaled) / count[:, None, None]
    trace = covariance.diagonal(dim1=-2, dim2=-1).sum(-1)
    share = covariance / torch.where(trace > 0, trace, 1.0)[:, None, None]
    values, vectors = spectrum(share, max(blend[0], NOTHING))
    spread = torch.where(trace > 0, torch.where(trace > 0, trace, 1.0).sqrt() * unit, 0.0)
    nothing = vanishing(values.detach()) if not directed else torch.zeros_like(values[:, :-1], dtype=torch.bool)
    apart = values[:, :-1] - values[:, 1:]
    opened = slide(apart, *blend)
    gap = torch.where(nothing, 1.0, apart.detach()).amin(-1) if d > 1 else torch.ones_like(trace)
    if proper:  # a right-handed basis; the last axis points where the others say
        vectors = right_handed(vectors)
    plus, margin = torch.full_like(values, 0.5), torch.ones_like(trace)
    if signs != "all":
        scores = points @ vectors if not clouds.ragged else (points[:, None] @ clouds.spread(vectors)).squeeze(1)
        statistic = _lopsided(clouds, scores, signs)
        # a sign that depends on the direction of an extent which vanishes would leave a kink
        extent = (values / blend[1]).clamp(max=1)
        tells = statistic.sign() * slide(statistic.abs(), *blend) * extent * (2 - extent)
        # where there is no extent the sign shows nothing, and vectors that are restored along it must cancel
        plus = torch.where(values.detach() <= NOTHING, 0.5, (1 + tells) / 2)
        judged = statistic.detach().abs()[:, : d - 1 if proper else d]
        judged = torch.where(values.detach()[:, : judged.shape[1]] <= NOTHING, 1.0, judged)
        margin = judged.amin(-1) if judged.shape[1] else margin
        if proper:
            plus = torch.cat([plus[:, :-1], torch.full_like(plus[:, -1:], 0.5)], -1)
    return Axes(points, origin, values, vectors, opened, gap, plus, margin, spread)


def vanishing(values: Float[Tensor, "clouds d"]) -> Bool[Tensor, "clouds gaps"]:
    """Gaps between directions in which a cloud has no extent: any basis shows the same points."""
    return values[:, :-1] <= NOTHING


def slide(value: Tensor, low: float, high: float) -> Tensor:
    """Return 0 up to `low`, 1 from `high` on, and a smooth step between."""
    t = ((value - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def right_handed(axes: Float[Tensor, "clouds d d"]) -> Float[Tensor, "clouds d d"]:
    """Bases with the last vector turned where the determinant is negative."""
    hand = torch.where(torch.linalg.det(axes.detach()) < 0, -1.0, 1.0)
    return torch.cat([axes[..., :-1], axes[..., -1:] * hand[:, None, None]], -1)


def _lopsided(clouds: Clouds, h: Tensor, rule: str) -> Float[Tensor, "clouds d"]:
    """An odd statistic of the coordinates along each axis, free of scale and of the order of points."""
    if rule == "maxabs":
        ahead, behind = clouds.largest(h.clamp(min=0)), clouds.largest((-h).clamp(min=0))
        most = torch.maximum(ahead, behind)
        return (ahead - behind) / torch.where(most > 0, most, 1.0)
    square = clouds.mean(h.square())
    unit = h / clouds.spread(torch.where(square > 0, square, 1.0).sqrt())
    if rule == "skew":
        return clouds.mean(unit**3)
    if rule == "softskew":
        return clouds.mean(unit * unit.abs())
    raise InputError(f"signs must be all, skew, softskew or maxabs, got {rule!r}")


def spectrum(
    matrix: Float[Tensor, "*batch d d"], together: float = NOTHING
) -> tuple[Float[Tensor, "*batch d"], Float[Tensor, "*batch d d"]]:
    """Eigenvalues and eigenvectors of symmetric matrices, largest first, with gradients that stay finite.

    Where eigenvalues differ by less than `together`, the gradient leaves out how the vectors turn into each other:
    exact for everything that does not depend on the basis which the solver happened to choose there.
    """
    if not isinstance(matrix, Tensor) or matrix.dim() < 2 or matrix.shape[-1] != matrix.shape[-2]:
        given = tuple(matrix.shape) if isinstance(matrix, Tensor) else type(matrix).__name__
        raise InputError(f"symmetric matrices (..., d, d) are needed, got {given}")
    if exporting():  # an exported graph has no gradient of its own
        values, vectors = torch.linalg.eigh(matrix)
        return values.flip(-1), vectors.flip(-1)
    found: tuple[Tensor, Tensor] = _Spectrum.apply(matrix, together)
    return found


class _Spectrum(torch.autograd.Function):
    """Eigenvalues and eigenvectors, largest first, whose gradient leaves out turns within a closed block.

    What is made of them does not depend on the basis of a block, so those terms, which are infinite where eigenvalues
    are equal, cancel in exact arithmetic. The backward is made of differentiable operations: forces can be trained on.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(matrix: Tensor, together: float) -> tuple[Tensor, Tensor]:
        values, vectors = torch.linalg.eigh(matrix)
        return values.flip(-1).contiguous(), vectors.flip(-1).contiguous()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(*output)
        ctx.together = inputs[1]

    @staticmethod
    def backward(ctx: Any, values_grad: Tensor, vectors_grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        values, vectors = ctx.saved_tensors
        apart = values[..., None, :] - values[..., :, None]
        far = apart.detach().abs() > ctx.together
        factor = torch.where(far, 1 / torch.where(far, apart, 1.0), 0.0)
        inner = factor * (vectors.mT @ vectors_grad) + torch.diag_embed(values_grad)
        found = vectors @ inner @ vectors.mT
        return (found + found.mT) / 2, None
