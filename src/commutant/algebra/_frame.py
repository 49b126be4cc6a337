"""Frames: weighted group elements of each input that are equivariant under the group."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from .._checks import one_of, whole
from .._errors import InputError
from ._clouds import Clouds, Copies

TensorKind: TypeAlias = Literal["points", "displacements", "vectors", "pseudovectors", "tensors", "scalars"]
"""Transformation of a value under x -> s R x + t: s R x + t, s R x, R x, det(R) R x, R x R^T, or none (`scalars`)."""

_AXES: dict[str, int] = {"points": 1, "displacements": 1, "vectors": 1, "pseudovectors": 1, "tensors": 2, "scalars": 0}


@dataclass(frozen=True)
class Frame:
    """Weighted group elements g = (s, R, t) of each cloud such that F(g X) = g F(X) as a set.

    The canonical inputs `{g^{-1} X : g in F(X)}` are the same for X and all its transformations. Any function of them
    is therefore invariant, and its values are equivariant once transformed back by the same elements. The elements of
    all clouds are stored in one list, so clouds may have different numbers of them. A cloud without points has no
    elements, and a mean of zero.

    Frame averaging: Puny et al., ICLR 2022, with the weights of Dym, Lawrence and Siegel, ICML 2024.
    """

    rotation: Float[Tensor, "frames d d"]
    """Matrix R of each element."""
    weight: Float[Tensor, " frames"]
    """Weight of each element; the weights of a cloud sum to one."""
    cloud: Int[Tensor, " frames"]
    """Index of the cloud of each element."""
    origin: Float[Tensor, "clouds d"]
    """Translation t of each cloud."""
    scale: Float[Tensor, " clouds"]
    """Scale s of each cloud."""
    gap: Float[Tensor, " clouds"]
    """Smallest gap between the eigenvalues that the frame distinguishes, as a share of their sum (the variance)."""
    margin: Float[Tensor, " clouds"]
    """Smallest statistic that chose a sign, relative to its spread. A frame may be discontinuous at gap or margin 0."""
    clouds: Clouds
    """Layout of the points."""
    exact: bool = True
    """False if elements were drawn, so that an average is exact only in expectation."""
    inverse: Float[Tensor, "frames d d"] | None = None
    """Inverse of each matrix; None if all are orthogonal."""

    def __len__(self) -> int:
        return len(self.cloud)

    def __repr__(self) -> str:
        kind = "" if self.exact else ", sampled"
        return (
            f"Frame({len(self)} elements of {self.clouds.number} clouds in {self.rotation.shape[-1]} dimensions{kind})"
        )

    @cached_property
    def copies(self) -> Copies:
        """Layout with one copy of a cloud for each of its elements."""
        return self.clouds.copies(self.cloud)

    def canonicalize(self, x: Shaped[Tensor, "..."], kind: TensorKind = "points") -> Shaped[Tensor, "..."]:
        """Return the values of every cloud in each of its canonical orientations, `g^{-1} x`.

        Args:
            x: Values of points, `(*lead, n, *channels, d)` or `(points, *channels, d)`; `tensors` end in `(d, d)`,
                `scalars` in any shape.
            kind: Transformation of the values under the group.

        Returns:
            `(frames, n, ...)`, or `(points of all copies, ...)` for clouds with an index.
        """
        self._check(x, kind)
        flat = self.clouds.here(self.clouds.flat(x)) if x.is_floating_point() else self.clouds.flat(x)
        flat = self.clouds.here(self._shifted(flat)) if kind == "points" else flat
        return self.see(self.copies.of(flat), kind)

    def see(self, x: Shaped[Tensor, "..."], kind: TensorKind) -> Shaped[Tensor, "..."]:
        """Return `g^{-1} x` for values that are already copied for each frame, and centered if they are points.

        Args:
            x: Values, one row for each frame or for each point of all copies.
            kind: Transformation of the values under the group.
        """
        if kind == "scalars":
            return x
        if kind in ("points", "displacements"):
            x = x / self._per_copy(self.scale[self.cloud], x).to(x.dtype)
        return self._turned(x, self.rotation.mT if self.inverse is None else self.inverse, kind)

    def restore(self, y: Shaped[Tensor, "..."], kind: TensorKind) -> Shaped[Tensor, "..."]:
        """Return values of canonical inputs in the original orientation, `g y`.

        Args:
            y: Values, one row for each frame, `(frames, ..., d)`, or for each point of all copies.
            kind: Transformation of the values under the group.
        """
        self._check(y, kind, lead=False)
        if kind == "scalars":
            return y
        y = self._turned(y, self.rotation, kind)
        if kind in ("points", "displacements"):
            y = y * self._per_copy(self.scale[self.cloud], y).to(y.dtype)
        if kind == "points":
            y = y + self._per_copy(self.origin[self.cloud], y).to(y.dtype)
        return y

    def pool(
        self,
        y: Shaped[Tensor, "..."],
        scores: Float[Tensor, " frames"] | None = None,
        *,
        per_cloud: bool | None = None,
    ) -> Shaped[Tensor, "..."]:
        """Return the weighted mean over the frames of each cloud.

        Args:
            y: Values, one row for each frame, or for each point of all copies of clouds with an index.
            scores: Invariant score of each frame, `(frames,)`; weights become `weight * exp(score)`, normalized.
            per_cloud: Whether y has a row for each frame (True) or for each point (False); by default inferred from its
                number of rows. It is required if there are as many frames as points of all copies, unless each cloud
                is a single point, in order.

        Returns:
            One row per cloud, `(*lead, ...)` or `(clouds, ...)`, or per point, `(points, ...)`.
        """
        _needs_tensor(y)
        if scores is not None and tuple(scores.shape) != (len(self),):
            raise InputError(f"scores must hold one number per frame ({len(self)}), got shape {tuple(scores.shape)}")
        if not (y.is_floating_point() or y.is_complex()):
            raise InputError(f"values must be real or complex to have a mean over frames, got {y.dtype}")
        weight = self.weight
        if scores is not None:
            top = (
                scores.detach()
                .new_full((self.clouds.number,), -torch.inf)
                .scatter_reduce(0, self.cloud, scores.detach(), "amax")
            )
            tilted = weight * (scores - top[self.cloud]).exp().to(weight.dtype)
            weight = tilted / tilted.new_zeros(self.clouds.number).index_add(0, self.cloud, tilted)[self.cloud]
        pointwise = self._pointwise(y, per_cloud)
        if per_cloud is False and self.clouds.ragged and not pointwise:
            points = 0 if self.copies.rows is None else len(self.copies.rows)
            raise InputError(f"{points} rows are needed, one per point, got shape {tuple(y.shape)}")
        if pointwise:
            assert self.copies.rows is not None
            assert self.clouds.index is not None
            weight = weight[self.copies.clouds.index]
            where, rows = self.copies.rows, len(self.clouds.index)
        else:
            where, rows = self.cloud, self.clouds.number
        found = weighted_sum(y, weight, where, rows)
        return found if self.clouds.ragged else found.reshape((*self.clouds.lead, *y.shape[1:]))

    def sample(self, number: int, generator: torch.Generator | None = None) -> Frame:
        """Return frames drawn by weight with replacement; their mean is exact only in expectation.

        Args:
            number: Number of frames to draw for each cloud.
            generator: Source of the draws; by default torch's global generator.
        """
        chosen = drawn_elements(self.weight, self.cloud, number, generator)
        return replace(
            self,
            rotation=self.rotation[chosen],
            inverse=None if self.inverse is None else self.inverse[chosen],
            cloud=self.cloud[chosen],
            weight=torch.full_like(self.weight[:1], 1 / number).expand(len(chosen)),
            exact=False,
        )

    def best(self) -> Frame:
        """Return only the frame of largest weight of each cloud, or the first of several with equal weight."""
        order = self.weight.detach().argsort(descending=True, stable=True)
        order = order[self.cloud[order].argsort(stable=True)]
        _, sizes = torch.unique_consecutive(self.cloud[order], return_counts=True)
        return self._part(order[sizes.cumsum(0) - sizes], one=True)

    def detach(self) -> Frame:
        """Return the frame as a constant, without the gradient through g; forces are then inexact."""
        tensors = {
            name: getattr(self, name).detach() for name in ("rotation", "weight", "origin", "scale", "gap", "margin")
        }
        return replace(self, **tensors, inverse=None if self.inverse is None else self.inverse.detach())

    def parts(self, size: int) -> list[Frame]:
        """Return the frame split into parts, to process one part at a time.

        Args:
            size: Largest number of elements in a part.
        """
        whole("size", size)
        if size >= len(self):
            return [self]
        places = torch.arange(len(self), device=self.cloud.device)
        return [self._part(piece) for piece in places.split(size)]

    def _part(self, chosen: Tensor, one: bool = False) -> Frame:
        weight = torch.ones_like(self.weight[chosen]) if one else self.weight[chosen]
        inverse = None if self.inverse is None else self.inverse[chosen]
        return replace(self, rotation=self.rotation[chosen], inverse=inverse, cloud=self.cloud[chosen], weight=weight)

    def _pointwise(self, y: Tensor, per_cloud: bool | None = False) -> bool:
        """Return whether values of copied clouds have one row for each point, rather than for each frame.

        If there are as many points as frames, `per_cloud` decides; None raises an error if the choice matters.
        """
        if not self.clouds.ragged:
            if not y.dim() or y.shape[0] != self.cloud.shape[0]:
                raise InputError(f"{self.cloud.shape[0]} rows are needed, one per frame, got shape {tuple(y.shape)}")
            return False
        assert self.copies.rows is not None
        if not y.dim() or len(y) not in (len(self), len(self.copies.rows)):
            points = len(self.copies.rows)
            raise InputError(
                f"{len(self)} rows are needed, one per frame, or {points}, one per point, got shape {tuple(y.shape)}"
            )
        if len(self) == len(self.copies.rows):
            if per_cloud is None and not self.clouds.one_each:
                raise InputError(
                    f"{len(y)} rows are the number of frames and of points of all copies; say whether they belong to "
                    "points or clouds, by per_cloud"
                )
            return not per_cloud
        pointwise = len(y) == len(self.copies.rows)
        if per_cloud and pointwise:
            raise InputError(f"{len(self)} rows are needed, one per frame, got shape {tuple(y.shape)}")
        return pointwise

    def _per_copy(self, value: Tensor, x: Tensor) -> Tensor:
        """Return values of frames in a shape that broadcasts over x, whose rows are frames or points of copies."""
        rest = value.shape[1:]
        if self._pointwise(x):
            value = value[self.copies.clouds.index]
        return value.reshape(value.shape[0], *(1,) * max(0, x.dim() - 1 - len(rest)), *rest)

    def _turned(self, x: Tensor, matrix: Tensor, kind: TensorKind) -> Tensor:
        """Return `A x`, `det(A) A x` or `A x A^T`, with the matrix of the frame of each row."""
        d = matrix.shape[-1]
        own = self._per_copy(matrix.to(x.dtype), x).reshape(x.shape[0], d, d)
        with torch.autocast(x.device.type, enabled=False):
            if kind == "tensors":
                own = own[:, None]
                return (own @ x.reshape(x.shape[0], prod(x.shape[1:-2]), d, d) @ own.mT).reshape(x.shape)
            out = (x.reshape(x.shape[0], prod(x.shape[1:-1]), d) @ own.mT).reshape(x.shape)
        if kind == "pseudovectors":
            out = out * self._per_copy(torch.linalg.det(self.rotation).sign(), x).to(x.dtype)
        return out

    def _shifted(self, x: Tensor) -> Tensor:
        """Return x minus the origin, in two steps, so that a large shift costs no more digits in single precision."""
        near = self.origin.to(x.dtype)
        rest = (self.origin - near.to(self.origin.dtype)).to(x.dtype)
        extra = x.dim() - (2 if self.clouds.ragged else 3)
        near, rest = (self.clouds.spread(o) for o in (near, rest))
        if extra:
            at = 1 if self.clouds.ragged else 2
            near, rest = (o.reshape(*o.shape[:at], *(1,) * extra, o.shape[-1]) for o in (near, rest))
        return (x - near) - rest

    def _check(self, x: Tensor, kind: str, lead: bool = True) -> None:
        one_of("kind", kind, _AXES)
        _needs_tensor(x)
        d = self.rotation.shape[-1]
        if tuple(x.shape[x.dim() - _AXES[kind] :]) != (d,) * _AXES[kind]:
            raise InputError(f"{kind} must end in {(d,) * _AXES[kind]}, got shape {tuple(x.shape)}")
        if not lead:
            self._pointwise(x)
        elif self.clouds.ragged:
            assert self.clouds.index is not None
            if len(x) != len(self.clouds.index):
                raise InputError(f"{len(self.clouds.index)} rows are needed, one per point, got shape {tuple(x.shape)}")
        elif tuple(x.shape[: len(self.clouds.lead)]) != self.clouds.lead:
            raise InputError(f"values must begin with the axes {self.clouds.lead} of the points, got {tuple(x.shape)}")


def weighted_sum(y: Tensor, weight: Tensor, where: Tensor, number: int) -> Tensor:
    """Return weighted sums of rows with the same target, in double precision, as there may be thousands of them.

    Args:
        y: Rows, `(rows, ...)`.
        weight: Weight of each row, `(rows,)`.
        where: Target of each row, `(rows,)`.
        number: Number of targets.
    """
    wide = y.to(torch.promote_types(y.dtype, torch.float64))
    weighted = wide * weight.reshape(-1, *(1,) * (y.dim() - 1))
    return wide.new_zeros(number, *y.shape[1:]).index_add(0, where, weighted).to(y.dtype)


def _needs_tensor(value: object) -> None:
    if not isinstance(value, Tensor):
        raise InputError(f"values must be a tensor, got {type(value).__name__}")


def drawn_elements(
    weight: Float[Tensor, " frames"], owner: Int[Tensor, " frames"], number: int, generator: torch.Generator | None
) -> Int[Tensor, " drawn"]:
    """Return indices of elements drawn by weight with replacement, `number` for each owner.

    Args:
        weight: Weight of each element, `(frames,)`.
        owner: Index of the cloud or graph of each element, `(frames,)`.
        number: Number of draws for each owner.
        generator: Source of the draws; by default torch's global generator.
    """
    whole("number", number)
    order = owner.argsort(stable=True)
    _, sizes = torch.unique_consecutive(owner[order], return_counts=True)
    last = sizes.cumsum(0) - 1
    first = last - sizes + 1
    ends = weight.detach()[order].cumsum(0)
    low = ends[first] - weight.detach()[order[first]]
    device = weight.device if generator is None else generator.device
    drawn = torch.rand((number, len(sizes)), generator=generator, device=device, dtype=torch.float64).to(low.device)
    place = torch.searchsorted(ends, low + drawn * (ends[last] - low), right=True)
    return order[torch.minimum(torch.maximum(place, first), last).flatten()]
