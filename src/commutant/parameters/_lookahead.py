"""Lookahead in a graph: whether an axis is only ever cut at constant positions, and where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, fx

from ._walk import name_of

_COPIES = ("aten.clone", "aten.contiguous", "aten.to", "aten.detach", "aten._to_copy", "aten.lift_fresh_copy")


def cuts(node: fx.Node, dim: int) -> list[int] | None:
    """Return where an axis is cut, if it is only moved and then cut at constant positions; None otherwise."""
    stretches: set[tuple[int, int]] = set()
    if not node.users or not _collect(node, dim, stretches):
        return None
    size = node.meta["val"].shape[dim]
    borders = sorted({b for stretch in stretches for b in stretch} - {0, size})
    parts = set(zip([0, *borders], [*borders, size], strict=True))
    return borders if stretches <= parts else None


def _collect(node: fx.Node, dim: int, stretches: set[tuple[int, int]]) -> bool:
    """Collect the stretches that are cut from an axis; return False if something else is done with it."""
    shape = node.meta["val"].shape
    for user in node.users:
        name = name_of(user.target) if user.op == "call_function" else ""
        args = user.args
        along = args[1] if len(args) > 1 and isinstance(args[1], int) else 0
        if name in ("aten.select", "aten.unbind") and along % len(shape) == dim:
            start = args[2] % shape[dim] if name == "aten.select" else None  # type: ignore[operator]
            stretches |= {(i, i + 1) for i in (range(shape[dim]) if start is None else [start])}
        elif name == "aten.slice" and along % len(shape) == dim and (args[4] if len(args) > 4 else 1) == 1:
            start, size = stretch_of(args[2] if len(args) > 2 else None, user.meta["val"].shape[dim], shape[dim])
            stretches.add((start, start + size))
        elif name == "aten.slice" and user.meta["val"].shape == shape:
            if not _collect(user, dim, stretches):
                return False
        elif name == "aten.index" and (found := _constant_stretch(user, dim)) is not None:
            stretches.add(found)
        elif name in ("aten.permute", "aten.transpose", "aten.unsqueeze", "aten.squeeze", "aten.movedim"):
            order = order_of(name, args[1:], shape)
            if order is None or dim not in order or not _collect(user, order.index(dim), stretches):
                return False
        elif name not in _COPIES or not _collect(user, dim, stretches):
            return False
    return True


def stretch_of(start: Any, size: int, whole: int) -> tuple[int, int]:
    """Return the start and the length of a slice."""
    start = start or 0
    return min(max(start + whole if start < 0 else start, 0), whole), size


def _constant_stretch(node: fx.Node, dim: int) -> tuple[int, int] | None:
    """Return the stretch of an axis that indexing by a constant list takes, such as `x[..., [-2], :]`."""
    indices = node.args[1]
    chosen = [i for i, n in enumerate(indices) if n is not None]  # type: ignore[arg-type]
    if chosen != [dim]:
        return None
    return run_of(constant_of(indices[dim]), node.args[0].meta["val"].shape[dim])  # type: ignore[index, union-attr]


def constant_of(node: Any) -> Tensor | None:
    """Return the values of a node that is a constant of its graph, or None."""
    while isinstance(node, fx.Node) and name_of(node.target) in _COPIES:
        node = node.args[0]
    return node.meta.get("constant") if isinstance(node, fx.Node) else None


def run_of(values: Tensor | None, size: int) -> tuple[int, int] | None:
    """Return the start and the end of a list of consecutive positions, or None."""
    if values is None or values.ndim != 1 or values.numel() == 0 or values.dtype.is_floating_point:
        return None
    found = [int(v) % size for v in values]
    return (found[0], found[-1] + 1) if found == list(range(found[0], found[-1] + 1)) else None


def order_of(name: str, args: Any, shape: Sequence[int]) -> list[int | None] | None:
    """Return the order of the axes after an operator that only moves axes; None marks a new axis of size one."""
    ndim = len(shape)
    order: list[int | None] = list(range(ndim))
    if name == "aten.permute":
        return [d % ndim for d in args[0]]
    if name in ("aten.transpose", "aten.swapaxes", "aten.swapdims"):
        i, j = args[0] % ndim, args[1] % ndim
        order[i], order[j] = j, i
    elif name == "aten.unsqueeze":
        order.insert(args[0] % (ndim + 1), None)
    elif name == "aten.squeeze":
        dims = (
            range(ndim) if not args else [args[0] % ndim] if isinstance(args[0], int) else [d % ndim for d in args[0]]
        )
        order = [d for d in range(ndim) if d not in dims or shape[d] != 1]
    elif name in ("aten.movedim", "aten.moveaxis"):
        source = [args[0]] if isinstance(args[0], int) else args[0]
        target = [args[1]] if isinstance(args[1], int) else args[1]
        pairs = sorted((t % ndim, s % ndim) for s, t in zip(source, target, strict=True))
        order = [d for d in range(ndim) if d not in [s for _, s in pairs]]
        for t, s in pairs:
            order.insert(t, s)
    elif name in ("aten.t", "aten.numpy_T", "aten.adjoint", "aten.mT", "aten.matrix_H"):
        order = order[::-1] if name in ("aten.t", "aten.numpy_T") else [*order[:-2], ndim - 1, ndim - 2]
    return order
