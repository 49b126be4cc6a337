"""Transformation-invariant coordinates from multidimensional scaling with fixed signs, as input for any network.

The coordinates preserve all distances and do not change when the points move, so only the pose is lost. Any network
that reads them is invariant. Zhang et al., "Revisiting Transformation Invariant Geometric Deep Learning: Are Initial
Representations All You Need?", 2021 (TinvNN). The rule for the signs is ours.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from .._checks import one_of, whole
from .._errors import InputError
from ..algebra import Frame, pca_frame, spectrum
from ..laws import Equivariance, Euclidean, Invariance, Rotation, Scaling, SetPermutation, breaks, obeys
from ._arguments import floats_given
from ._frame_average import FrameAverage
from ._law_cases import SINGLE_PRECISION, clear_clouds, point_layers

_CLEAR = 1e-2  # gaps and sign statistics below this may make coordinates jump
_SIMILARITIES = Scaling(3) * Euclidean(3)


class Embedding(NamedTuple):
    """Coordinates from distances, and the eigenvalues of the centered Gram matrix."""

    coordinates: Float[Tensor, "*batch n components"]
    """Coordinates of the points, largest variance first."""
    values: Float[Tensor, "*batch n"]
    """All eigenvalues, largest first."""
    negative: Float[Tensor, "*batch"]
    """Share of negative eigenvalues in the sum of absolute values; zero for distances between points."""


def classical_mds(squared: Shaped[Tensor, "*batch n n"], components: int) -> Embedding:
    """Return points with the given distances, by classical multidimensional scaling.

    The coordinates are the leading eigenvectors of `-J D^2 J / 2`. Their signs, and their basis where eigenvalues are
    equal, are arbitrary; `MDSCoordinates` fixes the signs.

    Args:
        squared: Squared distances, symmetric with a zero diagonal, `(..., n, n)`.
        components: Number of coordinates of a point.

    Raises:
        InputError: If the matrix is not square or not symmetric, or its entries are negative or not finite.

    Example:
        >>> x = torch.randn(6, 3, dtype=torch.float64)
        >>> found = classical_mds(torch.cdist(x, x).square(), 3)
        >>> bool(torch.allclose(torch.cdist(found.coordinates, found.coordinates), torch.cdist(x, x)))
        True
    """
    if not isinstance(squared, Tensor) or squared.is_complex():
        kind = squared.dtype if isinstance(squared, Tensor) else type(squared).__name__
        raise InputError(f"squared distances must be a tensor of real numbers, got {kind}")
    if squared.dim() < 2 or squared.shape[-2] != squared.shape[-1]:
        raise InputError(f"squared distances must be (..., n, n), got {tuple(squared.shape)}")
    whole("components", components)
    n, dtype = squared.shape[-1], squared.dtype if squared.is_floating_point() else torch.get_default_dtype()
    wide = squared.double()
    if not bool(wide.isfinite().all()):
        raise InputError("squared distances must be finite, got NaN or infinities")
    if n:
        # rounding of single precision, also on the diagonal
        noise = (1e-4 if dtype != torch.float64 else 1e-9) * wide.detach().abs().amax((-2, -1))
        wrong = {
            "symmetric": (wide - wide.mT).detach().abs().amax((-2, -1)) > noise,
            "zero on the diagonal": wide.detach().diagonal(dim1=-2, dim2=-1).abs().amax(-1) > noise,
            "not negative": -wide.detach().amin((-2, -1)) > noise,
        }
        if odd := [what for what, where in wrong.items() if bool(where.any())]:
            raise InputError(f"squared distances must be {odd[0]}; for points, use from_distances=False")
    wide = (wide + wide.mT) / 2
    means = wide.mean(-1, keepdim=True)
    gram = -(wide - means - means.mT + means.mean(-2, keepdim=True)) / 2
    size = gram.detach().diagonal(dim1=-2, dim2=-1).abs().sum(-1)
    size = torch.where(size > 0, size, 1.0)[..., None]
    values, vectors = spectrum((gram + gram.mT) / 2 / size[..., None])
    values = values * size
    kept = min(components, n)
    # the square root has no gradient at zero: directions without extent stay at zero
    there = values[..., :kept] > 1e-12 * values[..., :1].clamp(min=0)
    lengths = torch.where(there, values[..., :kept].clamp(min=1e-300), 1.0).sqrt()
    found = vectors[..., :kept] * torch.where(there, lengths, 0.0).unsqueeze(-2)
    found = torch.cat([found, found.new_zeros(*found.shape[:-1], components - kept)], -1)
    total = values.abs().sum(-1)
    below = (-values).clamp(min=0).sum(-1) / torch.where(total > 0, total, 1.0)
    return Embedding(found.to(dtype), values, below)


def landmark_mds(
    between: Float[Tensor, "landmarks landmarks"], towards: Float[Tensor, "points landmarks"], components: int
) -> Float[Tensor, "points components"]:
    """Return coordinates of many points from their distances to a few landmarks (de Silva and Tenenbaum, 2004).

    The result is exact, up to an isometry, for points in the span of the landmarks. The cost is linear in the number
    of points.

    Args:
        between: Squared distances among the landmarks, `(landmarks, landmarks)`.
        towards: Squared distances from every point to each landmark, `(points, landmarks)`.
        components: Number of coordinates, at most the dimension that the landmarks span.

    Raises:
        InputError: If `classical_mds` rejects `between`, shapes do not match, or the landmarks span too few dimensions.
    """
    floats_given("between", between, 2)
    floats_given("towards", towards)
    whole("components", components)
    m = between.shape[-1]
    if not bool(towards.isfinite().all()) or (towards.numel() and float(towards.detach().min()) < 0):
        raise InputError("squared distances must be finite and non-negative")
    if towards.dim() != 2 or towards.shape[1] != m:
        raise InputError(f"towards must be (points, {m}), one distance per landmark, got {tuple(towards.shape)}")
    base = classical_mds(between, components)
    values = base.values[:components]
    if m <= components or float(values.detach().min()) <= 1e-9 * float(base.values.detach()[0]):
        raise InputError(f"{m} landmarks do not span {components} dimensions; pass more landmarks or fewer components")
    shares = base.coordinates.double() / values
    return (-(towards.double() - between.double().mean(0)) @ shares / 2).to(towards.dtype)


@obeys(
    "invariance under similarities",
    lambda draw: clear_clouds(MDSCoordinates, draw, Invariance(_SIMILARITIES)),
    tolerance=SINGLE_PRECISION,
)
@obeys(
    "equivariance under permutations",
    lambda draw: clear_clouds(MDSCoordinates, draw, Equivariance(SetPermutation(1))),
    tolerance=SINGLE_PRECISION,
)
@breaks(
    "invariance without a rule",
    lambda draw: clear_clouds(lambda: MDSCoordinates(signs=None), draw, Invariance(Rotation(3))),
)
class MDSCoordinates(nn.Module):
    """Coordinates of points that preserve distances and are invariant under rotation, translation and scaling.

    They are the scores of the points along their principal axes, which are the coordinates of classical
    multidimensional scaling. A rule fixes the direction of each axis. The module has no parameters. Put it in front of
    a network, or wrap the network in `TransformInvariant`, which also handles clouds with ambiguous signs.

    Args:
        components: Number of coordinates kept, largest variance first; all by default. Required with `from_distances`.
        signs: Rule for the signs of the axes: `"maxabs"` (the largest entry is positive), `"skew"` (the third moment is
            positive), `"softskew"` (`sum h|h|` is positive), `"random"` (drawn in each call), or None (arbitrary, not
            invariant).
        scale: Size by which a cloud is divided: the root mean square (`"rms"`) or the largest (`"max"`) distance from
            the mean, or None.
        group: Group, `"O"` to identify mirror images or `"SO"` to distinguish them.
        from_distances: Whether the input is a matrix of squared distances instead of points.
        on_degenerate: Treatment of clouds whose axes or signs are ambiguous, such as symmetric ones: `"warn"`,
            `"error"` or `"ignore"`.

    Shapes:
        `(*lead, n, d)` to `(*lead, n, components)`; or `(points, d)` with `batch` to `(points, components)`.

    Example:
        >>> x = torch.tensor([[0.0, 0, 0], [5, 0, 0], [0, 3, 0], [0, 0, 1]])
        >>> bool(torch.allclose(MDSCoordinates()(x), MDSCoordinates()(3 - 2 * x), atol=1e-6))
        True
    """

    def __init__(
        self,
        components: int | None = None,
        signs: Literal["maxabs", "skew", "softskew", "random"] | None = "maxabs",
        scale: Literal["rms", "max"] | None = "rms",
        group: Literal["O", "SO"] = "O",
        *,
        from_distances: bool = False,
        on_degenerate: Literal["warn", "error", "ignore"] = "warn",
    ) -> None:
        super().__init__()
        if components is not None:
            whole("components", components)
        if from_distances and components is None:
            raise InputError("from_distances needs components, the number of coordinates, got None")
        one_of("signs", signs, ("maxabs", "skew", "softskew", "random", None))
        one_of("scale", scale, ("rms", "max", None))
        one_of("group", group, ("O", "SO"))
        one_of("on_degenerate", on_degenerate, ("warn", "error", "ignore"))
        self.components, self.signs, self.scale, self.group = components, signs, scale, group
        self.from_distances, self.on_degenerate = from_distances, on_degenerate

    def forward(
        self,
        x: Float[Tensor, "*lead n d"],
        batch: Int[Tensor, " n"] | None = None,
        mask: Shaped[Tensor, "*lead n"] | None = None,
    ) -> Float[Tensor, "*lead n components"]:
        """Return the coordinates.

        Args:
            x: Points, `(*lead, n, d)`; or squared distances, `(*lead, n, n)`, with `from_distances`.
            batch: Index of the cloud of each point, `(n,)`.
            mask: True for valid points, `(*lead, n)`.
        """
        return self.with_frame(x, batch, mask)[0]

    def with_frame(
        self,
        x: Float[Tensor, "*lead n d"],
        batch: Int[Tensor, " n"] | None = None,
        mask: Shaped[Tensor, "*lead n"] | None = None,
    ) -> tuple[Float[Tensor, "*lead n components"], Frame]:
        """Return the coordinates and the pose: `frame.restore` maps outputs back to where the points were.

        Args:
            x: Points, `(*lead, n, d)`; or squared distances, `(*lead, n, n)`, with `from_distances`.
            batch: Index of the cloud of each point, `(n,)`.
            mask: True for valid points, `(*lead, n)`.
        """
        if self.from_distances:
            if batch is not None or mask is not None:
                raise InputError("batch and mask do not apply to distances; pass distances as (*lead, n, n)")
            assert self.components is not None
            x = classical_mds(x, self.components).coordinates
        elif self.components is not None and self.components > x.shape[-1]:
            raise InputError(f"components must be at most {x.shape[-1]} for these points, got {self.components}")
        ruled = self.signs in ("maxabs", "skew", "softskew")
        frame = pca_frame(
            x,
            "SE" if self.group == "SO" else "E",
            batch=batch,
            mask=mask,
            signs=self.signs if ruled else "all",  # type: ignore[arg-type]
            scale=self.scale,
        )
        if self.on_degenerate != "ignore":
            self._refuse_or_warn(frame.gap, frame.margin if ruled else torch.ones_like(frame.gap))
        frame = frame.sample(1) if self.signs == "random" else frame.best()
        found = frame.pool(frame.canonicalize(x), per_cloud=False)
        return found[..., : self.components], frame

    def _refuse_or_warn(self, gap: Tensor, margin: Tensor) -> None:
        doubtful = torch.minimum(gap, margin) < _CLEAR
        if not bool(doubtful.any()):
            return
        first = int(doubtful.nonzero()[0])
        text = (
            f"axes or signs are ambiguous for {int(doubtful.sum())} of {len(doubtful)} clouds, first cloud {first} "
            f"(gap {float(gap[first]):.2g}, sign {float(margin[first]):.2g}): their coordinates may jump; "
            "TransformInvariant averages over such axes"
        )
        if self.on_degenerate == "error":
            raise InputError(text)
        warnings.warn(text, stacklevel=4)

    def extra_repr(self) -> str:
        return f"components={self.components}, signs={self.signs}, scale={self.scale}, group={self.group}"


@obeys(
    "invariance under similarities",
    lambda draw: clear_clouds(RoutingCoordinates, draw, Invariance(_SIMILARITIES)),
    tolerance=SINGLE_PRECISION,
)
class RoutingCoordinates(MDSCoordinates):
    """Invariant coordinates of routing problems in the unit square, for a solver trained on it.

    Tours depend only on distances. `nn.Sequential(RoutingCoordinates(), solver)` gives the same tour when an instance
    is rotated, mirrored, moved or scaled.

    Args:
        signs: Rule for the signs of the axes, as for `MDSCoordinates`.
        on_degenerate: Treatment of clouds whose axes or signs are ambiguous, as for `MDSCoordinates`.

    Shapes:
        `(*lead, n, 2)` to `(*lead, n, 2)` with entries in [0, 1].
    """

    def __init__(self, signs: Literal["maxabs", "skew", "softskew"] = "maxabs", *, on_degenerate: Any = "warn") -> None:
        one_of("signs", signs, ("maxabs", "skew", "softskew"))
        super().__init__(None, signs, "rms", on_degenerate=on_degenerate)

    def forward(
        self,
        x: Float[Tensor, "*lead n d"],
        batch: Int[Tensor, " n"] | None = None,
        mask: Shaped[Tensor, "*lead n"] | None = None,
    ) -> Float[Tensor, "*lead n components"]:
        """Return the coordinates, scaled so that the largest touches the boundary of the square.

        Args:
            x: Points, `(*lead, n, 2)`.
            batch: Index of the instance of each point, `(n,)`.
            mask: True for valid points, `(*lead, n)`.
        """
        found, frame = self.with_frame(x, batch, mask)
        clouds = frame.clouds
        size = clouds.largest(clouds.flat(found).abs().amax(-1))
        size = clouds.spread(torch.where(size > 0, size, 1.0))[..., None]
        return (clouds.flat(found) / size / 2 + 0.5).reshape(found.shape)


@obeys(
    "invariance under similarities",
    lambda draw: clear_clouds(lambda: TransformInvariant(point_layers(4)), draw, Invariance(_SIMILARITIES)),
    tolerance=SINGLE_PRECISION,
)
class TransformInvariant(FrameAverage):
    """Point network made invariant under rotation, reflection, translation and scaling, usually with one evaluation.

    It is a `FrameAverage` with a rule for the signs. It averages only over axes whose sign the rule cannot determine,
    which is nearly always none. All arguments of a kind that rotates are rotated with the points.

    Args:
        net: Network on points, as for `FrameAverage`.
        group: Group, `"E(d)"` to identify mirror images or `"SE(d)"` to distinguish them.
        signs: Rule for the signs of the axes, as for `MDSCoordinates`.
        scale: Size by which a cloud is divided, as for `MDSCoordinates`.
        inputs: Kinds of the network's arguments, as for `FrameAverage`.
        outputs: Kinds of the network's outputs, as for `FrameAverage`.

    Example:
        >>> model = TransformInvariant(nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)), "SE(3)")
        >>> model(torch.randn(4, 20, 3)).shape
        torch.Size([4, 20, 2])
    """

    def __init__(
        self,
        net: nn.Module,
        group: str = "E(3)",
        *,
        signs: Literal["maxabs", "skew", "softskew"] = "maxabs",
        scale: Literal["rms", "max"] | None = "rms",
        inputs: str | Mapping[str, str] | None = None,
        outputs: str | Mapping[Any, str] = "scalars",
    ) -> None:
        if not str(group).startswith(("E(", "SE(")):
            raise InputError(f"group must be E(d) or SE(d) for a number d, got {group!r}")
        super().__init__(net, group, inputs=inputs, outputs=outputs, signs=signs, scale=scale)


@obeys(
    "equivariance under similarities",
    lambda draw: clear_clouds(lambda: TransformEquivariant(point_layers(3)), draw, Equivariance(_SIMILARITIES)),
    tolerance=SINGLE_PRECISION,
)
class TransformEquivariant(TransformInvariant):
    """Point network made equivariant under rotation, reflection, translation and scaling.

    It is a `TransformInvariant` whose outputs move with the input.

    Args:
        net: Network on points, as for `FrameAverage`.
        group: Group, `"E(d)"` to identify mirror images or `"SE(d)"` to distinguish them.
        signs: Rule for the signs of the axes, as for `MDSCoordinates`.
        scale: Size by which a cloud is divided, as for `MDSCoordinates`.
        inputs: Kinds of the network's arguments, as for `FrameAverage`.
        outputs: Kind of the outputs: `"points"`, `"displacements"` (these two scale with the cloud), or any other.
    """

    def __init__(
        self,
        net: nn.Module,
        group: str = "E(3)",
        *,
        signs: Literal["maxabs", "skew", "softskew"] = "maxabs",
        scale: Literal["rms", "max"] | None = "rms",
        inputs: str | Mapping[str, str] | None = None,
        outputs: str | Mapping[Any, str] = "points",
    ) -> None:
        super().__init__(net, group, signs=signs, scale=scale, inputs=inputs, outputs=outputs)
