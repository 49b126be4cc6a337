"""Rules of operators that look up positions: embeddings, gathers and scatters, windows."""

from __future__ import annotations

from math import prod
from typing import Any

from torch import fx

from ._axes import Axis, Invariant, product
from ._lookahead import constant_of, run_of, stretch_of
from ._rules_reshaping import cut, plain, side_by_side, taken
from ._walk import Labels, Op, Stacked, fixed, rule


@rule("embedding")
def embedding(op: Op) -> Any:
    """Label rows that are looked up by position."""
    rows, *rest = op.axes("weight")
    value = plain(op, "indices")
    _look_up(op, rows, value)
    return [*value.axes, *rest]


@rule("embedding_bag", "_embedding_bag", "_embedding_bag_forward_only")
def embedding_bag(op: Op) -> Any:
    """Label rows that are looked up by position and reduced within bags."""
    rows, features = op.axes("weight")
    _look_up(op, rows, plain(op, "indices"))
    for axis in (*plain(op, "indices").axes, *op.axes("offsets"), *op.axes("per_sample_weights")):
        op.freeze(axis)
    bags, *others = ([fixed(n, op.name) for n in shape or ()] for shape in op.shapes)
    return ([bags[0], features], *others)


def _look_up(op: Op, axis: Axis, index: Labels) -> None:
    """Tie an axis to the axis that the integers are positions along; freeze it if there is none."""
    op.mix(axis)
    if index.points_to is None:
        op.freeze(axis)
    else:
        op.tie(axis, index.points_to)


@rule("index_select")
def index_select(op: Op) -> Any:
    """Label entries of one axis that are selected by position."""
    axes, index = op.axes("self"), plain(op, "index")
    dim = op["dim"] % len(axes)
    _look_up(op, axes[dim], index)
    axes[dim] = index.axes[0] if index.axes else Invariant(1)
    return axes


@rule("index", "_unsafe_index")
def index(op: Op) -> Any:
    """Label entries that are selected by tensors of positions, one for each indexed axis."""
    given = op.value("self")
    where = [i for i, n in enumerate(op["indices"]) if n is not None]
    if len(where) == 1 and op["self"] is not None:
        size = op["self"].meta["val"].shape[where[0]]
        if (stretch := run_of(constant_of(op["indices"][where[0]]), size)) is not None:
            if isinstance(given, Stacked) and given.position == where[0]:
                own = given.part(stretch[0], stretch[1] - stretch[0])
                if own is not None:
                    return list(own)
            axes = op.axes("self")
            axes[where[0]] = taken(op, axes[where[0]], stretch[0], stretch[1] - stretch[0])
            return axes
    axes = op.axes("self")
    chosen = [n if isinstance(n, fx.Node) else None for n in op["indices"]]
    if any(n is not None and not _integer(n) for n in chosen):
        raise NotImplementedError
    values = {i: _labels_of(op, chosen[i]) for i in where}
    for i in where:
        _look_up(op, axes[i], values[i])
    count = max(len(values[i].axes) for i in where)
    adjacent = where == list(range(where[0], where[-1] + 1))
    at = where[0] if adjacent else 0
    block = op.spread([v.axes for v in values.values()], op.shape[at : at + count])
    rest = [a for i, a in enumerate(axes) if i not in where]
    return [*rest[:at], *block, *rest[at:]]


def _labels_of(op: Op, node: fx.Node | None) -> Labels:
    value = op.value(node) if node is not None else None
    return value if isinstance(value, Labels) else Labels(())


def _integer(node: fx.Node) -> bool:
    dtype = node.meta["val"].dtype
    return not dtype.is_floating_point and str(dtype) != "torch.bool"


@rule("gather", "scatter", "scatter_add", "scatter_reduce", "index_add", "index_copy")
def scatter(op: Op) -> Any:
    """Label entries that are read from, or written to, positions along one axis."""
    axes = op.axes("self")
    position, source = plain(op, "index"), op.axes("src") or op.axes("source")
    dim = op["dim"] % len(axes)
    if op.name in ("aten.index_add", "aten.index_copy"):
        position = Labels(tuple(position.axes[0] if i == dim else Invariant(a.size) for i, a in enumerate(source)),
                          position.points_to)  # fmt: skip
    whole = axes[dim]
    if isinstance(whole, Invariant) and position.points_to is not None:
        whole = position.points_to
        op.mix(whole)
    else:
        _look_up(op, whole, position)
        whole = fixed(whole.size, op.name) if isinstance(whole, Invariant) else whole
    entries = position.axes[dim] if position.axes else Invariant(1)
    if source and (source[dim].size != entries.size or op.name in ("aten.scatter", "aten.index_copy")):
        op.freeze(source[dim])  # of two writes to one position the last one stays
        op.freeze(entries)
    elif source:
        op.tie(source[dim], entries)
    result: list[Axis] = []
    for i, axis in enumerate(axes):
        if i == dim:
            result.append(whole)
            continue
        own = [a for a in (axis, position.axes[i], *([source[i]] if source else [])) if a.size == axis.size]
        if any(a.size != axis.size for a in (position.axes[i], *([source[i]] if source else []))):
            for other in (position.axes[i], *([source[i]] if source else [])):
                op.freeze(other)
            result.append(op.pin(axis))
        else:
            result.append(op.spread([[a] for a in own], [axis.size])[0])
    if op.name == "aten.gather":
        result[dim] = entries
        if [a.size for a in result] != list(op.shape):
            return [op.pin(a, n) for a, n in zip(result, op.shape, strict=True)]
    return result


