"""Probabilistic context-free grammar of the programs of a language, normalized for each requested type."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from .._checks import is_real
from .._errors import InputError
from ._dsl import DSL, Program
from ._normal import shifted
from ._terms import Apply, Lambda, Name, Term, Variable, spine
from ._types import Arrow, BaseType, Type, Unifier, arguments_of, base_types, grounded, is_ground


class Request(NamedTuple):
    """Request for a term: its type, the types of the variables in scope, and the argument that it is.

    Args:
        type: Type.
        scope: Types of the variables `$0`, `$1`, ...
        place: Name of the function whose argument the term is, and its position; None without bigrams.
    """

    type: Type
    scope: tuple[Type, ...] = ()
    place: tuple[str, int] | None = None


@dataclass(frozen=True)
class Production:
    """Way to make a term of a requested type.

    Args:
        head: Name or variable that is applied, or None for a lambda.
        arguments: Requests of the arguments.
        cost: Minus the log probability.
    """

    head: Name | Variable | None
    arguments: tuple[Request, ...]
    cost: float


@dataclass
class Grammar:
    r"""Normalized probabilities of the functions of a language, for each requested type.

    A term has the probability $\prod_i p(f_i \mid r_i)$ over its functions and variables $f_i$, where $r_i$ is the type
    that is requested there, and $p(f \mid r) = w_f / \sum_{f'} w_{f'}$ over all that return it.

    Args:
        dsl: Language. The type of a function's result must fix the types of its arguments, unless there is only one
            base type.
        weights: Positive weight of each function; one where it is not given. Variables have weight one. With bigrams
            the keys are `(function, position, name)`, or a name for the first function of a program.
        bigrams: Whether weights depend on the function whose argument a term is, and on its position.

    Raises:
        InputError: For unknown names or weights that are not positive.

    Example:
        >>> from commutant.programs import BaseType, DSL, Primitive
        >>> number = BaseType("number")
        >>> dsl = DSL([Primitive("one", number, 1), Primitive("double", number >> number, lambda a: 2 * a)], number)
        >>> round(Grammar(dsl, {"one": 3.0}).probability(dsl.parse("(double (double one))")), 6)
        0.046875
    """

    dsl: DSL
    weights: Mapping[Any, float] = field(default_factory=dict)
    bigrams: bool = False
    _rules: dict[Request, tuple[Production, ...]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.dsl, DSL) or not isinstance(self.weights, Mapping):
            raise InputError(f"expected a DSL and weights by name, got {self.dsl!r:.40} and {self.weights!r:.40}")
        for key, weight in self.weights.items():
            fits = isinstance(key, str) or (self.bigrams and isinstance(key, tuple) and len(key) == 3)
            if not fits:
                raise InputError(f"weights must be by name, or with bigrams by (function, position, name), got {key!r}")
            for name in key[::2] if isinstance(key, tuple) else (key,):
                self.dsl.type_of(name)
            if not (is_real(weight) and 0 < weight < 1e300):
                raise InputError(f"the weight of {key!r} must be a positive number, got {weight!r}")

    @cached_property
    def _only(self) -> BaseType | None:
        """Base type of a language that has a single one, which every open type variable then stands for."""
        bases = {t for p in self.dsl.primitives for t in base_types(p.type)} | set(base_types(self.dsl.request))
        return bases.pop() if len(bases) == 1 else None

    @property
    def start(self) -> Request:
        """Request of a whole program."""
        return Request(self.dsl.request)

    def productions(self, request: Request) -> tuple[Production, ...]:
        """Return the ways to make a term; their probabilities sum to one.

        Args:
            request: What the term must be.
        """
        if request not in self._rules:
            self._rules[request] = tuple(self._made(request))
        return self._rules[request]

    def _made(self, request: Request) -> Iterator[Production]:
        kind, scope, place = request
        if isinstance(kind, Arrow):
            yield Production(None, (Request(kind.result, (kind.argument, *scope), place),), 0.0)
            return
        ways: list[tuple[Name | Variable, list[Type], float]] = []
        heads: list[tuple[Name | Variable, Type]] = [(Name(n), self.dsl.type_of(n)) for n in self.dsl.names]
        heads += [(Variable(i), t) for i, t in enumerate(scope)]
        for head, own in heads:
            unifier = Unifier()
            arguments, result = arguments_of(unifier.instance(own))
            try:
                unifier.unify(result, kind)
            except InputError:
                continue
            types = [grounded(unifier.resolve(t), self._only) for t in arguments]
            if not all(map(is_ground, types)):
                if isinstance(head, Name) and head.name in self.dsl.library:
                    continue  # learnt, and of no use here
                raise InputError(
                    f"{head} has type {own}, whose arguments stay open for the result {kind}; give it a type whose "
                    "result names all of its type variables"
                )
            ways.append((head, types, self._weight(head, place)))
        most = max((weight for *_, weight in ways), default=1.0)
        total = math.log(math.fsum(weight / most for *_, weight in ways)) + math.log(most) if ways else 0.0
        for head, types, weight in ways:
            name = str(head)
            requests = (Request(t, scope, (name, i) if self.bigrams else None) for i, t in enumerate(types))
            yield Production(head, tuple(requests), total - math.log(weight))

    def _weight(self, head: Name | Variable, place: tuple[str, int] | None) -> float:
        if isinstance(head, Variable):
            return 1.0
        return self.weights.get((*place, head.name) if place else head.name, 1.0)

    def derivation(self, program: Program | Term) -> Iterator[tuple[Request, Production]]:
        """Yield the requests of a program and the productions that answer them, from the outside inwards.

        Args:
            program: Program. Functions that are not applied to all of their arguments stand for their eta-long form.

        Raises:
            InputError: If the grammar does not make the program.
        """
        term = program.term if isinstance(program, Program) else program
        waiting: list[tuple[Term, Request]] = [(term, self.start)]
        while waiting:
            part, request = waiting.pop()
            if isinstance(request.type, Arrow):
                long = part if isinstance(part, Lambda) else Lambda(Apply(shifted(part, 1), Variable(0)))
                head, arguments = None, [long.body]
            else:
                head, arguments = spine(part)  # type: ignore[assignment]
            rule = next((p for p in self.productions(request) if p.head == head), None)
            if rule is None or len(rule.arguments) != len(arguments):
                learnt = isinstance(head, Name) and head.name in self.dsl.library
                why = f"; {head} has type {self.dsl.type_of(str(head))}, which stays open there" if learnt else ""
                raise InputError(f"the grammar makes no {request.type} of the form {part!s:.60}{why}")
            yield request, rule
            waiting += zip(arguments[::-1], rule.arguments[::-1], strict=True)

    def derivable(self, program: Program) -> Program:
        """Return a program, or its definition in primitives if it uses learnt functions at types that stay open.

        Args:
            program: Program.
        """
        try:
            self.cost(program)
        except InputError:
            return self.dsl.program(self.dsl.inline(program.term))
        return program

    def cost(self, program: Program | Term) -> float:
        """Return minus the log probability of a program.

        Args:
            program: Program.
        """
        return math.fsum(rule.cost for _, rule in self.derivation(program))

    def probability(self, program: Program | Term) -> float:
        """Return the probability of a program.

        Args:
            program: Program.
        """
        return math.prod(math.exp(-rule.cost) for _, rule in self.derivation(program))

    @classmethod
    def fitted(
        cls,
        programs: Iterable[Program],
        *,
        dsl: DSL | None = None,
        pseudo_count: int | float = 1.0,
        max_ratio: int | float | None = None,
        bigrams: bool = False,
    ) -> Grammar:
        """Return the grammar whose weights are uses over possible uses in a set of programs.

        A function could have been used wherever its type was requested. The published weights are not normalized, which
        makes the search ignore them; these are. Programs with learnt functions whose arguments have types that the
        result leaves open, which a grammar cannot propose, count by their definitions in primitives.

        Args:
            programs: Programs of one language.
            dsl: Language; by default that of the first program.
            pseudo_count: Positive number added to uses and to possible uses, so that nothing becomes impossible.
            max_ratio: Largest ratio of two weights, at least one; larger ones shrink around their geometric mean, as in
                the paper (`exp(0.5)` there).
            bigrams: Whether the weights depend on the function whose argument the term is, and on its position.

        Raises:
            InputError: For no programs and no language, or a program that the language does not make.
        """
        if not isinstance(programs, Iterable):
            raise InputError(f"programs must be a list of Program objects, got {programs!r:.60}")
        programs = list(programs)
        if not all(isinstance(p, Program) for p in programs):
            raise InputError("programs must be a list of Program objects; use dsl.parse(text)")
        if dsl is None and not programs:
            raise InputError("fitting a grammar needs a program or a language, got neither")
        if not (is_real(pseudo_count) and 0 < pseudo_count < math.inf):
            raise InputError(f"pseudo_count must be a positive number, got {pseudo_count!r}")
        if max_ratio is not None and not (is_real(max_ratio) and max_ratio >= 1):
            raise InputError(f"max_ratio must be None or a number of at least 1, got {max_ratio!r}")
        uniform = cls(dsl or programs[0].dsl, bigrams=bigrams)
        uses: Counter[Any] = Counter()
        chances: Counter[Any] = Counter()
        for program in programs:
            for request, rule in uniform.derivation(uniform.derivable(program)):
                for other in uniform.productions(request):
                    if isinstance(other.head, Name):
                        key = (*request.place, other.head.name) if request.place else other.head.name
                        chances[key] += 1
                        uses[key] += other.head == rule.head
        logs = {k: math.log(uses[k] + pseudo_count) - math.log(chances[k] + pseudo_count) for k in chances}
        if max_ratio is not None and logs:
            middle, spread = math.fsum(logs.values()) / len(logs), max(logs.values()) - min(logs.values())
            scale = min(1.0, math.log(max_ratio) / spread) if spread else 1.0
            logs = {k: middle + scale * (v - middle) for k, v in logs.items()}
        return cls(uniform.dsl, {k: math.exp(v) for k, v in logs.items()}, bigrams)
