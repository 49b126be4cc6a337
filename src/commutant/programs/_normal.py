"""Beta-normal forms of terms, and replacement of names by their definitions."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ._terms import Apply, Lambda, Name, Term, Variable


def mapped(term: Term, leaf: Callable[[Term, int], Term]) -> Term:
    """Return a term with each name and variable replaced.

    Args:
        term: Term.
        leaf: Function from a name or variable, and the number of lambdas around it, to its replacement.
    """
    done: list[Term] = []
    waiting: list[tuple[Term | str, int]] = [(term, 0)]
    while waiting:
        part, depth = waiting.pop()
        if part == "lambda":
            done.append(Lambda(done.pop()))
        elif part == "apply":
            argument, function = done.pop(), done.pop()
            done.append(Apply(function, argument))
        elif isinstance(part, Lambda):
            waiting += [("lambda", depth), (part.body, depth + 1)]
        elif isinstance(part, Apply):
            waiting += [("apply", depth), (part.argument, depth), (part.function, depth)]
        else:
            done.append(leaf(part, depth))  # type: ignore[arg-type]
    return done.pop()


def replaced(term: Term, definitions: Mapping[str, Term]) -> Term:
    """Return a term with names replaced by closed terms.

    Args:
        term: Term.
        definitions: Closed term of each name.
    """
    return mapped(term, lambda part, _: definitions.get(part.name, part) if isinstance(part, Name) else part)


def shifted(term: Term, by: int) -> Term:
    """Return a term whose free variables refer to lambdas further out.

    Args:
        term: Term.
        by: Number of lambdas that were put around it.
    """
    if not by:
        return term

    def leaf(part: Term, depth: int) -> Term:
        return Variable(part.index + by) if isinstance(part, Variable) and part.index >= depth else part

    return mapped(term, leaf)


def substituted(body: Term, argument: Term) -> Term:
    """Return the body of a lambda with its argument in place.

    Args:
        body: Body, in which `Variable(0)` is the argument.
        argument: Argument.
    """

    def leaf(part: Term, depth: int) -> Term:
        if not isinstance(part, Variable) or part.index < depth:
            return part
        return shifted(argument, depth) if part.index == depth else Variable(part.index - 1)

    return mapped(body, leaf)


def beta_normal(term: Term) -> Term:
    """Return the beta-normal form of a well-typed term, which always exists.

    Args:
        term: Term.
    """
    done: list[Term] = []
    waiting: list[tuple[str, Term | None]] = [("term", term)]
    while waiting:
        kind, part = waiting.pop()
        if kind == "lambda":
            done.append(Lambda(done.pop()))
        elif kind == "apply":  # the function is normal; the argument is not yet looked at
            function = done.pop()
            if isinstance(function, Lambda):
                waiting.append(("term", substituted(function.body, part)))  # type: ignore[arg-type]
            else:
                done.append(function)
                waiting += [("join", None), ("term", part)]
        elif kind == "join":
            argument, function = done.pop(), done.pop()
            done.append(Apply(function, argument))
        elif isinstance(part, Lambda):
            waiting += [("lambda", None), ("term", part.body)]
        elif isinstance(part, Apply):
            waiting += [("apply", part.argument), ("term", part.function)]
        else:
            done.append(part)  # type: ignore[arg-type]
    return done.pop()
