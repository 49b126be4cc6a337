"""Dropout that treats all copies of an input alike: without it, averaging copies is not symmetric in training."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .._errors import InputError
from ..algebra import Clouds, Copies

_PRODUCTS = (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, torch.dropout, torch.feature_dropout)
_ALPHA = (F.alpha_dropout, F.feature_alpha_dropout)
_FUSED = (F.scaled_dot_product_attention, F.multi_head_attention_forward)


@contextmanager
def same_dropout(clouds: Clouds, training: bool) -> Iterator[Callable[[Copies, Tensor | None], None]]:
    """Within, the entries that dropout loses are drawn once for each cloud, and are the same in all its copies.

    Gives a function to call with the copies that the network is about to see, and with the edge behind each copied one:
    pieces of a batch in turn share what was drawn for the first. Alpha dropout is refused; dropout within fused
    attention is drawn afresh, with a warning.
    """
    if not training:
        yield lambda *_: None
        return
    mode = _SameDropout(clouds)
    with mode:
        yield mode.begin


class _SameDropout(TorchFunctionMode):
    """Draws the factors of a dropout for the clouds and copies them; the leading axis says whose rows are there."""

    def __init__(self, clouds: Clouds) -> None:
        super().__init__()
        self.clouds = clouds
        self.copies: Copies | None = None
        self.edges: Tensor | None = None
        self.drawn: list[Tensor] = []
        self.at = 0

    def begin(self, copies: Copies, edges: Tensor | None = None) -> None:
        self.copies, self.edges, self.at = copies, edges, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _FUSED and _drops(func, args, kwargs):
            warnings.warn("dropout within attention differs between the frames of a cloud", stacklevel=2)
        elif (func in _PRODUCTS or func in _ALPHA) and _drops(func, args, kwargs):
            if func in _ALPHA:
                raise InputError("alpha dropout can't be shared between the frames of a cloud: use nn.Dropout")
            x = args[0] if args else kwargs["input"]
            found = self._rows(x)
            if found is None:
                text = f"dropout of shape {tuple(x.shape)} shows no clouds, and differs between the frames of one"
                warnings.warn(text, stacklevel=2)
            else:
                rows, copied = found
                if self.at == len(self.drawn):
                    rest = {k: v for k, v in kwargs.items() if k not in ("input", "inplace")}
                    self.drawn.append(func(x.new_ones((rows, *x.shape[1:])), *args[1:], **rest))
                self.at += 1
                return x * copied(self.drawn[self.at - 1])
        return func(*args, **kwargs)

    def _rows(self, x: Tensor) -> tuple[int, Callable[[Tensor], Tensor]] | None:
        """How many rows of the batch lie behind those of x, and how to copy what was drawn for them."""
        if self.copies is None:
            return None
        copies, points, index = self.copies.cloud, self.copies.rows, self.clouds.index
        if points is not None and index is not None and len(x) == len(points):
            return len(index), lambda drawn: drawn[points]
        if (edges := self.edges) is not None and len(x) == len(edges):
            return int(edges.max()) + 1 if len(edges) else 0, lambda drawn: drawn[edges]
        if len(copies) and len(x) % len(copies) == 0:  # one row a cloud, or as many for each
            each = len(x) // len(copies)
            number = self.clouds.number
            return number * each, lambda drawn: drawn.unflatten(0, (number, each))[copies].flatten(0, 1)
        return None


def _drops(func: Any, args: Any, kwargs: dict[str, Any]) -> bool:
    """Whether this call of a dropout, or of an attention that holds one, loses entries at all."""
    if func is F.scaled_dot_product_attention:
        return float(args[4] if len(args) > 4 else kwargs.get("dropout_p", 0.0)) > 0
    if func is F.multi_head_attention_forward:
        return bool(kwargs.get("training", True)) and float(args[10] if len(args) > 10 else 0.0) > 0
    chance = args[1] if len(args) > 1 else kwargs.get("p", 0.5)
    trains = args[2] if len(args) > 2 else kwargs.get("training", kwargs.get("train", True))
    return bool(trains) and float(chance) > 0
