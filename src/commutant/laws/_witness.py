"""Search the smallest counter-example that shows a break plainly."""

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
    """Take the first simpler candidate that still breaks the law, until none does."""
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
            except Exception:  # a smaller input need not be a valid one
                pass
            if calls >= _CALLS:
                break
    return x, g


def _candidates(law: Law, x: Inputs, g: GroupElement) -> Iterator[tuple[Inputs, GroupElement]]:
    simpler = list(law.shrink(x, g))
    yield from ((y, h) for y, h in simpler if y is not x)
    yield from ((y, g) for y in _cuts(x))
    yield from ((y, h) for y, h in simpler if y is x)
    for digits in (0, 1, 2):
        rounded = map_tensors(partial(_rounded, digits), x)
        pairs = list(zip(named_tensors(rounded), named_tensors(x), strict=True))
        changed = any(not torch.equal(s, t) for (_, s), (_, t) in pairs)
        if changed and not any(bool(s.isnan().any()) for (_, s), _ in pairs):
            yield rounded, g


def _cuts(x: Inputs) -> Iterator[Inputs]:
    """Halves of x, then x without one row, along every axis but the last that its tensors share."""
    tensors = [t for _, t in named_tensors(x)]
    if isinstance(x, Sets) or is_graph_data(x) or not tensors:
        return
    axes = range(max(t.dim() for t in tensors) - 1) if len(tensors) == 1 else range(min(t.dim() for t in tensors))
    for axis in axes:
        sizes = {t.shape[axis] for t in tensors}
        size = sizes.pop()
        if sizes or size < 2:
            continue
        parts = [range(size // 2), range(size // 2, size)]
        parts += [[i for i in range(size) if i != drop] for drop in range(min(size, 6))] if size > 2 else []
        for part in parts:
            yield map_tensors(partial(_rows, torch.tensor(list(part)), axis), x)


def _rows(rows: Tensor, axis: int, _: str, tensor: Tensor) -> Tensor:
    return tensor.index_select(axis, rows.to(tensor.device))


def _rounded(digits: int, _: str, tensor: Tensor) -> Tensor:
    # adding zero turns -0.0 into 0.0
    return tensor.round(decimals=digits) + 0.0 if tensor.dtype in (torch.float32, torch.float64) else tensor
