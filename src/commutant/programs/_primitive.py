"""Named constants and functions of a language."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ._types import Type, arguments_of


@dataclass(frozen=True)
class Primitive:
    """Named constant or function of a language.

    Args:
        name: Name, without spaces, parentheses and `$`.
        type: Type; a function of several arguments is `a >> (b >> c)`.
        value: Value of a constant, or a Python function of all arguments at once.
    """

    name: str
    type: Type
    value: Any

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Primitive) or (self.name, self.type) != (other.name, other.type):
            return False
        try:
            return self.value is other.value or bool(self.value == other.value)
        except Exception:  # two arrays, whose comparison has no truth value
            return False

    def __hash__(self) -> int:
        return hash((self.name, self.type))

    @property
    def arity(self) -> int:
        """Number of arguments."""
        return len(arguments_of(self.type)[0])
