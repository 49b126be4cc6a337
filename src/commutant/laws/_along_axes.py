"""Permutations of outputs whose element axes are known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ._actions import Action, GroupElement
from ._inputs import Inputs, map_tensors, named_tensors


class AlongAxes(Action):
    """Action on an output whose element axes are known.

    Args:
        base: Action on the inputs, whose elements are one permutation or a tuple of them.
        axes: Pairs (axis, index of the permutation in the tuple) for each part of the output.
    """

    def __init__(self, base: Action, axes: dict[str, tuple[tuple[int, int], ...]]) -> None:
        self.base, self.axes, self.name = base, axes, base.name

    def inverse(self, g: GroupElement) -> GroupElement:
        return self.base.inverse(g)

    def act(self, g: GroupElement, x: Inputs) -> Inputs:
        tables = g if isinstance(g, tuple) else (g,)
        names = [name for name, _ in named_tensors(x)]
        if any(name not in self.axes for name in names):
            return self.base.act(g, x)
        position = iter(names)

        def permute(_: str, tensor: Tensor) -> Tensor:
            for axis, which in self.axes[next(position)]:
                if axis < tensor.dim() and tensor.shape[axis] == tables[which].numel():
                    tensor = tensor.index_select(axis, tables[which].to(tensor.device))
            return tensor

        return map_tensors(permute, x)


def sizes_of(f: Callable[[Inputs], Any], x: Inputs) -> dict[str, torch.Size]:
    """Return the shapes of the outputs for x, or an empty dict if f fails on x."""
    try:
        return {name: t.shape for name, t in named_tensors(f(x))}
    except Exception:  # f need not take inputs of other sizes
        return {}
