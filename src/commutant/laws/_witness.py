"""Search for a small counterexample."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from ._actions import GroupElement
from ._inputs import Inputs, Sets, is_graph_data, map_tensors, named_tensors
from ._laws import Law

_CALLS = 300


def shrink(
    law: Law, x: Inputs, g: GroupElement, breaks: Callable[[Inputs, GroupElement], bool]
) -> tuple[Inputs, GroupElement]:
    """Return a simpler counterexample: repeatedly take the first simpler candidate that still breaks the law.

    Args:
        law: Law that is broken.
        x: Input that breaks it.
        g: Draw that breaks it.
        breaks: Test whether an input and a draw break the law.
    """
    calls = 0
    progress = True
    while progress and calls < _CALLS:
        progress = False
        for y, h in _candidates(law, x, g):
            calls += 1
            try:
                if breaks(y, h):
                    x, g, progress = y, h, True
                    break
            except Exception:  # a smaller input may be invalid
                pass
            if calls >= _CALLS:
                break
    return x, g


def _candidates(law: Law, x: Inputs, g: GroupElement) -> Iterator[tuple[Inputs, GroupElement]]:
    simpler = list(law.shrink(x, g))
    yield from ((y, h) for y, h in simpler if y is not x)
    yield from ((map_tensors(partial(_rows, rows, axis), x), g) for axis, rows in _cuts(x))
    yield from ((y, h) for y, h in simpler if y is x)
    for axis, rows in _cuts(x, blank=True):
        if _changed(blank := map_tensors(partial(_blank, rows, axis), x), x):
            yield blank, g
    for digits in (0, 1, 2):
        if _changed(rounded := map_tensors(partial(_rounded, digits), x), x):
            yield rounded, g


def _changed(y: Inputs, x: Inputs) -> bool:
    pairs = list(zip(named_tensors(y), named_tensors(x), strict=True))
    return any(not torch.equal(s, t) for (_, s), (_, t) in pairs) and not any(
        bool(s.isnan().any()) for (_, s), _ in pairs
    )


def _cuts(x: Inputs, blank: bool = False) -> Iterator[tuple[int, Tensor]]:
    """Yield axes and the rows to keep along them, or with `blank` the rows to set to zero."""
    tensors = [t for _, t in named_tensors(x)]
    if isinstance(x, Sets) or is_graph_data(x) or not tensors:
        return
    axes = range(max(t.dim() for t in tensors) - 1) if len(tensors) == 1 else range(min(t.dim() for t in tensors))
    for axis in axes:
        sizes = {t.shape[axis] for t in tensors}
        size = sizes.pop()
        if sizes or size < 2:
            continue
        rows = torch.arange(size)
        yield axis, rows[: size // 2]
        yield axis, rows[size // 2 :]
        if size > 2:
            yield from (
                (axis, rows[rows == i] if blank else rows[rows != i]) for i in range(min(size, 24 if blank else 6))
            )


def _blank(rows: Tensor, axis: int, _: str, tensor: Tensor) -> Tensor:
    return tensor.index_fill(axis, rows.to(tensor.device), 0) if tensor.is_floating_point() else tensor


def _rows(rows: Tensor, axis: int, _: str, tensor: Tensor) -> Tensor:
    return tensor.index_select(axis, rows.to(tensor.device))


def _rounded(digits: int, _: str, tensor: Tensor) -> Tensor:
    # adding zero changes -0.0 to 0.0
    return tensor.round(decimals=digits) + 0.0 if tensor.dtype in (torch.float32, torch.float64) else tensor
