"""Bracketings of ragged reductions, as index tensors.

A plan depends only on the sizes of the sets. One plan therefore serves every layer that reduces over the same sets, and
the bracketing of a set never depends on the rest of the batch. Each level merges disjoint pairs of neighbors inside
their sets and carries other elements up unchanged. A set of n elements takes n - 1 applications of the operator, and
ceil(log2 n) levels with balanced bracketing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

import torch
from jaxtyping import Int
from torch import Tensor

from .._checks import check_generator, one_of, whole
from .._errors import InputError

Bracketing: TypeAlias = Literal["balanced", "fold", "random"]

_BLOCK = 32  # most elements that are summed sequentially


@dataclass(frozen=True)
class Level:
    """One level of merges."""

    gather: Tensor
    """Rows of the level below, in the order of left operands, right operands and carried rows."""
    inverse: Tensor
    """Inverse of the permutation `gather`."""
    pairs: int
    """Number of merges."""
    later: Tensor
    """Pairs whose left operand is not the first of its set, for scans."""
    before: Tensor
    """Row of the level above with the elements before the left operand, for each pair of `later`."""


@dataclass(frozen=True)
class _Tree:
    levels: tuple[Level, ...]
    roots: Tensor
    left: Tensor
    right: Tensor


@dataclass(frozen=True, eq=False)
class ReductionPlan:
    """Bracketing of every set in a ragged batch, reusable for batches with sets of the same sizes.

    `reduction_plan` computes all tensors of a plan immediately, so that compiled functions see only tensors. Plans made
    inside the library are lazy, since a monoid that torch reduces natively needs only the sizes.
    """

    sizes: Tensor
    """Number of elements of every set."""
    order: Tensor | None
    """Elements sorted by set, or None if they are already sorted."""
    num_elements: int
    """Number of elements of all sets."""
    bracketing: Bracketing
    """Order in which neighbors merge, as for `reduction_plan`."""
    generator: torch.Generator | None
    """Source of a random bracketing."""

    @property
    def num_sets(self) -> int:
        """Number of sets, including empty ones."""
        return self.sizes.numel()

    @cached_property
    def index(self) -> Tensor:
        """Index of the set of each element, in the order of the elements."""
        owner = torch.repeat_interleave(self.sizes)
        return owner if self.order is None else torch.empty_like(owner).index_copy(0, self.order, owner)

    @cached_property
    def occupied(self) -> Tensor:
        """Indices of the sets with at least one element."""
        return self.sizes.nonzero().squeeze(1)

    @cached_property
    def blocks(self) -> tuple[ReductionPlan, ReductionPlan] | None:
        """Plans from elements to blocks and from blocks to sets, or None if every set fits into one block."""
        if not self.num_elements or int(self.sizes.max()) <= _BLOCK:
            return None
        counts = (self.sizes + _BLOCK - 1) // _BLOCK
        number = int(counts.sum())
        within = torch.full((number,), _BLOCK, dtype=self.sizes.dtype, device=self.sizes.device)
        filled = counts > 0
        within[(counts.cumsum(0) - 1)[filled]] = (self.sizes - (counts - 1) * _BLOCK)[filled]
        return (
            ReductionPlan(within, self.order, self.num_elements, "balanced", None),
            ReductionPlan(counts, None, number, "balanced", None),
        )

    def resolve(self) -> ReductionPlan:
        """Compute all lazy tensors and return the plan."""
        _ = self.index, self.occupied, self._tree
        for part in self.blocks or ():
            part.resolve_sums()
        return self

    def resolve_sums(self) -> None:
        """Compute the lazy tensors that a sum needs."""
        _ = self.index
        for part in self.blocks or ():
            part.resolve_sums()

    @cached_property
    def _tree(self) -> _Tree:
        return _build_tree(self)

    @property
    def levels(self) -> tuple[Level, ...]:
        """Merges, level by level."""
        return self._tree.levels

    @property
    def roots(self) -> Tensor:
        """Row of the result of each non-empty set, after the last level."""
        return self._tree.roots

    @property
    def left(self) -> Tensor:
        """Left child of each merge, in order; indices from `num_elements` on are merges, others are elements."""
        return self._tree.left

    @property
    def right(self) -> Tensor:
        """Right child of each merge, in order."""
        return self._tree.right


def check_positions(name: str, given: object) -> None:
    """Check that an argument is a vector of integers.

    Args:
        name: Name of the argument in the message.
        given: Value of the argument.
    """
    if not isinstance(given, Tensor):
        raise InputError(f"{name} must be a 1-d integer tensor, got {type(given).__name__}; use torch.tensor")
    if given.dim() != 1 or given.dtype not in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8):
        raise InputError(f"{name} must be a 1-d integer tensor, got {given.dtype} of shape {tuple(given.shape)}")


def set_sizes(
    index: Tensor | None, ptr: Tensor | None, num_elements: int, num_sets: int | None
) -> tuple[Tensor, Tensor | None]:
    """Return the size of every set, and the stable order that sorts the elements by set (None if they are sorted).

    Args:
        index: Index of the set of each element, `(elements,)`, if `ptr` is not given.
        ptr: Start of each set, followed by the number of elements, `(sets + 1,)`, if `index` is not given.
        num_elements: Number of elements.
        num_sets: Number of sets; by default inferred, without empty sets at the end.
    """
    if (index is None) == (ptr is None):
        found = "neither" if index is None else "both"
        raise InputError(f"give either index (the set of each element) or ptr (where each set starts), got {found}")
    given = index if index is not None else ptr
    assert given is not None
    name = "index" if index is not None else "ptr"
    check_positions(name, given)
    whole("num_elements", num_elements, 0)
    if num_sets is not None:
        whole("num_sets", num_sets, 0)
    if ptr is not None:
        sizes = ptr.long().diff()
        if ptr.numel() == 0 or int(ptr[0]) != 0 or int(ptr[-1]) != num_elements or bool((sizes < 0).any()):
            raise InputError(
                f"ptr must rise from 0 to the number of elements ({num_elements}), got {ptr.tolist()[:8]}"
                + (" ..." if ptr.numel() > 8 else "")
            )
        if num_sets is not None and num_sets != sizes.numel():
            raise InputError(f"ptr describes {sizes.numel()} sets, but {num_sets} sets are requested")
        return sizes, None
    assert index is not None
    if index.numel() != num_elements:
        raise InputError(f"index has {index.numel()} entries for {num_elements} elements; give one per element")
    low, high = (int(index.min()), int(index.max())) if index.numel() else (0, -1)
    size = high + 1 if num_sets is None else num_sets
    if low < 0:
        raise InputError(f"index must not be negative, got values from {low} to {high}; number the sets from 0")
    if high >= size:
        bound = f"lie in 0..{size - 1} for {size} sets" if size else "be empty where there is no set"
        raise InputError(f"index must {bound}, got values from {low} to {high}")
    index = index.long()
    is_sorted = index.numel() < 2 or bool((index[1:] >= index[:-1]).all())
    return torch.bincount(index, minlength=size), None if is_sorted else index.argsort(stable=True)


def lazy_plan(
    *,
    num_elements: int,
    index: Tensor | None = None,
    ptr: Tensor | None = None,
    num_sets: int | None = None,
    bracketing: Bracketing = "balanced",
    generator: torch.Generator | None = None,
    order: Tensor | None = None,
) -> ReductionPlan:
    """Return the plan of `reduction_plan`, with only the sizes computed immediately.

    Args:
        num_elements: Number of elements of all sets.
        index: Index of the set of each element, `(elements,)`, if `ptr` is not given.
        ptr: Start of each set, followed by the number of elements, `(sets + 1,)`, if `index` is not given.
        num_sets: Number of sets; by default inferred, without empty sets at the end.
        bracketing: Order in which neighbors merge.
        generator: Source of a random bracketing.
        order: Elements sorted by set.
    """
    one_of("bracketing", bracketing, ("balanced", "fold", "random"))
    check_generator(generator)
    sizes, sort = set_sizes(index, ptr, num_elements, num_sets)
    return ReductionPlan(sizes, sort if order is None else order, num_elements, bracketing, generator)


def reduction_plan(
    *,
    num_elements: int,
    index: Int[Tensor, " elements"] | None = None,
    ptr: Int[Tensor, " boundaries"] | None = None,
    num_sets: int | None = None,
    bracketing: Bracketing = "balanced",
    generator: torch.Generator | None = None,
    order: Int[Tensor, " elements"] | None = None,
) -> ReductionPlan:
    """Plan the reduction of a ragged batch of sets.

    Args:
        num_elements: Number of elements of all sets.
        index: Index of the set of each element, `(elements,)`, in any order, if `ptr` is not given.
        ptr: Start of each set, followed by the number of elements, `(sets + 1,)`, if `index` is not given.
        num_sets: Number of sets; by default inferred, without empty sets at the end.
        bracketing: `"balanced"` pairs neighbors (0 with 1, 2 with 3, ...) and carries an odd last element up (Ong and
            Velickovic 2022, appendix D); `"fold"` merges from the left, one element at a time; `"random"` merges random
            neighbors.
        generator: Source of a random bracketing; by default torch's global generator.
        order: Indices of the elements sorted by set, in the order in which to reduce each set, `(elements,)`. Use it
            with `ptr`.

    Raises:
        InputError: If neither or both of `index` and `ptr` are given, or they do not fit the elements.

    Example:
        >>> plan = reduction_plan(num_elements=5, ptr=torch.tensor([0, 3, 3, 5]))
        >>> len(plan.levels), plan.occupied.tolist()
        (2, [0, 2])
    """
    if order is not None:
        check_positions("order", order)
        if not torch.equal(order.sort().values, torch.arange(num_elements, device=order.device, dtype=order.dtype)):
            raise InputError(f"order must hold each of the {num_elements} elements once")
    return lazy_plan(
        num_elements=num_elements,
        index=index,
        ptr=ptr,
        num_sets=num_sets,
        bracketing=bracketing,
        generator=generator,
        order=order,
    ).resolve()


def _build_tree(plan: ReductionPlan) -> _Tree:
    sizes, device = plan.sizes, plan.sizes.device
    row = torch.arange(plan.num_elements, device=device) if plan.order is None else plan.order
    node = row.clone()
    owner = torch.repeat_interleave(sizes)
    remaining = sizes
    position = _positions(owner, remaining)
    steps: list[Level] = []
    lefts = [torch.empty(0, dtype=torch.int64, device=device)]
    rights = [torch.empty(0, dtype=torch.int64, device=device)]
    merges = plan.num_elements
    while remaining.numel() and int(remaining.max()) > 1:
        merge = _choose(position, remaining, owner, plan.bracketing, plan.generator)
        is_right = torch.zeros_like(merge)
        is_right[1:] = merge[:-1]
        left, right = merge.nonzero().squeeze(1), is_right.nonzero().squeeze(1)
        carried = (~merge & ~is_right).nonzero().squeeze(1)
        pairs = left.numel()
        gather = torch.cat([row[left], row[right], row[carried]])
        inverse = torch.empty_like(gather)
        inverse[gather] = torch.arange(gather.numel(), device=device)
        kept = ~is_right
        merged = merge[kept]
        next_row = torch.where(merged, merged.cumsum(0) - 1, pairs + (~merged).cumsum(0) - 1)
        opens = position[left] == 0
        later = (~opens).nonzero().squeeze(1)
        before = next_row[merged.nonzero().squeeze(1)[later] - 1]
        steps.append(Level(gather, inverse, pairs, later, before))
        lefts.append(node[left])
        rights.append(node[right])
        node = node[kept]
        node[merged] = torch.arange(merges, merges + pairs, device=device)
        merges += pairs
        remaining = remaining - torch.bincount(owner[left], minlength=sizes.numel())
        row, owner = next_row, owner[kept]
        position = _positions(owner, remaining)
    return _Tree(tuple(steps), row, torch.cat(lefts), torch.cat(rights))


def _positions(owner: Tensor, sizes: Tensor) -> Tensor:
    """Return the position of each sorted element in its set."""
    return torch.arange(owner.numel(), device=owner.device) - (sizes.cumsum(0) - sizes)[owner]


def _choose(
    position: Tensor, remaining: Tensor, owner: Tensor, bracketing: Bracketing, generator: torch.Generator | None
) -> Tensor:
    """Return which elements merge with their right neighbor at this level."""
    has_right = position + 1 < remaining[owner]
    if bracketing == "balanced":
        return has_right & (position % 2 == 0)
    if bracketing == "fold":
        return has_right & (position == 0)
    device = generator.device if generator is not None else position.device
    offset = torch.randint(0, 2, remaining.shape, generator=generator, device=device).to(position.device)
    offset = torch.where(remaining == 2, 0, offset)
    keep = torch.rand(position.shape, generator=generator, device=device).to(position.device) < 0.75
    keep |= remaining[owner] == 2
    return has_right & (position >= offset[owner]) & ((position - offset[owner]) % 2 == 0) & keep
