"""The machine whose programs generate symmetries: weights of a linear layer that permutations tie together."""

from __future__ import annotations

import operator
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from .._checks import whole
from .._errors import InputError
from ..laws import Action, GeneratedPermutation
from ._machine import Machine

Indices = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class TiePattern:
    r"""Weight sharing of a linear map that commutes with permutations of its n inputs and outputs.

    A matrix commutes with the group G that the generators span exactly if $W_{ij} = W_{g(i) g(j)}$ for all g in G. So
    entries of one orbit of pairs are tied, and orbits are the only degrees of freedom. The maps form the commutant of
    G. Patterns with the same ties are equal, although their groups may differ.

    Args:
        n: Number of inputs and of outputs, at least one.
        generators: Permutations of 0 .. n-1; none ties nothing.

    Raises:
        InputError: For generators that are no permutations of n elements.

    Example:
        >>> TiePattern(3, [(1, 2, 0)]).labels
        tensor([[0, 1, 2],
                [2, 0, 1],
                [1, 2, 0]])
    """

    n: int
    generators: Sequence[Indices] = ()

    def __post_init__(self) -> None:
        whole("n", self.n)
        rows = []
        if not isinstance(self.generators, Iterable):
            raise InputError(f"generators must be a list of permutations, got {self.generators!r:.60}")
        for given in self.generators:
            try:
                rows.append(tuple(operator.index(i) for i in given))
            except TypeError:
                rows.append(())
            if sorted(rows[-1]) != list(range(self.n)):
                raise InputError(f"a generator must be a permutation of 0 .. {self.n - 1}, got {given!r:.60}")
        object.__setattr__(self, "generators", tuple(rows))

    @cached_property
    def _labels(self) -> NDArray[np.int64]:
        return _merged(np.arange(self.n**2).reshape(self.n, self.n), self.generators)

    @property
    def labels(self) -> Tensor:
        """Class of each weight, `(n, n)`, numbered in the order of their first entries."""
        return torch.from_numpy(self._labels.copy())

    @property
    def classes(self) -> int:
        """Number of free weights, which is the dimension of the commutant."""
        return int(self._labels.max()) + 1

    @property
    def point_labels(self) -> Tensor:
        """Class of each point, `(n,)`: points that the group exchanges share a bias."""
        return self.labels.diagonal().unique(return_inverse=True)[1]

    def with_generator(self, permutation: Indices) -> TiePattern:
        """Return the pattern with one more generator.

        Args:
            permutation: Permutation of 0 .. n-1.
        """
        more = TiePattern(self.n, (*self.generators, permutation))
        more.__dict__["_labels"] = _merged(self._labels, more.generators[-1:])
        return more

    def action(self, dim: int = 1) -> Action:
        """Return the action of the group, for `commutant.laws.check`.

        Args:
            dim: Axis of the points.
        """
        rows = self.generators or (tuple(range(self.n)),)
        return GeneratedPermutation(torch.tensor(rows), dim, pairs=False)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TiePattern) and np.array_equal(self._labels, other._labels)

    def __hash__(self) -> int:
        return hash(self._labels.tobytes())

    def __repr__(self) -> str:
        return f"TiePattern({self.n} points, {self.classes} of {self.n**2} weights free)"


def _merged(labels: NDArray[np.int64], generators: Sequence[Indices]) -> NDArray[np.int64]:
    """Return the finest labels that are coarser than the given ones and invariant under the generators."""
    count = int(labels.max()) + 1
    pairs = [(labels.ravel(), labels[np.ix_(g, g)].ravel()) for g in generators]
    left, right = (np.concatenate([p[i] for p in pairs]) if pairs else np.arange(0) for i in (0, 1))
    links = coo_array((np.ones(len(left)), (left, right)), shape=(count, count))
    component = connected_components(links, directed=False)[1][labels.ravel()]
    _, first, inverse = np.unique(component, return_index=True, return_inverse=True)
    order = np.empty(len(first), dtype=np.int64)
    order[np.argsort(first)] = np.arange(len(first))
    return order[inverse].reshape(labels.shape)


