"""Edits and range queries on a stored reduction."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from .._errors import InputError
from ._monoid import Monoid, check_monoid, narrowed
from .elements import Element, concatenate, first_leaf, leaves, map_leaves, rows
from .plans import check_positions


class SegmentTree:
    """Balanced reduction with all intermediate values, for edits and range queries in O(log n) applications.

    Its root equals `monoid.reduce(x)` even for operators that are only approximately associative, since both use the
    same bracketing and precision. It stores no gradients and is meant for streams of edits at inference.

    Args:
        monoid: Monoid of the elements.
        x: Elements along the leading axis, at least one.

    Example:
        >>> from commutant.algebra import Sum
        >>> tree = SegmentTree(Sum(), torch.arange(1., 6.))
        >>> tree.root, tree.query(1, 3)
        (tensor(15.), tensor(5.))
        >>> tree.update(torch.tensor([0]), torch.tensor([10.]))
        >>> tree.root
        tensor(24.)
    """

    def __init__(self, monoid: Monoid, x: Element) -> None:
        check_monoid("monoid", monoid)
        if first_leaf(x).dim() == 0 or first_leaf(x).shape[0] == 0:
            raise InputError("a segment tree needs at least one element along the leading axis")
        self.monoid = monoid
        monoid.check_numbers(x)
        self._dtypes, x = monoid.widened(map_leaves(lambda leaf: leaf.detach().clone(), x))
        self._levels = [x]
        with torch.no_grad():
            while (n := first_leaf(self._levels[-1]).shape[0]) > 1:
                below = self._levels[-1]
                even = rows(below, slice(0, n - n % 2))
                merged = monoid.op(rows(even, slice(0, None, 2)), rows(even, slice(1, None, 2)))
                last = rows(below, slice(n - n % 2, n))
                self._levels.append(concatenate(merged, last))

    def __len__(self) -> int:
        return first_leaf(self._levels[0]).shape[0]

    @property
    def root(self) -> Element:
        """Reduction of all elements."""
        return narrowed(map_leaves(lambda leaf: leaf[0].clone(), self._levels[-1]), self._dtypes)

    @torch.no_grad()
    def update(self, index: Int[Tensor, " edits"], x: Element) -> None:
        """Replace elements.

        Args:
            index: Distinct positions of the elements to replace, `(edits,)`.
            x: New elements, `(edits, *carrier)`.
        """
        check_positions("index", index)
        for leaf, new in zip(leaves(self._levels[0]), leaves(x), strict=True):
            if new.shape != (index.numel(), *leaf.shape[1:]):
                raise InputError(
                    f"x must hold one row for each of the {index.numel()} edits, "
                    f"{(index.numel(), *leaf.shape[1:])}, got shape {tuple(new.shape)}"
                )
        if index.numel() and not (int(index.min()) >= 0 and int(index.max()) < len(self)):
            raise InputError(f"index must lie in 0..{len(self) - 1}, got {index.tolist()[:8]}")
        if index.unique().numel() != index.numel():
            raise InputError(f"index must hold distinct positions, got {index.tolist()[:8]}")
        index = index.long()
        map_leaves(lambda leaf, new: leaf.index_copy_(0, index, new.to(leaf)), self._levels[0], x)
        for below, above in zip(self._levels, self._levels[1:], strict=False):
            n = first_leaf(below).shape[0]
            index = (index // 2).unique()
            full = index[2 * index + 1 < n]
            merged = self.monoid.op(rows(below, 2 * full), rows(below, 2 * full + 1))
            map_leaves(lambda leaf, new, at=full: leaf.index_copy_(0, at, new), above, merged)
            if n % 2:
                map_leaves(lambda up, down: up[-1:].copy_(down[-1:]), above, below)

    @torch.no_grad()
    def query(self, start: int, stop: int) -> Element:
        """Return the reduction of the elements from `start` up to `stop` (excluded), in order.

        Args:
            start: Position of the first element.
            stop: Position after the last element.
        """
        if not 0 <= start <= stop <= len(self):
            raise InputError(f"start and stop must satisfy 0 <= start <= stop <= {len(self)}, got {start} and {stop}")
        left = right = None
        for level in self._levels:
            if start >= stop:
                break
            if start % 2:
                node = rows(level, start)
                left = node if left is None else self.monoid.op(left, node)
                start += 1
            if stop % 2:
                stop -= 1
                node = rows(level, stop)
                right = node if right is None else self.monoid.op(node, right)
            start, stop = start // 2, stop // 2
        if left is None and right is None:
            found = self.monoid.identity(map_leaves(lambda leaf: leaf[0], self._levels[0]))
        else:
            found = right if left is None else left if right is None else self.monoid.op(left, right)
        return narrowed(found, self._dtypes)
