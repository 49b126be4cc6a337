"""How points are grouped into clouds: stacked, stacked under a mask, or one after the other with an index."""

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
    """A layout of points `(*lead, n, d)`, or `(points, d)` with the cloud of each point in `index`.

    Everything that needs all points of a cloud goes through `total` and `largest`; `spread` hands a value of the cloud
    back to its points. Nothing that a mask leaves out is ever read.
    """

    lead: tuple[int, ...]
    number: int
    index: Int[Tensor, " points"] | None = None
    weight: Float[Tensor, "clouds n"] | Float[Tensor, " points"] | None = None

    @classmethod
    def of(
        cls,
        x: Float[Tensor, "*lead n d"],
        batch: Int[Tensor, " n"] | None = None,
        mask: Shaped[Tensor, "*lead n"] | None = None,
        number: int | None = None,
    ) -> Clouds:
        """The layout of x.

        Args:
            x: points; with `batch` of shape `(points, d)`.
            batch: the cloud of each point, as in PyG; sorted or not.
            mask: True where a point is, or how much it counts (not negative).
            number: of clouds, where the last may be empty; needs `batch`.

        Raises:
            InputError: shapes that do not fit, NaN or infinite points, negative weights.
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
                    f"mask must have shape {tuple(x.shape[:-1])}, one entry a point, got {tuple(mask.shape)}"
                )
            weight = mask.to(torch.float64)
            if not exporting() and not bool((weight >= 0).all() & weight.isfinite().all()):
                raise InputError("mask must be booleans, or finite weights that are not negative")
        if exporting():
            if batch is not None:
                raise InputError("only stacked clouds can be exported, with a mask in place of batch")
            lead = tuple(x.shape[:-2])
            return cls(lead, prod(lead), None, None if weight is None else weight.reshape(prod(lead), x.shape[-2]))
        if batch is None:
            if number is not None:
                raise InputError("the number of clouds goes with batch, the cloud of each point")
            found = cls(tuple(x.shape[:-2]), prod(x.shape[:-2]), None, None)
            found = found if weight is None else cls(found.lead, found.number, None, found.flat(weight))
        else:
            if x.dim() != 2 or batch.shape != x.shape[:1] or batch.is_floating_point() or batch.dtype == torch.bool:
                raise InputError(
                    f"with batch, points must be (points, d) and batch one integer a point; got {tuple(x.shape)} and "
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
        """Check points against the layout: their shape, and that those which the mask keeps are finite.

        Raises:
            InputError: another shape than that of the layout, NaN or infinite points.
        """
        lead = x.shape[:-2] if self.index is None else self.index.shape
        if tuple(lead) != (self.lead if self.index is None else tuple(x.shape[:1])):
            raise InputError(
                f"points of shape {tuple(x.shape)} do not fit a layout of {self.lead} clouds: clouds is the layout of "
                "other points"
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
        """The layout of x: the given one where it fits, or that of `batch` and `mask`.

        Raises:
            InputError: as `of`, or a layout of other points.
        """
        if clouds is None:
            return cls.of(x, batch, mask)
        if not isinstance(clouds, Clouds) or not isinstance(x, Tensor):
            raise InputError(f"a tensor and its Clouds are needed, got {type(x).__name__} and {type(clouds).__name__}")
        clouds.check(x)
        return clouds

    @property
    def ragged(self) -> bool:
        """Whether clouds stand one after the other, with an index."""
        return self.index is not None

    @property
    def one_each(self) -> bool:
        """Whether each cloud of an index is one point, in order: values of points are then values of clouds."""
        return self.index is not None and torch.equal(self.index, torch.arange(self.number, device=self.index.device))

    def flat(self, x: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
        """Stacked values of points `(*lead, n, *rest)` as `(clouds, n, *rest)`; values with an index as they are."""
        return x if self.ragged else x.reshape(self.number, *x.shape[len(self.lead) :])

    def here(self, x: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
        """Values of points with zeros where the mask leaves one out, whatever stands there."""
        if self.weight is None:
            return x
        return torch.where((self.weight > 0).reshape(self.weight.shape + (1,) * (x.dim() - self.weight.dim())), x, 0.0)

    def total(self, x: Shaped[Tensor, "..."]) -> Shaped[Tensor, "clouds ..."]:
        """The sum over the points of each cloud of `(clouds, n, *rest)` or `(points, *rest)`, weighted by the mask."""
        if self.weight is not None:
            x = self.here(x) * self.weight.to(x.dtype).reshape(self.weight.shape + (1,) * (x.dim() - self.weight.dim()))
        if self.index is None:
            return x.sum(1)
        return x.new_zeros(self.number, *x.shape[1:]).index_add(0, self.index, x)

    def gram(self, x: Float[Tensor, "..."]) -> Float[Tensor, "clouds d d"]:
        """The sum over the points of each cloud of `x x^T`, weighted by the mask; x as for `total`."""
        if self.index is not None:
            return self.total(x[..., :, None] * x[..., None, :])
        if self.weight is None:
            return x.mT @ x
        x = self.here(x)
        return (self.weight.to(x.dtype).unsqueeze(-1) * x).mT @ x

    def largest(self, x: Shaped[Tensor, "..."]) -> Shaped[Tensor, "clouds ..."]:
        """The largest value over the points of each cloud, zero for an empty one; for values that are not negative."""
        x = self.here(x)
        if self.index is None:
            return x.amax(1) if x.shape[1] else x.new_zeros(self.number, *x.shape[2:])
        where = self.index.reshape(-1, *(1,) * (x.dim() - 1)).expand_as(x)
        return x.new_zeros(self.number, *x.shape[1:]).scatter_reduce(0, where, x, "amax")

    def spread(self, value: Shaped[Tensor, "clouds ..."]) -> Shaped[Tensor, "..."]:
        """A value of each cloud, shaped to meet the values of its points: `(clouds, 1, *rest)` or `(points, *rest)`."""
        return value.unsqueeze(1) if self.index is None else value[self.index]

    def count(self, x: Shaped[Tensor, "..."]) -> Float[Tensor, " clouds"]:
        """The weight of the points of each cloud; their number without a mask. x: any values of the points."""
        return self.total(torch.ones(x.shape[: 1 if self.ragged else 2], dtype=torch.float64, device=x.device))

    def mean(self, x: Shaped[Tensor, "..."]) -> Shaped[Tensor, "clouds ..."]:
        """The weighted mean over the points of each cloud, zero for an empty one; x as for `total`."""
        count, total = self.count(x), self.total(x)
        count = torch.where(count > 0, count, 1.0).to(x.dtype)
        return total / count.reshape(-1, *(1,) * (total.dim() - 1))

    def weights_of(self, x: Shaped[Tensor, "..."]) -> Float[Tensor, "..."]:
        """How much each point counts, `(clouds, n)` or `(points,)`. x: any values of the points."""
        shape = x.shape[: 1 if self.ragged else 2]
        return torch.ones(shape, dtype=torch.float64, device=x.device) if self.weight is None else self.weight

    def points_of(self, x: Shaped[Tensor, "..."]) -> Int[Tensor, " clouds"]:
        """The number of points of each cloud, whatever they count. x: any values of the points."""
        there = (self.weights_of(x) > 0).long()
        return there.sum(1) if self.index is None else there.new_zeros(self.number).index_add(0, self.index, there)

    def padded(self, x: Shaped[Tensor, "..."], chosen: Int[Tensor, " some"]) -> Shaped[Tensor, "some n ..."]:
        """The points of some clouds, stacked, with zeros where a cloud has fewer or the mask leaves one out."""
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
        """The layout in which cloud `cloud[m]` stands at place m."""
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
    """Several copies of the clouds of a layout, as a layout of its own."""

    cloud: Int[Tensor, " copies"]
    rows: Int[Tensor, " points"] | None
    clouds: Clouds
    points: int = 0
    """Of the layout that was copied, where its clouds have an index."""

    def of(self, x: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
        """The copies of the values of points, `(clouds, n, *rest)` or `(points, *rest)`."""
        return x[self.cloud] if self.rows is None else x[self.rows]

    def edges(self, edge_index: Int[Tensor, "2 edges"]) -> tuple[Int[Tensor, "2 copied"], Int[Tensor, " copied"]]:
        """The copies of edges between points with an index, and which edge each one is.

        Raises:
            InputError: an edge that joins two clouds, or points that are not there.
        """
        if self.rows is None or self.clouds.index is None:
            raise InputError("edges need points with batch, the cloud of each point")
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
            raise InputError("an edge joins points of two clouds")
        kept = (source >= 0).nonzero().flatten()  # clouds without a copy take their edges with them
        by_cloud = kept[source[kept].argsort(stable=True)]
        number = int(self.cloud.max()) + 1 if self.cloud.numel() else 0
        sizes = torch.bincount(source[by_cloud], minlength=number)
        starts = sizes.cumsum(0) - sizes
        own = sizes[self.cloud]
        copy = torch.repeat_interleave(own)
        within = torch.arange(len(copy), device=copy.device) - (own.cumsum(0) - own)[copy]
        edge = by_cloud[starts[self.cloud][copy] + within]
        # where each point of the original stands within its cloud, and where each copy begins
        lengths = torch.bincount(self.clouds.index, minlength=len(self.cloud))
        begins = lengths.cumsum(0) - lengths
        position = first.scatter(
            0, self.rows, torch.arange(len(self.rows), device=self.rows.device) - begins[self.clouds.index]
        )
        return position[edge_index[:, edge]] + begins[copy], edge
