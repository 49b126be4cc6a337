"""Terms for the unknown permutation of an axis: a leaf, a direct sum of terms or a product of terms.

Two axes that move together have unified terms. Where the terms differ in shape, the coarser one is cut, which restricts
its group to a subgroup. Where they have no common refinement, both are frozen. No step allows a permutation that
changes the function.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import prod


class Axis:
    """Unknown permutation of `size` entries: a leaf, or a sum or product of smaller ones.

    In a product the first factor is the outermost, as in a row-major reshape.
    """

    __slots__ = ("_link", "frozen", "join", "parts", "size", "used")

    def __init__(self, size: int, frozen: str | None = None) -> None:
        self.size = size
        self.frozen = frozen  # reason why only the identity is allowed; None where the axis may move
        self.used = frozen is not None
        self.join: str | None = None
        self.parts: tuple[Axis, ...] = ()
        self._link: Axis | None = None

    def find(self) -> Axis:
        """Return the representative of the terms that this one was unified with."""
        root = self
        while root._link is not None:
            root = root._link
        while self._link is not None:
            self._link, self = root, self._link
        return root

    def leaves(self) -> Iterator[Axis]:
        """Yield the leaves of the term, each as often as it occurs."""
        root = self.find()
        if root.join is None:
            yield root
        for part in root.parts:
            yield from part.leaves()

    def _become(self, join: str, parts: Sequence[Axis]) -> None:
        """Turn a leaf into a sum or a product of fresh parts, which inherit its flags."""
        for part in parts:
            part.frozen, part.used = self.frozen, self.used
        self.join, self.parts = join, tuple(parts)


class Invariant(Axis):
    """Axis along which all entries are equal (a constant, an expanded axis), so that every permutation is allowed."""

    __slots__ = ()

    def find(self) -> Axis:
        return self


def direct_sum(parts: Iterable[Axis]) -> Axis:
    """Return the axis of a concatenation of the parts."""
    return _compound("sum", [_solid(part) for part in parts if part.size])


def product(parts: Iterable[Axis]) -> Axis:
    """Return the axis of a row-major flattening of the parts, the first part outermost."""
    return _compound("product", [_solid(part) for part in parts if part.size != 1])


def _compound(join: str, parts: Sequence[Axis]) -> Axis:
    if len(parts) == 1:
        return parts[0]
    axis = Axis((sum if join == "sum" else prod)(part.size for part in parts))
    axis.join, axis.parts = (join, tuple(parts)) if parts else (None, ())
    return axis


def _solid(axis: Axis) -> Axis:
    return Axis(axis.size) if isinstance(axis, Invariant) else axis


def freeze(axis: Axis, why: str) -> None:
    """Restrict the permutation of an axis to the identity."""
    for leaf in axis.leaves():
        leaf.frozen = leaf.frozen or why


def use(axis: Axis) -> None:
    """Record that the values along the axis were read."""
    for leaf in axis.leaves():
        leaf.used = True


def unify(x: Axis, y: Axis, why: str) -> None:
    """Make two axes of equal size move together; freeze both where their terms have no common refinement."""
    x, y = x.find(), y.find()
    if x.size != y.size:
        _freeze_all([[x, y]], why)
        return
    if x is y or x.size <= 1 or isinstance(x, Invariant) or isinstance(y, Invariant):
        return
    if x.join is not None and y.join is None:
        x, y = y, x
    if x.join is not None:
        _unify_sums([[x]], [[y]], why)
    elif x.frozen is not None:
        freeze(y, x.frozen)
    elif y.join is None and y.frozen is not None:
        freeze(x, y.frozen)
    else:
        x._link = y
        if x.used:
            use(y)


def parts_of(axis: Axis, sizes: Sequence[int], why: str) -> list[Axis]:
    """Cut an axis into consecutive stretches of the given sizes."""
    if isinstance(axis, Invariant):
        return [Invariant(size) for size in sizes]
    parts = [Axis(size) for size in sizes]
    unify(axis, direct_sum(parts), why)
    return parts


def reshape(axes: Sequence[Axis], sizes: Sequence[int], why: str) -> list[Axis]:
    """Return the axes of a row-major reshape: runs of equal product are merged, then split."""
    result: list[Axis] = []
    if 0 in sizes:
        _freeze_all([axes], why)
        return [Axis(size, why) for size in sizes]
    for run, shape in runs([axis.size for axis in axes], sizes):
        old = [axes[i] for i in run]
        if len(old) == len(shape) == 1:
            result.append(old[0])
        elif all(isinstance(axis, Invariant) or axis.size == 1 for axis in old):
            result.extend(Invariant(sizes[j]) for j in shape)
        else:
            new = [Axis(sizes[j]) if sizes[j] != 1 else Invariant(1) for j in shape]
            unify(product(old), product(new), why)
            result.extend(new)
    return result


def runs(old: Sequence[int], new: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """Yield the shortest runs of axes, before and after a reshape, with equal numbers of entries."""
    if 0 in old or 0 in new:
        yield list(range(len(old))), list(range(len(new)))
        return
    i = j = 0
    while i < len(old) or j < len(new):
        run: list[int] = []
        shape: list[int] = []
        before = after = 1
        while not (run or shape) or before != after:
            if j >= len(new) or (i < len(old) and before <= after):
                run.append(i)
                before *= old[i]
                i += 1
            else:
                shape.append(j)
                after *= new[j]
                j += 1
        if before == 1 and (len(run), len(shape)) != (1, 1):
            yield run, []
            for k in shape:
                yield [], [k]
        else:
            yield run, shape


def _unify_sums(xs: list[list[Axis]], ys: list[list[Axis]], why: str) -> None:
    """Unify two direct sums of products, block by block, cutting the larger block where the borders differ."""
    while xs and ys:
        x, y = _first(xs), _first(ys)
        sizes = _size(x), _size(y)
        if sizes[0] == sizes[1]:
            del xs[0], ys[0]
            _unify_products(x, y, why)
        elif not (_cut(x, sizes[1]) if sizes[0] > sizes[1] else _cut(y, sizes[0])):
            _freeze_all([*xs, *ys], why)
            return


def _first(blocks: list[list[Axis]]) -> list[Axis]:
    """Return the first block of a queue, expanded until its outermost factor is a leaf."""
    while True:
        outer, *rest = blocks[0]
        outer = outer.find()
        if outer.join == "sum":
            blocks[0:1] = [[part, *rest] for part in outer.parts]
        elif outer.join == "product":
            blocks[0] = [*outer.parts, *rest]
        else:
            blocks[0] = [outer, *rest]
            return blocks[0]


def _cut(block: list[Axis], size: int) -> bool:
    """Cut a block after `size` entries, along its outermost factor; return False where it can't be cut there."""
    inner = _size(block[1:])
    count, left = divmod(size, inner) if inner else (0, 0)
    if left or not count:
        return False
    block[0]._become("sum", [Axis(count), Axis(block[0].size - count)])
    return True


