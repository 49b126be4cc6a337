"""The permutations of a network's weights as a group action, so that laws can be checked on them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .._errors import InputError
from ..laws import Action, Draw, GradientEquivariance, Invariance, obeys
from ._given import kind_of
from ._permutation import Permutation
from ._spec import PermutationSpec

State = dict[str, Tensor]


class WeightPermutation(Action):
    """The permutations of a `PermutationSpec`, acting on state dicts.

    Example:
        >>> from commutant.laws import Invariance, check
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
        """One group after the other put back."""
        identity = self.spec.identity_tables()
        for group, table in g.tables.items():
            if not torch.equal(table, identity[group]):
                yield Permutation(self.spec, {**g.tables, group: identity[group]}), x

    def describe(self, g: Permutation) -> str:
        identity = self.spec.identity_tables()
        return "groups " + ", ".join(n for n, t in g.tables.items() if not torch.equal(t, identity[n]))


class _Attention(nn.Module):
    """Heads, channels within heads, a residual stream, a norm and a feed-forward layer."""

    def __init__(self, heads: int, width: int) -> None:
        super().__init__()
        self.heads, inner = heads, heads * width
        self.into, self.norm, self.qkv = nn.Linear(3, 6), nn.LayerNorm(6), nn.Linear(6, 3 * inner)
        self.out, self.up, self.down = nn.Linear(inner, 6), nn.Linear(6, 7), nn.Linear(7, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.into(x)
        q, k, v = self.qkv(self.norm(h)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        h = h + self.out(mixed.transpose(1, 2).flatten(2))
        return self.down(torch.tanh(self.up(h)))  # type: ignore[no-any-return]


def _case(draw: Draw) -> tuple[WeightPermutation, object, object]:
    model = draw.module(lambda: _Attention(1 + draw.size % 4, 1 + draw.width % 5))
    x = draw.normal(2, 4, 3)
    spec = PermutationSpec.from_module(model, x, verify=False)
    state = {k: v.detach() for k, v in model.state_dict().items()}
    return WeightPermutation(spec), lambda **s: functional_call(model, s, (x,)), lambda _: state


def _invariance(draw: Draw):  # type: ignore[no-untyped-def]
    action, f, inputs = _case(draw)
    return Invariance(action), f, inputs


def _gradients(draw: Draw):  # type: ignore[no-untyped-def]
    action, f, inputs = _case(draw)
    return GradientEquivariance(action), f, inputs


obeys("the network computes the same", _invariance)(PermutationSpec)
obeys("gradients move with the weights", _gradients)(PermutationSpec)
