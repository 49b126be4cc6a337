"""A monoid: an associative operator with an identity, and what follows from having one: reduce and scan."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from .._errors import InputError
from .elements import Element, concatenate, first_leaf, leaves, map_leaves, permute_rows, rows, split_rows
from .plans import Bracketing, ReductionPlan, check_positions, lazy_plan

Exactness: TypeAlias = Literal["exact", "approximate", "no"]
Numbers: TypeAlias = Literal["real", "complex", "any"]


class Monoid(nn.Module):
    """A binary operator with an identity on tensors, reduced and scanned in logarithmic depth.

    A subclass gives `op` and `identity`. The base class gives

    - `reduce`: $x_1 \\circ x_2 \\circ \\dots \\circ x_n$ along an axis, n - 1 applications, depth ceil(log2 n);
    - `segment_reduce`: the same for a ragged batch of sets, without padding;
    - `scan`: all prefixes, fewer than 2n applications, depth 2 ceil(log2 n).

    An element is a tensor or a tuple of tensors with common leading axes. An operator that is only approximately
    associative (a learned one) is welcome: the bracketing is fixed by the size of the set alone, so the result of a set
    never depends on the rest of the batch.

    Shapes:
        `op`: two elements of shape `(..., *carrier)`, broadcastable, to `(..., *carrier)`.
    """

    associative: Exactness = "exact"
    commutative: Exactness = "exact"
    parts: int | None = None
    """Number of tensors in an element that is a tuple; None where an element may be of any structure."""
    widen = True
    """Half-precision elements are combined in float32 and the result is rounded once."""
    numbers: Numbers = "any"
    """Numbers on which the operator is defined: real floating point, complex too, or booleans too."""

    def op(self, a: Element, b: Element) -> Element:
        """Combine two elements."""
        raise NotImplementedError

    def identity(self, like: Element) -> Element:
        """The identity, in the shape, dtype and device of `like`."""
        raise NotImplementedError

    def lift(self, x: Float[Tensor, "*shape"]) -> Element:
        """Carry features into the monoid (the paper's encoder for a fixed monoid); the default does nothing."""
        return x

    def lower(self, element: Element) -> Float[Tensor, "*shape"]:
        """Carry an element back to features; the default does nothing."""
        return element

    def out_channels(self, in_channels: int) -> int:
        """The feature width of `lower(lift(x))` for x of width `in_channels`."""
        return in_channels

    def forward(self, a: Element, b: Element) -> Element:
        return self.op(a, b)

    def reduce(self, x: Element, dim: int = 0, mask: Bool[Tensor, "*batch"] | None = None) -> Element:
        """Reduce along one of the leading axes.

        Args:
            x: element whose tensors share the axis `dim`.
            dim: the axis; it counts from the end only for a single tensor.
            mask: `(*leading, n)` up to and including the axis `dim`; False takes the element out, as if it had never
                been there. A set with nothing left gives the identity.

        Example:
            >>> from commutant.algebra import Max
            >>> Max().reduce(torch.tensor([[1., 5.], [3., 2.]]), dim=0)
            tensor([3., 5.])
        """
        dim = self._check_axis(x, dim)
        if mask is not None:
            return self._masked_reduce(x, dim, mask)
        x = map_leaves(lambda leaf: leaf.movedim(dim, 0), x)
        if first_leaf(x).shape[0] == 0:
            return self.identity(map_leaves(lambda leaf: leaf.new_empty(leaf.shape[1:]), x))
        dtypes, x = self.widened(x)
        while (n := first_leaf(x).shape[0]) > 1:
            even = rows(x, slice(0, n - n % 2))
            merged = self.op(rows(even, slice(0, None, 2)), rows(even, slice(1, None, 2)))
            x = concatenate(merged, rows(x, slice(n - 1, n))) if n % 2 else merged
        return narrowed(rows(x, slice(0, 1)), dtypes, squeeze=True)

    def _masked_reduce(self, x: Element, dim: int, mask: Tensor) -> Element:
        batch = first_leaf(x).shape[:dim]
        if not isinstance(mask, Tensor):
            raise InputError(f"mask must be a boolean tensor, got {type(mask).__name__}")
        if mask.shape != first_leaf(x).shape[: dim + 1] or mask.dtype != torch.bool:
            raise InputError(
                f"mask must be boolean of shape {tuple(first_leaf(x).shape[: dim + 1])}, "
                f"got {mask.dtype} of shape {tuple(mask.shape)}"
            )
        sizes = mask.sum(-1).flatten()
        ptr = nn.functional.pad(sizes.cumsum(0), (1, 0))
        out = self.segment_reduce(map_leaves(lambda leaf: leaf[mask], x), ptr=ptr)
        return map_leaves(lambda leaf: leaf.reshape(batch + leaf.shape[1:]), out)

    def segment_reduce(
        self,
        x: Element,
        index: Int[Tensor, " elements"] | None = None,
        ptr: Int[Tensor, " boundaries"] | None = None,
        num_sets: int | None = None,
        *,
        plan: ReductionPlan | None = None,
        bracketing: Bracketing = "balanced",
        generator: torch.Generator | None = None,
    ) -> Element:
        """Reduce each set of a ragged batch; an empty set gives the identity.

        Work is one application for each element but the first of its set, memory is linear in the number of elements
        however unequal the sets are, and the loop runs over levels, never over elements.

        Args:
            x: elements along the leading axis, `(elements, *carrier)`.
            index: the set of each element, in any order (elements of a set keep their order); or
            ptr: where each set starts, `(sets + 1,)`; or
            plan: a plan made before with `reduction_plan`.
            num_sets: the number of sets, when `index` alone does not tell.
            bracketing: see `reduction_plan`.
            generator: source of a random bracketing.

        Returns:
            `(sets, *carrier)`.

        Example:
            >>> from commutant.algebra import Sum
            >>> Sum().segment_reduce(torch.tensor([1., 2., 4.]), index=torch.tensor([2, 0, 2]))
            tensor([2., 0., 5.])
        """
        if plan is None:
            plan = lazy_plan(
                num_elements=self._check_elements(x),
                index=index,
                ptr=ptr,
                num_sets=num_sets,
                bracketing=bracketing,
                generator=generator,
            )
        self._check_plan(x, plan)
        dtypes, x = self.widened(x)
        return narrowed(self._reduce_plan(x, plan), dtypes)

    def _reduce_plan(self, x: Element, plan: ReductionPlan) -> Element:
        """Run a plan; a subclass with a native segmented reduction overrides this."""
        top, _ = self._merge_levels(x, plan)
        return self._collect(x, top, plan)

    def segment_reduce_nodes(self, x: Element, plan: ReductionPlan) -> tuple[Element, Element]:
        """Run a plan and keep every value on the way.

        Returns:
            The result of each set, and the value of every node: first the elements, then the merges in the order of
            `plan.left` and `plan.right`, which name the two children of each merge.
        """
        self._check_plan(x, plan)
        dtypes, x = self.widened(x)
        top, merged = self._merge_levels(x, plan)
        return narrowed(self._collect(x, top, plan), dtypes), concatenate(x, *merged)

    def _merge_levels(self, x: Element, plan: ReductionPlan) -> tuple[Element, list[Element]]:
        merged = []
        for level in plan.levels:
            gathered = permute_rows(x, level.gather, level.inverse)
            carried = level.gather.numel() - 2 * level.pairs
            left, right, rest = split_rows(gathered, [level.pairs, level.pairs, carried])
            merged.append(self.op(left, right))
            x = concatenate(merged[-1], rest)
        return x, merged

    def _collect(self, x: Element, top: Element, plan: ReductionPlan) -> Element:
        if plan.occupied.numel() == plan.num_sets:
            return rows(top, plan.roots)
        like = map_leaves(lambda leaf: leaf.new_empty((plan.num_sets, *leaf.shape[1:])), x)
        return map_leaves(
            lambda leaf, empty: empty.to(leaf.dtype).index_copy(0, plan.occupied, leaf[plan.roots]),
            top,
            self.identity(like),
        )

    def scan(
        self,
        x: Element,
        dim: int = 0,
        *,
        exclusive: bool = False,
        reverse: bool = False,
        ptr: Int[Tensor, " boundaries"] | None = None,
    ) -> Element:
        """All prefixes $x_1 \\circ \\dots \\circ x_i$ along an axis (with `reverse`, all suffixes).

        Args:
            x: element whose tensors share the axis `dim`.
            dim: the axis.
            exclusive: leave x_i out of the i-th result; the first is then the identity.
            reverse: scan from the end; the order of the operands stays that of the axis.
            ptr: scan each segment of the leading axis by itself (`dim` must be 0).

        Example:
            >>> from commutant.algebra import Sum
            >>> Sum().scan(torch.arange(1., 6.), exclusive=True)
            tensor([ 0.,  1.,  3.,  6., 10.])
        """
        dim = self._check_axis(x, dim)
        if ptr is not None:
            check_positions("ptr", ptr)
        if ptr is not None and dim != 0:
            raise InputError(f"a segmented scan runs over the leading axis, got dim={dim}")
        x = map_leaves(lambda leaf: leaf.movedim(dim, 0), x)
        n = first_leaf(x).shape[0]
        if reverse:
            x = map_leaves(lambda leaf: leaf.flip(0), x)
            ptr = None if ptr is None else n - ptr.flip(0)
        dtypes, x = self.widened(x)
        if ptr is None:
            out = _scan_dense(self, x, reverse)
        else:
            plan = lazy_plan(num_elements=n, ptr=ptr)
            out = _scan_levels(self, x, plan, 0, reverse)
        if exclusive:
            out = self._shift(out, ptr)
        out = narrowed(out, dtypes)
        if reverse:
            out = map_leaves(lambda leaf: leaf.flip(0), out)
        return map_leaves(lambda leaf: leaf.movedim(0, dim), out)

    def _shift(self, scanned: Element, ptr: Tensor | None) -> Element:
        n = first_leaf(scanned).shape[0]
        if n == 0:
            return scanned
        first = rows(scanned, slice(0, 1))
        shifted = concatenate(map_leaves(torch.Tensor.to, self.identity(first), first), rows(scanned, slice(0, n - 1)))
        if ptr is None:
            return shifted
        starts = ptr[:-1][ptr.diff() > 0].long()
        identity = self.identity(rows(scanned, starts))
        return map_leaves(lambda leaf, e: leaf.index_copy(0, starts, e.to(leaf.dtype)), shifted, identity)

    def check_numbers(self, x: Element) -> None:
        """Refuse elements of another number of tensors, or of a dtype that the operator is not defined on."""
        if self.parts and (not isinstance(x, tuple | list) or len(x) != self.parts):
            given = f"{len(x)} parts" if isinstance(x, tuple | list) else type(x).__name__
            raise InputError(f"an element of {type(self).__name__} is a tuple of {self.parts} tensors, got {given}")
        for leaf in leaves(x):
            if leaf.is_floating_point() or (leaf.is_complex() and self.numbers != "real"):
                continue
            if leaf.dtype != torch.bool or self.numbers != "any":
                kind = "real floating point" if self.numbers == "real" else "floating point"
                remedy = "take its real part" if leaf.is_complex() else "convert them with .float()"
                raise InputError(f"elements of {type(self).__name__} must be {kind}, got {leaf.dtype}; {remedy}")

    def _check_elements(self, x: Element) -> int:
        sizes = {leaf.shape[0] if leaf.dim() else -1 for leaf in leaves(x)}
        if -1 in sizes or len(sizes) != 1:
            raise InputError(f"the tensors of an element must share their leading axis, got {_shapes(x)}")
        self.check_numbers(x)
        return sizes.pop()

    def _check_plan(self, x: Element, plan: ReductionPlan) -> None:
        if not isinstance(plan, ReductionPlan):
            raise InputError(f"plan must come from reduction_plan, got {type(plan).__name__}")
        if plan.num_elements != self._check_elements(x):
            raise InputError(f"the plan is for {plan.num_elements} elements, x has {first_leaf(x).shape[0]}")
        if plan.sizes.device != first_leaf(x).device:
            where = f"the sets lie on {plan.sizes.device} and the elements lie on {first_leaf(x).device}"
            raise InputError(f"{where}; move one of them")

    def _check_axis(self, x: Element, dim: int) -> int:
        self.check_numbers(x)
        lead = first_leaf(x)
        if not isinstance(dim, int) or not -lead.dim() <= dim < lead.dim() or (dim < 0 and not isinstance(x, Tensor)):
            given = dim if isinstance(dim, int | str) else type(dim).__name__
            raise InputError(f"dim={given} is not an axis of an element with shapes {_shapes(x)}")
        dim %= lead.dim()
        if len({leaf.shape[: dim + 1] for leaf in leaves(x)}) != 1:
            raise InputError(f"the tensors of an element must share the axes up to dim={dim}, got {_shapes(x)}")
        return dim

    def widened(self, x: Element) -> tuple[Element, Element]:
        """The dtypes of an element, and the element with half precision as float32."""
        dtypes = map_leaves(lambda leaf: leaf.dtype, x)  # type: ignore[arg-type, return-value]
        if not self.widen:
            return dtypes, x
        return dtypes, map_leaves(lambda leaf: leaf.float() if leaf.dtype in _HALF else leaf, x)


_HALF = (torch.bfloat16, torch.float16)


def narrowed(x: Element, dtypes: Element, squeeze: bool = False) -> Element:
    """An element rounded back to half precision where it came in it."""
    if isinstance(x, Tensor):
        x = x.squeeze(0) if squeeze else x
        return x.to(dtypes) if x.dtype != dtypes and dtypes in _HALF else x
    return tuple(narrowed(part, dtype, squeeze) for part, dtype in zip(x, dtypes, strict=True))


def check_monoid(name: str, given: object) -> None:
    """Refuse what is no monoid."""
    if not isinstance(given, Monoid):
        what = f"the class {given.__name__}; call it" if isinstance(given, type) else repr(given)
        raise InputError(f"{name} must be a Monoid such as commutant.algebra.Sum(), got {what}")


def _shapes(x: Element) -> str:
    return ", ".join(str(tuple(leaf.shape)) for leaf in leaves(x))


def _scan_dense(monoid: Monoid, x: Element, swapped: bool) -> Element:
    """Inclusive scan by pairing: scan the pairs, then fill in the elements between them."""
    n = first_leaf(x).shape[0]
    if n < 2:
        return x
    even = rows(x, slice(0, n - n % 2))
    left, right = rows(even, slice(0, None, 2)), rows(even, slice(1, None, 2))
    pairs = _scan_dense(monoid, _ordered(monoid, left, right, swapped), swapped)
    inner = rows(x, slice(2, None, 2))
    before = rows(pairs, slice(0, first_leaf(inner).shape[0]))
    filled = concatenate(rows(x, slice(0, 1)), _ordered(monoid, before, inner, swapped)) if n > 2 else left
    odd, last = split_rows(filled, [n // 2, n % 2])
    woven = map_leaves(lambda a, b: torch.stack([a, b], 1).flatten(0, 1), odd, pairs)
    return concatenate(woven, last) if n % 2 else woven


def _scan_levels(monoid: Monoid, x: Element, plan: ReductionPlan, depth: int, swapped: bool) -> Element:
    """The same recursion over the levels of a plan, so that segments stay apart."""
    if depth == len(plan.levels):
        return x
    level = plan.levels[depth]
    carried = level.gather.numel() - 2 * level.pairs
    left, right, rest = split_rows(permute_rows(x, level.gather, level.inverse), [level.pairs, level.pairs, carried])
    above = concatenate(_ordered(monoid, left, right, swapped), rest)
    above = _scan_levels(monoid, above, plan, depth + 1, swapped)
    filled = _ordered(monoid, rows(above, level.before), rows(left, level.later), swapped)
    left = map_leaves(lambda leaf, new: leaf.index_copy(0, level.later, new), left, filled)
    return permute_rows(concatenate(left, above), level.inverse, level.gather)


def _ordered(monoid: Monoid, earlier: Element, later: Element, swapped: bool) -> Element:
    return monoid.op(later, earlier) if swapped else monoid.op(earlier, later)
