"""Drawn cases of the laws stated by the aggregations and operators of this subpackage.

Functions take the class under test as an argument, so that this file imports none of them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from ..laws import BatchIndependence, Draw, Equivariance, FunctionPreservation, Invariance, Law, SetPermutation, Sets

Case: TypeAlias = tuple[Law, Callable[..., Any], Any]


def sets_of_a_batch(draw: Draw, make: Callable[[], nn.Module], channels: int) -> Case:
    """Return a case of batch independence: an aggregation in evaluation mode, and four sets of drawn sizes."""
    aggregation = draw.module(make).eval()
    lengths = torch.randint(1, draw.size + 2, (4,), generator=draw.generator)
    sets = Sets(draw.normal(int(lengths.sum()), channels), torch.repeat_interleave(lengths))
    return BatchIndependence(), aggregation, sets


def order_of_three(draw: Draw, make: Callable[[], nn.Module]) -> Case:
    """Return a case of invariance to the order of elements: four sets of three elements with 8 channels."""
    aggregation = draw.module(make).eval()
    return Invariance(SetPermutation()), aggregation, Sets(draw.normal(12, 8), torch.arange(4).repeat_interleave(3))


def operands(draw: Draw, make: Callable[[], Any], count: int, channels: int) -> tuple[Any, tuple[Tensor, ...]]:
    """Return an operator with drawn parameters and its arguments: `count` batches of elements."""
    return draw.module(make), tuple(draw.normal(draw.size + 1, channels) for _ in range(count))


def query_and_keys(draw: Draw, make: Callable[[int], nn.Module], law: Law) -> Case:
    """Return a module with drawn weights, and the queries and keys of four sets."""
    features = draw.module(lambda: make(draw.width))
    return law, features, (draw.normal(4, draw.width), draw.normal(4, draw.size + 2, draw.width))


def half_of_each_set(draw: Draw, make: Callable[..., nn.Module], law: Law) -> Case:
    """Return a utility with drawn weights, and four ground sets; elements with a positive first feature are chosen."""
    utility = draw.module(lambda: make(nn.Linear(draw.width, 5), 5, 8))
    lengths = torch.randint(2, draw.size + 3, (4,), generator=draw.generator)
    sets = Sets(draw.normal(int(lengths.sum()), draw.width), torch.repeat_interleave(lengths))
    return law, lambda x, index: utility(x, x[:, 0] > 0, index), sets


def inclusion_probabilities(
    draw: Draw, make: Callable[..., nn.Module], utility: Callable[..., nn.Module], law: Law
) -> Case:
    """Return exact mean-field inference with a drawn utility, and three ground sets of equal size."""
    n = 2 + draw.size % 4
    infer = draw.module(lambda: make(utility(nn.Linear(draw.width, 5), 5, 8), n_iter=3))
    with torch.no_grad():  # default weights leave all probabilities near one half, which rounding then hides
        for parameter in infer.parameters():
            parameter.mul_(3)
    return law, lambda x: _probabilities(infer, x), draw.normal(3, n, draw.width)


def added_function_of_the_ground_set(
    draw: Draw, make: Callable[..., nn.Module], utility: Callable[..., nn.Module]
) -> Case:
    """Return sampled inference, and the addition of a function of the ground set to its utility."""
    infer = draw.module(lambda: make(utility(nn.Linear(draw.width, 5), 5, 8), exact_below=0))
    infer.eval()

    def transform(f: Any) -> Callable[[Tensor], Tensor]:
        other = copy.deepcopy(infer)
        other.utility.branches.append(draw.module(lambda: type(other.utility.branches[0])(5, 8, ("whole",))))
        return lambda x: _probabilities(other, x)

    return FunctionPreservation(transform), lambda x: _probabilities(infer, x), draw.normal(3, 4, draw.width)


def _probabilities(infer: nn.Module, x: Tensor) -> Tensor:
    index = torch.arange(len(x)).repeat_interleave(x.shape[1])
    return infer(x.flatten(0, 1), index).probabilities.reshape(x.shape[:2])


def logits_of_elements(draw: Draw, make: Callable[..., nn.Module], law: Law) -> Case:
    """Return a network that scores elements one by one, and a ground set."""
    return law, draw.module(lambda: make(nn.Linear(draw.width, 5), 5, 8)), draw.normal(draw.size + 2, draw.width)


def similarity_of_rows(draw: Draw, make: Callable[[Tensor], Any]) -> Case:
    """Return the gains of a set function, and similarities whose elements are permuted with the subset."""
    x = draw.normal(draw.size + 3, draw.size + 2).abs()
    chosen = draw.normal(draw.size + 2)

    def gains(similarity: Tensor, chosen: Tensor) -> Tensor:
        return make(similarity.T).marginal_gains(chosen > 0)  # type: ignore[no-any-return]

    return Equivariance(SetPermutation(0, pairs=False)), gains, (x.T.contiguous(), chosen)
