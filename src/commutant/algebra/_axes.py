"""Principal axes of point clouds, with gaps between variances, sign rules and exact gradients."""

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
"""Share of the variance below which the extent along a direction is only rounding error."""


@dataclass(frozen=True)
class Axes:
    """Principal axes of clouds, in the order of decreasing variance."""

    points: Float[Tensor, "..."]
    """Centered points in float64."""
    origin: Float[Tensor, "clouds d"]
    """Means of the clouds, or zeros."""
    values: Float[Tensor, "clouds d"]
    """Shares of the variance."""
    vectors: Float[Tensor, "clouds d d"]
    """Axes in columns."""
    open: Float[Tensor, "clouds d-1"]
    """Openness of the gap after each axis: 0 if both axes share one block, 1 if they are distinct."""
    gap: Float[Tensor, " clouds"]
    """Smallest gap between shares of the variance."""
    plus: Float[Tensor, "clouds d"]
    """Weight of the positive sign of each axis, 0.5 if both signs are taken."""
    margin: Float[Tensor, " clouds"]
    """Smallest statistic that chose a sign."""
    spread: Float[Tensor, " clouds"]
    """Root mean square distance from the origin."""


def principal_axes(
    clouds: Clouds, x: Tensor, centered: bool, signs: str, proper: bool, blend: tuple[float, float], directed: bool
) -> Axes:
    """Compute the principal axes of clouds; arguments as for `pca_frame`.

    Args:
        clouds: Layout of the points.
        x: Points.
        centered: Whether to subtract the mean.
        signs: Rule for signs.
        proper: Whether bases are right-handed.
        blend: Gaps between which axes change from merged to distinct.
        directed: Whether further directions give axes without extent a meaning.
    """
    clouds.check(x)
    points = clouds.here(clouds.flat(x)).double()
    count = clouds.count(points).clamp(min=torch.finfo(torch.float64).tiny)
    d = x.shape[-1]
    origin = points.new_zeros(clouds.number, d)
    if centered:
        # two steps, so that a large shift costs no digits
        origin = clouds.mean(points)
        origin = origin + clouds.mean(points - clouds.spread(origin))
    points = clouds.here(points - clouds.spread(origin))
    largest = clouds.largest(points.detach().abs().amax(-1))
    unit = torch.where(largest > 0, largest, 1.0)  # prevents overflow and underflow of squares
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
    if proper:  # the other axes determine the sign of the last
        vectors = right_handed(vectors)
    plus, margin = torch.full_like(values, 0.5), torch.ones_like(trace)
    if signs != "all":
        scores = points @ vectors if not clouds.ragged else (points[:, None] @ clouds.spread(vectors)).squeeze(1)
        statistic = _lopsided(clouds, scores, signs)
        # without this factor, the sign of an axis would leave a kink where its extent vanishes
        extent = (values / blend[1]).clamp(max=1)
        tells = statistic.sign() * slide(statistic.abs(), *blend) * extent * (2 - extent)
        # without extent both signs are taken, so that vectors restored along the axis cancel
        plus = torch.where(values.detach() <= NOTHING, 0.5, (1 + tells) / 2)
        judged = statistic.detach().abs()[:, : d - 1 if proper else d]
        judged = torch.where(values.detach()[:, : judged.shape[1]] <= NOTHING, 1.0, judged)
        margin = judged.amin(-1) if judged.shape[1] else margin
        if proper:
            plus = torch.cat([plus[:, :-1], torch.full_like(plus[:, -1:], 0.5)], -1)
    return Axes(points, origin, values, vectors, opened, gap, plus, margin, spread)


def vanishing(values: Float[Tensor, "clouds d"]) -> Bool[Tensor, "clouds gaps"]:
    """Return which gaps lie between directions without extent, where any basis gives the same coordinates."""
    return values[:, :-1] <= NOTHING


def slide(value: Tensor, low: float, high: float) -> Tensor:
    """Return 0 below `low`, 1 above `high`, and a smooth step between them."""
    t = ((value - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def right_handed(axes: Float[Tensor, "clouds d d"]) -> Float[Tensor, "clouds d d"]:
    """Return bases with the last vector negated where the determinant is negative."""
    hand = torch.where(torch.linalg.det(axes.detach()) < 0, -1.0, 1.0)
    return torch.cat([axes[..., :-1], axes[..., -1:] * hand[:, None, None]], -1)


def _lopsided(clouds: Clouds, h: Tensor, rule: str) -> Float[Tensor, "clouds d"]:
    """Return an odd statistic of the coordinates along each axis, invariant to scale and to the order of points."""
    if rule == "maxabs":
        ahead, behind = clouds.largest(h.clamp(min=0)), clouds.largest((-h).clamp(min=0))
        most = torch.maximum(ahead, behind)
        return (ahead - behind) / torch.where(most > 0, most, 1.0)
    square = clouds.mean(h.square())
    unit = h / clouds.spread(torch.where(square > 0, square, 1.0).sqrt())
    return clouds.mean(unit**3 if rule == "skew" else unit * unit.abs())


def spectrum(
    matrix: Float[Tensor, "*batch d d"], together: float = NOTHING
) -> tuple[Float[Tensor, "*batch d"], Float[Tensor, "*batch d d"]]:
    """Return eigenvalues and eigenvectors of symmetric matrices, largest first, with finite gradients.

    Where eigenvalues differ by less than `together`, the gradient omits rotations of their eigenvectors into each
    other. It is exact for every function that does not depend on the basis chosen by the solver.

    Args:
        matrix: Symmetric matrices, `(*batch, d, d)`.
        together: Difference of eigenvalues below which they count as equal.
    """
    if not isinstance(matrix, Tensor) or matrix.dim() < 2 or matrix.shape[-1] != matrix.shape[-2]:
        given = tuple(matrix.shape) if isinstance(matrix, Tensor) else type(matrix).__name__
        raise InputError(f"matrix must be symmetric of shape (..., d, d), got {given}")
    if exporting():  # an exported graph can't hold a custom gradient
        values, vectors = torch.linalg.eigh(matrix)
        return values.flip(-1), vectors.flip(-1)
    found: tuple[Tensor, Tensor] = _Spectrum.apply(matrix, together)
    return found


class _Spectrum(torch.autograd.Function):
    """Eigendecomposition, largest eigenvalue first, whose gradient omits rotations among equal eigenvalues.

    These terms are infinite for equal eigenvalues. They cancel in exact arithmetic if the result does not depend on the
    basis. The backward pass is differentiable, so that losses may contain forces.
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
