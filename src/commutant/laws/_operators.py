"""Laws of operators: commutativity, associativity, identity elements, homomorphisms."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from .._errors import InputError
from ._actions import GroupElement
from ._inputs import Inputs
from ._laws import Function, Law, as_function, equal, single_samples


class Commutativity(Law):
    """Law $f(a, b) = f(b, a)$."""

    name = "commutativity"
    formula = "f(a, b) = f(b, a)"

    def sides(self, f: Function, x: Inputs, g: GroupElement) -> tuple[Any, Any]:
        a, b = _arguments(self, x, 2)
        return f(a, b), f(b, a)

    def moves(self, x: Inputs, g: GroupElement) -> bool:
        _arguments(self, x, 2)
        return not equal(x[0], x[1])

    def shrink(self, x: Inputs, g: GroupElement) -> Iterator[tuple[Inputs, GroupElement]]:
        yield from ((y, g) for y in single_samples(x))


class Associativity(Law):
    """Law $f(f(a, b), c) = f(a, f(b, c))$."""

    name = "associativity"
    formula = "f(f(a, b), c) = f(a, f(b, c))"

    def sides(self, f: Function, x: Inputs, g: GroupElement) -> tuple[Any, Any]:
        a, b, c = _arguments(self, x, 3)
        return f(f(a, b), c), f(a, f(b, c))

    def plain(self, f: Function, x: Inputs) -> Any:
        return f(x[0], x[1])

    def shrink(self, x: Inputs, g: GroupElement) -> Iterator[tuple[Inputs, GroupElement]]:
        yield from ((y, g) for y in single_samples(x))


class IdentityElement(Law):
    """Law $f(x, e) = x = f(e, x)$.

    Args:
        identity: Function from x to the identity element e in the shape of x.
    """

    name = "identity element"
    formula = "f(x, e) = x = f(e, x)"

    def __init__(self, identity: Callable[[Any], Any]) -> None:
        self.identity = as_function("identity", identity)

    def sides(self, f: Function, x: Inputs, g: GroupElement) -> tuple[Any, Any]:
        (a,) = _arguments(self, x, 1)
        e = self.identity(a)
        return (f(a, e), f(e, a)), (a, a)

    def plain(self, f: Function, x: Inputs) -> Any:
        return f(x[0], x[0])

    def shrink(self, x: Inputs, g: GroupElement) -> Iterator[tuple[Inputs, GroupElement]]:
        yield from ((y, g) for y in single_samples(x))


class Homomorphism(Law):
    """Law $f(a \\circ b) = f(a) * f(b)$: f maps one operator to another.

    Args:
        source: Operator $\\circ$ on the inputs.
        target: Operator $*$ on the outputs; by default the same as `source`.
    """

    name = "homomorphism"
    formula = "f(a ∘ b) = f(a) * f(b)"

    def __init__(self, source: Function, target: Function | None = None) -> None:
        self.source = as_function("source", source)
        self.target = self.source if target is None else as_function("target", target)

    def sides(self, f: Function, x: Inputs, g: GroupElement) -> tuple[Any, Any]:
        a, b = _arguments(self, x, 2)
        return f(self.source(a, b)), self.target(f(a), f(b))

    def plain(self, f: Function, x: Inputs) -> Any:
        return f(x[0])


def _arguments(law: Law, x: Inputs, number: int) -> Any:
    """Return the arguments of an operator, after a check of their number."""
    if not isinstance(x, tuple | list) or len(x) != number:
        given = f"{len(x)} inputs" if isinstance(x, tuple | list) else type(x).__name__
        raise InputError(f"{law.name} needs a tuple of {number} inputs, one per argument, got {given}")
    return x
