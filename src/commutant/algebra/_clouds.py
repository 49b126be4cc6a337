"""Layouts of point clouds: stacked, stacked with a mask, or concatenated with an index."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from .._errors import InputError
from ._exporting import exporting


@dataclass(frozen=True)
class Clouds:
    """Layout of points `(*lead, n, d)`, or of points `(points, d)` with an index of the cloud of each point.

    `total` and `largest` reduce values of points to values of clouds; `spread` broadcasts values of clouds to points.
    Masked points are never read.
    """

    lead: tuple[int, ...]
    """Leading axes of the points."""
    number: int
    """Number of clouds."""
    index: Int[Tensor, " points"] | None = None
    """Index of the cloud of each point; None for stacked clouds."""
    weight: Float[Tensor, "clouds n"] | Float[Tensor, " points"] | None = None
    """Weight of each point; None if all are one."""

    @classmethod
    def of(
        cls,
        x: Float[Tensor, "*lead n d"],
        batch: Int[Tensor, " n"] | None = None,
        mask: Shaped[Tensor, "*lead n"] | None = None,
        number: int | None = None,
    ) -> Clouds:
        """Return the layout of x.

        Args:
            x: Points, `(*lead, n, d)`, or `(points, d)` with `batch`.
            batch: Index of the cloud of each point, `(points,)`, as in PyG; sorted or not.
            mask: True for valid points, or non-negative weights, `(*lead, n)`.
            number: Number of clouds if the last may be empty; needs `batch`.

        Raises:
            InputError: For mismatched shapes, NaN or infinite points, or negative weights.
        """
        for name, value in (("points", x), ("batch", batch), ("mask", mask)):
            if not (isinstance(value, Tensor) or (value is None and name != "points")):
                raise InputError(f"{name} must be a tensor, got {type(value).__name__}")
        if x.dim() < 2 or not x.is_floating_point():
            raise InputError(f"points must be floating point of shape (..., n, d), got {x.dtype} {tuple(x.shape)}")
        if x.shape[-1] < 1:
            raise InputError("points must have at least one coordinate, got none")
        weight = None
        if mask is not None:
            if mask.shape != x.shape[:-1]:
                raise InputError(
                    f"mask must have shape {tuple(x.shape[:-1])}, one entry per point, got {tuple(mask.shape)}"
                )
            weight = mask.to(torch.float64)
            if not exporting() and not bool((weight >= 0).all() & weight.isfinite().all()):
                raise InputError("mask must hold booleans, or finite non-negative weights")
        if exporting():
            if batch is not None:
                raise InputError("only stacked clouds can be exported; pass mask instead of batch")
            lead = tuple(x.shape[:-2])
            return cls(lead, prod(lead), None, None if weight is None else weight.reshape(prod(lead), x.shape[-2]))
        if batch is None:
            if number is not None:
                raise InputError("number needs batch, the index of the cloud of each point")
            found = cls(tuple(x.shape[:-2]), prod(x.shape[:-2]), None, None)
            found = found if weight is None else cls(found.lead, found.number, None, found.flat(weight))
        else:
            if x.dim() != 2 or batch.shape != x.shape[:1] or batch.is_floating_point() or batch.dtype == torch.bool:
                raise InputError(
                    f"with batch, points must be (points, d) and batch one integer per point, got {tuple(x.shape)} and "
                    f"{batch.dtype} {tuple(batch.shape)}"
                )
            low, high = (int(batch.min()), int(batch.max())) if batch.numel() else (0, -1)
            number = high + 1 if number is None else number
            if low < 0 or high >= number:
                raise InputError(f"batch must lie in 0 to {number - 1}, got {low} to {high}")
            found = cls((number,), number, batch.long(), weight)
        found.check(x)
        return found

    def check(self, x: Float[Tensor, "*lead n d"]) -> None:
        """Check that points have the shape of the layout and are finite where the mask keeps them.

        Args:
            x: Points, `(*lead, n, d)` or `(points, d)`.

        Raises:
            InputError: For a mismatched shape, or NaN or infinite points.
        """
        lead = x.shape[:-2] if self.index is None else self.index.shape
        if tuple(lead) != (self.lead if self.index is None else tuple(x.shape[:1])):
            raise InputError(
                f"points of shape {tuple(x.shape)} do not fit a layout of {self.lead} clouds; pass the layout of these "
                "points"
            )
        if not exporting() and not bool(self.here(self.flat(x)).isfinite().all()):
            raise InputError("points must be finite, got NaN or infinities")

    @classmethod
    def fitting(
        cls,
        x: Float[Tensor, "*lead n d"],
        batch: Int[Tensor, " n"] | None = None,
        mask: Shaped[Tensor, "*lead n"] | None = None,
        clouds: Clouds | None = None,
    ) -> Clouds:
        """Return the given layout if it fits x, or the layout from `batch` and `mask`.

        Args:
            x: Points, `(*lead, n, d)`, or `(points, d)` with an index.
            batch: Index of the cloud of each point, `(points,)`.
            mask: True for valid points, or their weights, `(*lead, n)`.
            clouds: Known layout, used instead of `batch` and `mask`.

        Raises:
            InputError: As for `of`, or if the layout does not fit.
        """
        if clouds is None:
            return cls.of(x, batch, mask)
        if not isinstance(clouds, Clouds) or not isinstance(x, Tensor):
            given = f"{type(x).__name__} and {type(clouds).__name__}"
            raise InputError(f"points must be a tensor and clouds an instance of Clouds, got {given}")
        clouds.check(x)
        return clouds

    @property
    def ragged(self) -> bool:
        """True if clouds are concatenated, with an index."""
        return self.index is not None

    @property
    def one_each(self) -> bool:
        """True if the layout has an index and each cloud is one point, in order."""
        return self.index is not None and torch.equal(self.index, torch.arange(self.number, device=self.index.device))

    def flat(self, x: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
        """Return values of stacked points `(*lead, n, *rest)` as `(clouds, n, *rest)`, and others unchanged.

        Args:
            x: Values of points, `(*lead, n, *rest)` or `(points, *rest)`.
        """
        return x if self.ragged else x.reshape(self.number, *x.shape[len(self.lead) :])

    def here(self, x: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
        """Return values of points with zeros at masked points, even where these hold NaN.

        Args:
            x: Values of points, `(clouds, n, *rest)` or `(points, *rest)`.
        """
        if self.weight is None:
            return x
        return torch.where((self.weight > 0).reshape(self.weight.shape + (1,) * (x.dim() - self.weight.dim())), x, 0.0)

    def total(self, x: Shaped[Tensor, "..."]) -> Shaped[Tensor, "clouds ..."]:
        """Return the weighted sum over the points of each cloud.

        Args:
            x: Values of points, `(clouds, n, *rest)` or `(points, *rest)`.
        """
        if self.weight is not None:
            x = self.here(x) * self.weight.to(x.dtype).reshape(self.weight.shape + (1,) * (x.dim() - self.weight.dim()))
        if self.index is None:
            return x.sum(1)
        return x.new_zeros(self.number, *x.shape[1:]).index_add(0, self.index, x)

    def gram(self, x: Float[Tensor, "..."]) -> Float[Tensor, "clouds d d"]:
        """Return the weighted sum of `x x^T` over the points of each cloud.

        Args:
            x: Vectors of points, `(clouds, n, d)` or `(points, d)`.
        """
        if self.index is not None:
            return self.total(x[..., :, None] * x[..., None, :])
        if self.weight is None:
            return x.mT @ x
        x = self.here(x)
        return (self.weight.to(x.dtype).unsqueeze(-1) * x).mT @ x

    def largest(self, x: Shaped[Tensor, "..."]) -> Shaped[Tensor, "clouds ..."]:
        """Return the largest value over the points of each cloud, zero for an empty cloud.

        Args:
            x: Non-negative values, `(clouds, n, *rest)` or `(points, *rest)`.
        """
        x = self.here(x)
        if self.index is None:
            return x.amax(1) if x.shape[1] else x.new_zeros(self.number, *x.shape[2:])
        where = self.index.reshape(-1, *(1,) * (x.dim() - 1)).expand_as(x)
        return x.new_zeros(self.number, *x.shape[1:]).scatter_reduce(0, where, x, "amax")

    def spread(self, value: Shaped[Tensor, "clouds ..."]) -> Shaped[Tensor, "..."]:
        """Return values of clouds in a shape that broadcasts over points: `(clouds, 1, *rest)` or `(points, *rest)`.

        Args:
            value: Values of clouds, `(clouds, *rest)`.
        """
        return value.unsqueeze(1) if self.index is None else value[self.index]

    def count(self, x: Shaped[Tensor, "..."]) -> Float[Tensor, " clouds"]:
        """Return the total weight of the points of each cloud, which is their number without a mask.

        Args:
            x: Any values of points, `(clouds, n, *rest)` or `(points, *rest)`.
        """
        return self.total(torch.ones(x.shape[: 1 if self.ragged else 2], dtype=torch.float64, device=x.device))

    def mean(self, x: Shaped[Tensor, "..."]) -> Shaped[Tensor, "clouds ..."]:
        """Return the weighted mean over the points of each cloud, zero for an empty cloud.

        Args:
            x: Values of points, `(clouds, n, *rest)` or `(points, *rest)`.
        """
        count, total = self.count(x), self.total(x)
        count = torch.where(count > 0, count, 1.0).to(x.dtype)
        return total / count.reshape(-1, *(1,) * (total.dim() - 1))

    def weights_of(self, x: Shaped[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return the weight of each point, `(clouds, n)` or `(points,)`.

        Args:
            x: Any values of points, `(clouds, n, *rest)` or `(points, *rest)`.
        """
        shape = x.shape[: 1 if self.ragged else 2]
        return torch.ones(shape, dtype=torch.float64, device=x.device) if self.weight is None else self.weight

    def points_of(self, x: Shaped[Tensor, "..."]) -> Int[Tensor, " clouds"]:
        """Return the number of points of each cloud with a weight above zero.

        Args:
            x: Any values of points, `(clouds, n, *rest)` or `(points, *rest)`.
        """
        there = (self.weights_of(x) > 0).long()
        return there.sum(1) if self.index is None else there.new_zeros(self.number).index_add(0, self.index, there)

    def padded(self, x: Shaped[Tensor, "..."], chosen: Int[Tensor, " some"]) -> Shaped[Tensor, "some n ..."]:
        """Return the values of points of some clouds, stacked, with zeros as padding and at masked points.

        Args:
            x: Values of points, `(clouds, n, *rest)` or `(points, *rest)`.
            chosen: Indices of the clouds, `(some,)`.
        """
        copies = self.copies(chosen)
        layout = copies.clouds
        rows = layout.here(copies.of(x))
        if layout.index is None:
            return rows
        sizes = torch.bincount(layout.index, minlength=layout.number)
        within = torch.arange(len(rows), device=x.device) - (sizes.cumsum(0) - sizes)[layout.index]
        out = x.new_zeros(len(chosen), int(sizes.max()) if len(sizes) else 0, *x.shape[1:])
        return out.index_put((layout.index, within), rows)

    def copies(self, cloud: Int[Tensor, " copies"]) -> Copies:
        """Return the layout whose cloud m is a copy of cloud `cloud[m]`.

        Args:
            cloud: Index of the cloud behind each copy, `(copies,)`.
        """
        if self.index is None:
            weight = None if self.weight is None else self.weight[cloud]
            number = cloud.shape[0]
            return Copies(cloud, None, Clouds((number,), number, None, weight))
        order = self.index.argsort(stable=True)
        sizes = torch.bincount(self.index, minlength=self.number)
        starts = sizes.cumsum(0) - sizes
        owner = torch.repeat_interleave(sizes[cloud])
        own = sizes[cloud]
        within = torch.arange(len(owner), device=owner.device) - (own.cumsum(0) - own)[owner]
        rows = order[starts[cloud][owner] + within]
        weight = None if self.weight is None else self.weight[rows]
        return Copies(cloud, rows, Clouds((len(cloud),), len(cloud), owner, weight), len(self.index))


