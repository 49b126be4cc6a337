"""Causality: what happens later must not change what was said before."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .._errors import InputError
from ._inputs import Inputs, call, map_tensors, named_tensors
from ._laws import Function, Law


class Causality(Law):
    """$f(x)_{\\le t}$ depends on $x_{\\le t}$ alone: other values after step t leave the outputs up to t as they are.

    Args:
        dim: the axis of time, of every input tensor and of the output.
    """

    name = "causality"
    formula = "f(x)[:t] = f(x with other values from t on)[:t]"

    def __init__(self, dim: int = 1) -> None:
        self.dim = dim

    def draw(self, x: Inputs, generator: torch.Generator) -> Tensor:
        lengths = {t.shape[self.dim] if t.dim() > self.dim else -1 for _, t in named_tensors(x)}
        if len(lengths) != 1 or -1 in lengths or 0 in lengths:
            raise InputError(f"causality needs inputs that share a time axis dim={self.dim} of at least one step")
        step = torch.randint(1, max(lengths.pop(), 2), (), generator=generator)
        return torch.stack([step, torch.randint(0, 2**31, (), generator=generator)])

    def sides(self, f: Function, x: Inputs, g: Tensor) -> tuple[Any, Any]:
        step = int(g[0])
        noise = torch.Generator().manual_seed(int(g[1]))
        return self._before(call(f, x), step), self._before(call(f, self._disturb(x, step, noise)), step)

    def _before(self, out: Any, step: int) -> Any:
        return map_tensors(lambda _, t: t.narrow(self.dim, 0, step), out)

    def _disturb(self, x: Inputs, step: int, noise: torch.Generator) -> Inputs:
        def change(_: str, t: Tensor) -> Tensor:
            fresh = torch.randn(t.shape, generator=noise).to(t)
            past = torch.arange(t.shape[self.dim], device=t.device) < step
            return torch.where(past.view(-1, *[1] * (t.dim() - self.dim - 1)), t, fresh)

        return map_tensors(change, x)

    def moves(self, x: Inputs, g: Tensor) -> bool:
        return int(g[0]) < next(t for _, t in named_tensors(x)).shape[self.dim]

    def describe(self, g: Tensor) -> str:
        return "the first step that changed"
