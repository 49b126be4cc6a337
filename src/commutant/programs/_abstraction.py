"""The abstraction that shortens a set of programs most, by best-first search over patterns (Bowers et al. 2023)."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from ._terms import Apply, Lambda, Name, Term, Variable, apply

NAME_COST = 100
"""Cost of a name or a variable; lambdas and applications cost 1, as in Stitch."""

_Node: TypeAlias = "tuple[str, int] | tuple[str, int, int] | tuple[str, str]"


class Corpus:
    """Programs as a graph in which equal subterms are one node.

    Args:
        terms: Programs.
    """

    def __init__(self, terms: Sequence[Term]) -> None:
        self.nodes: list[_Node] = []
        self.cost: list[int] = []
        self.free: list[frozenset[int]] = []  # free variables of each node
        self._ids: dict[_Node, int] = {}
        self.roots = [self._add(term) for term in terms]

    def intern(self, node: _Node) -> int:
        """Return the number of a node, which is added if it is new.

        Args:
            node: Kind and parts.
        """
        if node not in self._ids:
            kind, *parts = node
            inner: list[int] = parts if kind in ("apply", "lambda") else []  # type: ignore[assignment]
            self._ids[node] = len(self.nodes)
            self.nodes.append(node)
            self.cost.append((1 if inner else NAME_COST) + sum(self.cost[i] for i in inner))
            free: frozenset[int] = frozenset().union(*(self.free[i] for i in inner))
            free = frozenset({int(parts[0])}) if kind == "variable" else free
            self.free.append(frozenset(v - 1 for v in free if v) if kind == "lambda" else free)
        return self._ids[node]

    def _add(self, term: Term) -> int:
        done: list[int] = []
        waiting: list[Any] = [term]
        while waiting:
            part = waiting.pop()
            if part == "lambda":
                done.append(self.intern(("lambda", done.pop())))
            elif part == "apply":
                argument, function = done.pop(), done.pop()
                done.append(self.intern(("apply", function, argument)))
            elif isinstance(part, Lambda):
                waiting += ["lambda", part.body]
            elif isinstance(part, Apply):
                waiting += ["apply", part.argument, part.function]
            elif isinstance(part, Variable):
                done.append(self.intern(("variable", part.index)))
            else:
                done.append(self.intern(("name", part.name)))
        return done.pop()

    def lowered(self, number: int, by: int) -> int | None:
        """Return a node as seen from outside some lambdas, or None if it uses their variables.

        Args:
            number: Node.
            by: Number of lambdas.
        """
        if any(v < by for v in self.free[number]):
            return None
        return self._shifted(number, -by, 0) if by else number

    def _shifted(self, number: int, by: int, depth: int) -> int:
        if all(v < depth for v in self.free[number]):
            return number
        kind, *parts = self.nodes[number]
        if kind == "variable":
            return self.intern(("variable", parts[0] + by))  # type: ignore[operator]
        if kind == "lambda":
            return self.intern(("lambda", self._shifted(parts[0], by, depth + 1)))  # type: ignore[arg-type]
        return self.intern(("apply", *(self._shifted(i, by, depth) for i in parts)))  # type: ignore[arg-type]

    def reachable(self, root: int) -> set[int]:
        """Return all nodes of a program.

        Args:
            root: Its node.
        """
        found, waiting = {root}, [root]
        while waiting:
            kind, *parts = self.nodes[waiting.pop()]
            for i in parts if kind in ("apply", "lambda") else ():
                if i not in found:
                    found.add(i)  # type: ignore[arg-type]
                    waiting.append(i)  # type: ignore[arg-type]
        return found


@dataclass(frozen=True)
class Pattern:
    """Body of an abstraction in the making, with its matches.

    Args:
        parts: Preorder of the body: names, `$i`, `lam`, `(` for applications, `(j` for arguments.
        holes: Depths of the open places, the next one last.
        matches: Nodes that match, each with the nodes at the open places and the arguments.
        arity: Number of arguments.
        cost: Cost of the body so far.
    """

    parts: tuple[str, ...] = ()
    holes: tuple[int, ...] = (0,)
    matches: dict[int, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    arity: int = 0
    cost: int = 0

    def function(self) -> Term:
        """Return the abstraction as a closed function of its arguments."""
        done: list[Term] = []
        depths = [self.arity]
        placed: list[tuple[str, int]] = []
        for part in self.parts:  # depths of the parts, in preorder
            depth = depths.pop()
            placed.append((part, depth))
            depths += [depth, depth] if part == "(" else [depth + 1] if part == "lam" else []
        for part, depth in reversed(placed):
            if part == "(":
                done.append(Apply(done.pop(), done.pop()))
            elif part == "lam":
                done.append(Lambda(done.pop()))
            elif part[0] == "(" and part != "(":
                done.append(Variable(depth - 1 - int(part[1:])))
            else:
                done.append(Variable(int(part[1:])) if part[0] == "$" else Name(part))
        term = done.pop()
        for _ in range(self.arity):
            term = Lambda(term)
        return term


def best_abstraction(corpus: Corpus, max_arity: int, banned: set[str]) -> tuple[Pattern, int] | None:
    """Return the abstraction of largest utility, and its utility, or None if none is positive.

    The utility is the cost that it saves in the programs minus the cost of its body without arguments, as in Stitch. An
    abstraction must occur in two programs. The bound of a pattern counts its open places as saved, and no two matches
    as overlapping, so the first complete pattern whose utility reaches all bounds is optimal. As in Stitch, patterns
    are left out whose argument is the same closed term at all matches.

    Args:
        corpus: Programs.
        max_arity: Largest number of arguments.
        banned: Functions that are known already, as text.
    """
    uses = _occurrences(corpus)
    programs: dict[int, set[int]] = {}
    for program, root in enumerate(corpus.roots):
        for i in corpus.reachable(root):
            programs.setdefault(i, set()).add(program)
    first = Pattern(matches={i: ((i,), ()) for i in uses if corpus.nodes[i][0] in ("apply", "lambda")})
    tie = itertools.count()
    heap = [(-_bound(corpus, uses, first), next(tie), first)]
    best: tuple[Pattern, int] | None = None
    while heap:
        bound, _, pattern = heapq.heappop(heap)
        floor = best[1] if best else 0
        if -bound <= floor:
            return best
        if not pattern.holes:
            gain = saving(corpus, pattern)[0] - pattern.cost
            if gain > floor and str(pattern.function()) not in banned:
                best = (pattern, gain)
            continue
        for more in _expansions(corpus, pattern, max_arity):
            if len(set().union(*(programs[i] for i in more.matches))) < 2 or _useless(corpus, more):
                continue
            bound = _bound(corpus, uses, more)
            if bound > floor:
                heapq.heappush(heap, (-bound, next(tie), more))
    return best


def pattern_of(corpus: Corpus, function: Term) -> Pattern:
    """Return the body of a function as a pattern with all of its matches.

    Args:
        corpus: Programs.
        function: Closed function. If it does not use all of its arguments, there are no matches.
    """
    arity = 0
    while isinstance(function, Lambda):
        function, arity = function.body, arity + 1
    parts: list[str] = []
    order: list[int] = []  # arguments in the order of their first uses
    waiting: list[tuple[Term, int]] = [(function, 0)]
    while waiting:
        part, depth = waiting.pop()
        if isinstance(part, Apply):
            parts.append("(")
            waiting += [(part.argument, depth), (part.function, depth)]
        elif isinstance(part, Lambda):
            parts.append("lam")
            waiting.append((part.body, depth + 1))
        elif isinstance(part, Variable) and part.index >= depth:
            argument = arity - 1 - (part.index - depth)
            order += [argument] if argument not in order else []
            parts.append(f"({order.index(argument)}")
        else:
            parts.append(str(part))
    everything = set().union(*map(corpus.reachable, corpus.roots))
    pattern = Pattern(matches={i: ((i,), ()) for i in everything if corpus.nodes[i][0] in ("apply", "lambda")})
    for part_ in parts:
        found = {more.parts[-1]: more for more in _expansions(corpus, pattern, arity)}
        if part_ not in found:
            return Pattern()
        pattern = found[part_]
    if len(order) < arity:
        return Pattern()
    places = [order.index(j) for j in range(arity)]
    return replace(
        pattern, matches={i: ((), tuple(args[p] for p in places)) for i, (_, args) in pattern.matches.items()}
    )


def _occurrences(corpus: Corpus) -> dict[int, int]:
    counts: dict[int, int] = {}
    for root in corpus.roots:
        counts[root] = counts.get(root, 0) + 1
    for i in sorted(set().union(*map(corpus.reachable, corpus.roots)), reverse=True):  # parts come before the whole
        kind, *parts = corpus.nodes[i]
        for part in parts if kind in ("apply", "lambda") else ():
            counts[part] = counts.get(part, 0) + counts[i]  # type: ignore[index,arg-type]
    return counts


def _bound(corpus: Corpus, uses: dict[int, int], pattern: Pattern) -> int:
    total = -pattern.cost
    for i, (_, arguments) in pattern.matches.items():
        total += uses[i] * max(0, corpus.cost[i] - NAME_COST - sum(corpus.cost[a] + 1 for a in arguments))
    return total


def _useless(corpus: Corpus, pattern: Pattern) -> bool:
    """Return whether an argument is the same closed term at all matches, or two arguments are the same."""
    columns = list(zip(*(arguments for _, arguments in pattern.matches.values()), strict=True))
    return any(len(set(c)) == 1 and not corpus.free[c[0]] for c in columns) or len(set(columns)) < len(columns)


def _expansions(corpus: Corpus, pattern: Pattern, max_arity: int) -> Iterator[Pattern]:
    *rest, depth = pattern.holes
    groups: dict[str, dict[int, tuple[tuple[int, ...], tuple[int, ...]]]] = {}
    for i, (places, arguments) in pattern.matches.items():
        *others, here = places
        kind, *parts = corpus.nodes[here]
        if kind == "name":
            groups.setdefault(str(parts[0]), {})[i] = (tuple(others), arguments)
        elif kind == "variable" and parts[0] < depth:  # type: ignore[operator]
            groups.setdefault(f"${parts[0]}", {})[i] = (tuple(others), arguments)
        elif kind == "lambda":
            groups.setdefault("lam", {})[i] = ((*others, parts[0]), arguments)  # type: ignore[arg-type]
        elif kind == "apply":
            groups.setdefault("(", {})[i] = ((*others, parts[1], parts[0]), arguments)  # type: ignore[arg-type]
        if pattern.parts and (outside := corpus.lowered(here, depth)) is not None:
            if pattern.arity < max_arity:
                groups.setdefault(f"({pattern.arity}", {})[i] = (tuple(others), (*arguments, outside))
            for j, known in enumerate(arguments):
                if known == outside:
                    groups.setdefault(f"({j}", {})[i] = (tuple(others), arguments)
    for part, matches in groups.items():
        inner = {"(": (depth, depth), "lam": (depth + 1,)}.get(part, ())
        extra = 1 if inner else 0 if part[0] == "(" and part != "(" else NAME_COST
        arity = pattern.arity + (part == f"({pattern.arity}")
        yield Pattern((*pattern.parts, part), (*rest, *inner), matches, arity, pattern.cost + extra)


def saving(corpus: Corpus, pattern: Pattern) -> tuple[int, set[int]]:
    """Return what an abstraction saves in all programs, and the nodes that use it.

    Matches may overlap. Each node takes the cheaper way: as it is, or as a call with arguments that are rewritten too.

    Args:
        corpus: Programs.
        pattern: Complete pattern.
    """
    least: dict[int, int] = {}
    used: set[int] = set()
    waiting = list(corpus.roots)
    while waiting:
        i = waiting[-1]
        if i in least:
            waiting.pop()
            continue
        kind, *parts = corpus.nodes[i]
        inner: list[int] = list(parts) if kind in ("apply", "lambda") else []  # type: ignore[arg-type]
        arguments = pattern.matches[i][1] if i in pattern.matches else ()
        missing = [p for p in (*inner, *arguments) if p not in least]
        if missing:
            waiting += missing
            continue
        least[i] = (1 if inner else NAME_COST) + sum(least[p] for p in inner)
        if i in pattern.matches:
            call = NAME_COST + sum(1 + least[a] for a in arguments)
            if call < least[i]:
                least[i] = call
                used.add(i)
        waiting.pop()
    return sum(corpus.cost[r] - least[r] for r in corpus.roots), used


def rewritten(corpus: Corpus, pattern: Pattern, name: str) -> list[Term]:
    """Return the programs with calls of an abstraction.

    Args:
        corpus: Programs.
        pattern: Complete pattern.
        name: Name of the abstraction.
    """
    _, used = saving(corpus, pattern)
    terms: dict[int, Term] = {}
    waiting = list(corpus.roots)
    while waiting:
        i = waiting[-1]
        kind, *parts = corpus.nodes[i]
        inner: list[int] = list(parts) if kind in ("apply", "lambda") else []  # type: ignore[arg-type]
        inner = list(pattern.matches[i][1]) if i in used else inner
        missing = [p for p in inner if p not in terms]
        if i in terms or missing:
            waiting += missing
            if i in terms:
                waiting.pop()
            continue
        new = [terms[p] for p in inner]
        if i in used:
            terms[i] = apply(Name(name), *new)
        elif kind == "apply":
            terms[i] = Apply(*new)
        elif kind == "lambda":
            terms[i] = Lambda(new[0])
        else:
            terms[i] = Name(str(parts[0])) if kind == "name" else Variable(int(parts[0]))
        waiting.pop()
    return [terms[r] for r in corpus.roots]
