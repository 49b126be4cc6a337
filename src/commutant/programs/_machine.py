"""Machines: languages whose programs change a state, run with a stack of their own and a budget of steps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Generic, TypeVar

from .._checks import whole
from .._errors import InputError
from ._dsl import DSL, BudgetExceeded, Program
from ._primitive import Primitive
from ._terms import Apply, Lambda, Name, Term, Variable, apply
from ._types import BaseType, Type

State = TypeVar("State")
Output = TypeVar("Output")

STATE_MAP = BaseType("T")
"""Type of programs of machines: functions from states to states."""


@dataclass(frozen=True)
class Instruction:
    """Call of a primitive of a machine, which the machine runs.

    Args:
        name: Name of the primitive.
        arguments: What it continues with.
    """

    name: str
    arguments: tuple[Instruction, ...] = ()


class Machine(ABC, Generic[State, Output]):
    """Machine with immutable states, whose programs are written in continuation style.

    `identity` ends a program. An action `a f` changes the state and continues with the program f. `func f g` runs f,
    keeps what `keep` takes from its result, and continues with g. `if_positions_equal f g h k l` runs f and g from the
    same state, continues with h if `same` says so, else with k, and then with l.

    A subclass gives `start`, `actions`, `keep`, `fingerprint` and `output`; `same` adds the conditional.
    """

    name: ClassVar[str] = "machine"
    request: ClassVar[Type] = STATE_MAP

    @abstractmethod
    def start(self) -> State:
        """Return the first state."""

    @property
    @abstractmethod
    def actions(self) -> Mapping[str, Callable[[State], State]]:
        """Changes of a state, by the names of their primitives."""

    @abstractmethod
    def keep(self, before: State, after: State) -> State:
        """Return what remains when a sub-program ends.

        Args:
            before: State in which the sub-program started.
            after: State in which it ended.
        """

    @abstractmethod
    def output(self, state: State) -> Output | None:
        """Return what a final state stands for, or None if it is rejected.

        Args:
            state: Final state.
        """

    @abstractmethod
    def key(self, output: Output) -> Hashable:
        """Return a canonical form, equal for outputs that count as the same.

        Args:
            output: Output.
        """

    @abstractmethod
    def fingerprint(self, state: State, saved: Sequence[State] = ()) -> Hashable:
        """Return a value that is equal only for states with the same futures.

        Programs with the same continuation, run from two states of equal fingerprints, must give outputs of equal keys.

        Args:
            state: State.
            saved: States in which the sub-programs started that have not ended, the innermost last.
        """

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without what is made when it is needed, since functions can't be pickled."""
        return {k: v for k, v in self.__dict__.items() if k not in ("actions", "dsl")}

    def same(self, left: State, right: State) -> bool:
        """Return whether two states are at the same position, for `if_positions_equal`.

        Args:
            left: State.
            right: State.
        """
        raise NotImplementedError

    @cached_property
    def dsl(self) -> DSL:
        """Language of the machine's programs."""
        arities = {"identity": 0, **dict.fromkeys(self.actions, 1), "func": 2}
        if type(self).same is not Machine.same:
            arities["if_positions_equal"] = 5
        return DSL([_primitive(name, arity) for name, arity in arities.items()], STATE_MAP)

    def run(self, program: Program | Term | str, state: State | None = None, budget: int = 10_000) -> State:
        """Return the state after a program.

        Args:
            program: Program of this machine's language or of an extension of it, a term, or text.
            state: First state; by default `start()`.
            budget: Largest number of primitives to run.

        Raises:
            BudgetExceeded: If the program runs more primitives.
            InputError: For text that does not parse or has another type, or a primitive of another machine.
        """
        whole("budget", budget)
        if not isinstance(program, Program | str | Name | Variable | Lambda | Apply):
            raise InputError(f"a program must be a Program, a term or text, got {program!r:.40}")
        if not isinstance(program, Program):
            program = self.dsl.parse(program) if isinstance(program, str) else self.dsl.program(program)
        now = program.evaluate(budget=100 * budget)
        if not isinstance(now, Instruction):
            raise InputError(f"a program of a {self.name} must have type {STATE_MAP}, got {program.dsl.request}")
        try:
            return self.run_instruction(now, self.start() if state is None else state, budget)
        except BudgetExceeded:
            raise BudgetExceeded(
                f"{str(program)[:60]} runs more than {budget} primitives; raise budget or shorten the program"
            ) from None

    def run_instruction(self, now: Instruction, state: State, budget: int = 10_000) -> State:
        """Return the state after an evaluated program.

        Args:
            now: Value of a program.
            state: First state.
            budget: Largest number of primitives to run.
        """
        later: list[tuple[str, Any, Any, Instruction]] = []  # what to do when the current sub-program ends
        actions = self.actions
        for _ in range(budget):
            if now.name == "identity":
                if not later:
                    return state
                kind, before, other, now = later.pop()
                if kind == "keep":
                    state = self.keep(before, state)
                elif kind == "compare with":
                    later.append(("compare", before, state, now))
                    state, now = before, now.arguments[1]
                elif kind == "compare":
                    _, _, equal, unequal, then = now.arguments
                    later.append(("continue", None, None, then))
                    state, now = before, equal if self.same(other, state) else unequal
            elif now.name == "func":
                later.append(("keep", state, None, now.arguments[1]))
                now = now.arguments[0]
            elif now.name == "if_positions_equal":
                later.append(("compare with", state, None, now))
                now = now.arguments[0]
            elif now.name in actions:
                state, now = actions[now.name](state), now.arguments[0]
            else:
                raise InputError(f"{now.name!r} is no primitive of a {self.name}; its language is machine.dsl")
        raise BudgetExceeded(f"the program runs more than {budget} primitives; raise budget or shorten it")


def _primitive(name: str, arity: int) -> Primitive:
    kind: Type = STATE_MAP
    for _ in range(arity):
        kind = STATE_MAP >> kind
    return Primitive(name, kind, _Call(name) if arity else Instruction(name))


@dataclass(frozen=True)
class _Call:
    """Function from continuations to an instruction, which can be pickled."""

    name: str

    def __call__(self, *parts: Instruction) -> Instruction:
        return Instruction(self.name, parts)


def chain(names: Sequence[str], ends: Collection[str]) -> Term:
    """Return the program that takes actions one after the other.

    Args:
        names: Names of actions and of library functions of one argument; `func` opens a sub-program, and an end
            ends the innermost one or the program; `call f` goes on after the end f.
        ends: Names that end a program, such as `identity`.
    """
    stack: list[list[Term]] = [[]]
    term: Term = Name("identity")
    for name in names:
        if name == "func":
            stack.append([])
        elif name in ends:
            term = Name(name)
            for part in reversed(stack.pop()):
                term = apply(part, term)
            if stack:
                stack[-1].append(apply(Name("func"), term))
        elif name.startswith("call "):
            same = Name("identity")
            stack[-1].append(apply(Name("if_positions_equal"), same, same, Name(name[5:]), same))
        else:
            stack[-1].append(Name(name))
    return term
