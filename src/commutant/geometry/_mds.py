"""Transformation-invariant coordinates: multidimensional scaling with its signs fixed, in front of any network.

Points that are replaced by coordinates which keep all their distances and do not change when the points move lose
nothing but the pose; whatever network reads them is invariant. Zhang et al., "Revisiting Transformation Invariant
Geometric Deep Learning: Are Initial Representations All You Need?", 2021 (TinvNN). The rule for the signs is ours.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from .._errors import InputError
from ..algebra import Frame, pca_frame, spectrum
from ..laws import Draw, Equivariance, Euclidean, Invariance, Law, Rotation, Scaling, SetPermutation, breaks, obeys
from ._arguments import floats_given, whole_given
from ._frame_average import FrameAverage

_CLEAR = 1e-2  # of gaps and of the statistic of a sign: below, coordinates may jump
_SINGLE = {torch.float32: 1e-2}


class Embedding(NamedTuple):
    """Coordinates from distances, all eigenvalues of the centred Gram matrix, and what no coordinates can show."""

    coordinates: Float[Tensor, "*batch n dim"]
    values: Float[Tensor, "*batch n"]
    negative: Float[Tensor, "*batch"]
    """Share of negative eigenvalues in the sum of all sizes; zero for distances between points."""


def classical_mds(squared: Shaped[Tensor, "*batch n n"], dim: int) -> Embedding:
    """Points whose distances are nearest to given ones: the leading eigenvectors of `-J D^2 J / 2`.

    Signs and, where eigenvalues are equal, bases are as the eigensolver leaves them: see `MDSCoordinates`.

    Args:
        squared: squared distances, symmetric, zero on the diagonal.
        dim: of the points.

    Raises:
        InputError: not square, not symmetric, negative or not finite.

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
    whole_given("dim", dim)
    n, dtype = squared.shape[-1], squared.dtype if squared.is_floating_point() else torch.get_default_dtype()
    wide = squared.double()
    if not bool(wide.isfinite().all()):
        raise InputError("squared distances must be finite, got NaN or infinities")
    if n:
        # single precision leaves noise of this size, also on the diagonal
        noise = (1e-4 if dtype != torch.float64 else 1e-9) * wide.detach().abs().amax((-2, -1))
        wrong = {
            "symmetric": (wide - wide.mT).detach().abs().amax((-2, -1)) > noise,
            "zero on the diagonal": wide.detach().diagonal(dim1=-2, dim2=-1).abs().amax(-1) > noise,
            "not negative": -wide.detach().amin((-2, -1)) > noise,
        }
        if odd := [what for what, where in wrong.items() if bool(where.any())]:
            raise InputError(f"squared distances must be {odd[0]}; from points, take MDSCoordinates without distances")
    wide = (wide + wide.mT) / 2
    means = wide.mean(-1, keepdim=True)
    gram = -(wide - means - means.mT + means.mean(-2, keepdim=True)) / 2
    size = gram.detach().diagonal(dim1=-2, dim2=-1).abs().sum(-1)
    size = torch.where(size > 0, size, 1.0)[..., None]
    values, vectors = spectrum((gram + gram.mT) / 2 / size[..., None])
    values = values * size
    kept = min(dim, n)
    # the root of nothing has no slope: directions without extent stay at zero
    there = values[..., :kept] > 1e-12 * values[..., :1].clamp(min=0)
    lengths = torch.where(there, values[..., :kept].clamp(min=1e-300), 1.0).sqrt()
    found = vectors[..., :kept] * torch.where(there, lengths, 0.0).unsqueeze(-2)
    found = torch.cat([found, found.new_zeros(*found.shape[:-1], dim - kept)], -1)
    total = values.abs().sum(-1)
    below = (-values).clamp(min=0).sum(-1) / torch.where(total > 0, total, 1.0)
    return Embedding(found.to(dtype), values, below)


def landmark_mds(
    between: Float[Tensor, "landmarks landmarks"], towards: Float[Tensor, "points landmarks"], dim: int
) -> Float[Tensor, "points dim"]:
    """Coordinates of many points from their distances to a few landmarks (de Silva and Tenenbaum, 2004).

    Exact, up to a motion, for distances between points that the landmarks span; linear in the number of points.

    Args:
        between: squared distances among the landmarks.
        towards: squared distances from every point to each landmark.
        dim: of the coordinates, at most the dimension that the landmarks span.

    Raises:
        InputError: as `classical_mds`, shapes that do not fit, or landmarks that span less than `dim` dimensions.
    """
    floats_given("between", between, 2)
    floats_given("towards", towards)
    whole_given("dim", dim)
    m = between.shape[-1]
    if not bool(towards.isfinite().all()) or (towards.numel() and float(towards.detach().min()) < 0):
        raise InputError("squared distances must be finite and not negative")
    if towards.dim() != 2 or towards.shape[1] != m:
        raise InputError(f"towards must be (points, {m}), one distance for each landmark, got {tuple(towards.shape)}")
    base = classical_mds(between, dim)
    values = base.values[:dim]
    if m <= dim or float(values.detach().min()) <= 1e-9 * float(base.values.detach()[0]):
        raise InputError(f"{m} landmarks do not span {dim} dimensions")
    shares = base.coordinates.double() / values
    return (-(towards.double() - between.double().mean(0)) @ shares / 2).to(towards.dtype)


