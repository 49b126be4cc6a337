"""Networks as graphs of kernel maps."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from ..._checks import is_real
from ..._errors import InputError
from ._kernel_maps import Dense, KernelState, LayerNormalisation, Pointwise, need_width


@dataclass(frozen=True)
class Scale:
    """Multiplication by a number."""

    factor: float
    homogeneous: ClassVar[bool] = True
    fresh: ClassVar[None] = None

    def __post_init__(self) -> None:
        if not is_real(self.factor) or not math.isfinite(self.factor):
            raise InputError(f"the factor of a Scale must be a finite number, got {self.factor!r}")

    def __call__(self, state: KernelState) -> KernelState:
        square = self.factor**2
        return replace(
            state,
            kernel=square * state.kernel,
            left=square * state.left,
            right=square * state.right,
            left_mean=self.factor * state.left_mean,
            right_mean=self.factor * state.right_mean,
            tangent=None if state.tangent is None else square * state.tangent,
        )


_KINDS = (Dense, Pointwise, LayerNormalisation, Scale)


@dataclass(frozen=True)
class Traced:
    """A network as a graph of kernel maps; itself one, so that it composes.

    Attributes:
        steps: what to do for each value in the order of the pass: an operation and the numbers of the values it takes.
        features: Width of the inputs, or None when unknown.
    """

    steps: tuple[tuple[Any, tuple[int, ...]], ...]
    features: int | None = None

    def __call__(self, state: KernelState) -> KernelState:
        """The state at the output."""
        need_width(self, state.features)
        values: list[KernelState] = []
        for operation, taken in self.steps:
            values.append(operation(*(values[i] for i in taken)) if taken else state)
        return values[-1]

    @property
    def fresh(self) -> bool:
        """Whether the output is a sum of outputs of linear layers, and so independent of the input."""

        def of(i: int) -> bool:
            operation, taken = self.steps[i]
            if isinstance(operation, Dense | Pointwise):
                return isinstance(operation, Dense)
            return bool(taken) and all(of(j) for j in taken)

        return of(len(self.steps) - 1)

    @property
    def homogeneous(self) -> bool:
        """Whether scaling an input scales everything, as without biases and with ReLU."""
        return all(operation.homogeneous for operation, taken in self.steps if isinstance(operation, _KINDS))


def same(state: KernelState) -> KernelState:
    """Return the state as it is."""
    return state


def sum_of(a: KernelState, b: KernelState) -> KernelState:
    """Return the state of a sum of two values of which one has mean zero and is independent of the other."""
    tangent = None if a.tangent is None or b.tangent is None else a.tangent + b.tangent
    return KernelState(
        a.kernel + b.kernel, a.left + b.left, a.right + b.right, a.left_mean + b.left_mean,
        a.right_mean + b.right_mean, tangent, a.gaussian and b.gaussian,
    )  # fmt: skip


def difference_of(a: KernelState, b: KernelState) -> KernelState:
    """Return the state of a difference of two values as those of `sum_of`."""
    return sum_of(a, Scale(-1.0)(b))
