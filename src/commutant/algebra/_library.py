"""Monoids without parameters that are exactly associative and commutative."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from .._checks import whole
from .._errors import InputError
from ._monoid import Monoid, check_monoid
from .elements import Element, map_leaves
from .plans import ReductionPlan


class _Native(Monoid):
    """Monoid that torch reduces natively over ragged sets.

    It uses `scatter_reduce`, since the gradients of `torch.segment_reduce` for max and min are wrong for equal values.
    """

    native: Literal["sum", "amax", "amin"]
    unit: float

    def identity(self, like: Element) -> Element:
        self.check_numbers(like)
        return map_leaves(lambda leaf: torch.full_like(leaf, self.unit), like)

    def _reduce_plan(self, x: Element, plan: ReductionPlan) -> Element:
        def scatter(leaf: Tensor) -> Tensor:
            if self.native == "sum":
                return _segment_sum(leaf, plan)
            start = leaf.new_full((plan.num_sets, *leaf.shape[1:]), self.unit)
            where = plan.index.view(-1, *([1] * (leaf.dim() - 1))).expand_as(leaf)
            return start.scatter_reduce(0, where, leaf, self.native, include_self=False)  # empty sets keep the unit

        return map_leaves(scatter, x)


_NEAR = 1000.0  # gap in units of the temperature above which the smaller term vanishes in float64
_ACCUMULATOR = {torch.float32: torch.float64, torch.complex64: torch.complex128}


def _segment_sum(x: Tensor, plan: ReductionPlan) -> Tensor:
    """Return the sum of each set, as accurate as a tree: sums of blocks, which are then added in double precision."""
    if plan.blocks is not None:
        into_blocks, into_sets = plan.blocks
        sums = _segment_sum(x, into_blocks)
        return _segment_sum(sums.to(_ACCUMULATOR.get(x.dtype, x.dtype)), into_sets).to(x.dtype)
    return x.new_zeros((plan.num_sets, *x.shape[1:])).index_add(0, plan.index, x)


class Sum(_Native):
    """Elementwise monoid $(\\mathbb R, +, 0)$.

    Example:
        >>> Sum().reduce(torch.tensor([1., 2., 3.]))
        tensor(6.)
    """

    native, unit, numbers = "sum", 0.0, "complex"

    def op(self, a: Element, b: Element) -> Element:
        return map_leaves(torch.add, a, b)


class Max(_Native):
    """Elementwise monoid $(\\mathbb R, \\max, -\\infty)$.

    Example:
        >>> Max().reduce(torch.tensor([1., 3., 2.]))
        tensor(3.)
    """

    native, unit, numbers = "amax", -torch.inf, "real"

    def op(self, a: Element, b: Element) -> Element:
        return map_leaves(torch.maximum, a, b)


class Min(_Native):
    """Elementwise monoid $(\\mathbb R, \\min, +\\infty)$.

    Example:
        >>> Min().reduce(torch.tensor([4., 3., 5.]))
        tensor(3.)
    """

    native, unit, numbers = "amin", torch.inf, "real"

    def op(self, a: Element, b: Element) -> Element:
        return map_leaves(torch.minimum, a, b)


class LogSumExp(Monoid):
    """Smooth maximum $a \\circ b = \\tau \\log(e^{a/\\tau} + e^{b/\\tau})$ with identity $-\\infty$.

    Args:
        temperature: Temperature $\\tau > 0$; the limit 0 is the maximum.

    Example:
        >>> round(float(LogSumExp().reduce(torch.zeros(4)).exp()), 4)
        4.0
    """

    numbers = "real"

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        if not torch.finfo(torch.float32).tiny <= temperature < math.inf:
            raise InputError(f"temperature must be at least 1.2e-38 and finite, got {temperature}; use Max() for 0")
        self.temperature = temperature

    def op(self, a: Tensor, b: Tensor) -> Tensor:
        nothing = (a == -torch.inf) & (b == -torch.inf)  # the gradient there would be 0 / 0
        larger, smaller = torch.where(a >= b, a, b), torch.where(a >= b, b, a)
        near = larger - smaller <= _NEAR * self.temperature  # elsewhere, and next to NaN, the result is the maximum
        gap = torch.where(near, smaller, 0.0) - torch.where(near, larger, 0.0)
        rest = torch.nn.functional.softplus(gap / self.temperature) * self.temperature
        both = torch.where(near, torch.where(near, larger, 0.0) + rest, torch.maximum(a, b))
        return torch.where(nothing, -torch.inf, torch.where(nothing, 0.0, both))

    def identity(self, like: Tensor) -> Tensor:
        return torch.full_like(like, -torch.inf)

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}"


class KSmallest(Monoid):
    """Monoid of the k smallest values of a multiset, in order; k = 2 gives the second minimum without training.

    An element has a trailing axis of k sorted values, padded with $+\\infty$. `lift` makes an element of each value,
    and `lower` concatenates the k values as features.

    Args:
        k: Number of values.

    Shapes:
        `lift`: `(..., features)` to `(..., features, k)`; `lower`: `(..., features, k)` to `(..., features * k)`.

    Example:
        >>> m = KSmallest(2)
        >>> m.lower(m.reduce(m.lift(torch.tensor([[5.], [3.], [9.]]))))
        tensor([3., 5.])
    """

    numbers = "real"

    def __init__(self, k: int) -> None:
        super().__init__()
        whole("k", k)
        self.k = k

    def op(self, a: Tensor, b: Tensor) -> Tensor:
        if a.shape[-1] != self.k or b.shape[-1] != self.k:
            raise InputError(f"the last axis must hold {self.k} sorted values, got {a.shape[-1]} and {b.shape[-1]}")
        both = torch.cat([a, b], -1)
        kept = both.sort(dim=-1, stable=True).values[..., : self.k]
        return torch.where(both.isnan().any(-1, keepdim=True), torch.nan, kept)  # sort moves NaN to the end

    def identity(self, like: Tensor) -> Tensor:
        return torch.full_like(like, torch.inf)

    def lift(self, x: Float[Tensor, "*shape"]) -> Tensor:
        return torch.cat([x[..., None], x.new_full((*x.shape, self.k - 1), torch.inf)], -1)

    def lower(self, element: Tensor) -> Tensor:
        return element.flatten(-2)

    def out_channels(self, in_channels: int) -> int:
        return in_channels * self.k

    def extra_repr(self) -> str:
        return f"k={self.k}"


class Product(Monoid):
    """Direct product of monoids, each acting on its own part of a tuple.

    `lift` gives every factor the same features and `lower` concatenates the results, so `Product(Sum(), Max())`
    aggregates like a sum concatenated with a maximum.

    Args:
        factors: Monoids, at least one.

    Example:
        >>> both = Product(Sum(), Max())
        >>> both.reduce((torch.tensor([1., 2.]), torch.tensor([1., 2.])))
        (tensor(3.), tensor(2.))
    """

    widen = False  # each factor decides itself

    def __init__(self, *factors: Monoid) -> None:
        super().__init__()
        if not factors:
            raise InputError("a product needs at least one monoid")
        for factor in factors:
            check_monoid("a factor", factor)
        self.factors = torch.nn.ModuleList(factors)
        ranks = ("exact", "approximate", "no")
        self.associative = max((factor.associative for factor in factors), key=ranks.index)
        self.commutative = max((factor.commutative for factor in factors), key=ranks.index)

    def check_numbers(self, x: Element) -> None:
        if not isinstance(x, tuple | list) or len(x) != len(self.factors):
            given = f"{len(x)} parts" if isinstance(x, tuple | list) else type(x).__name__
            raise InputError(f"a product of {len(self.factors)} monoids takes a tuple of as many parts, got {given}")
        for factor, part in zip(self.factors, x, strict=True):
            factor.check_numbers(part)  # type: ignore[operator]

    def op(self, a: Element, b: Element) -> Element:
        return tuple(f.op(x, y) for f, x, y in zip(self.factors, a, b, strict=True))  # type: ignore[operator]

    def identity(self, like: Element) -> Element:
        return tuple(f.identity(part) for f, part in zip(self.factors, like, strict=True))  # type: ignore[operator]

    def lift(self, x: Tensor) -> Element:
        return tuple(f.lift(x) for f in self.factors)  # type: ignore[operator]

    def lower(self, element: Element) -> Tensor:
        return torch.cat([f.lower(p) for f, p in zip(self.factors, element, strict=True)], -1)  # type: ignore[operator]

    def out_channels(self, in_channels: int) -> int:
        return sum(f.out_channels(in_channels) for f in self.factors)  # type: ignore[operator, misc]

    def reduce(self, x: Element, dim: int = 0, mask: Tensor | None = None) -> Element:
        self.check_numbers(x)
        return tuple(f.reduce(p, dim, mask) for f, p in zip(self.factors, x, strict=True))  # type: ignore[operator]

    def _reduce_plan(self, x: Element, plan: ReductionPlan) -> Element:
        return tuple(f.segment_reduce(p, plan=plan) for f, p in zip(self.factors, x, strict=True))  # type: ignore[operator]


class Adjoin(Monoid):
    """Monoid with an adjoined identity, whose elements are pairs (value, present).

    Absent elements are skipped: $x \\circ \\text{EMPTY} = x$ bit for bit, whatever the base operator does with zeros or
    with its own identity. `reduce` treats masked elements in the same way.

    Args:
        base: Monoid of the values.

    Shapes:
        element: value `(*leading, *carrier)` and boolean present `(*leading,)`; absent values are never read.

    Example:
        >>> m = Adjoin(Sum())
        >>> m.op((torch.tensor([1.]), torch.tensor([True])), (torch.tensor([9.]), torch.tensor([False])))
        (tensor([1.]), tensor([True]))
    """

    def __init__(self, base: Monoid) -> None:
        super().__init__()
        check_monoid("base", base)
        self.base = base
        self.associative, self.commutative, self.widen = base.associative, base.commutative, base.widen

    def op(self, a: Element, b: Element) -> Element:
        (x, has_x), (y, has_y) = a, b

        def safe(mine: Tensor, other: Tensor, has_mine: Tensor, has_other: Tensor) -> Tensor:
            pad = (...,) + (None,) * (mine.dim() - has_mine.dim())
            return torch.where(has_mine[pad], mine, torch.where(has_other[pad], other, 0.0))

        left = map_leaves(lambda s, t: safe(s, t, has_x, has_y), x, y)
        right = map_leaves(lambda s, t: safe(t, s, has_y, has_x), x, y)

        def choose(one: Tensor, other: Tensor, both: Tensor) -> Tensor:
            pad = (...,) + (None,) * (both.dim() - has_x.dim())
            kept = torch.where(has_y[pad], other, one)
            return torch.where((has_x & has_y)[pad], both, kept)

        return map_leaves(choose, x, y, self.base.op(left, right)), has_x | has_y

    def check_numbers(self, x: Element) -> None:
        if not isinstance(x, tuple | list) or len(x) != 2 or getattr(x[1], "dtype", None) != torch.bool:
            raise InputError("an adjoined element must be a pair of a value and a boolean tensor")
        self.base.check_numbers(x[0])

    def identity(self, like: Element) -> Element:
        value, present = like
        return self.base.identity(value), torch.zeros_like(present, dtype=torch.bool)