def _of_clear_clouds(law: Law, make: Callable[[], Any]):  # type: ignore[no-untyped-def]
    """A law on clouds for which the rule can tell."""

    def case(draw: Draw):  # type: ignore[no-untyped-def]
        def points(generator: torch.Generator) -> Tensor:
            while True:
                x = torch.randn(2, draw.size + 8, 3, generator=generator, dtype=torch.float64).exp().to(draw.dtype)
                frame = pca_frame(x, signs="maxabs")
                if float(torch.minimum(frame.gap, frame.margin).min()) > 2 * _CLEAR:
                    return x

        return law, draw.module(make), points

    return case


_SIMILARITIES = Scaling(3) * Euclidean(3)


def _crooked(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, width))


@obeys(
    "invariance under similarities",
    _of_clear_clouds(Invariance(_SIMILARITIES), lambda: MDSCoordinates()),
    tolerance=_SINGLE,
)
@obeys(
    "equivariance under permutations",
    _of_clear_clouds(Equivariance(SetPermutation(1)), lambda: MDSCoordinates()),
    tolerance=_SINGLE,
)
@breaks("invariance without a rule", _of_clear_clouds(Invariance(Rotation(3)), lambda: MDSCoordinates(signs=None)))
class MDSCoordinates(nn.Module):
    """Coordinates of points that keep their distances and do not change when the points are turned, moved or scaled.

    The scores of the points along their principal axes, which are the coordinates of classical multidimensional
    scaling, with each axis pointing to where a rule says. No parameters; put it in front of a network, or wrap the
    network in `TransformInvariant`, which also treats clouds for which the rule can't tell.

    Args:
        dim: coordinates kept, largest first; by default all. Needed with `from_distances`.
        signs: `"maxabs"` (the entry of largest size is positive), `"skew"` or `"softskew"` (so is the third moment, or
            `sum h|h|`), `"random"` (drawn anew), or None (as the eigensolver leaves it: not invariant).
        scale: divide by the root mean square (`"rms"`) or the largest (`"max"`) distance from the mean, or not (None).
        group: `"O"` merges mirror images, `"SO"` keeps them apart.
        from_distances: the input is a matrix of squared distances instead of points.
        on_degenerate: what happens for clouds whose axes or signs are in doubt, such as symmetric ones: `"warn"`,
            `"error"` or `"ignore"`.

    Shapes:
        `(*lead, n, d)` to `(*lead, n, dim)`; or `(points, d)` with `batch` to `(points, dim)`.

    Example:
        >>> x = torch.tensor([[0.0, 0, 0], [5, 0, 0], [0, 3, 0], [0, 0, 1]])
        >>> bool(torch.allclose(MDSCoordinates()(x), MDSCoordinates()(3 - 2 * x), atol=1e-6))
        True
    """

    def __init__(
        self,
        dim: int | None = None,
        signs: Literal["maxabs", "skew", "softskew", "random"] | None = "maxabs",
        scale: Literal["rms", "max"] | None = "rms",
        group: Literal["O", "SO"] = "O",
        *,
        from_distances: bool = False,
        on_degenerate: Literal["warn", "error", "ignore"] = "warn",
    ) -> None:
        super().__init__()
        if dim is not None:
            whole_given("dim", dim)
        if from_distances and dim is None:
            raise InputError("from_distances needs dim, the number of coordinates")
        if signs not in ("maxabs", "skew", "softskew", "random", None):
            raise InputError(f"signs must be maxabs, skew, softskew, random or None, got {signs!r}")
        if scale not in ("rms", "max", None):
            raise InputError(f"scale must be rms, max or None, got {scale!r}")
        if group not in ("O", "SO"):
            raise InputError(f"group must be O or SO, got {group!r}")
        if on_degenerate not in ("warn", "error", "ignore"):
            raise InputError(f"on_degenerate must be warn, error or ignore, got {on_degenerate!r}")
        self.dim, self.signs, self.scale, self.group = dim, signs, scale, group
        self.from_distances, self.on_degenerate = from_distances, on_degenerate

    def forward(
        self,
        x: Float[Tensor, "*lead n d"],
        batch: Int[Tensor, " n"] | None = None,
        mask: Shaped[Tensor, "*lead n"] | None = None,
    ) -> Float[Tensor, "*lead n dim"]:
        """The coordinates; a cloud without points has zeros."""
        return self.with_frame(x, batch, mask)[0]

    def with_frame(
        self,
        x: Float[Tensor, "*lead n d"],
        batch: Int[Tensor, " n"] | None = None,
        mask: Shaped[Tensor, "*lead n"] | None = None,
    ) -> tuple[Float[Tensor, "*lead n dim"], Frame]:
        """The coordinates and the pose that leads back: `frame.restore` turns outputs to where the points were."""
        if self.from_distances:
            if batch is not None or mask is not None:
                raise InputError("matrices of distances come without batch and mask")
            assert self.dim is not None
            x = classical_mds(x, self.dim).coordinates
        elif self.dim is not None and self.dim > x.shape[-1]:
            raise InputError(f"points have {x.shape[-1]} coordinates, of which {self.dim} can't be kept")
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
        return found[..., : self.dim], frame

    def _refuse_or_warn(self, gap: Tensor, margin: Tensor) -> None:
        doubtful = torch.minimum(gap, margin) < _CLEAR
        if not bool(doubtful.any()):
            return
        first = int(doubtful.nonzero()[0])
        text = (
            f"axes or signs are in doubt for {int(doubtful.sum())} of {len(doubtful)} clouds, the first number {first} "
            f"(gap {float(gap[first]):.2g}, sign {float(margin[first]):.2g}): their coordinates may jump"
        )
        if self.on_degenerate == "error":
            raise InputError(text)
        warnings.warn(text, stacklevel=4)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, signs={self.signs}, scale={self.scale}, group={self.group}"