@dataclass(frozen=True)
class Copies:
    """Copies of the clouds of a layout."""

    cloud: Int[Tensor, " copies"]
    """Index of the cloud behind each copy."""
    rows: Int[Tensor, " points"] | None
    """Index of the point behind each point of the copies; None for stacked clouds."""
    clouds: Clouds
    """Layout of the copies."""
    points: int = 0
    """Number of points of the original layout, if it has an index."""

    def of(self, x: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
        """Return the values of points for all copies.

        Args:
            x: Values of points of the original layout, `(clouds, n, *rest)` or `(points, *rest)`.
        """
        return x[self.cloud] if self.rows is None else x[self.rows]

    def edges(self, edge_index: Int[Tensor, "2 edges"]) -> tuple[Int[Tensor, "2 copied"], Int[Tensor, " copied"]]:
        """Return the copies of edges, and the index of the edge behind each copy.

        Args:
            edge_index: Edges between points of the original layout, `(2, edges)`.

        Raises:
            InputError: If an edge joins different clouds or nonexistent points, or if the layout has no index.
        """
        if self.rows is None or self.clouds.index is None:
            raise InputError("edges need points with batch, the index of the cloud of each point")
        if edge_index.dim() != 2 or len(edge_index) != 2 or edge_index.is_floating_point():
            raise InputError(f"edges must be integers (2, edges), got {edge_index.dtype} {tuple(edge_index.shape)}")
        if edge_index.numel() and not 0 <= int(edge_index.min()) <= int(edge_index.max()) < self.points:
            raise InputError(
                f"edges must join points 0 to {self.points - 1}, got {int(edge_index.min())} to {int(edge_index.max())}"
            )
        first = self.rows.new_full((self.points,), -1)
        owner = first.scatter(0, self.rows, self.cloud[self.clouds.index])
        source, target = owner[edge_index[0]], owner[edge_index[1]]
        if bool(((source < 0) & (target >= 0)).any()) or bool((source != target).any()):
            raise InputError("an edge joins points of two clouds; edges must stay within one cloud")
        kept = (source >= 0).nonzero().flatten()  # drops the edges of clouds without a copy
        by_cloud = kept[source[kept].argsort(stable=True)]
        number = int(self.cloud.max()) + 1 if self.cloud.numel() else 0
        sizes = torch.bincount(source[by_cloud], minlength=number)
        starts = sizes.cumsum(0) - sizes
        own = sizes[self.cloud]
        copy = torch.repeat_interleave(own)
        within = torch.arange(len(copy), device=copy.device) - (own.cumsum(0) - own)[copy]
        edge = by_cloud[starts[self.cloud][copy] + within]
        # position of each original point within its cloud, and first point of each copy
        lengths = torch.bincount(self.clouds.index, minlength=len(self.cloud))
        begins = lengths.cumsum(0) - lengths
        position = first.scatter(
            0, self.rows, torch.arange(len(self.rows), device=self.rows.device) - begins[self.clouds.index]
        )
        return position[edge_index[:, edge]] + begins[copy], edge
