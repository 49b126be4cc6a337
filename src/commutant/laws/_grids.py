"""Symmetries of the square grid: 90-degree rotations and reflections of images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from .._checks import one_of
from .._errors import InputError
from ._actions import Action
from ._inputs import Inputs, map_tensors, named_tensors

_GROUPS = {
    "C2": ((0, 2), (0,)),
    "C4": ((0, 1, 2, 3), (0,)),
    "D1": ((0,), (0, 1)),
    "D2": ((0, 2), (0, 1)),
    "D4": ((0, 1, 2, 3), (0, 1)),
}


class SquareSymmetry(Action):
    """Quarter turns (rotations by 90 degrees) and reflections of the last two axes.

    An element is `(quarter turns, reflected)`; the last axis is reflected first. Tensors with fewer than three axes
    stay unchanged.

    Args:
        group: Symmetry group: rotations only (`"C4"`, `"C2"`), rotations and reflections (`"D4"`, `"D2"`), or one
            reflection (`"D1"`).
        vectors: Whether the axis before the last two holds pairs of vector components (along rows and along columns),
            which rotate with the image.
    """

    name = "square-symmetry"

    def __init__(self, group: str = "D4", *, vectors: bool = False) -> None:
        one_of("group", group, _GROUPS)
        self.group, self.vectors = group, vectors

    @property
    def elements(self) -> list[tuple[int, int]]:
        """Elements of the group."""
        turns, mirrors = _GROUPS[self.group]
        return [(k, m) for m in mirrors for k in turns]

    def fit(self, x: Inputs) -> None:
        if not any(t.dim() > 2 for _, t in named_tensors(x)):
            shapes = ", ".join(str(tuple(t.shape)) for _, t in named_tensors(x))
            raise InputError(f"{self.name} needs a tensor with at least three axes, the last two spatial, got {shapes}")

    def sample(self, x: Inputs, generator: torch.Generator) -> tuple[int, int]:
        return self.elements[int(torch.randint(len(self.elements), (), generator=generator))]

    def identity(self, x: Inputs) -> tuple[int, int]:
        return 0, 0

    def compose(self, g: tuple[int, int], h: tuple[int, int]) -> tuple[int, int]:
        return (g[0] + (-h[0] if g[1] else h[0])) % 4, (g[1] + h[1]) % 2

    def inverse(self, g: tuple[int, int]) -> tuple[int, int]:
        return g if g[1] else (-g[0] % 4, 0)

    def act(self, g: tuple[int, int], x: Inputs) -> Inputs:
        return map_tensors(lambda _, t: self._act(g, t) if t.dim() > 2 else t, x)

    def _act(self, g: tuple[int, int], x: Tensor) -> Tensor:
        turns, mirrored = g
        if turns % 2 and x.shape[-1] != x.shape[-2]:
            raise InputError(f"quarter turns need square images, got {tuple(x.shape[-2:])}")
        if self.vectors and x.shape[-3] % 2:
            raise InputError(f"vectors need an even number of channels, got {x.shape[-3]}")
        if mirrored:
            x = x.flip(-1)
            x = self._components(x, [[1.0, 0.0], [0.0, -1.0]])
        x = torch.rot90(x, turns, (-2, -1))
        for _ in range(turns):
            x = self._components(x, [[0.0, -1.0], [1.0, 0.0]])
        return x

    def _components(self, x: Tensor, matrix: list[list[float]]) -> Tensor:
        if not self.vectors:
            return x
        pairs = x.unflatten(-3, (-1, 2))
        return torch.einsum("ij,...cjhw->...cihw", x.new_tensor(matrix), pairs).flatten(-4, -3)

    def shrink(self, g: Any, x: Inputs) -> Iterator[tuple[Any, Inputs]]:
        for simpler in ((0, 1), (2, 0), (1, 0)):
            if simpler in self.elements and simpler != g:
                yield simpler, x

    def describe(self, g: tuple[int, int]) -> str:
        return f"{90 * g[0]} degrees" + (" after a mirror" if g[1] else "")