def _unify_products(xs: list[Axis], ys: list[Axis], why: str) -> None:
    """Unify two products of equal size, factor by factor, splitting a leaf where the other side is finer."""
    xs, ys = list(xs), list(ys)
    while xs and ys:
        x, y = xs[0].find(), ys[0].find()
        if x.join == "product" or x.size == 1:
            xs[0:1] = x.parts
        elif y.join == "product" or y.size == 1:
            ys[0:1] = y.parts
        elif x.size == y.size:
            del xs[0], ys[0]
            unify(x, y, why)
        else:
            big, small = (xs, ys) if x.size > y.size else (ys, xs)
            whole, factor = big[0].find(), small[0].find()
            if whole.join is None and whole.size % factor.size == 0:
                whole._become("product", [Axis(factor.size), Axis(whole.size // factor.size)])
                continue
            taken: list[Axis] = []
            while small and _size(taken) < whole.size:
                taken.append(small.pop(0))
            if _size(taken) != whole.size:
                _freeze_all([xs, ys, taken], why)
                return
            del big[0]
            unify(whole, product(taken), why)


def _size(block: Sequence[Axis]) -> int:
    return prod(axis.size for axis in block)


def _freeze_all(blocks: Iterable[Sequence[Axis]], why: str) -> None:
    for block in blocks:
        for axis in block:
            freeze(axis, why)
