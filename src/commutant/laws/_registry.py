"""Which class or function states which law: the list that the test-suite and the documentation run over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from .._errors import InputError
from ._check import check
from ._inputs import Inputs
from ._laws import Function, Law
from ._report import LawReport

Subject = TypeVar("Subject", bound=Callable[..., Any])


@dataclass(frozen=True)
class Draw:
    """Random material for one case of a stated law: sizes, dtype and values."""

    generator: torch.Generator
    size: int
    """A set size, length or batch size between 1 and a few dozen."""
    width: int
    """A number of features between 1 and 16."""
    dtype: torch.dtype = torch.float32

    def normal(self, *shape: int) -> Tensor:
        """Standard normal values."""
        return torch.randn(shape, generator=self.generator, dtype=torch.float64).to(self.dtype)

    def module(self, make: Callable[[], Any]) -> Any:
        """Build a module with parameters drawn from this case's seed, in its dtype."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(0, 2**31, (), generator=self.generator)))
            return make().to(self.dtype)


Case = Callable[[Draw], tuple[Law, Function, Inputs]]


@dataclass(frozen=True)
class StatedLaw:
    """One law that a public class or function obeys, or must break."""

    subject: Callable[..., Any]
    title: str
    case: Case
    holds: bool
    tolerance: dict[torch.dtype, float] | None = None

    @property
    def id(self) -> str:
        return f"{self.subject.__qualname__}-{self.title.replace(' ', '-')}{'' if self.holds else '-breaks'}"

    def check(self, draw: Draw, trials: int = 4) -> LawReport:
        """Check the law on one drawn case; a law that must break is not explained when it does."""
        law, f, inputs = self.case(draw)
        tolerance = (self.tolerance or {}).get(draw.dtype)
        seed = int(torch.randint(0, 2**31, (), generator=draw.generator))
        return check(law, f, inputs, trials=trials, seed=seed, tolerance=tolerance, explain=self.holds)


_REGISTRY: dict[str, StatedLaw] = {}


def obeys(title: str, case: Case, *, tolerance: dict[torch.dtype, float] | None = None) -> Callable[[Subject], Subject]:
    """State a law of a public class or function; the test-suite then runs it over drawn cases.

    Args:
        title: the law in a few words.
        case: from a `Draw` to the law, the function under test and its inputs.
        tolerance: relative tolerances where the default of the dtype does not fit; say why beside it.
    """
    return _state(title, case, True, tolerance)


def breaks(title: str, case: Case) -> Callable[[Subject], Subject]:
    """State a law that must not hold: a checker that passes it is broken."""
    return _state(title, case, False, None)


def _state(
    title: str, case: Case, holds: bool, tolerance: dict[torch.dtype, float] | None
) -> Callable[[Subject], Subject]:
    def register(subject: Subject) -> Subject:
        stated = StatedLaw(subject, title, case, holds, tolerance)
        _REGISTRY[stated.id] = stated
        return subject

    return register


def stated_laws(subject: Callable[..., Any] | None = None) -> list[StatedLaw]:
    """The laws stated so far, of one subject or of all; importing a room states its laws."""
    if subject is not None and not callable(subject):
        raise InputError(f"laws are stated of classes and functions, got {subject!r}")
    return [law for law in _REGISTRY.values() if subject is None or law.subject is subject]
