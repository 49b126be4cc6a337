"""Frames: for each input a few elements of a group, with weights, that move with the input."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from .._errors import InputError
from ._clouds import Clouds, Copies

TensorKind: TypeAlias = Literal["points", "displacements", "vectors", "pseudovectors", "tensors", "scalars"]
"""How a value answers to x -> s R x + t: s R x + t, s R x, R x, det(R) R x, R x R^T, or not at all."""

_AXES: dict[str, int] = {"points": 1, "displacements": 1, "vectors": 1, "pseudovectors": 1, "tensors": 2, "scalars": 0}


@dataclass(frozen=True)
class Frame:
    """For each cloud a few group elements g = (s, R, t) with weights, such that F(g X) = g F(X) as a set.

    The canonical inputs `{g^{-1} X : g in F(X)}` are then the same for X and for everything that the group makes of X:
    any function of them is invariant, and what is restored by the same elements is equivariant. Frames of all clouds
    stand in one list, so that a cloud has as many as it needs.

    `rotation[m]` belongs to cloud `cloud[m]` and counts `weight[m]`; the weights of a cloud sum to one. A cloud without
    points has no frame, and a mean of zero. `gap` is the smallest distance of two eigenvalues that the frame tells
    apart, as a share of their sum, and `margin` the smallest statistic that chose a sign, in units of its spread: how
    far a cloud is from a place where its frame would jump.

    Frame averaging: Puny et al., ICLR 2022, with the weights of Dym, Lawrence and Siegel, ICML 2024.
    """

    rotation: Float[Tensor, "frames d d"]
    weight: Float[Tensor, " frames"]
    cloud: Int[Tensor, " frames"]
    origin: Float[Tensor, "clouds d"]
    scale: Float[Tensor, " clouds"]
    gap: Float[Tensor, " clouds"]
    margin: Float[Tensor, " clouds"]
    clouds: Clouds
    exact: bool = True
    inverse: Float[Tensor, "frames d d"] | None = None
    """Of the matrices, where they are not orthogonal."""

    def __len__(self) -> int:
        return len(self.cloud)

    def __repr__(self) -> str:
        kind = "" if self.exact else ", sampled"
        return (
            f"Frame({len(self)} elements of {self.clouds.number} clouds in {self.rotation.shape[-1]} dimensions{kind})"
        )

    @cached_property
    def copies(self) -> Copies:
        """The layout with one copy of a cloud for each of its frames."""
        return self.clouds.copies(self.cloud)

    def canonicalize(self, x: Shaped[Tensor, "..."], kind: TensorKind = "points") -> Shaped[Tensor, "..."]:
        """Every cloud as each of its frames sees it: `g^{-1} x`.

        Args:
            x: values of the points, `(*lead, n, *channels, d)` or `(points, *channels, d)`; `tensors` end in `(d, d)`,
                `scalars` in anything.
            kind: how they answer to the group.

        Returns:
            `(frames, n, ...)`, or `(points of all copies, ...)` for clouds with an index.
        """
        self._check(x, kind)
        flat = self.clouds.here(self.clouds.flat(x)) if x.is_floating_point() else self.clouds.flat(x)
        flat = self.clouds.here(self._shifted(flat)) if kind == "points" else flat
        return self.see(self.copies.of(flat), kind)

    def see(self, x: Shaped[Tensor, "..."], kind: TensorKind) -> Shaped[Tensor, "..."]:
        """`g^{-1} x` for values that are copied for each frame already, and centred where they are points."""
        if kind == "scalars":
            return x
        if kind in ("points", "displacements"):
            x = x / self._per_copy(self.scale[self.cloud], x).to(x.dtype)
        return self._turned(x, self.rotation.mT if self.inverse is None else self.inverse, kind)

    def restore(self, y: Shaped[Tensor, "..."], kind: TensorKind) -> Shaped[Tensor, "..."]:
        """What was computed from canonical inputs, turned back: `g y`.

        Args:
            y: one row for each frame, `(frames, ..., d)`, or for each point of all copies.
            kind: how it answers to the group.
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
        """The weighted mean over the frames of each cloud.

        Args:
            y: one row for each frame, or for each point of all copies of clouds with an index.
            scores: one for each frame, of invariants; they tilt the weights to `weight * exp(score)`, normalised.
            per_cloud: whether y has a row for each frame (True) or for each point (False); read from y by default.
                Needed where all clouds have one point, so that there are as
                many frames as points of all copies, and the clouds have gaps or another order than the points.

        Returns:
            `(*lead, ...)` or `(clouds, ...)`, one row a cloud; `(points, ...)` where y has a row for each point.
        """
        _needs_tensor(y)
        if scores is not None and tuple(scores.shape) != (len(self),):
            raise InputError(f"scores must be one for each of {len(self)} frames, got shape {tuple(scores.shape)}")
        if not (y.is_floating_point() or y.is_complex()):
            raise InputError(f"only real and complex values have a mean over frames, got {y.dtype}")
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
            raise InputError(f"{points} rows are needed, one a point, got shape {tuple(y.shape)}")
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
        """As many frames of each cloud, drawn by weight with replacement: the mean is right in expectation only."""
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
        """The frame of largest weight of each cloud alone; the first among equals."""
        order = self.weight.detach().argsort(descending=True, stable=True)
        order = order[self.cloud[order].argsort(stable=True)]
        _, sizes = torch.unique_consecutive(self.cloud[order], return_counts=True)
        return self._part(order[sizes.cumsum(0) - sizes], one=True)

    def detach(self) -> Frame:
        """The same frame as constants: gradients do not flow through the choice of g, so forces are not exact."""
        tensors = {
            name: getattr(self, name).detach() for name in ("rotation", "weight", "origin", "scale", "gap", "margin")
        }
        return replace(self, **tensors, inverse=None if self.inverse is None else self.inverse.detach())

    def parts(self, size: int) -> list[Frame]:
        """The frame cut into pieces of at most so many elements, for one piece after the other."""
        if not isinstance(size, int) or size < 1:
            raise InputError(f"the size of a part must be at least 1, a whole number, got {size!r}")
        if size >= len(self):
            return [self]
        places = torch.arange(len(self), device=self.cloud.device)
        return [self._part(piece) for piece in places.split(size)]

    def _part(self, chosen: Tensor, one: bool = False) -> Frame:
        weight = torch.ones_like(self.weight[chosen]) if one else self.weight[chosen]
        inverse = None if self.inverse is None else self.inverse[chosen]
        return replace(self, rotation=self.rotation[chosen], inverse=inverse, cloud=self.cloud[chosen], weight=weight)

    def _pointwise(self, y: Tensor, per_cloud: bool | None = False) -> bool:
        """Whether values of copied clouds have a row for each point instead of one for each frame.

        Where both are as many, `per_cloud` decides; None refuses if it matters.
        """
        if not self.clouds.ragged:
            if not y.dim() or y.shape[0] != self.cloud.shape[0]:
                raise InputError(f"{self.cloud.shape[0]} rows are needed, one a frame, got shape {tuple(y.shape)}")
            return False
        assert self.copies.rows is not None
        if not y.dim() or len(y) not in (len(self), len(self.copies.rows)):
            points = len(self.copies.rows)
            raise InputError(
                f"{len(self)} rows are needed, one a frame, or {points}, one a point, got shape {tuple(y.shape)}"
            )
        if len(self) == len(self.copies.rows):
            if per_cloud is None and not self.clouds.one_each:
                raise InputError(
                    f"{len(y)} rows are the number of frames and of points of all copies: say whether they belong to "
                    "points or clouds"
                )
            return not per_cloud
        pointwise = len(y) == len(self.copies.rows)
        if per_cloud and pointwise:
            raise InputError(f"{len(self)} rows are needed, one a frame, got shape {tuple(y.shape)}")
        return pointwise

    def _per_copy(self, value: Tensor, x: Tensor) -> Tensor:
        """A value `(frames, *rest)` shaped to meet x, whose rows are frames or the points of all copies."""
        rest = value.shape[1:]
        if self._pointwise(x):
            value = value[self.copies.clouds.index]
        return value.reshape(value.shape[0], *(1,) * max(0, x.dim() - 1 - len(rest)), *rest)

    def _turned(self, x: Tensor, matrix: Tensor, kind: TensorKind) -> Tensor:
        """`A x`, `det(A) A x` or `A x A^T`, with the matrix of the frame that each row belongs to."""
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
        """x minus the origin; in two steps, so that a large shift costs single precision nothing more."""
        near = self.origin.to(x.dtype)
        rest = (self.origin - near.to(self.origin.dtype)).to(x.dtype)
        extra = x.dim() - (2 if self.clouds.ragged else 3)
        near, rest = (self.clouds.spread(o) for o in (near, rest))
        if extra:
            at = 1 if self.clouds.ragged else 2
            near, rest = (o.reshape(*o.shape[:at], *(1,) * extra, o.shape[-1]) for o in (near, rest))
        return (x - near) - rest

    def _check(self, x: Tensor, kind: str, lead: bool = True) -> None:
        if kind not in _AXES:
            raise InputError(f"kind must be one of {', '.join(_AXES)}, got {kind!r}")
        _needs_tensor(x)
        d = self.rotation.shape[-1]
        if tuple(x.shape[x.dim() - _AXES[kind] :]) != (d,) * _AXES[kind]:
            raise InputError(f"{kind} must end in {(d,) * _AXES[kind]}, got shape {tuple(x.shape)}")
        if not lead:
            self._pointwise(x)
        elif self.clouds.ragged:
            assert self.clouds.index is not None
            if len(x) != len(self.clouds.index):
                raise InputError(f"{len(self.clouds.index)} rows are needed, one a point, got shape {tuple(x.shape)}")
        elif tuple(x.shape[: len(self.clouds.lead)]) != self.clouds.lead:
            raise InputError(f"values must begin with {self.clouds.lead}, as the points do, got shape {tuple(x.shape)}")


def weighted_sum(y: Tensor, weight: Tensor, where: Tensor, number: int) -> Tensor:
    """Weighted sums of rows that go to the same place; in double precision, for there may be thousands of them."""
    wide = y.to(torch.promote_types(y.dtype, torch.float64))
    weighted = wide * weight.reshape(-1, *(1,) * (y.dim() - 1))
    return wide.new_zeros(number, *y.shape[1:]).index_add(0, where, weighted).to(y.dtype)


def _needs_tensor(value: object) -> None:
    if not isinstance(value, Tensor):
        raise InputError(f"values must be a tensor, got {type(value).__name__}")


def drawn_elements(
    weight: Float[Tensor, " frames"], owner: Int[Tensor, " frames"], number: int, generator: torch.Generator | None
) -> Int[Tensor, " drawn"]:
    """The places of so many elements for each owner, drawn by weight with replacement."""
    if not isinstance(number, int) or number < 1:
        raise InputError(f"the number of sampled frames must be at least 1, a whole number, got {number!r}")
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
