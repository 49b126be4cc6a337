"""Reductions of all elements of a set but one."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from .._errors import InputError
from ._monoid import Monoid, check_monoid, narrowed
from .elements import Element, first_leaf


def all_but_one(monoid: Monoid, x: Element, ptr: Int[Tensor, " boundaries"] | None = None) -> Element:
    """Return for each element the reduction of the other elements of its set, by two scans.

    It needs neither inverses nor a reduction for each element: the elements before and those after are two exclusive
    scans, so n elements take about 5n applications in depth 4 log2(n).

    Args:
        monoid: Associative operator.
        x: Elements along the leading axis, `(elements, *carrier)`.
        ptr: Start of each set, followed by the number of elements, `(sets + 1,)`; by default one set.

    Returns:
        Reductions, in the shape of x; the identity for the element of a set of one.

    Raises:
        InputError: If the operator is not associative.

    Example:
        >>> from commutant.algebra import Max
        >>> all_but_one(Max(), torch.tensor([3., 5., 4.]))
        tensor([5., 4., 5.])
    """
    check_monoid("monoid", monoid)
    if monoid.associative != "exact":
        raise InputError(
            f"monoid must be exactly associative, and {type(monoid).__name__} is not: the results would "
            "depend on their bracketing"
        )
    lead = first_leaf(x)
    if lead.dim() < 1:
        raise InputError("x must have an axis of elements, got a single number")
    if ptr is None:
        ptr = torch.tensor([0, lead.shape[0]], device=lead.device)
    dtypes, x = monoid.widened(x)  # rounded once, at the end
    before = monoid.scan(x, exclusive=True, ptr=ptr)
    after = monoid.scan(x, exclusive=True, reverse=True, ptr=ptr)
    return narrowed(monoid.op(before, after), dtypes)
