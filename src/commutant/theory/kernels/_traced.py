"""Networks as graphs of kernel maps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from ..._checks import finite
from ._kernel_maps import Dense, KernelState, LayerNormalization, Pointwise, need_width


@dataclass(frozen=True)
class Scale:
    """Multiplication by a number.

    Args:
        factor: Finite number.
    """

    factor: float
    homogeneous: ClassVar[bool] = True
    fresh: ClassVar[None] = None

    def __post_init__(self) -> None:
        finite("factor", self.factor)

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


_KINDS = (Dense, Pointwise, LayerNormalization, Scale)


@dataclass(frozen=True)
class Traced:
    """Network as a graph of kernel maps, which is a kernel map again.

    Attributes:
        steps: Operation and numbers of its arguments, for each value in the order of the forward pass.
        features: Width of the inputs, or None if unknown.
    """

    steps: tuple[tuple[Any, tuple[int, ...]], ...]
    features: int | None = None

    def __call__(self, state: KernelState) -> KernelState:
        """Return the state at the output."""
        need_width(self, state.features)
        values: list[KernelState] = []
        for operation, taken in self.steps:
            values.append(operation(*(values[i] for i in taken)) if taken else state)
        return values[-1]

    @property
    def fresh(self) -> bool:
        """True if the output is a sum of outputs of linear layers and therefore independent of the input."""

        def of(i: int) -> bool:
            operation, taken = self.steps[i]
            if isinstance(operation, Dense | Pointwise):
                return isinstance(operation, Dense)
            return bool(taken) and all(of(j) for j in taken)

        return of(len(self.steps) - 1)

    @property
    def homogeneous(self) -> bool:
        """True if scaling an input scales its kernels, as with ReLU and without biases."""
        return all(operation.homogeneous for operation, taken in self.steps if isinstance(operation, _KINDS))


def same(state: KernelState) -> KernelState:
    """Return the state unchanged."""
    return state


def sum_of(a: KernelState, b: KernelState) -> KernelState:
    """Return the state of a sum of two independent values, one of which has mean zero."""
    tangent = None if a.tangent is None or b.tangent is None else a.tangent + b.tangent
    return KernelState(
        a.kernel + b.kernel, a.left + b.left, a.right + b.right, a.left_mean + b.left_mean,
        a.right_mean + b.right_mean, tangent, a.gaussian and b.gaussian,
    )  # fmt: skip


def difference_of(a: KernelState, b: KernelState) -> KernelState:
    """Return the state of a difference of two independent values, one of which has mean zero."""
    return sum_of(a, Scale(-1.0)(b))
