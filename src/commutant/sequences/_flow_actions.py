"""Flows as actions on sequences, for the checker of laws, and a check of flow equivariance for any module."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from .._checks import check_tolerance
from .._errors import InputError
from ..laws import Action, Inputs, map_tensors
from ._flows import Flow


def flow_transform(
    x: Float[Tensor, "batch time *field"],
    flow: Flow,
    nu: Tensor | Sequence[Any],
    *,
    start: int = 0,
    lifted: bool = False,
) -> Float[Tensor, "batch time *field"]:
    """Return the sequence with the motion of nu added, $(\\psi(\\nu) f)_t = \\psi_t(\\nu) f_t$.

    Args:
        x: Sequence `(batch, time, channels, *domain)`, or `(batch, time, V, channels, *space)` when lifted.
        flow: Flow that defines how nu acts.
        nu: Generator `(d,)`, which need not be in V.
        start: Time of the first frame, in steps.
        lifted: Whether x is a sequence of fields on the space of states.

    Example:
        >>> from commutant.sequences import TranslationFlow
        >>> x = torch.arange(3.0).expand(1, 2, 1, 3)
        >>> flow_transform(x, TranslationFlow.grid(1, dims=1), [1])[0, :, 0]
        tensor([[0., 1., 2.],
                [2., 0., 1.]])
    """
    return _each_step(x, lambda frame, t: flow.transform(frame, nu, start + t, lifted))


def _each_step(x: Tensor, move: Callable[[Tensor, int], Tensor]) -> Tensor:
    return torch.stack([move(x[:, t], t) for t in range(x.shape[1])], 1) if x.shape[1] else x


class FlowAction(Action):
    """Action of the flows of V on sequences `(batch, time, channels, *domain)`; a group element is a generator.

    Args:
        flow: Flow whose generators are drawn. Sums of generators must be generators too, as on a torus.
        start: Time of the first frame, in steps.
        static: Whether to move every frame by one step instead.
    """

    name = "flow"

    def __init__(self, flow: Flow, start: int = 0, static: bool = False) -> None:
        self.flow, self.start, self.static = flow, start, static

    def sample(self, x: Inputs, generator: torch.Generator) -> Tensor:
        return self.flow.generators[int(torch.randint(len(self.flow), (), generator=generator))]

    def identity(self, x: Inputs) -> Tensor:
        return torch.zeros_like(self.flow.generators[0])

    def compose(self, g: Tensor, h: Tensor) -> Tensor:
        return g + h

    def inverse(self, g: Tensor) -> Tensor:
        return -g

    def act(self, g: Tensor, x: Inputs) -> Inputs:
        return map_tensors(lambda _, t: _each_step(t, lambda frame, step: self._move(frame, g, self._time(step))), x)

    def _time(self, step: int) -> int:
        return 1 if self.static else self.start + step

    def _move(self, frame: Tensor, g: Tensor, time: int) -> Tensor:
        return self.flow.transform(frame, g, time)

    def shrink(self, g: Tensor, x: Inputs) -> Iterator[tuple[Tensor, Inputs]]:
        for axis in range(len(g)):
            if g[axis] != 0:
                simpler = g.clone()
                simpler[axis] = 0
                yield simpler, x

    def describe(self, g: Tensor) -> str:
        return "the generator of the flow"


class SliceAction(FlowAction):
    """Action of the flows of V on lifted sequences `(batch, time, V, channels, *space)`: slices permute, fields move.

    The arguments are those of `FlowAction`. Equivariance is only defined if V is closed under differences.
    """

    name = "flow of slices"

    def act(self, g: Tensor, x: Inputs) -> Inputs:
        def move(_: str, t: Tensor) -> Tensor:
            moved = _each_step(t, lambda frame, step: self.flow.transform(frame, g, self._time(step), True))
            if self.static:
                return moved
            source = slices_after(self.flow, g, tuple(t.shape[4:]))
            if (source < 0).any():
                missing = self.flow.generators[source < 0][0].tolist()
                raise InputError(
                    f"flow must be closed under differences, but the slice of {missing} has no source; use a flow such "
                    f"as TranslationFlow.closed"
                )
            return moved[:, :, source]

        return map_tensors(move, x)


def slices_after(flow: Flow, nu: Tensor, space: Sequence[int]) -> Tensor:
    """Return for each slice the slice that held its content before the motion of nu was added, or -1 outside V."""
    return flow.index_of(flow.generators - nu, space)


@dataclass(frozen=True)
class FlowReport:
    """Deviation of a module from flow equivariance, by generator and time.

    Attributes:
        generators: Generators that were tested, `(n, d)`.
        errors: Largest difference relative to the largest output, `(n, time)`, over slices whose content comes from a
            slice in V.
        boundary: Same difference over slices whose content would come from outside V, where no network can be exact;
            NaN if there are none.
        tolerance: Largest relative difference that was allowed.
    """

    generators: Tensor
    errors: Tensor
    boundary: Tensor
    tolerance: float

    @property
    def holds(self) -> bool:
        """Return whether every error away from the boundary of V is within the tolerance."""
        return bool((self.errors <= self.tolerance).all())

    def __str__(self) -> str:
        if self.holds:
            said = f"flow-equivariant for {len(self.generators)} generators, to {float(self.errors.max()):.1e}"
        else:
            worst, time = (int(i) for i in (self.errors == self.errors.max()).nonzero()[0])
            first = int((self.errors[worst] > self.tolerance).nonzero()[0])
            said = (
                f"not flow-equivariant: error {float(self.errors.max()):.1e} for {self.generators[worst].tolist()} at "
                f"step {time}, first at step {first} (allowed {self.tolerance:.1e})"
            )
        outside = self.boundary[~self.boundary.isnan()]
        if outside.numel():
            said += f"; slices whose source is outside V differ by up to {float(outside.max()):.1e}"
        return said


@torch.no_grad()
def check_flow_equivariance(
    module: Callable[[Tensor], Any], flow: Flow, x: Tensor, *, start: int = 0, tolerance: float | None = None
) -> FlowReport:
    """Compare a module's output on a moving input with its moved output, for every generator of V.

    Args:
        module: Function or module from `(batch, time, channels, *domain)` to fields that should move with the input, of
            the same shape or lifted `(batch, time, V, channels, *space)`. If it returns a tuple, the first entry is
            compared.
        flow: Flow whose generators are tested.
        x: Input of the module, `(batch, time, channels, *domain)`.
        start: Time of the first output, in steps; the length of x for a forecast.
        tolerance: Largest relative difference allowed; by default 1000 units in the last place.

    Raises:
        InputError: For arguments of other types, or shapes that the flow does not act on.

    Example:
        >>> from commutant.sequences import FERNN, TranslationFlow
        >>> flow = TranslationFlow.closed(5, 5)
        >>> print(check_flow_equivariance(FERNN(1, 2, flow), flow, torch.randn(1, 4, 1, 5, 5)).holds)
        True
        >>> check_flow_equivariance(FERNN(1, 2, TranslationFlow.grid(0)), flow, torch.randn(1, 4, 1, 5, 5)).holds
        False
    """

    for name, value, fits, wanted in (
        ("module", module, callable(module), "a function or module"),
        ("flow", flow, isinstance(flow, Flow), "a Flow"),
        ("x", x, isinstance(x, Tensor), "a tensor"),
    ):
        if not fits:
            given = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
            raise InputError(f"{name} must be {wanted}, got {given}; give module, flow and x in this order")
    check_tolerance(tolerance)
    if flow.domain_dims is not None and x.dim() != 3 + flow.domain_dims:
        raise InputError(
            f"x must be (batch, time, channels, *domain) with {flow.domain_dims} axes of the domain, "
            f"got shape {tuple(x.shape)}"
        )

    def run(x: Tensor) -> Tensor:
        y = module(x)
        return y[0] if isinstance(y, tuple) else y

    expected = run(x)
    space = x.dim() - 3 if flow.space_dims is None else flow.space_dims
    sliced = expected.dim() == space + 4 and expected.shape[2] == len(flow)
    lifted = sliced or expected.dim() == space + 3
    if not lifted and expected.dim() < x.dim():
        raise InputError(
            f"module must return fields over time, got an output of shape {tuple(expected.shape)} for x of shape "
            f"{tuple(x.shape)}"
        )
    scale = expected.abs().amax().clamp(min=torch.finfo(expected.dtype).tiny)
    errors, boundary = [], []
    for nu in flow.generators:
        found = run(flow_transform(x, flow, nu))
        moved = flow_transform(expected, flow, nu, start=start, lifted=lifted)
        known = torch.ones(1, dtype=torch.bool)
        if sliced:
            source = slices_after(flow, nu, tuple(expected.shape[4:]))
            moved, known = moved[:, :, source.clamp(min=0)], source >= 0
        gap = (found - moved).abs().div(scale).movedim(1, 0).flatten(3 if sliced else 1).amax(-1)
        gap = gap.amax(1) if sliced else gap[:, None]  # (time, slices)
        inside, outside = gap[:, known], gap[:, ~known]
        errors.append(inside.amax(1) if known.any() else gap.new_zeros(len(gap)))
        boundary.append(outside.amax(1) if (~known).any() else gap.new_full((len(gap),), torch.nan))
    allowed = 1000 * torch.finfo(expected.dtype).eps if tolerance is None else tolerance
    return FlowReport(flow.generators, torch.stack(errors), torch.stack(boundary), allowed)