@rule("slice_scatter", "select_scatter")
def write_slice(op: Op) -> Any:
    """Label a tensor of which a stretch or one index of an axis is overwritten."""
    axes, source = op.axes("self"), op.axes("src")
    dim = (op["dim"] or 0) % len(axes)
    if op.name == "aten.select_scatter":
        source = [*source[:dim], Invariant(1), *source[dim:]]
        start, step = op["index"] % axes[dim].size, 1
    else:
        step = op["step"] or 1
        start, _ = stretch_of(op["start"], source[dim].size, axes[dim].size)
    size = source[dim].size
    result = op.spread([[a for i, a in enumerate(t) if i != dim] for t in (axes, source)],
                       [n for i, n in enumerate(op.shape) if i != dim])  # fmt: skip
    if step != 1:
        op.freeze(source[dim])
        result.insert(dim, op.pin(axes[dim]))
    else:
        before, _, after = cut(op, axes[dim], [start, size, axes[dim].size - start - size])
        result.insert(dim, side_by_side([before, source[dim], after]))
    return result


@rule("one_hot")
def one_hot(op: Op) -> Any:
    """Add an axis that the integers are positions along."""
    value = plain(op)
    return [*value.axes, value.points_to or fixed(op.shape[-1], op.name)]


@rule("pixel_shuffle", "pixel_unshuffle")
def pixel_shuffle(op: Op) -> Any:
    """Split blocks of channels into pixels, or merge pixels into blocks of channels."""
    axes = op.axes("self")
    up = op.name == "aten.pixel_shuffle"
    factor = op["upscale_factor"] if up else op["downscale_factor"]
    inner = [fixed(factor, op.name), fixed(factor, op.name)]
    outer = Axis(op.shape[-3]) if up else axes[-3]
    if up:
        op.tie(axes[-3], product([outer, *inner]))
    return [*axes[:-3], outer if up else product([outer, *inner]),
            *[op.pin(a, n) for a, n in zip(axes[-2:], op.shape[-2:], strict=True)]]  # fmt: skip


@rule("im2col", "col2im")
def windows(op: Op) -> Any:
    """Label the columns of the windows of an image, channels outermost, or the image as the sum of its windows."""
    axes = op.axes("self")
    inner = [fixed(n, op.name) for n in op["kernel_size"]]
    if op.name == "aten.im2col":
        for axis in axes[-2:]:
            op.freeze(axis)
        return [*axes[:-3], product([axes[-3], *inner]), fixed(op.shape[-1], op.name)]
    channels = Axis(op.shape[-3])
    op.tie(axes[-2], product([channels, *inner]))
    op.freeze(axes[-1])
    return [*axes[:-2], channels, *(fixed(n, op.name) for n in op.shape[-2:])]


@rule("unfold")
def sliding(op: Op) -> Any:
    """Label windows along one axis, with the positions within them along a new last axis."""
    axes = op.axes("self")
    dim = op["dimension"] % len(axes)
    axes[dim] = op.pin(axes[dim], op.shape[dim])
    return [*axes, fixed(op["size"], op.name)]


@rule("channel_shuffle", "native_channel_shuffle")
def channel_shuffle(op: Op) -> Any:
    """Interleave groups of channels."""
    axes = op.axes("self")
    groups, inner = Axis(op["groups"]), Axis(axes[-3].size // op["groups"])
    op.tie(axes[-3], product([groups, inner]))
    return [*axes[:-3], product([inner, groups]), *axes[-2:]]


@rule("view_as_complex", "view_as_real")
def complex_pairs(op: Op) -> Any:
    """Remove or add a last axis of real and imaginary parts, which can't move."""
    axes = op.axes("self")
    if op.name == "aten.view_as_complex":
        op.freeze(axes[-1])
        return axes[:-1]
    return [*axes, fixed(2, op.name)]


@rule("max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d",
      "adaptive_avg_pool2d", "adaptive_avg_pool3d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d",
      "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d", "max_pool2d_with_indices", "lp_pool2d",
      "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "upsample_bilinear2d", "upsample_linear1d",
      "upsample_trilinear3d", "upsample_bicubic2d", "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa",
      "_upsample_nearest_exact2d", "grid_sampler")  # fmt: skip
def pool(op: Op) -> Any:
    """Pin the spatial axes; each channel is pooled separately."""
    axes = op.axes("self") or op.axes("input")
    if op.name == "aten.grid_sampler":
        for axis in op.axes("grid"):
            op.freeze(axis)
        count = len(axes) - 2
    else:
        count = next(int(c) for c in op.name if c.isdigit())
    whole = "adaptive" in op.name and prod(op.shape[-count:]) == 1 and len(op.shapes) == 1
    spatial = [Invariant(1) if whole else op.pin(a, n) for a, n in zip(axes[-count:], op.shape[-count:], strict=True)]
    result = [*axes[:-count], *spatial]
    return (result, result) if len(op.shapes) > 1 else result
