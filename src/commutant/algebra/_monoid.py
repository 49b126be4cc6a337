"""Base class of monoids, with reductions and scans."""

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
    """Associative operator with an identity on tensors, with reductions and scans of logarithmic depth.

    Subclasses define `op` and `identity`. The base class adds

    - `reduce`: $x_1 \\circ x_2 \\circ \\dots \\circ x_n$ along an axis, with n - 1 applications in depth ceil(log2 n);
    - `segment_reduce`: the same for a ragged batch of sets, without padding;
    - `scan`: all prefixes, with fewer than 2n applications in depth 2 ceil(log2 n).

    An element is a tensor or a tuple of tensors with common leading axes. The operator may be only approximately
    associative, for example if it is learned. The bracketing depends only on the size of a set, so the result of a set
    never depends on the rest of the batch.

    Shapes:
        `op`: two elements of shape `(..., *carrier)`, broadcastable, to `(..., *carrier)`.
    """

    associative: Exactness = "exact"
    """Whether the operator is associative exactly, approximately or not."""
    commutative: Exactness = "exact"
    """Whether the operator is commutative exactly, approximately or not."""
    parts: int | None = None
    """Number of tensors in an element that is a tuple; None if elements may have any structure."""
    widen = True
    """Whether half-precision elements are combined in float32 and rounded once at the end."""
    numbers: Numbers = "any"
    """Numbers that the operator accepts: real floating point, also complex, or also booleans."""

    def op(self, a: Element, b: Element) -> Element:
        """Combine two elements.

        Args:
            a: Left operand.
            b: Right operand.
        """
        raise NotImplementedError

    def identity(self, like: Element) -> Element:
        """Return the identity element.

        Args:
            like: Element that gives shape, dtype and device.
        """
        raise NotImplementedError

    def lift(self, x: Float[Tensor, "*shape"]) -> Element:
        """Map features to an element (the encoder in Ong and Velickovic 2022); the identity by default.

        Args:
            x: Features.
        """
        return x

    def lower(self, element: Element) -> Float[Tensor, "*shape"]:
        """Map an element back to features; the identity by default.

        Args:
            element: Element.
        """
        return element

    def out_channels(self, in_channels: int) -> int:
        """Return the number of features of `lower(lift(x))`.

        Args:
            in_channels: Number of features of x.
        """
        return in_channels

    def forward(self, a: Element, b: Element) -> Element:
        return self.op(a, b)

    def reduce(self, x: Element, dim: int = 0, mask: Bool[Tensor, "*batch"] | None = None) -> Element:
        """Reduce along one of the leading axes.

        Args:
            x: Element whose tensors share the axis `dim`.
            dim: Axis to reduce; negative only for a single tensor.
            mask: False for elements to skip, `(*leading, n)` up to and including the axis `dim`. A set without elements
                gives the identity.

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

        A set of n elements takes n - 1 applications. Memory is linear in the number of elements, regardless of the
        sizes of the sets. The Python loop runs over levels, never over elements.

        Args:
            x: Elements along the leading axis, `(elements, *carrier)`.
            index: Index of the set of each element, `(elements,)`, in any order; elements of a set keep their order.
            ptr: Start of each set, followed by the number of elements, `(sets + 1,)`; used instead of `index`.
            num_sets: Number of sets; by default inferred, without empty sets at the end.
            plan: Result of `reduction_plan`; used instead of `index` or `ptr`.
            bracketing: Bracketing, as for `reduction_plan`.
            generator: Source of a random bracketing; by default torch's global generator.

        Returns:
            Result of each set, `(sets, *carrier)`.

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
        """Run a plan; overridden by subclasses with a native segmented reduction."""
        top, _ = self._merge_levels(x, plan)
        return self._collect(x, top, plan)

    def segment_reduce_nodes(self, x: Element, plan: ReductionPlan) -> tuple[Element, Element]:
        """Run a plan and return all intermediate values.

        Args:
            x: Elements along the leading axis, `(elements, *carrier)`.
            plan: Result of `reduction_plan`.

        Returns:
            Result of each set, and values of all nodes. The elements come first, then the merges in the order of
            `plan.left` and `plan.right`, which hold the two children of each merge.
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
        """Return all prefixes $x_1 \\circ \\dots \\circ x_i$ along an axis, or all suffixes with `reverse`.

        Args:
            x: Element whose tensors share the axis `dim`.
            dim: Axis to scan.
            exclusive: Whether the i-th result leaves out x_i, so that the first is the identity.
            reverse: Whether to scan from the end; operands keep their order.
            ptr: Start of each segment, followed by the number of elements, `(segments + 1,)`; segments of the leading
                axis are then scanned separately, and `dim` must be 0.

        Example:
            >>> from commutant.algebra import Sum
            >>> Sum().scan(torch.arange(1., 6.), exclusive=True)
            tensor([ 0.,  1.,  3.,  6., 10.])
        """
        dim = self._check_axis(x, dim)
        if ptr is not None:
            check_positions("ptr", ptr)
        if ptr is not None and dim != 0:
            raise InputError(f"a segmented scan needs the leading axis dim=0, got dim={dim}")
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
        """Check the number of tensors of an element, and their dtypes.

        Args:
            x: Element.

        Raises:
            InputError: If the number of tensors is wrong, or the operator is not defined on their dtype.
        """
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
            where = f"the plan is on {plan.sizes.device} and x on {first_leaf(x).device}"
            raise InputError(f"{where}; move them to one device")

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
        """Return the dtypes of an element, and the element with half precision converted to float32.

        Args:
            x: Element.
        """
        dtypes = map_leaves(lambda leaf: leaf.dtype, x)  # type: ignore[arg-type, return-value]
        if not self.widen:
            return dtypes, x
        return dtypes, map_leaves(lambda leaf: leaf.float() if leaf.dtype in _HALF else leaf, x)


_HALF = (torch.bfloat16, torch.float16)


def narrowed(x: Element, dtypes: Element, squeeze: bool = False) -> Element:
    """Return an element rounded back to the half precision of its input."""
    if isinstance(x, Tensor):
        x = x.squeeze(0) if squeeze else x
        return x.to(dtypes) if x.dtype != dtypes and dtypes in _HALF else x
    return tuple(narrowed(part, dtype, squeeze) for part, dtype in zip(x, dtypes, strict=True))


def check_monoid(name: str, given: object) -> None:
    """Check that an argument is a monoid.

    Args:
        name: Name of the argument in the message.
        given: Value of the argument.
    """
    if not isinstance(given, Monoid):
        what = f"the class {given.__name__}; instantiate it" if isinstance(given, type) else repr(given)
        raise InputError(f"{name} must be a Monoid such as commutant.algebra.Sum(), got {what}")


def _shapes(x: Element) -> str:
    return ", ".join(str(tuple(leaf.shape)) for leaf in leaves(x))


def _scan_dense(monoid: Monoid, x: Element, swapped: bool) -> Element:
    """Return an inclusive scan: scan merged pairs, then fill in the elements between them."""
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
    """Return an inclusive scan by the levels of a plan, which keeps segments separate."""
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
