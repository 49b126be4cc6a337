"""Types of a small functional language: base types, functions and type variables, with unification."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .._errors import InputError

_MOST_PARTS = 10_000
_MOST_LEVELS = 100  # of a type, which is printed and compared recursively


class Type:
    """Type of a term; `a >> b` is the type of functions from a to b."""

    def __rshift__(self, result: Type) -> Arrow:
        return Arrow(self, result)


@dataclass(frozen=True)
class BaseType(Type):
    """Type without parts, such as numbers.

    Args:
        name: Name of the type.
    """

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class TypeVariable(Type):
    """Type that stands for any other.

    Args:
        name: Name of the variable.
    """

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Arrow(Type):
    """Type of functions.

    Args:
        argument: Type of the argument.
        result: Type of the result.
    """

    argument: Type
    result: Type

    def __str__(self) -> str:
        left = f"({self.argument})" if isinstance(self.argument, Arrow) else str(self.argument)
        return f"{left} -> {self.result}"


def arguments_of(kind: Type) -> tuple[list[Type], Type]:
    """Return the types of the arguments of a function, and of its final result.

    Args:
        kind: Type.
    """
    arguments = []
    while isinstance(kind, Arrow):
        arguments.append(kind.argument)
        kind = kind.result
    return arguments, kind


class Unifier:
    """Substitution of type variables, extended by unification (Hindley and Milner).

    Args:
        known: Types whose variables are not to be mistaken for fresh ones.
    """

    def __init__(self, known: Iterable[Type] = ()) -> None:
        self._bound: dict[TypeVariable, Type] = {}
        self._count = 0
        self._taken = {v.name for kind in known for v in _variables(kind)}

    def fresh(self) -> TypeVariable:
        """Return a type variable that occurs nowhere else."""
        self._count += 1
        while f"?{self._count}" in self._taken:
            self._count += 1
        return TypeVariable(f"?{self._count}")

    def instance(self, kind: Type) -> Type:
        """Return a type with its variables replaced by fresh ones.

        Args:
            kind: Type.
        """
        names: dict[TypeVariable, Type] = {}

        def renamed(t: Type) -> Type:
            if isinstance(t, TypeVariable):
                if t not in names:
                    names[t] = self.fresh()
                return names[t]
            return Arrow(renamed(t.argument), renamed(t.result)) if isinstance(t, Arrow) else t

        return renamed(kind)

    def resolve(self, kind: Type) -> Type:
        """Return a type with all known variables replaced.

        Args:
            kind: Type.

        Raises:
            InputError: If it has more than 10 000 parts, as each of them may occur twice in the next one, or more than
                100 levels.
        """
        known: dict[int, tuple[Type, int, int]] = {}  # with the numbers of parts and of levels
        kept, waiting = [self._head(kind)], [self._head(kind)]  # kept alive, so that identities stay
        while waiting:
            t = waiting[-1]
            if id(t) not in known and isinstance(t, Arrow):
                parts = [self._head(t.argument), self._head(t.result)]
                if later := [p for p in parts if id(p) not in known]:
                    waiting += later
                    kept += later
                    continue
                (argument, m, deep), (result, n, deeper) = (known[id(p)] for p in parts)
                if m + n > _MOST_PARTS:
                    raise InputError(f"its type has more than {_MOST_PARTS} parts; write a smaller term")
                if (levels := 1 + max(deep, deeper)) > _MOST_LEVELS:
                    raise InputError(f"its type is nested too deeply, in more than {_MOST_LEVELS} levels")
                known[id(t)] = Arrow(argument, result), m + n, levels
            known.setdefault(id(t), (t, 1, 0))
            waiting.pop()
        return known[id(kept[0])][0]

    def unify(self, left: Type, right: Type) -> None:
        """Make two types equal.

        Args:
            left: Type.
            right: Type.

        Raises:
            InputError: If no substitution makes them equal.
        """
        waiting, seen = [(left, right)], set[tuple[int, int]]()
        while waiting:
            a, b = (self._head(t) for t in waiting.pop())
            if a is b or (id(a), id(b)) in seen:
                continue
            seen.add((id(a), id(b)))
            if isinstance(b, TypeVariable) and not isinstance(a, TypeVariable):
                a, b = b, a
            if isinstance(a, TypeVariable):
                if a == b:
                    continue
                if self._occurs(a, b):
                    raise InputError(f"types {self.resolve(left)} and {self.resolve(right)} make an infinite type")
                self._bound[a] = b
            elif isinstance(a, Arrow) and isinstance(b, Arrow):
                waiting += [(a.argument, b.argument), (a.result, b.result)]
            elif a != b:
                raise InputError(f"expected type {self.resolve(left)}, got {self.resolve(right)}")

    def _occurs(self, variable: TypeVariable, kind: Type) -> bool:
        """Return whether a variable is part of a type, which is a graph: parts may be shared."""
        waiting, seen = [kind], set[int]()
        while waiting:
            part = self._head(waiting.pop())
            if part == variable:
                return True
            if isinstance(part, Arrow) and id(part) not in seen:
                seen.add(id(part))
                waiting += [part.argument, part.result]
        return False

    def _head(self, kind: Type) -> Type:
        while isinstance(kind, TypeVariable) and kind in self._bound:
            kind = self._bound[kind]
        return kind


def _variables(kind: Type) -> Iterator[TypeVariable]:
    if isinstance(kind, TypeVariable):
        yield kind
    elif isinstance(kind, Arrow):
        yield from _variables(kind.argument)
        yield from _variables(kind.result)


def is_type(kind: object) -> bool:
    """Return whether an object is a type in all of its parts.

    Args:
        kind: Object.
    """
    waiting = [kind]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Arrow):
            waiting += [part.argument, part.result]
        elif not isinstance(part, BaseType | TypeVariable):
            return False
    return True


def is_ground(kind: Type) -> bool:
    """Return whether a type has no type variables.

    Args:
        kind: Type.
    """
    return next(_variables(kind), None) is None


def base_types(kind: Type) -> list[BaseType]:
    """Return the base types of which a type is made.

    Args:
        kind: Type.
    """
    if isinstance(kind, Arrow):
        return base_types(kind.argument) + base_types(kind.result)
    return [kind] if isinstance(kind, BaseType) else []


def grounded(kind: Type, base: BaseType | None) -> Type:
    """Return a type whose type variables are replaced by a base type, if there is one.

    Args:
        kind: Type.
        base: Base type, or None.
    """
    if isinstance(kind, Arrow):
        return Arrow(grounded(kind.argument, base), grounded(kind.result, base))
    return base if base is not None and isinstance(kind, TypeVariable) else kind
