"""Rules of operators that rearrange axes: reshapes, transposes, concatenation, slices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ._axes import Axis, Invariant, direct_sum, parts_of, product, reshape, runs, unify
from ._lookahead import cuts, order_of, stretch_of
from ._walk import Labels, Op, Stacked, collapse, fixed, rule


def cut(op: Op, axis: Axis, sizes: Sequence[int]) -> list[Axis]:
    """Cut an axis into consecutive stretches, all of which are used."""
    parts = parts_of(axis, sizes, op.name)
    op.events.cuts.append((axis, tuple(parts), tuple(parts)))
    return parts


def taken(op: Op, axis: Axis, start: int, size: int) -> Axis:
    """Cut one stretch out of an axis."""
    parts = parts_of(axis, [start, size, axis.size - start - size], op.name)
    op.events.cuts.append((axis, tuple(part for part in parts if part.size), (parts[1],)))
    return parts[1]


def plain(op: Op, name: str = "self") -> Labels:
    """Return the labels of a tensor argument, with the axis that its integers point to."""
    value = op.value(name)
    if isinstance(value, Stacked):
        value = collapse(value, op.name)
    return value if isinstance(value, Labels) else Labels(())


@rule("view", "reshape", "_unsafe_view", "flatten", "unflatten", "view_as", "reshape_as", "ravel", "_reshape_alias",
      "_reshape_copy", "view_copy")  # fmt: skip
def view(op: Op) -> Any:
    """Merge and split runs of axes with equal numbers of entries."""
    if op["dtype"] is not None and op["size"] is None and op["shape"] is None:
        raise NotImplementedError
    value = plain(op)
    for dim in range(len(op.shape)):
        borders = cuts(op.node, dim) if op.shape[dim] > 1 and value.points_to is None else None
        if borders and len(borders) <= 8 and (stacked := _stack(op, value, dim, borders)) is not None:
            return stacked
    return Labels(tuple(reshape(value.axes, op.shape, op.name)), value.points_to, value.constant)


def _stack(op: Op, value: Labels, dim: int, borders: Sequence[int]) -> Stacked | None:
    """Label a new axis that is only ever cut, such as query, key and value, with separate labels for its parts."""
    old = [axis.size for axis in value.axes]
    for run, shape in runs(old, op.shape):
        if dim in shape and len(shape) > 1 and not all(isinstance(value.axes[i], Invariant) for i in run):
            break
    else:
        return None
    before = [Axis(op.shape[j]) for j in shape if j < dim]
    sizes = [high - low for low, high in zip([0, *borders], [*borders, op.shape[dim]], strict=True)]
    own = [[Axis(n), *[Axis(op.shape[j]) for j in shape if j > dim]] for n in sizes]
    unify(product([value.axes[i] for i in run]), product([*before, direct_sum(product(axes) for axes in own)]), op.name)
    parts = []
    for after in own:
        mine = iter([*before, *after])
        axes: list[Axis] = []
        for r, s in runs(old, op.shape):
            axes += [next(mine) for _ in s] if s == shape else reshape(
                [value.axes[i] for i in r], [op.shape[j] for j in s], op.name)  # fmt: skip
        parts.append(tuple(axes))
    return Stacked(dim, tuple(parts))


@rule("permute", "transpose", "unsqueeze", "squeeze", "movedim", "moveaxis", "t", "numpy_T", "mT", "adjoint",
      "swapaxes", "swapdims")  # fmt: skip
def move_axes(op: Op) -> Any:
    """Reorder the axes; axes of size one may be added or removed."""
    value = op.value("self")
    args = [
        op[n] for n in ("dims", "dim", "dim0", "dim1", "axis0", "axis1", "source", "destination") if op[n] is not None
    ]
    if isinstance(value, Stacked):
        sizes = [axis.size for axis in value.parts[0]]
        sizes[value.position] = sum(value.sizes)
        order = order_of(op.name, args, sizes)
        assert order is not None
        parts = tuple(tuple(Invariant(1) if d is None else axes[d] for d in order) for axes in value.parts)
        return Stacked(order.index(value.position), parts)
    value = plain(op)
    order = order_of(op.name, args, [axis.size for axis in value.axes])
    assert order is not None
    return Labels(tuple(Invariant(1) if d is None else value.axes[d] for d in order), value.points_to)


@rule("expand", "expand_as", "broadcast_to", "expand_copy")
def expand(op: Op) -> Any:
    """Label new axes, along which all entries are equal."""
    value = plain(op)
    lead = len(op.shape) - len(value.axes)
    own = [Invariant(n) if a.size != n else a for n, a in zip(op.shape[lead:], value.axes, strict=True)]
    return Labels((*[Invariant(n) for n in op.shape[:lead]], *own), value.points_to)


@rule("repeat", "tile")
def repeat(op: Op) -> Any:
    """Label concatenated copies of an axis."""
    axes = op.axes("self")
    times = list(op["repeats"] or op["dims"])
    times = [1] * (len(op.shape) - len(times)) + times
    axes = [Invariant(1)] * (len(op.shape) - len(axes)) + axes
    return [
        axis
        if k == 1
        else Invariant(axis.size * k)
        if isinstance(axis, Invariant) or axis.size == 1
        else direct_sum([axis] * k)
        for axis, k in zip(axes, times, strict=True)
    ]


@rule("repeat_interleave")
def repeat_interleave(op: Op) -> Any:
    """Label an axis on which each entry is repeated in place."""
    axes = op.axes("self")
    if not isinstance(op["repeats"], int) or op["dim"] is None:
        raise NotImplementedError
    dim = op["dim"] % len(axes)
    axis, inner = axes[dim], Axis(op["repeats"])
    axes[dim] = Invariant(op.shape[dim]) if isinstance(axis, Invariant) or axis.size == 1 else product([axis, inner])
    return axes


@rule("cat", "concat", "concatenate")
def cat(op: Op) -> Any:
    """Label a concatenation of tensors."""
    tensors = [axes for axes in op.tensors("tensors") if not (len(axes) == 1 and axes[0].size == 0)]
    dim = (op["dim"] or 0) % len(op.shape)
    others = [[axis for i, axis in enumerate(axes) if i != dim] for axes in tensors]
    result = op.spread(others, [n for i, n in enumerate(op.shape) if i != dim])
    parts = [axes[dim] for axes in tensors]
    result.insert(dim, side_by_side(parts))
    return result


def side_by_side(parts: Sequence[Axis]) -> Axis:
    """Return the axis of concatenated parts; equal entries move within their part only."""
    return direct_sum(Axis(part.size) if isinstance(part, Invariant) else part for part in parts)


@rule("stack")
def stack(op: Op) -> Any:
    """Add an axis whose order is the order of the list."""
    dim = (op["dim"] or 0) % len(op.shape)
    result = op.spread(op.tensors("tensors"), [n for i, n in enumerate(op.shape) if i != dim])
    result.insert(dim, fixed(op.shape[dim], op.name))
    return result


@rule("select", "unbind")
def select(op: Op) -> Any:
    """Label one index along an axis, or each in turn."""
    value = op.value("self")
    if isinstance(value, Stacked) and (op["dim"] or 0) % len(value.parts[0]) == value.position:
        count = sum(value.sizes)
        chosen = range(count) if op.name == "aten.unbind" else [op["index"] % count]
        found = [value.part(i, 1) for i in chosen]
        if all(axes is not None for axes in found):
            labels = tuple(Labels(axes[: value.position] + axes[value.position + 1 :]) for axes in found if axes)
            return labels if op.name == "aten.unbind" else labels[0]
    value = plain(op)
    dim = (op["dim"] or 0) % len(value.axes)
    if not isinstance(value.axes[dim], Invariant):
        op.freeze(value.axes[dim])
    rest = Labels(tuple(a for i, a in enumerate(value.axes) if i != dim), value.points_to)
    return (rest,) * value.axes[dim].size if op.name == "aten.unbind" else rest


@rule("slice", "narrow")
def slice_(op: Op) -> Any:
    """Label a stretch of an axis."""
    value = op.value("self")
    if isinstance(value, Stacked):
        size, count = op.shape[value.position], sum(value.sizes)
        if (op["dim"] or 0) % len(value.parts[0]) != value.position:
            if list(op.shape) == list(op["self"].meta["val"].shape):
                return value
        elif (op["step"] or 1) == 1 and (own := value.part(*stretch_of(op["start"], size, count))) is not None:
            return list(own)
    value = plain(op)
    axes = list(value.axes)
    dim = (op["dim"] or 0) % len(axes)
    axis, size = axes[dim], op.shape[dim]
    start, _ = stretch_of(op["start"], size, axis.size)
    if size == axis.size:
        return value
    step = op["step"] or 1
    if step != 1:
        axes[dim] = _every(op, axis, step, size)
    else:
        axes[dim] = taken(op, axis, start, size)
    return Labels(tuple(axes), value.points_to)


def _every(op: Op, axis: Axis, step: int, size: int) -> Axis:
    """Label every `step`-th entry of an axis, whose runs of `step` entries move as wholes."""
    if isinstance(axis, Invariant):
        return Invariant(size)
    if axis.size != step * size:
        return op.pin(axis, size)
    runs = Axis(size)
    op.tie(axis, product([runs, fixed(step, op.name)]))
    return runs


@rule("split", "split_with_sizes", "chunk", "tensor_split", "unsafe_split", "unsafe_chunk", "hsplit")
def split(op: Op) -> Any:
    """Label the stretches of an axis."""
    value = plain(op)
    dim = (op["dim"] or 0) % len(value.axes)
    sizes = [s[dim] for s in op.shapes if s is not None]
    if sum(sizes) != value.axes[dim].size:
        raise NotImplementedError
    parts = cut(op, value.axes[dim], sizes)
    return tuple(
        Labels(tuple(part if i == dim else a for i, a in enumerate(value.axes)), value.points_to) for part in parts
    )


@rule("constant_pad_nd", "pad", "reflection_pad1d", "reflection_pad2d", "replication_pad1d", "replication_pad2d",
      "reflection_pad3d", "replication_pad3d")  # fmt: skip
def pad(op: Op) -> Any:
    """Add separate parts for constant padding; pin the axis for other padding, which reads positions."""
    axes = op.axes("self")
    widths = list(op["pad"] or op["padding"] or ())
    constant = op.name == "aten.constant_pad_nd" or (op.name == "aten.pad" and op["mode"] in (None, "constant"))
    for i in range(len(widths) // 2):
        low, high = widths[2 * i : 2 * i + 2]
        axis = axes[-1 - i]
        if low == high == 0:
            continue
        if not constant:
            axes[-1 - i] = op.pin(axis, axis.size + low + high)
            continue
        kept = taken(op, axis, max(-low, 0), axis.size - max(-low, 0) - max(-high, 0))
        axes[-1 - i] = side_by_side([Axis(max(low, 0)), kept, Axis(max(high, 0))])
    return axes
