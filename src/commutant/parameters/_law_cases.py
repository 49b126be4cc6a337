"""Laws of the room, each with the case that its test draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..laws import Draw, GradientEquivariance, Homomorphism, Invariance, Law, breaks, obeys
from ._action import WeightPermutation
from ._generated import GeneratedLinear
from ._spec import PermutationSpec

Case = tuple[Law, Callable[..., Any], Any]


class _Attention(nn.Module):
    """Transformer block with heads, channels within heads, a residual stream, a norm and a feed-forward layer."""

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


def _weights_of_attention(draw: Draw) -> tuple[WeightPermutation, Callable[..., Any], Any]:
    """Return the weight permutations of an attention block, its outputs as a function of its weights, and weights."""
    model = draw.module(lambda: _Attention(1 + draw.size % 4, 1 + draw.width % 5))
    x = draw.normal(2, 4, 3)
    spec = PermutationSpec.from_module(model, x, verify=False)
    state = {k: v.detach() for k, v in model.state_dict().items()}
    return WeightPermutation(spec), lambda **s: functional_call(model, s, (x,)), lambda _: state


def _invariance(draw: Draw) -> Case:
    action, f, inputs = _weights_of_attention(draw)
    return Invariance(action), f, inputs


def _gradients(draw: Draw) -> Case:
    action, f, inputs = _weights_of_attention(draw)
    return GradientEquivariance(action), f, inputs


def _codes(hyper_bias: bool) -> Callable[[Draw], Case]:
    """Return the case of a generated layer applied to one vector, as a function of the code."""

    def case(draw: Draw) -> Case:
        layer = draw.module(lambda: GeneratedLinear(draw.width, 3, 4, hyper_bias=hyper_bias))
        z = draw.normal(draw.size, draw.width)
        codes = lambda g: tuple(torch.randn(draw.size, 4, generator=g).to(draw.dtype) for _ in range(2))  # noqa: E731
        return Homomorphism(torch.add), lambda g: layer(z, g), codes

    return case


obeys("the network computes the same", _invariance)(PermutationSpec)
obeys("gradients move with the weights", _gradients)(PermutationSpec)
breaks("linearity in the code with a bias", _codes(True))(GeneratedLinear)
obeys("linearity in the code", _codes(False))(GeneratedLinear)
