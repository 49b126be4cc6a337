"""Enumeration of programs in the order of their probability: heap search, with one heap for each request."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from .._checks import is_real, whole
from .._errors import InputError
from ._dsl import DSL, Program
from ._grammar import Grammar, Production, Request
from ._terms import Lambda, Term, apply

_Key = tuple[float, int]  # cost and size: the size settles equal costs, so that parts always come before the whole


@dataclass
class _Ranking:
    """Derivations of one request: those known so far in order, and candidates for the next one."""

    rules: tuple[Production, ...]
    known: list[tuple[_Key, Term]] = field(default_factory=list)
    waiting: list[tuple[_Key, int, tuple[int, ...]]] = field(default_factory=list)
    seen: set[tuple[int, tuple[int, ...]]] = field(default_factory=set)
    last: tuple[int, tuple[int, ...]] | None = None
    """Rule and ranks of the last known derivation, until its successors are waiting."""


def enumerate_programs(
    grammar: Grammar | DSL, *, max_cost: int | float | None = None, max_scope: int = 4
) -> Iterator[Program]:
    """Yield the programs of a language, the most probable first, none twice (Fijalkow et al. 2022, heap search).

    Programs are in eta-long beta-normal form: every function is applied to all of its arguments.

    The next derivation of a request is the cheapest candidate. A derivation has one successor for each argument, with
    that argument replaced by the next one of its own request. Successors are made when they are needed, so that
    requests may refer to each other. Time and memory per program grow with the number of arguments of a function, and
    not with the size of the program.

    Args:
        grammar: Grammar, or a language whose functions are all equally probable.
        max_cost: Largest cost of a program, which is minus its log probability; all by default.
        max_scope: Largest number of variables in scope. Terms inside more nested functions are left out.

    Raises:
        InputError: If the language has no finite program.

    Example:
        >>> from commutant.programs import BaseType, DSL, Primitive
        >>> number = BaseType("number")
        >>> dsl = DSL([Primitive("one", number, 1), Primitive("double", number >> number, lambda a: 2 * a)], number)
        >>> programs = enumerate_programs(dsl)
        >>> [str(next(programs)) for _ in range(3)]
        ['one', '(double one)', '(double (double one))']
    """
    grammar = grammar if isinstance(grammar, Grammar) else Grammar(grammar)
    whole("max_scope", max_scope, 0)
    if max_cost is not None and not (is_real(max_cost) and not math.isnan(max_cost)):
        raise InputError(f"max_cost must be a number or None, got {max_cost!r}")
    least = _least_keys(grammar, max_scope)
    if grammar.start not in least:
        raise InputError(
            f"no finite program has type {grammar.dsl.request} with at most max_scope={max_scope} variables in scope; "
            f"add a constant to the language ({', '.join(grammar.dsl.names)}), or raise max_scope"
        )
    return _programs(grammar, least, math.inf if max_cost is None else float(max_cost))


def _programs(grammar: Grammar, least: dict[Request, _Key], max_cost: float) -> Iterator[Program]:
    ranking, rank = _Rankings(grammar, least), 0
    while (found := ranking.get(grammar.start, rank)) is not None and found[0][0] <= max_cost:
        yield Program(grammar.dsl, found[1])
        rank += 1


class _Rankings:
    def __init__(self, grammar: Grammar, least: dict[Request, _Key]) -> None:
        self.grammar, self.least = grammar, least
        self.tables: dict[Request, _Ranking] = {}

    def get(self, request: Request, rank: int) -> tuple[_Key, Term] | None:
        """Return a derivation of a request by its rank, or None if there are fewer.

        Parts of a known derivation are known themselves. So a call of this function inside another one is for a request
        with other variables in scope or at another place, and calls nest no deeper than there are requests.
        """
        table = self.tables.get(request)
        if table is None:
            table = self.tables[request] = _Ranking(self.grammar.productions(request))
            for number, rule in enumerate(table.rules):
                if all(a in self.least for a in rule.arguments):
                    self._push(table, number, (0,) * len(rule.arguments), [self.least[a] for a in rule.arguments])
        while len(table.known) <= rank:
            if table.last is not None:
                (number, ranks), table.last = table.last, None
                for place in range(len(ranks)):
                    self._follow(table, number, (*ranks[:place], ranks[place] + 1, *ranks[place + 1 :]))
            if not table.waiting:
                return None
            key, number, ranks = heapq.heappop(table.waiting)
            rule = table.rules[number]
            parts = [self.get(a, r)[1] for a, r in zip(rule.arguments, ranks, strict=True)]  # type: ignore[index]
            table.known.append((key, Lambda(parts[0]) if rule.head is None else apply(rule.head, *parts)))
            table.last = (number, ranks)
        return table.known[rank]

    def _follow(self, table: _Ranking, number: int, ranks: tuple[int, ...]) -> None:
        if (number, ranks) in table.seen:
            return
        parts = [self.get(a, r) for a, r in zip(table.rules[number].arguments, ranks, strict=True)]
        if all(p is not None for p in parts):
            self._push(table, number, ranks, [p[0] for p in parts if p is not None])

    @staticmethod
    def _push(table: _Ranking, number: int, ranks: tuple[int, ...], parts: list[_Key]) -> None:
        table.seen.add((number, ranks))
        heapq.heappush(table.waiting, (_key(table.rules[number], parts), number, ranks))


def _key(rule: Production, parts: list[_Key]) -> _Key:
    return rule.cost + sum(cost for cost, _ in parts), 1 + sum(size for _, size in parts)


def _least_keys(grammar: Grammar, max_scope: int) -> dict[Request, _Key]:
    """Return the cost and size of the cheapest derivation of each request that has one."""
    requests, waiting = {grammar.start}, [grammar.start]
    while waiting:
        for rule in grammar.productions(waiting.pop()):
            for request in rule.arguments:
                if request not in requests and len(request.scope) <= max_scope:
                    requests.add(request)
                    waiting.append(request)
    least: dict[Request, _Key] = {}
    changed = True
    while changed:
        changed = False
        for request in requests:
            for rule in grammar.productions(request):
                if all(a in least for a in rule.arguments):
                    key = _key(rule, [least[a] for a in rule.arguments])
                    if request not in least or key < least[request]:
                        least[request], changed = key, True
    return least