@dataclass(frozen=True)
class TieState:
    """State of a `TieMachine`: a permutation in the making, the view on the points, and the ties so far.

    Args:
        permutation: Permutation in the making.
        pattern: Ties of all permutations that were taken.
        block: Number of points of a block of the view, a divisor of n.
        strided: Whether blocks hold every (n / block)-th point instead of neighbors.
        single: Whether actions change only the first block instead of all.
    """

    permutation: Indices
    pattern: TiePattern
    block: int
    strided: bool = False
    single: bool = False

    @property
    def blocks(self) -> list[list[int]]:
        """Points of the blocks that actions change."""
        n, b = len(self.permutation), self.block
        if self.strided:
            all_blocks = [list(range(i, n, n // b)) for i in range(n // b)]
        else:
            all_blocks = [list(range(i, i + b)) for i in range(0, n, b)]
        return all_blocks[:1] if self.single else all_blocks


@dataclass(frozen=True)
class TieMachine(Machine[TieState, TiePattern]):
    """Machine whose programs generate permutation groups, and with them the weight sharing of equivariant layers.

    A program composes a permutation from moves of blocks of points and takes it as a generator:

    - `rotate`: rotate the points of each block by one.
    - `reverse`: reverse the points of each block.
    - `swap`: exchange the first two points of each block.
    - `split`: go to the next smaller block size that divides n, after the smallest one (two or more) back to n.
    - `stride`: switch between blocks of neighbors and of points at equal distances.
    - `single`: switch between all blocks and the first one.
    - `tie`: take the permutation as a generator and start a new one.

    `func f g` keeps the ties of f. So `(rotate (tie identity))` is cyclic convolution, `(rotate (tie (reverse (tie
    identity))))` one with symmetric kernels, and `(rotate (tie (swap (tie identity))))` is DeepSets.

    Args:
        n: Number of points, at least one.

    Example:
        >>> machine = TieMachine(4)
        >>> machine.output(machine.run("(rotate (tie (swap (tie identity))))"))
        TiePattern(4 points, 2 of 16 weights free)
    """

    n: int
    name = "tie machine"  # type: ignore[misc]
    sizes: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        whole("n", self.n)
        object.__setattr__(self, "sizes", tuple(b for b in range(self.n, 1, -1) if self.n % b == 0) or (1,))

    def start(self) -> TieState:
        """Return the state without ties, with all points in one block."""
        return TieState(tuple(range(self.n)), TiePattern(self.n), self.n)

    @cached_property
    def actions(self) -> Mapping[str, Callable[[TieState], TieState]]:  # type: ignore[override]
        """Changes of a state, by name."""
        return {
            "rotate": lambda s: _moved(s, lambda block: block[1:] + block[:1]),
            "reverse": lambda s: _moved(s, lambda block: block[::-1]),
            "swap": lambda s: _moved(s, lambda block: block[1::-1] + block[2:]),
            "split": lambda s: replace(s, block=self.sizes[(self.sizes.index(s.block) + 1) % len(self.sizes)]),
            "stride": lambda s: replace(s, strided=not s.strided),
            "single": lambda s: replace(s, single=not s.single),
            "tie": _tie,
        }

    def keep(self, before: TieState, after: TieState) -> TieState:
        """Return the ties after a sub-program with the permutation and view before it.

        Args:
            before: State in which the sub-program started.
            after: State in which it ended.
        """
        return before if after.pattern == before.pattern else replace(before, pattern=after.pattern)

    def output(self, state: TieState) -> TiePattern:
        """Return the ties of a state; a permutation that was not taken is dropped.

        Args:
            state: Final state.
        """
        return state.pattern

    def key(self, output: TiePattern) -> Hashable:
        """Return the classes of the weights.

        Args:
            output: Pattern.
        """
        return output

    def fingerprint(self, state: TieState, saved: Sequence[TieState] = ()) -> Hashable:
        """Return the ties, and permutation and view of the state and of the saved ones.

        Args:
            state: State.
            saved: States in which the sub-programs started that have not ended.
        """
        views = ((s.permutation, s.block, s.strided, s.single) for s in (state, *saved))
        return (state.pattern, *views)


def _moved(s: TieState, change: Callable[[list[int]], list[int]]) -> TieState:
    """Return the state whose permutation is followed by a move of the points of each block."""
    move = list(s.permutation)
    for block in s.blocks:
        for old, new in zip(block, change(block), strict=True):
            move[old] = s.permutation[new]
    return replace(s, permutation=tuple(move))


def _tie(s: TieState) -> TieState:
    start = tuple(range(len(s.permutation)))
    if s.permutation == start:
        return s
    pattern = s.pattern.with_generator(s.permutation)
    return replace(s, permutation=start, pattern=s.pattern if pattern == s.pattern else pattern)
