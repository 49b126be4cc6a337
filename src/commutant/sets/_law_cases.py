"""Drawn cases of the laws stated by the aggregations and operators of this subpackage.

Functions take the class under test as an argument, so that this file imports none of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from ..laws import BatchIndependence, Draw, Invariance, Law, SetPermutation, Sets

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
