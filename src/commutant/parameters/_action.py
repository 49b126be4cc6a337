"""Permutations of the weights of a network as a group action, on which laws can be checked."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .._errors import InputError
from ..laws import Action
from ._given import kind_of
from ._permutation import Permutation
from ._spec import PermutationSpec

State = dict[str, Tensor]


class WeightPermutation(Action):
    """Group of the permutations of a `PermutationSpec`, acting on state dicts.

    Args:
        spec: Spec of the network whose state dicts are permuted.

    Raises:
        InputError: `spec` is not a `PermutationSpec`.

    Example:
        >>> from commutant.laws import Invariance, check
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()
        >>> spec, x = PermutationSpec.from_module(model, torch.randn(2, 3).double()), torch.randn(4, 3).double()
        >>> f = lambda **state: torch.func.functional_call(model, state, (x,))
        >>> check(Invariance(WeightPermutation(spec)), f, dict(model.state_dict())).passed
        True
    """

    name = "weight permutation"

    def __init__(self, spec: PermutationSpec) -> None:
        if not isinstance(spec, PermutationSpec):
            raise InputError(f"spec must be a PermutationSpec, got {kind_of(spec)}")
        self.spec = spec

    def sample(self, x: State, generator: torch.Generator) -> Permutation:
        return Permutation.random(self.spec, generator)

    def identity(self, x: State) -> Permutation:
        return Permutation(self.spec)

    def compose(self, g: Permutation, h: Permutation) -> Permutation:
        return h.compose(g)

    def inverse(self, g: Permutation) -> Permutation:
        return g.inverse()

    def act(self, g: Permutation, x: State) -> State:
        return g.apply(x)

    def shrink(self, g: Permutation, x: State) -> Iterator[tuple[Permutation, State]]:
        """Yield simpler elements, each with one more group at the identity."""
        identity = self.spec.identity_tables()
        for group, table in g.tables.items():
            if not torch.equal(table, identity[group]):
                yield Permutation(self.spec, {**g.tables, group: identity[group]}), x

    def describe(self, g: Permutation) -> str:
        """Return the names of the groups that move."""
        identity = self.spec.identity_tables()
        return "groups " + ", ".join(n for n, t in g.tables.items() if not torch.equal(t, identity[n]))
