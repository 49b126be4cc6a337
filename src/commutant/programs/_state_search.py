"""Search over the states of a machine instead of its programs: equivalent prefixes share all their continuations."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from .._checks import is_real, whole
from .._errors import InputError
from ._dsl import DSL, Program
from ._grammar import Grammar
from ._machine import STATE_MAP, Machine, chain
from ._normal import shifted
from ._terms import Apply, Lambda, Name, Term, Variable, spine, subterms
from ._types import Type

State = TypeVar("State")
Output = TypeVar("Output")


@dataclass(frozen=True)
class Found(Generic[Output]):
    """Output of a search with the cheapest program that makes it.

    Args:
        output: Output of the machine.
        program: Program.
        cost: Number of primitives and library functions of the program, or minus its log probability.
        applications: Number of primitives and library functions that the search had applied until then.
    """

    output: Output
    program: Program
    cost: float
    applications: int

    @property
    def mass(self) -> int:
        """Number of primitives of the program once all library functions are replaced by their definitions."""
        return self.program.mass


def search_states(
    machine: Machine[State, Output],
    grammar: Grammar | DSL | None = None,
    *,
    max_cost: int | float = math.inf,
    max_applications: int | None = None,
) -> Iterator[Found[Output]]:
    """Yield all outputs of a machine, each once with its cheapest program, the cheapest first.

    Best-first search (A*) over states, whose bound counts the ends of open sub-programs. States of equal fingerprint
    have the same futures, so that only the cheapest of them is continued. The start of a sub-program (`func`) and its
    end are steps like any other. A conditional helps only to go on after a library function that ends programs, since
    from a known state the branch that it takes is a cheaper program. So the search is complete, library functions
    aside that are no steps.

    Limits are counts and not seconds, so that results are reproducible.

    Args:
        machine: Machine.
        grammar: Grammar of the programs, or a language with library functions; by default the machine's own language.
            Library functions that continue with their only argument, or that have none, are steps too; others are
            not used.
        max_cost: Largest cost of a program: minus its log probability for a grammar, else its number of primitives and
            library functions.
        max_applications: Largest number of steps that the search takes; unlimited by default.

    Raises:
        InputError: For wrong limits, the language of another machine, or a grammar with bigrams.

    Example:
        >>> from commutant.programs import GraphMachine
        >>> for found in search_states(GraphMachine(), max_cost=7):
        ...     print(found.mass, len(found.output.nodes), found.program)
        4 2 (push (add (connect identity)))
        7 3 (push (add (connect (next_port (add (connect identity))))))
    """
    if not is_real(max_cost) or math.isnan(max_cost):
        raise InputError(f"max_cost must be a number, got {max_cost!r}")
    if max_applications is not None:
        whole("max_applications", max_applications)
    if not isinstance(grammar, Grammar | DSL | None):
        raise InputError(f"grammar must be a Grammar, a DSL or None, got {grammar!r:.40}")
    dsl = grammar.dsl if isinstance(grammar, Grammar) else grammar or machine.dsl
    if {p.name for p in dsl.primitives} != {p.name for p in machine.dsl.primitives} or dsl.request != STATE_MAP:
        raise InputError(f"the grammar must be one of the language of the {machine.name}, or of an extension of it")
    if isinstance(grammar, Grammar) and grammar.bigrams:
        raise InputError("a search over states needs a grammar without bigrams, since states forget the last action")
    costs = dict.fromkeys(dsl.names, 1.0)
    if isinstance(grammar, Grammar):
        costs = {str(p.head): p.cost for p in grammar.productions(grammar.start)}
    return _search(machine, dsl, costs, float(max_cost), max_applications)


def _library_steps(machine: Machine[State, Output], dsl: DSL, kind: Type) -> dict[str, Callable[[State], State]]:
    """Return library functions that continue with their only argument, or that end a program, as changes of a state."""
    steps: dict[str, Callable[[State], State]] = {}
    for name in dsl.library:
        if str(dsl.type_of(name)) != str(kind) or (kind != STATE_MAP and not _continues(dsl.inline(Name(name)))):
            continue
        program = dsl.program(Name(name) if kind == STATE_MAP else Apply(Name(name), Name("identity")))
        steps[name] = partial(machine.run_instruction, program.evaluate())
    return steps


def _continues(term: Term) -> bool:
    """Return whether a function continues with its argument once, at its end."""
    if not isinstance(term, Lambda):
        term = Lambda(Apply(shifted(term, 1), Variable(0)))
    part = term.body
    while isinstance(part, Apply):
        head, arguments = spine(part)
        inner = [t for a in arguments[:-1] for t in subterms(a)]
        if not isinstance(head, Name) or any(isinstance(t, Variable) for t in inner):
            return False
        part = arguments[-1]
    return part == Variable(0)


def _search(
    machine: Machine[State, Output], dsl: DSL, costs: dict[str, float], max_cost: float, limit: int | None
) -> Iterator[Found[Output]]:
    actions = {**machine.actions, **_library_steps(machine, dsl, STATE_MAP >> STATE_MAP)}
    ends = {"identity": lambda state: state, **_library_steps(machine, dsl, STATE_MAP)}
    costs = dict(costs)
    if "if_positions_equal" in costs:  # the only way to go on after a library function that ends programs
        for name in [name for name in ends if name != "identity"]:
            actions[f"call {name}"] = ends[name]
            costs[f"call {name}"] = costs["if_positions_equal"] + 3 * costs["identity"] + costs[name]
    max_cost += 1e-9 * abs(max_cost) if math.isfinite(max_cost) else 0.0
    end = min(costs[name] for name in ends)
    # least cost of a program that goes on from here, minus the cost so far, a count that settles ties, a state, the
    # saved states of sub-programs that have not ended (None once the program itself has), and the way as nested pairs
    heap: list[tuple[float, float, int, Any, tuple[Any, ...] | None, Any]] = [(end, 0.0, 0, machine.start(), (), None)]
    best: dict[Hashable, float] = {}  # least known cost of a fingerprint or of an output
    done: set[Hashable] = set()
    applications, ticks = 0, 0
    while heap:
        _, cost, _, state, saved, path = heapq.heappop(heap)
        cost = -cost
        if saved is None:
            output: Any = machine.output(state)
            mark: Hashable = ("output", machine.key(output))
            if mark not in done:
                done.add(mark)
                yield Found(output, Program(dsl, chain(_names(path), ends)), cost, applications)
            continue
        mark = machine.fingerprint(state, saved)
        if mark in done:
            continue
        done.add(mark)
        steps: list[tuple[str, Any, tuple[Any, ...] | None]] = []
        ahead = end * (len(saved) + 1)  # what remains to be paid at least
        for name, action in actions.items():
            if cost + costs[name] + ahead <= max_cost:
                steps.append((name, action(state), saved))
        if cost + costs["func"] + ahead + end <= max_cost:
            steps.append(("func", state, (*saved, state)))
        for name, last in ends.items():
            if cost + costs[name] + ahead - end > max_cost:
                continue
            if not saved:
                steps.append((name, last(state), None))
            elif (new := machine.keep(saved[-1], last(state))) is not saved[-1]:
                steps.append((name, new, saved[:-1]))
        applications += len(steps)
        if limit is not None and applications > limit:
            return
        for name, new, rest in steps:
            if rest is None:
                output = machine.output(new)
                if output is None:
                    continue
                mark = ("output", machine.key(output))
            else:
                mark = machine.fingerprint(new, rest)
            total = cost + costs[name]
            if mark not in done and total < best.get(mark, math.inf):
                best[mark] = total
                ticks += 1
                least = total if rest is None else total + end * (len(rest) + 1)
                heapq.heappush(heap, (least, -total, ticks, new, rest, (path, name)))


def _names(path: Any) -> list[str]:
    names = []
    while path is not None:
        path, name = path
        names.append(name)
    return names[::-1]
