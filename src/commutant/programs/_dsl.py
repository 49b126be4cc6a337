"""Languages of typed primitives, programs in them, and their evaluation with a budget of steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from .._checks import whole
from .._errors import InputError
from ._normal import beta_normal, replaced
from ._primitive import Primitive
from ._terms import Apply, Lambda, Name, Term, Variable, parse, size, subterms, write
from ._types import Arrow, Type, Unifier, arguments_of, is_ground, is_type


class BudgetExceeded(InputError):
    """Failure of a program that takes more steps than its budget."""


@dataclass(frozen=True)
class _Closure:
    body: Term
    environment: tuple[Any, ...]


@dataclass(frozen=True)
class _Partial:
    primitive: Primitive
    given: tuple[Any, ...]


@dataclass(frozen=True)
class _Given:
    value: Any


_APPLY = object()


@dataclass
class _Meter:
    name: str
    budget: int
    steps: int = 0

    def step(self) -> None:
        self.steps += 1
        if self.steps > self.budget:
            raise BudgetExceeded(
                f"{self.name} takes more than {self.budget} steps; raise budget or shorten the program"
            )


@dataclass(frozen=True)
class DSL:
    """Typed language of programs.

    Args:
        primitives: Primitives.
        request: Type of a program.
        library: Functions made of primitives and of earlier library functions, by name.

    Raises:
        InputError: For names that clash or can't be written, a request with type variables, and library functions
            without a type or that call themselves.

    Example:
        >>> from commutant.programs import BaseType, DSL, Primitive
        >>> number = BaseType("number")
        >>> one = Primitive("one", number, 1)
        >>> add = Primitive("add", number >> (number >> number), lambda a, b: a + b)
        >>> DSL([one, add], number).parse("(add one (add one one))").evaluate()
        3
    """

    primitives: Sequence[Primitive]
    request: Type
    library: Mapping[str, Term] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names: dict[str, Primitive] = {}
        if not is_type(self.request) or not is_ground(self.request):
            raise InputError(
                f"request must be a type without type variables, such as BaseType('number'), got {self.request!r:.40}"
            )
        if not isinstance(self.primitives, Iterable):
            raise InputError(f"primitives must be a list of Primitive objects, got {self.primitives!r:.40}")
        object.__setattr__(self, "primitives", tuple(self.primitives))
        for p in self.primitives:
            if not isinstance(p, Primitive):
                raise InputError(f"primitives must be Primitive objects, got {p!r:.40}")
            if not is_type(p.type):
                raise InputError(
                    f"the type of {p.name!r} must be a type such as BaseType('number'), got {p.type!r:.40}"
                )
            self._check_name(p.name, names)
            if p.arity and not callable(p.value):
                raise InputError(
                    f"{p.name} has type {p.type} and must have a function as its value, got {p.value!r:.40}"
                )
            names[p.name] = p
        if not names:
            raise InputError("a language needs at least one primitive, got none")
        if not isinstance(self.library, Mapping):
            raise InputError(f"library must be a mapping from names to terms, got {self.library!r:.40}")
        object.__setattr__(self, "_by_name", names)
        types: dict[str, Type] = {}
        object.__setattr__(self, "_types", types)
        for name, term in self.library.items():
            self._check_name(name, names)
            if not isinstance(term, Name | Variable | Lambda | Apply):
                raise InputError(f"library functions must be terms, got {term!r:.40} for {name!r}")
            unknown = {t.name for t in subterms(term) if isinstance(t, Name)} - {*names, *types}
            if unknown:
                raise InputError(
                    f"library function {name!r} uses {', '.join(sorted(unknown))}, which is not defined before it; "
                    "it must not call itself"
                )
            types[name] = self.infer(term)

    @staticmethod
    def _check_name(name: object, known: Mapping[str, Primitive]) -> None:
        if not isinstance(name, str) or not name or name == "lam" or any(c in "()$" or c.isspace() for c in name):
            raise InputError(f"name of a function must be a word without parentheses, $ and spaces, got {name!r}")
        if name in known:
            raise InputError(f"two functions are called {name!r}; rename one of them")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all primitives and library functions."""
        return (*(p.name for p in self.primitives), *self.library)

    def type_of(self, name: str) -> Type:
        """Return the type of a primitive or library function.

        Args:
            name: Its name.
        """
        known: dict[str, Primitive] = self._by_name  # type: ignore[attr-defined]
        types: dict[str, Type] = self._types  # type: ignore[attr-defined]
        if name in known:
            return known[name].type
        if name in types:
            return types[name]
        raise InputError(f"there is no function {name!r}; known are {', '.join([*known, *types])}")

    def infer(self, term: Term, context: Sequence[Type] = ()) -> Type:
        """Return the most general type of a term.

        Args:
            term: Term.
            context: Types of the variables `$0`, `$1`, ..., for a term that is not closed.

        Raises:
            InputError: If the term has no type.
        """
        try:
            return self._inferred(term, context)
        except RecursionError:
            raise InputError(f"{write(term):.60} has a type that is nested too deeply") from None

    def _inferred(self, term: Term, context: Sequence[Type]) -> Type:
        unifier = Unifier(context)
        found: list[Type] = []
        waiting: list[tuple[str, Any, tuple[Type, ...]]] = [("term", term, tuple(context))]
        while waiting:
            kind, part, types = waiting.pop()
            if kind == "apply":
                argument, function = found.pop(), found.pop()
                result = unifier.fresh()
                try:
                    unifier.unify(function, Arrow(argument, result))
                except InputError as error:
                    raise InputError(f"{write(part):.80} has no type: {error}") from None
                found.append(result)
            elif kind == "lambda":
                found.append(Arrow(part, found.pop()))
            elif isinstance(part, Name):
                found.append(unifier.instance(self.type_of(part.name)))
            elif isinstance(part, Variable):
                if part.index >= len(types):
                    raise InputError(f"${part.index} is not bound by any lam in {write(term):.80}")
                found.append(types[part.index])
            elif isinstance(part, Lambda):
                argument = unifier.fresh()
                waiting += [("lambda", argument, types), ("term", part.body, (argument, *types))]
            else:
                waiting += [("apply", part, types), ("term", part.argument, types), ("term", part.function, types)]
        try:
            return unifier.resolve(found.pop())
        except InputError as error:
            raise InputError(f"{write(term):.60} is too large: {error}") from None

    def program(self, term: Term) -> Program:
        """Return a term as a program, after a check of its type.

        Args:
            term: Closed term of the requested type.

        Raises:
            InputError: If its type is another one.
        """
        if not isinstance(term, Name | Variable | Lambda | Apply):
            raise InputError(f"a program must be a term, got {term!r:.40}; dsl.parse reads text")
        kind, unifier = self.infer(term), Unifier()
        try:
            unifier.unify(self.request, unifier.instance(kind))
        except InputError:
            raise InputError(f"a program must have type {self.request}, got {kind} for {write(term):.80}") from None
        return Program(self, term)

    def parse(self, text: str) -> Program:
        """Return the program of an s-expression.

        Args:
            text: Text, as `str(program)` writes it.

        Raises:
            InputError: If the text is no term, has unknown names, or another type.
        """
        return self.program(parse(text))

    def extended(self, library: Mapping[str, Term]) -> DSL:
        """Return the language with more library functions.

        Args:
            library: Terms, by name, in the order of their definition.
        """
        return DSL(self.primitives, self.request, {**self.library, **library})

    def inline(self, term: Term) -> Term:
        """Return a term with all library functions replaced by their definitions, in beta-normal form.

        Args:
            term: Term.
        """
        definitions: dict[str, Term] = {}
        for name, body in self.library.items():
            definitions[name] = replaced(body, definitions)
        return beta_normal(replaced(term, definitions))

    def evaluate(self, term: Term, *inputs: Any, budget: int = 100_000) -> Any:
        """Return the value of a closed term, or of its value at some inputs if that is a function.

        Args:
            term: Term.
            inputs: Arguments of the function.
            budget: Largest number of steps.

        Raises:
            BudgetExceeded: If it takes more steps.
            InputError: For the wrong number of inputs.
        """
        wanted = len(arguments_of(self.infer(term))[0])
        return self._evaluated(term, wanted, inputs, budget)

    def _evaluated(self, term: Term, wanted: int, inputs: Sequence[Any], budget: int) -> Any:
        whole("budget", budget)
        if len(inputs) != wanted:
            raise InputError(f"{write(term):.60} needs {wanted} inputs, got {len(inputs)}")
        try:
            return self._run(term, (), inputs, _Meter(write(term)[:60], budget))
        except RecursionError:
            raise BudgetExceeded(
                f"{write(term):.60} has too many primitives inside each other that call functions; shorten the program"
            ) from None

    def _run(self, term: Term, environment: tuple[Any, ...], inputs: Sequence[Any], meter: _Meter) -> Any:
        """Return the value of a term by a stack of its own, since programs may be deeper than Python recurses."""
        known: dict[str, Primitive] = self._by_name  # type: ignore[attr-defined]
        values: list[Any] = []
        waiting: list[Any] = [(term, environment)]
        for given in inputs:
            waiting[:0] = [_APPLY, _Given(given)]
        while waiting:
            meter.step()
            now = waiting.pop()
            if now is _APPLY:
                argument, function = values.pop(), values.pop()
                if isinstance(function, _Closure):
                    waiting.append((function.body, (argument, *function.environment)))
                elif not isinstance(function, _Partial):
                    values.append(function(self._callable(argument, meter)))
                elif len(function.given) + 1 < function.primitive.arity:
                    values.append(_Partial(function.primitive, (*function.given, argument)))
                else:
                    given = [self._callable(v, meter) for v in (*function.given, argument)]
                    values.append(function.primitive.value(*given))
                continue
            if isinstance(now, _Given):
                values.append(now.value)
                continue
            part, scope = now
            if isinstance(part, Name):
                if part.name in self.library:
                    waiting.append((self.library[part.name], ()))
                else:
                    primitive = known[part.name]
                    values.append(_Partial(primitive, ()) if primitive.arity else primitive.value)
            elif isinstance(part, Variable):
                values.append(scope[part.index])
            elif isinstance(part, Lambda):
                values.append(_Closure(part.body, scope))
            else:
                waiting += [_APPLY, (part.argument, scope), (part.function, scope)]
        return self._callable(values.pop(), meter)

    @cached_property
    def _sizes(self) -> DSL:
        """Language in which the value of a term is the size of its normal form, since that itself can be huge."""
        sizes = [Primitive(p.name, p.type, _Counted() if p.arity else 1) for p in self.primitives]
        return DSL(sizes, self.request, self.library)

    def _callable(self, value: Any, meter: _Meter) -> Any:
        """Return a value as Python functions see it: functions of the language can be called with one argument."""
        if isinstance(value, _Closure):
            return lambda x: self._run(value.body, (x, *value.environment), (), meter)
        if isinstance(value, _Partial):
            return lambda x: self._run(Name(value.primitive.name), (), (*value.given, x), meter)
        return value


