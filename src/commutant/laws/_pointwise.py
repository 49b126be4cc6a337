"""Actions on points in space: rotations, reflections, translations, scalings, sign flips, matrix groups."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from .._checks import positive, whole
from .._errors import InputError
from ._actions import Action, GroupElement
from ._inputs import Inputs, is_graph_data, map_tensors, named_tensors


class _PointAction(Action):
    """Action on the trailing axis of size d of every real or complex tensor, or on `pos` of a PyG `Data`."""

    def __init__(self, d: int = 3) -> None:
        whole("d", d)
        self.d = d

    def _moves(self, tensor: Tensor) -> bool:
        return (tensor.is_floating_point() or tensor.is_complex()) and tensor.shape[-1:] == (self.d,)

    def _map(self, function: Any, x: Inputs) -> Inputs:
        graph = is_graph_data(x)

        def apply(name: str, tensor: Tensor) -> Tensor:
            return function(tensor) if self._moves(tensor) and (not graph or name == "pos") else tensor

        return map_tensors(apply, x)

    def fit(self, x: Inputs) -> None:
        graph = is_graph_data(x)
        tensors = [(name, t) for name, t in named_tensors(x) if not graph or name == "pos"]
        if not any(self._moves(t) for _, t in tensors):
            given = ", ".join(f"{name} of {t.dtype} and shape {tuple(t.shape)}" for name, t in tensors) or "no pos"
            raise InputError(
                f"{self.name} in {self.d} dimensions needs a real or complex tensor whose last axis has size {self.d}, "
                f"got {given}"
            )


class MatrixGroup(_PointAction):
    """Group of invertible d x d matrices acting on the trailing axis.

    Elements are drawn as products of random generators and their inverses.

    Args:
        generators: Invertible matrices that generate the group, `(number, d, d)`.
        word_length: Number of factors in a drawn element.
    """

    name = "matrix-group"

    def __init__(self, generators: Float[Tensor, "number d d"], word_length: int = 6) -> None:
        if not isinstance(generators, Tensor) or generators.dim() != 3 or generators.shape[1] != generators.shape[2]:
            given = tuple(generators.shape) if isinstance(generators, Tensor) else type(generators).__name__
            raise InputError(f"generators must be a tensor of shape (number, d, d), got {given}")
        super().__init__(generators.shape[-1])
        letters = generators.double()
        if not bool((torch.linalg.det(letters).abs() > 1e-9).all()):
            raise InputError("every generator of a matrix group must be an invertible matrix")
        self.letters = torch.cat([letters, torch.linalg.inv(letters)])
        self.word_length = word_length

    def sample(self, x: Inputs, generator: torch.Generator) -> Tensor:
        word = torch.randint(0, len(self.letters), (self.word_length,), generator=generator)
        out = torch.eye(self.d, dtype=torch.float64)
        for letter in word.tolist():
            out = self.letters[letter] @ out
        return out

    def identity(self, x: Inputs) -> Tensor:
        return torch.eye(self.d, dtype=torch.float64)

    def compose(self, g: Tensor, h: Tensor) -> Tensor:
        return g @ h

    def inverse(self, g: Tensor) -> Tensor:
        return torch.linalg.inv(g)

    def act(self, g: Tensor, x: Inputs) -> Inputs:
        return self._map(lambda t: t @ g.to(t).mT, x)


class Rotation(_PointAction):
    """Special orthogonal group SO(d) acting on the trailing axis; rotations are drawn uniformly.

    Args:
        d: Dimension of the points.
    """

    name = "rotation"
    reflect = False

    def sample(self, x: Inputs, generator: torch.Generator) -> Tensor:
        q, r = torch.linalg.qr(torch.randn(self.d, self.d, generator=generator, dtype=torch.float64))
        q = q * r.diagonal().sign()
        flip = torch.ones(self.d, dtype=torch.float64)
        want = -1.0 if self.reflect and bool(torch.rand((), generator=generator) < 0.5) else 1.0
        flip[0] = want * torch.linalg.det(q).sign()
        return q * flip

    def identity(self, x: Inputs) -> Tensor:
        return torch.eye(self.d, dtype=torch.float64)

    def compose(self, g: Tensor, h: Tensor) -> Tensor:
        return g @ h

    def inverse(self, g: Tensor) -> Tensor:
        return g.mT

    def act(self, g: Tensor, x: Inputs) -> Inputs:
        return self._map(lambda t: t @ g.to(t).mT, x)

    def describe(self, g: Tensor) -> str:
        if torch.linalg.det(g) < 0:
            return "reflects"
        angle = torch.linalg.eigvals(g).angle().abs().max()
        return f"rotation by {math.degrees(float(angle)):.3g} degrees"

    def shrink(self, g: Tensor, x: Inputs) -> Iterator[tuple[Tensor, Inputs]]:
        if torch.linalg.det(g) < 0:
            mirror = torch.eye(self.d, dtype=torch.float64)
            mirror[0, 0] = -1
            if not torch.equal(g, mirror):
                yield mirror, x
            return
        if self.d < 2:
            return
        if bool((g == g.round()).all()):
            return
        for i, j in itertools.islice(itertools.combinations(range(self.d), 2), 10):
            quarter = torch.eye(self.d, dtype=torch.float64)
            quarter[[i, j]] = quarter[[j, i]] * torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
            yield quarter + 0.0, x  # no negative zeros
            yield quarter @ quarter + 0.0, x


class Orthogonal(Rotation):
    """Orthogonal group O(d) of rotations and reflections, acting on the trailing axis.

    Args:
        d: Dimension of the points.
    """

    name = "orthogonal"
    reflect = True


class Reflection(_PointAction):
    """Group of two elements that reflects one coordinate.

    Args:
        d: Dimension of the points.
        axis: Coordinate whose sign changes, 0 to d - 1.
    """

    name = "reflection"

    def __init__(self, d: int = 3, axis: int = 0) -> None:
        super().__init__(d)
        if isinstance(axis, bool) or not isinstance(axis, int) or not 0 <= axis < d:
            raise InputError(f"axis must be an integer in 0..{d - 1}, got {axis!r}")
        self.axis = axis

    def sample(self, x: Inputs, generator: torch.Generator) -> int:
        return -1

    def identity(self, x: Inputs) -> int:
        return 1

    def compose(self, g: int, h: int) -> int:
        return g * h

    def inverse(self, g: int) -> int:
        return g

    def act(self, g: int, x: Inputs) -> Inputs:
        sign = torch.ones(self.d)
        sign[self.axis] = g
        return self._map(lambda t: t * sign.to(t), x)


class Translation(_PointAction):
    """Translation of all points by one vector.

    Args:
        d: Dimension of the points.
        scale: Standard deviation of the drawn vectors, in the units of the points.
    """

    name = "translation"

    def __init__(self, d: int = 3, scale: float = 1.0) -> None:
        super().__init__(d)
        positive("scale", scale)
        self.scale = scale

    def sample(self, x: Inputs, generator: torch.Generator) -> Tensor:
        return torch.randn(self.d, generator=generator, dtype=torch.float64) * self.scale

    def identity(self, x: Inputs) -> Tensor:
        return torch.zeros(self.d, dtype=torch.float64)

    def compose(self, g: Tensor, h: Tensor) -> Tensor:
        return g + h

    def inverse(self, g: Tensor) -> Tensor:
        return -g

    def act(self, g: Tensor, x: Inputs) -> Inputs:
        return self._map(lambda t: t + g.to(t), x)

    def shrink(self, g: Tensor, x: Inputs) -> Iterator[tuple[Tensor, Inputs]]:
        for i in range(self.d):
            single = torch.zeros_like(g)
            single[i] = g[i].abs().ceil() * g[i].sign()
            if bool(single.any()) and not torch.equal(g, g.round()):
                yield single, x


class Euclidean(_PointAction):
    """Euclidean group E(d): an orthogonal map followed by a translation, $x \\mapsto R x + t$.

    Args:
        d: Dimension of the points.
        reflect: Whether to include reflections; False gives SE(d), which preserves chirality.
        scale: Standard deviation of the drawn translations, in the units of the points.
    """

    name = "euclidean"

    def __init__(self, d: int = 3, reflect: bool = True, scale: float = 1.0) -> None:
        super().__init__(d)
        self.linear = Orthogonal(d) if reflect else Rotation(d)
        self.shift = Translation(d, scale)

    def sample(self, x: Inputs, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return self.linear.sample(x, generator), self.shift.sample(x, generator)

    def identity(self, x: Inputs) -> tuple[Tensor, Tensor]:
        return self.linear.identity(x), self.shift.identity(x)

    def compose(self, g: GroupElement, h: GroupElement) -> GroupElement:
        return g[0] @ h[0], g[0] @ h[1] + g[1]

    def inverse(self, g: GroupElement) -> GroupElement:
        return g[0].mT, -(g[0].mT @ g[1])

    def act(self, g: GroupElement, x: Inputs) -> Inputs:
        return self.shift.act(g[1], self.linear.act(g[0], x))

    @property
    def on_vectors(self) -> Action:
        """Action of the same elements on velocities, forces or normals, which rotate but are not translated."""
        return _Turning(self)

    def shrink(self, g: GroupElement, x: Inputs) -> Iterator[tuple[GroupElement, Inputs]]:
        rotation, shift = g
        if bool(shift.any()):
            yield (rotation, torch.zeros_like(shift)), x
        if not torch.equal(rotation, self.linear.identity(x)):
            yield (self.linear.identity(x), shift), x
        yield from (((smaller, shift), x) for smaller, _ in self.linear.shrink(rotation, x))
        yield from (((rotation, smaller), x) for smaller, _ in self.shift.shrink(shift, x))


class _Turning(Euclidean):
    """Action of the orthogonal part of Euclidean motions."""

    name = "euclidean on vectors"

    def __init__(self, base: Euclidean) -> None:
        super().__init__(base.d)
        self.linear, self.shift = base.linear, base.shift

    def act(self, g: GroupElement, x: Inputs) -> Inputs:
        return self.linear.act(g[0], x)


class Scaling(_PointAction):
    """Scaling of all points by one positive factor, drawn between 1/4 and 4.

    Args:
        d: Dimension of the points.
    """

    name = "scaling"

    def sample(self, x: Inputs, generator: torch.Generator) -> float:
        return float(4 ** (2 * torch.rand((), generator=generator) - 1))

    def identity(self, x: Inputs) -> float:
        return 1.0

    def compose(self, g: float, h: float) -> float:
        return g * h

    def inverse(self, g: float) -> float:
        return 1 / g

    def act(self, g: float, x: Inputs) -> Inputs:
        return self._map(lambda t: t * g, x)

    def shrink(self, g: float, x: Inputs) -> Iterator[tuple[float, Inputs]]:
        if g not in (2.0, 0.5):
            yield 2.0, x
            yield 0.5, x


class SignFlip(_PointAction):
    """Sign flips of single coordinates of the trailing axis: the group {-1, 1}^d.

    Args:
        d: Dimension of the points.
    """

    name = "sign-flip"

    def sample(self, x: Inputs, generator: torch.Generator) -> Tensor:
        return 1.0 - 2.0 * torch.randint(0, 2, (self.d,), generator=generator).double()

    def identity(self, x: Inputs) -> Tensor:
        return torch.ones(self.d, dtype=torch.float64)

    def compose(self, g: Tensor, h: Tensor) -> Tensor:
        return g * h

    def inverse(self, g: Tensor) -> Tensor:
        return g

    def act(self, g: Tensor, x: Inputs) -> Inputs:
        return self._map(lambda t: t * g.to(t), x)

    def shrink(self, g: Tensor, x: Inputs) -> Iterator[tuple[Tensor, Inputs]]:
        flipped = (g < 0).nonzero().flatten().tolist()
        for i in flipped if len(flipped) > 1 else []:
            single = torch.ones_like(g)
            single[i] = -1
            yield single, x
