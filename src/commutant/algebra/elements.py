"""Elements of monoids: tensors, or nested tuples of tensors that share their leading axes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import torch
from torch import Tensor

from .._errors import InputError

Element: TypeAlias = Any
"""A tensor, or a nested tuple of tensors with the same leading (element) axes."""


def leaves(element: Element) -> Iterator[Tensor]:
    """Yield the tensors of an element, depth first.

    Args:
        element: Tensor or nested tuple of tensors.
    """
    if isinstance(element, Tensor):
        yield element
    elif isinstance(element, tuple | list) and element:
        for part in element:
            yield from leaves(part)
    else:
        given = "nothing" if isinstance(element, tuple | list) else type(element).__name__
        raise InputError(f"an element must be a tensor or a tuple of tensors, got {given}")


def map_leaves(function: Callable[..., Tensor], *elements: Element) -> Element:
    """Apply a function to corresponding tensors of one or more elements of the same structure.

    Args:
        function: Function with one argument for each element.
        elements: Elements, at least one.
    """
    if isinstance(elements[0], Tensor):
        return function(*elements)
    return tuple(map_leaves(function, *parts) for parts in zip(*elements, strict=True))


def first_leaf(element: Element) -> Tensor:
    """Return the first tensor of an element.

    Args:
        element: Tensor or nested tuple of tensors.
    """
    return next(leaves(element))


class _PermuteRows(torch.autograd.Function):
    """Selection `x[permutation]` with a gather as backward pass, instead of the scatter-add of general indexing."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, permutation: Tensor, inverse: Tensor) -> Tensor:
        return x.index_select(0, permutation)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1], inputs[2])
        ctx.save_for_forward(inputs[1], inputs[2])

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: Any) -> Tensor:  # type: ignore[override]
        return tangent.index_select(0, ctx.saved_tensors[0])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        permutation, inverse = ctx.saved_tensors
        return _PermuteRows.apply(gradient, inverse, permutation), None, None


def permute_rows(element: Element, permutation: Tensor, inverse: Tensor) -> Element:
    """Reorder the leading axis by a permutation whose inverse is known.

    Args:
        element: Element.
        permutation: Row of the old element at each row of the new one, `(rows,)`.
        inverse: Inverse of the permutation.
    """
    if torch.compiler.is_compiling():  # the compiler supports no forward-mode rule, and fuses the general backward
        return map_leaves(lambda leaf: leaf.index_select(0, permutation), element)
    return map_leaves(lambda leaf: _PermuteRows.apply(leaf, permutation, inverse), element)


def concatenate(*elements: Element) -> Element:
    """Concatenate elements along the leading axis.

    Args:
        elements: Elements of the same structure.
    """
    return map_leaves(lambda *parts: torch.cat(parts), *elements)


def rows(element: Element, index: Tensor | slice | int) -> Element:
    """Select rows of the leading axis.

    Args:
        element: Element.
        index: Rows to select.
    """
    return map_leaves(lambda leaf: leaf[index], element)


def split_rows(element: Element, sizes: list[int]) -> list[Element]:
    """Split the leading axis into consecutive blocks.

    Args:
        element: Element.
        sizes: Number of rows of each block.
    """
    if isinstance(element, Tensor):
        return list(element.split(sizes))
    return [tuple(block) for block in zip(*(split_rows(part, sizes) for part in element), strict=True)]
