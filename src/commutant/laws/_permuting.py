"""Actions that reorder elements: permutations of sets and batches, shifts in time."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import combinations, count
from typing import Any

import torch
from torch import Tensor

from .._checks import one_of
from .._errors import InputError
from ._actions import Action, axis_number
from ._along_axes import AlongAxes, sizes_of
from ._inputs import Inputs, Sets, map_tensors, named_tensors


class SetPermutation(Action):
    """Permutation of the elements of sets, $(g x)_i = x_{g(i)}$, along an axis or within each set of a ragged batch.

    A tensor of pairs of elements, such as an adjacency or distance matrix, is permuted along two axes, `dim` and
    `dim + 1`. By default, a tensor with equal sizes on both axes holds pairs if another tensor of the input holds
    elements. If there are as many features as elements, `check` drops an element to resolve the ambiguity, and asks for
    `pairs` if this fails.

    Args:
        dim: Axis of the elements in tensors: 1 if the batch comes first, 0 for a single set.
        pairs: True if every tensor with equal sizes on `dim` and `dim + 1` holds pairs of elements, False if none does,
            None to decide as described above.
    """

    name = "permutation"

    def __init__(self, dim: int = 1, pairs: bool | None = None) -> None:
        one_of("pairs", pairs, (None, True, False))
        self.dim, self.pairs = axis_number("dim", dim), pairs
        self._pairs: frozenset[int] | None = None  # positions of the tensors that hold pairs, once decided

    def _size(self, x: Inputs) -> int:
        if isinstance(x, Sets):
            return x.x.shape[0]
        for _, tensor in named_tensors(x):
            if tensor.dim() > self.dim:
                return tensor.shape[self.dim]
        raise InputError(f"no tensor of the input has an axis {self.dim} to permute")

    def fit(self, x: Inputs) -> None:
        self._size(x)

    def _square(self, tensor: Tensor, n: int) -> bool:
        return tensor.shape[self.dim : self.dim + 2] == (n, n)

    def _holds_pairs(self, x: Inputs, n: int) -> frozenset[int]:
        tensors = [t for _, t in named_tensors(x)]
        square = [i for i, t in enumerate(tensors) if self._square(t, n)]
        if self.pairs is not None:
            return frozenset(square if self.pairs else ())
        if self._pairs is not None:
            return self._pairs
        elements = [t for t in tensors if t.dim() > self.dim and t.shape[self.dim] == n]
        return frozenset(square if len(square) < len(elements) else ())

    def reading(self, f: Callable[[Inputs], Any], x: Inputs) -> Action:
        if isinstance(x, Sets) or self.pairs is not None:
            return self
        n, tensors = self._size(x), [t for _, t in named_tensors(x)]
        square = [i for i, t in enumerate(tensors) if self._square(t, n)]
        if n < 2 or not square or len(tensors) == 1:
            return self
        accepted = []
        for number in range(len(square) + 1):
            for chosen in combinations(square, number):
                trial = self._decided(frozenset(chosen))
                try:
                    f(trial._select(x, _other_size(n), n))
                except Exception:  # f reads its inputs in another way
                    continue
                accepted.append(trial)
        others = any(t.dim() > self.dim and t.shape[self.dim] == n and not self._square(t, n) for t in tensors)
        if len(accepted) == 1 or (accepted and not others and not accepted[0]._pairs):
            return accepted[0]
        raise InputError(
            f"inputs of shape {', '.join(str(tuple(tensors[i].shape)) for i in square)} may hold features of "
            f"elements or pairs of elements; pass pairs=True or pairs=False to {type(self).__name__}, or use a "
            "different number of elements"
        )

    def _decided(self, pairs: frozenset[int]) -> SetPermutation:
        twin = copy.copy(self)
        twin._pairs = pairs
        return twin

    def resized(self, x: Inputs) -> Inputs | None:
        n = self._size(x)
        if n < 2 or (isinstance(x, Sets) and int((x.index == x.index[-1]).sum()) < 2):
            return None
        rows = _other_size(n)
        return Sets(x.x[rows], x.index[rows]) if isinstance(x, Sets) else self._select(x, rows, n)

    def settled(self, f: Callable[[Inputs], Any], x: Inputs, source: Action) -> Action:
        resized = source.resized(x)
        if not isinstance(source, SetPermutation) or resized is None or type(self).act is not SetPermutation.act:
            return self
        n, other, sizes = source._size(x), source._size(resized), sizes_of(f, resized)
        axes: dict[str, tuple[int, ...]] = {}
        for name, t in named_tensors(f(x)):
            may = [d for d in (self.dim, self.dim + 1) if d < t.dim() and t.shape[d] == n]
            if len(sizes.get(name, ())) == t.dim():
                axes[name] = tuple(d for d in may if sizes[name][d] == other)
            elif len(may) == 2 and self.pairs is None:
                raise InputError(
                    f"the output of shape {tuple(t.shape)} may hold features of elements or pairs of elements, and the "
                    f"function fails on any other number of elements; pass SetPermutation({self.dim}, pairs=True) "
                    "or pairs=False"
                )
            else:
                axes[name] = tuple(may[:1] if self.dim in may and not self.pairs else may)
            if self.pairs is False or self.dim not in axes[name]:
                axes[name] = tuple(d for d in axes[name] if d == self.dim)
        return AlongAxes(self, {name: tuple((d, 0) for d in where) for name, where in axes.items()})

    def sample(self, x: Inputs, generator: torch.Generator) -> Tensor:
        if isinstance(x, Sets):
            keys = torch.rand(x.x.shape[0], generator=generator, dtype=torch.float64)
            return (keys + x.index.cpu()).argsort()
        return torch.randperm(self._size(x), generator=generator)

    def identity(self, x: Inputs) -> Tensor:
        return torch.arange(self._size(x))

    def compose(self, g: Tensor, h: Tensor) -> Tensor:
        return h[g]

    def inverse(self, g: Tensor) -> Tensor:
        return g.argsort()

    def act(self, g: Tensor, x: Inputs) -> Inputs:
        return self._select(x, g, g.numel())

    def _select(self, x: Inputs, rows: Tensor, n: int) -> Inputs:
        """Select the given elements of each tensor that holds n elements."""
        if isinstance(x, Sets):
            return Sets(x.x[rows.to(x.x.device)], x.index)
        pairs = self._holds_pairs(x, n)
        position = count()

        def select(_: str, tensor: Tensor) -> Tensor:
            both = next(position) in pairs and self._square(tensor, n)
            if tensor.dim() <= self.dim or tensor.shape[self.dim] != n:
                return tensor
            tensor = tensor.index_select(self.dim, rows.to(tensor.device))
            return tensor.index_select(self.dim + 1, rows.to(tensor.device)) if both else tensor

        return map_tensors(select, x)

    def on_output(self, x: Inputs) -> Action:
        return SetPermutation(0) if isinstance(x, Sets) else self

    def variants(self) -> tuple[Action, ...]:
        pairs = SetPermutation(self.dim, pairs=True)
        return (self, pairs, *(SetPermutation(dim) for dim in range(4) if dim != self.dim))

    def shrink(self, g: Tensor, x: Inputs) -> Iterator[tuple[Tensor, Inputs]]:
        moved = (g != torch.arange(g.numel())).nonzero().flatten().tolist()
        if len(moved) > 2:
            for i in moved[:8]:
                swap = torch.arange(g.numel())
                swap[[i, int(g[i])]] = swap[[int(g[i]), i]]
                yield swap, x
        fixed = (g == torch.arange(g.numel())).nonzero().flatten()
        for drop in (fixed, fixed[: len(fixed) // 2], fixed[len(fixed) // 2 :], *fixed[:8].split(1)):
            if len(drop):
                keep = torch.ones(g.numel(), dtype=torch.bool)
                keep[drop] = False
                yield _relabel(g, keep), self._keep(x, keep)

    def _keep(self, x: Inputs, keep: Tensor) -> Inputs:
        if isinstance(x, Sets):
            _, index = x.index[keep].unique(return_inverse=True)
            return Sets(x.x[keep], index)
        return self._select(x, keep.nonzero().flatten(), keep.numel())


def _other_size(n: int) -> Tensor:
    """Return one element less, or one more than two: a single element would be broadcast by functions of two."""
    return torch.arange(n - 1) if n > 2 else torch.arange(n + 1).clamp(max=n - 1)


def _relabel(g: Tensor, keep: Tensor) -> Tensor:
    new = keep.cumsum(0) - 1
    return new[g[keep]]


class GeneratedPermutation(SetPermutation):
    """Action of the group that some permutations generate on the elements of sets, $(g x)_i = x_{g(i)}$.

    Args:
        generators: Permutations of n elements, `(generators, n)`.
        dim: Axis of the elements, of size n.
        pairs: Whether tensors with equal sizes on `dim` and `dim + 1` hold pairs; see `SetPermutation`.

    Raises:
        InputError: For rows that are no permutations.

    Example:
        >>> rotation = GeneratedPermutation([[1, 2, 3, 0]])
        >>> rotation.act(torch.tensor([1, 2, 3, 0]), torch.tensor([[0.0, 1.0, 2.0, 3.0]]))
        tensor([[1., 2., 3., 0.]])
    """

    name = "generated-permutation"

    def __init__(self, generators: Sequence[Sequence[int]] | Tensor, dim: int = 1, pairs: bool | None = None) -> None:
        super().__init__(dim, pairs)
        try:
            table = torch.as_tensor(generators)
        except (TypeError, ValueError, RuntimeError):
            raise InputError(f"generators must be rows of whole numbers, got {generators!r:.80}") from None
        whole = table.dtype in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
        if table.dim() != 2 or not whole or (table.sort(dim=1).values != torch.arange(table.shape[1])).any():
            raise InputError(f"generators must be rows that are permutations of 0 .. n-1, got {table.tolist()!r:.80}")
        self.generators = table.long().cpu()

    def fit(self, x: Inputs) -> None:
        n = self._size(x)
        if isinstance(x, Sets) or n != self.generators.shape[1]:
            size = "ragged sets" if isinstance(x, Sets) else f"{n} on axis {self.dim}"
            raise InputError(f"the generators permute {self.generators.shape[1]} elements, got {size}")

    def sample(self, x: Inputs, generator: torch.Generator) -> Tensor:
        g = self.identity(x)
        length = 4 * max(2, len(self.generators), int(self.generators.shape[1]))
        for i in torch.randint(len(self.generators) + 1, (length,), generator=generator).tolist():
            g = self.compose(g, self.generators[i]) if i < len(self.generators) else g
        return g

    def resized(self, x: Inputs) -> Inputs | None:
        return None

    def settled(self, f: Callable[[Inputs], Any], x: Inputs, source: Action) -> Action:
        n = self.generators.shape[1]
        if self.pairs is None and any(self._square(t, n) for _, t in named_tensors(f(x))):
            raise InputError(
                f"an output has {n} entries on axes {self.dim} and {self.dim + 1}, which may hold features of elements "
                "or pairs of elements; pass pairs=True or pairs=False to GeneratedPermutation"
            )
        return self

    def shrink(self, g: Tensor, x: Inputs) -> Iterator[tuple[Tensor, Inputs]]:
        for h in self.generators:  # a generator shrinks only to earlier ones
            if torch.equal(g, h):
                return
            yield h, x

    def variants(self) -> tuple[Action, ...]:
        return tuple(GeneratedPermutation(self.generators, dim, self.pairs) for dim in range(4))


class BatchPermutation(SetPermutation):
    """Permutation of the samples of a batch along the leading axis of every tensor."""

    name = "batch-permutation"

    def __init__(self) -> None:
        super().__init__(dim=0)


class TimeShift(Action):
    """Cyclic shift of sequences in time.

    Args:
        dim: Time axis; 1 if the batch comes first.
    """

    name = "time-shift"

    def __init__(self, dim: int = 1) -> None:
        self.dim = axis_number("dim", dim)

    def fit(self, x: Inputs) -> None:
        self._length(x)

    def _length(self, x: Inputs) -> int:
        for _, tensor in named_tensors(x):
            if tensor.dim() > self.dim:
                return tensor.shape[self.dim]
        raise InputError(f"no tensor of the input has an axis {self.dim} to shift")

    def sample(self, x: Inputs, generator: torch.Generator) -> int:
        length = self._length(x)
        return int(torch.randint(1, length, (), generator=generator)) if length > 1 else 0

    def identity(self, x: Inputs) -> int:
        return 0

    def compose(self, g: int, h: int) -> int:
        return g + h

    def inverse(self, g: int) -> int:
        return -g

    def act(self, g: int, x: Inputs) -> Inputs:
        return map_tensors(lambda _, t: t.roll(g, self.dim) if t.dim() > self.dim else t, x)

    def _cut(self, length: int, _: str, tensor: Tensor) -> Tensor:
        return tensor.narrow(self.dim, 0, length) if tensor.dim() > self.dim else tensor

    def shrink(self, g: int, x: Inputs) -> Iterator[tuple[int, Inputs]]:
        if abs(g) > 1:
            yield 1, x
        length = self._length(x)
        for short in {max(2, length // 2), length - 1}:
            if 1 < short < length:
                cut = map_tensors(partial(self._cut, short), x)
                yield (g if abs(g) < short else 1), cut
