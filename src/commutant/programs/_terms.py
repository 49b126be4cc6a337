"""Terms of the lambda calculus with de Bruijn indices: reading, writing, sizes, substitution."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from .._errors import InputError

Term: TypeAlias = "Name | Variable | Lambda | Apply"


class _Node:
    """Equality, hashes and pickles by the text of a term, since Python's own recurse and terms are deep."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, _Node) and str(self) == str(other))

    def __hash__(self) -> int:
        return hash(str(self))

    def __str__(self) -> str:
        return write(self)  # type: ignore[arg-type]

    def __repr__(self) -> str:
        return f"parse({str(self)!r})"

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return parse, (str(self),)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Name(_Node):
    """Primitive or library function.

    Args:
        name: Its name.
    """

    name: str


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Variable(_Node):
    """Argument of an enclosing lambda.

    Args:
        index: Number of lambdas between the variable and its own, from 0.
    """

    index: int


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Lambda(_Node):
    """Function of one argument.

    Args:
        body: Term in which `Variable(0)` is the argument.
    """

    body: Term


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Apply(_Node):
    """Application of a function to one argument.

    Args:
        function: Function.
        argument: Argument.
    """

    function: Term
    argument: Term


_TOKEN = re.compile(r"\s*([()]|[^\s()]+)")


def parse(text: str) -> Term:
    """Return the term of an s-expression such as `(lam (add $0 one))`.

    Args:
        text: Names, `$0` for variables, `(lam BODY)` for functions, and `(F A B)` for applications.

    Raises:
        InputError: If the text is no term; the message names the place.
    """
    if not isinstance(text, str):
        raise InputError(f"a program must be text, got {type(text).__name__}")
    open_: list[list[Term | str]] = [[]]
    for token in _TOKEN.finditer(text):
        word, place = token[1], token.start(1)
        if word == "(":
            open_.append([])
        elif word == ")":
            if len(open_) == 1:
                raise InputError(f"unexpected ')' at character {place} of {text!r:.80}")
            done = _of_list(open_.pop(), text, place)
            open_[-1].append(done)
        elif word == "lam" and len(open_) > 1 and not open_[-1]:
            open_[-1].append("lam")
        else:
            open_[-1].append(_of_word(word, text))
    if len(open_) > 1:
        raise InputError(f"missing ')' at the end of {text!r:.80}")
    if len(open_[0]) != 1 or isinstance(open_[0][0], str):
        raise InputError(f"a program must be one expression, got {len(open_[0])} in {text!r:.80}")
    return open_[0][0]


def _of_word(word: str, text: str) -> Term:
    if word.startswith("$"):
        if not word[1:].isdecimal() or len(word) > 9:
            raise InputError(f"a variable must be $ and a number, got {word!r} in {text!r:.80}")
        return Variable(int(word[1:]))
    return Name(word)


def _of_list(parts: list[Term | str], text: str, place: int) -> Term:
    if parts[:1] == ["lam"]:
        if len(parts) != 2 or isinstance(parts[1], str):
            raise InputError(f"'lam' must have one body, at character {place} of {text!r:.80}")
        return Lambda(parts[1])
    terms = [p for p in parts if not isinstance(p, str)]
    if not terms:
        raise InputError(f"empty parentheses at character {place} of {text!r:.80}")
    return apply(terms[0], *terms[1:])


def apply(function: Term, *arguments: Term) -> Term:
    """Return the application of a function to several arguments, one after the other.

    Args:
        function: Function.
        arguments: Arguments.
    """
    for argument in arguments:
        function = Apply(function, argument)
    return function


def spine(term: Term) -> tuple[Term, list[Term]]:
    """Return the innermost function of an application and all arguments.

    Args:
        term: Term.
    """
    arguments = []
    while isinstance(term, Apply):
        arguments.append(term.argument)
        term = term.function
    return term, arguments[::-1]


def write(term: Term) -> str:
    """Return the s-expression of a term, which `parse` reads.

    Args:
        term: Term.
    """
    out: list[str] = []
    waiting: list[Term | str] = [term]
    while waiting:
        now = waiting.pop()
        if isinstance(now, str):
            out.append(now)
        elif isinstance(now, Name):
            out.append(now.name)
        elif isinstance(now, Variable):
            out.append(f"${now.index}")
        elif isinstance(now, Lambda):
            waiting += [")", now.body, "(lam "]
        else:
            head, arguments = spine(now)
            waiting.append(")")
            for argument in arguments[::-1]:
                waiting += [argument, " "]
            waiting += [head, "("]
    return "".join(out)


def subterms(term: Term) -> Iterator[Term]:
    """Yield all parts of a term, itself included, each before its own parts.

    Args:
        term: Term.
    """
    waiting = [term]
    while waiting:
        now = waiting.pop()
        yield now
        if isinstance(now, Lambda):
            waiting.append(now.body)
        elif isinstance(now, Apply):
            waiting += [now.argument, now.function]


def size(term: Term) -> int:
    """Return the number of primitives and library functions in a term.

    Args:
        term: Term.
    """
    return sum(isinstance(part, Name) for part in subterms(term))
