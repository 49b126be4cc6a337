"""Library learning: functions that make a set of programs shorter."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from .._checks import one_of, whole
from .._errors import InputError
from ._abstraction import Corpus, best_abstraction, pattern_of, rewritten, saving
from ._dsl import DSL, Program
from ._normal import mapped
from ._terms import Lambda, Name, Term, Variable, parse


@dataclass(frozen=True)
class Compression:
    """Result of `compress`.

    Args:
        dsl: Language with the new library functions.
        programs: Programs that use them, in the order given.
        abstractions: New library functions, by name.
        cost_before: Cost of the programs before: 100 for a name or variable, 1 for an application or lambda.
        cost_after: Cost of the rewritten programs, without the library.
    """

    dsl: DSL
    programs: tuple[Program, ...]
    abstractions: Mapping[str, Term]
    cost_before: int
    cost_after: int


def compress(
    programs: Sequence[Program],
    n: int = 3,
    *,
    max_arity: int = 2,
    method: Literal["auto", "stitch", "python"] = "auto",
) -> Compression:
    """Learn library functions that make a set of programs shorter, one after the other (Stitch, Bowers et al. 2023).

    Each function maximizes the cost saved in the programs minus the cost of its own body, and must occur in two
    programs. Programs first use the library functions that their language has already, and no function is learnt twice.

    Args:
        programs: Programs of one language.
        n: Largest number of new functions; fewer if no other one helps.
        max_arity: Largest number of arguments of a function.
        method: `"stitch"` for the package stitch-core, `"python"` for the same search in Python, `"auto"` for Stitch
            where it is installed.

    Raises:
        InputError: For no programs, or programs of different languages.

    Example:
        >>> from commutant.programs import GraphMachine
        >>> dsl = GraphMachine().dsl
        >>> grown = "(push (add (connect (next_port (push (add (connect identity)))))))"
        >>> result = compress([dsl.parse(grown), dsl.parse("(move (push (add (connect identity))))")], n=1)
        >>> print(result.abstractions["fn_0"], result.programs[1])
        (lam (push (add (connect $0)))) (move (fn_0 identity))
    """
    whole("n", n)
    whole("max_arity", max_arity, 0)
    one_of("method", method, ("auto", "stitch", "python"))
    programs = list(programs) if isinstance(programs, Iterable) else [programs]  # type: ignore[list-item]
    if not programs:
        raise InputError("compressing needs at least one program, got none")
    if not all(isinstance(p, Program) for p in programs) or any(p.dsl != programs[0].dsl for p in programs):
        raise InputError("programs must be Program objects of one language; use dsl.program(p.term) to move one")
    dsl, terms = programs[0].dsl, [p.term for p in programs]
    installed = find_spec("stitch_core") is not None
    if method == "stitch" and not installed:
        raise InputError('method="stitch" needs the package stitch-core; install it, or use method="python"')
    try:
        before = _cost(terms)
        for name, body in dsl.library.items():
            corpus = Corpus(terms)
            pattern = pattern_of(corpus, body)
            if saving(corpus, pattern)[0]:
                terms = rewritten(corpus, pattern, name)
        names = _fresh_names(dsl, n)
        learnt = _stitch(dsl, terms, names, max_arity) if installed and method != "python" else None
        if learnt is None and method == "stitch":
            raise InputError('Stitch fails on these programs or learns what has no type; use method="python"')
        extended, shorter, found = learnt or _learn(dsl, terms, names, max_arity)
    except RecursionError:
        raise InputError(
            "the programs are nested too deeply for library learning; leave out the longest ones"
        ) from None
    return Compression(extended, tuple(shorter), found, before, _cost([p.term for p in shorter]))


def _cost(terms: Sequence[Term]) -> int:
    corpus = Corpus(terms)
    return sum(corpus.cost[i] for i in corpus.roots)


def _typed(dsl: DSL, found: Mapping[str, Term], terms: Sequence[Term]) -> tuple[DSL, list[Program]] | None:
    """Return the language with new functions and its programs, or None if some of them have no type."""
    try:
        extended = dsl.extended(found)
        return extended, [extended.program(t) for t in terms]
    except InputError:
        return None


def _fresh_names(dsl: DSL, n: int) -> list[str]:
    names: list[str] = []
    number = 0
    while len(names) < n:
        if f"fn_{number}" not in dsl.names:
            names.append(f"fn_{number}")
        number += 1
    return names


def _learn(dsl: DSL, terms: list[Term], names: list[str], max_arity: int) -> tuple[DSL, list[Program], dict[str, Term]]:
    found: dict[str, Term] = {}
    banned = {str(body) for body in dsl.library.values()}
    result = dsl, [dsl.program(t) for t in terms]
    while len(found) < len(names):
        corpus, name = Corpus(terms), names[len(found)]
        best = best_abstraction(corpus, max_arity, banned)
        if best is None:
            break
        function, shorter = best[0].function(), rewritten(corpus, best[0], name)
        banned.add(str(function))
        typed = _typed(dsl, {**found, name: function}, shorter)
        if typed is not None:  # a function of several types at once may have none
            result, terms = typed, shorter
            found[name] = function
    return (*result, found)


def _stitch(
    dsl: DSL, terms: list[Term], names: list[str], max_arity: int
) -> tuple[DSL, list[Program], dict[str, Term]] | None:
    """Return what Stitch learns, or None if it fails, or learns what the language has or what has no type."""
    import stitch_core  # type: ignore[import-not-found]

    prefix = next(p for p in (f"new{i}-" for i in itertools.count()) if not any(n.startswith(p) for n in dsl.names))
    if any("#" in n or n.startswith("lam") for n in dsl.names):
        return None  # its own words
    try:
        result = stitch_core.compress(
            [str(t) for t in terms], iterations=len(names), max_arity=max_arity, abstraction_prefix=prefix
        )
    except Exception:  # it panics on some programs
        return None
    answer = result.json if isinstance(result.json, dict) else json.loads(result.json)
    renamed = {f"{prefix}{i}": name for i, name in enumerate(names)}
    found = {renamed[a["name"]]: _closed(parse(a["body"]), a["arity"], renamed) for a in answer["abstractions"]}
    known = {str(body) for body in dsl.library.values()}
    typed = _typed(dsl, found, [_renamed(parse(text), renamed) for text in answer["rewritten"]])
    return None if typed is None or known & {str(body) for body in found.values()} else (*typed, found)


def _closed(body: Term, arity: int, renamed: Mapping[str, str]) -> Term:
    def leaf(part: Term, depth: int) -> Term:
        if isinstance(part, Name) and part.name.startswith("#"):
            return Variable(depth + arity - 1 - int(part.name[1:]))
        return Name(renamed.get(part.name, part.name)) if isinstance(part, Name) else part

    term = mapped(body, leaf)
    for _ in range(arity):
        term = Lambda(term)
    return term


def _renamed(term: Term, renamed: Mapping[str, str]) -> Term:
    return _closed(term, 0, renamed)