@dataclass(frozen=True)
class _Counted:
    """Size of a primitive with its arguments."""

    def __call__(self, *parts: Any) -> int:
        return 1 + sum(map(_names_in, parts))


class _Size(int):
    """Size of a variable: of a function, the value at some argument is its own size and that of the argument."""

    def __call__(self, part: Any) -> _Size:
        return _Size(self + _names_in(part))


def _names_in(value: Any) -> int:
    """Return the size of a term from its value in the language of sizes; the variable of a function has size zero."""
    while not isinstance(value, int):
        value = value(_Size(0))
    return int(value)


@dataclass(frozen=True)
class Program:
    """Closed, well-typed term of a language.

    Args:
        dsl: Language.
        term: Term.
    """

    dsl: DSL = field(repr=False, hash=False)
    term: Term

    def __str__(self) -> str:
        return write(self.term)

    @property
    def size(self) -> int:
        """Number of primitives and library functions."""
        return size(self.term)

    @property
    def mass(self) -> int:
        """Number of primitives once all library functions are replaced by their definitions."""
        return _names_in(self.dsl._sizes._run(self.term, (), (), _Meter(str(self)[:60], 10_000_000)))

    def evaluate(self, *inputs: Any, budget: int = 100_000) -> Any:
        """Return the value of the program; see `DSL.evaluate`.

        Args:
            inputs: Arguments, if the program is a function.
            budget: Largest number of steps.
        """
        return self.dsl._evaluated(self.term, len(arguments_of(self.dsl.request)[0]), inputs, budget)
