"""The laws that every monoid states."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ..laws import Associativity, Commutativity, Draw, IdentityElement, breaks, obeys
from ._monoid import Monoid
from .elements import Element

MonoidClass = TypeVar("MonoidClass", bound=type[Monoid])


def states_monoid_laws(
    case: Callable[[Draw], tuple[Monoid, Callable[[], Element]]],
) -> Callable[[MonoidClass], MonoidClass]:
    """State associativity, identity and commutativity (or that it must fail) of a monoid, on drawn elements."""

    def decorate(subject: MonoidClass) -> MonoidClass:
        def inputs(draw: Draw, count: int):  # type: ignore[no-untyped-def]
            monoid, element = case(draw)
            return monoid, lambda _: tuple(element() for _ in range(count))

        def associativity(draw: Draw):  # type: ignore[no-untyped-def]
            monoid, elements = inputs(draw, 3)
            return Associativity(), monoid.op, elements

        def commutativity(draw: Draw):  # type: ignore[no-untyped-def]
            monoid, elements = inputs(draw, 2)
            return Commutativity(), monoid.op, elements

        def identity(draw: Draw):  # type: ignore[no-untyped-def]
            monoid, elements = inputs(draw, 1)
            return IdentityElement(monoid.identity), monoid.op, elements

        obeys("associativity", associativity)(subject)
        obeys("identity element", identity)(subject)
        state = breaks if subject.commutative == "no" else obeys
        return state("commutativity", commutativity)(subject)

    return decorate
