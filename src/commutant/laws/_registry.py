"""Registry of the laws stated by classes and functions, which the tests run and the documentation lists."""

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
    """Random sizes and values for one case of a stated law."""

    generator: torch.Generator
    """Source of all random draws."""
    size: int
    """Set size, length or batch size, between 1 and a few dozen."""
    width: int
    """Number of features, between 1 and 16."""
    dtype: torch.dtype = torch.float32
    """Dtype of values and parameters."""

    def normal(self, *shape: int) -> Tensor:
        """Draw standard normal values of the given shape."""
        return torch.randn(shape, generator=self.generator, dtype=torch.float64).to(self.dtype)

    def module(self, make: Callable[[], Any]) -> Any:
        """Build a module in the dtype of the case, with parameters drawn from its generator.

        Args:
            make: Function without arguments that builds the module.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(0, 2**31, (), generator=self.generator)))
            return make().to(self.dtype)


Case = Callable[[Draw], tuple[Law, Function, Inputs]]


@dataclass(frozen=True)
class StatedLaw:
    """Law that a public class or function obeys, or must break."""

    subject: Callable[..., Any]
    """Class or function."""
    title: str
    """The law in a few words."""
    case: Case
    """Map from a `Draw` to the law, the function under test and its inputs."""
    holds: bool
    """False if the law must be broken."""
    tolerance: dict[torch.dtype, float] | None = None
    """Tolerance by dtype, relative to the output's variation, where it differs from the default."""

    @property
    def id(self) -> str:
        """Name of the law that is unique in the registry."""
        return f"{self.subject.__qualname__}-{self.title.replace(' ', '-')}{'' if self.holds else '-breaks'}"

    def check(self, draw: Draw, trials: int = 4) -> LawReport:
        """Check the law on one drawn case; the search for a small counter-example is skipped if the law must be broken.

        Args:
            draw: Sizes, dtype and random source of the case.
            trials: Number of inputs and draws of the law to try.
        """
        law, f, inputs = self.case(draw)
        tolerance = (self.tolerance or {}).get(draw.dtype)
        seed = int(torch.randint(0, 2**31, (), generator=draw.generator))
        generator = torch.Generator().manual_seed(seed)
        return check(law, f, inputs, trials=trials, generator=generator, tolerance=tolerance, explain=self.holds)


_REGISTRY: dict[str, StatedLaw] = {}


def obeys(title: str, case: Case, *, tolerance: dict[torch.dtype, float] | None = None) -> Callable[[Subject], Subject]:
    """Return a decorator that states a law of a public class or function, which the tests check on drawn cases.

    Args:
        title: The law in a few words.
        case: Map from a `Draw` to the law, the function under test and its inputs.
        tolerance: Tolerance by dtype, relative to the output's variation, where it differs from the default. Give the
            reason in a comment.
    """
    return _state(title, case, True, tolerance)


def breaks(title: str, case: Case) -> Callable[[Subject], Subject]:
    """Return a decorator that states a law that must be broken, which tests the checker itself.

    Args:
        title: The law in a few words.
        case: Map from a `Draw` to the law, the function under test and its inputs.
    """
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
    """Return the laws stated by the modules imported so far.

    Args:
        subject: Class or function whose laws are returned; None for all.
    """
    if subject is not None and not callable(subject):
        raise InputError(f"subject must be a class or function that states laws, got {subject!r}")
    return [law for law in _REGISTRY.values() if subject is None or law.subject is subject]
