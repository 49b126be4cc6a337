"""Laws of this room, each with the networks and inputs on which it is tested."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..laws import (
    BatchIndependence,
    Draw,
    Equivariance,
    Invariance,
    Law,
    Orthogonal,
    Scaling,
    SetPermutation,
    Sets,
    Translation,
    breaks,
    obeys,
)
from ._answers import tour_length
from ._ensemble import ReLUEnsemble
from ._pointer_attention import PointerAttention
from ._pointer_network import PointerNetwork
from ._tangent_kernel import PermutationNTK


def _scaled(draw: Draw) -> tuple[Law, Any, Callable[[torch.Generator], Tensor]]:
    """Return the case of an ensemble on scaled inputs."""
    width = 1 + draw.width
    ensemble = draw.module(lambda: ReLUEnsemble(width, width, width=8, models=2))
    return Equivariance(Scaling(width)), ensemble, lambda g: torch.randn(draw.size, width, generator=g).to(draw.dtype)


def _reordered(draw: Draw) -> tuple[Law, Any, Callable[[torch.Generator], Tensor]]:
    """Return the case of the weights of the training points, as a function of the input."""
    k = 1 + draw.width

    def inputs(g: torch.Generator) -> Tensor:
        x = (torch.rand(draw.size, k, generator=g) < 0.5).to(draw.dtype)
        x[:, 0] = 1  # never zero
        return x

    return Equivariance(SetPermutation(1)), PermutationNTK(k).weights, inputs


def _keys_of_queries(draw: Draw) -> tuple[Law, Any, Tensor]:
    """Return the scores of keys for drawn queries, and the keys."""
    attention = draw.module(lambda: PointerAttention(1 + draw.width))
    queries = draw.normal(3, 2, 1 + draw.width)
    return (
        Equivariance(SetPermutation()),
        lambda k: attention(queries, k).mT,
        draw.normal(3, 2 + draw.size, 1 + draw.width),
    )


def _decided(draw: Draw, encoder: str) -> PointerNetwork:
    """Return a pointer network with large weights, since default ones make all choices nearly equal."""
    network = draw.module(lambda: PointerNetwork(draw.width, 8, encoder)).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(3)
    return network


def _first_choice(draw: Draw, encoder: str) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """Return the log probabilities of the first choice, and three sets of elements."""
    network = _decided(draw, encoder)
    first = torch.full((3, 1), -1)
    return lambda x: network(x, first)[:, 0, :-1, None].log_softmax(1), draw.normal(3, 2 + draw.size % 8, draw.width)


def _order(encoder: str) -> Callable[[Draw], tuple[Law, Any, Tensor]]:
    return lambda draw: (Equivariance(SetPermutation()), *_first_choice(draw, encoder))


def _rest_of_the_batch(draw: Draw) -> tuple[Law, Any, Sets]:
    """Return the log probability of stopping at once, and four sets of drawn sizes."""
    network = _decided(draw, "lstm")
    lengths = torch.randint(1, draw.size + 2, (4,), generator=draw.generator)
    sets = Sets(draw.normal(int(lengths.sum()), draw.width), torch.repeat_interleave(lengths))

    def stop(x: Tensor, index: Tensor) -> Tensor:
        return network.log_prob(x, torch.full((int(index[-1]) + 1, 1), -1), batch=index)[:, None]

    return BatchIndependence(), stop, sets


def _motions(draw: Draw) -> tuple[Law, Any, Tensor]:
    """Return the length of the tour in the order of the input, and the points."""
    x = draw.normal(3, 3 + draw.size, 2)
    tour = torch.arange(x.shape[1]).expand(3, -1)
    return Invariance(Orthogonal(2) * Translation(2)), lambda x: tour_length(x, tour), x


obeys("equivariance to the order of keys", _keys_of_queries)(PointerAttention)
obeys("equivariance to order, encoder set", _order("set"))(PointerNetwork)
obeys("equivariance to order, encoder deepsets", _order("deepsets"))(PointerNetwork)
breaks("equivariance to order, encoder lstm", _order("lstm"))(PointerNetwork)
obeys("batch independence", _rest_of_the_batch)(PointerNetwork)
obeys("invariance to motions", _motions)(tour_length)
obeys("homogeneity", _scaled)(ReLUEnsemble)
obeys("order of the coordinates", _reordered)(PermutationNTK)