@obeys(
    "invariance under similarities",
    _of_clear_clouds(Invariance(_SIMILARITIES), lambda: RoutingCoordinates()),
    tolerance=_SINGLE,
)
class RoutingCoordinates(MDSCoordinates):
    """Instances of a routing problem in a pose of their own within the unit square, for a solver trained there.

    Tours depend on distances alone; a solver that reads these coordinates gives the same tour however the instance is
    turned, mirrored, moved or scaled. `nn.Sequential(RoutingCoordinates(), solver)`.

    Shapes:
        `(*lead, n, 2)` to `(*lead, n, 2)` with entries in [0, 1].
    """

    def __init__(self, signs: Literal["maxabs", "skew", "softskew"] = "maxabs", *, on_degenerate: Any = "warn") -> None:
        if signs not in ("maxabs", "skew", "softskew"):
            raise InputError(f"signs must be maxabs, skew or softskew, got {signs!r}")
        super().__init__(None, signs, "rms", on_degenerate=on_degenerate)

    def forward(
        self,
        x: Float[Tensor, "*lead n d"],
        batch: Int[Tensor, " n"] | None = None,
        mask: Shaped[Tensor, "*lead n"] | None = None,
    ) -> Float[Tensor, "*lead n dim"]:
        """The coordinates, the farthest of them on the side of the square."""
        found, frame = self.with_frame(x, batch, mask)
        clouds = frame.clouds
        size = clouds.largest(clouds.flat(found).abs().amax(-1))
        size = clouds.spread(torch.where(size > 0, size, 1.0))[..., None]
        return (clouds.flat(found) / size / 2 + 0.5).reshape(found.shape)


@obeys(
    "invariance under similarities",
    _of_clear_clouds(Invariance(_SIMILARITIES), lambda: TransformInvariant(_crooked(4))),
    tolerance=_SINGLE,
)
class TransformInvariant(FrameAverage):
    """A network of points made invariant under turning, mirroring, moving and scaling, at the cost of one evaluation.

    `FrameAverage` with a rule for the signs: the mean is over those axes alone for which the rule can't tell, nearly
    always none. Every tensor that turns with the points is turned with them (`inputs`, as there).

    Args:
        net: as in `FrameAverage`.
        group: `"E(d)"` merges mirror images, `"SE(d)"` keeps them apart.
        signs: the rule, as in `MDSCoordinates`.
        scale: as in `MDSCoordinates`.
        inputs: kinds of the network's arguments.
        outputs: kinds of what it returns.

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
    _of_clear_clouds(Equivariance(_SIMILARITIES), lambda: TransformEquivariant(_crooked(3))),
    tolerance=_SINGLE,
)
class TransformEquivariant(TransformInvariant):
    """The same for a network that returns points, or with `outputs` whatever else turns: they move with the input.

    Args:
        net: as in `FrameAverage`.
        group: as in `TransformInvariant`.
        signs: as there.
        scale: as there.
        inputs: kinds of the network's arguments.
        outputs: `"points"`, `"displacements"` (both scale with the cloud), `"vectors"` or any other kind.
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
