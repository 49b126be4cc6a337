"""Cells on lifted states, which have one slice per velocity, and their unrolling over time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .._checks import is_whole, one_of, whole
from .._errors import InputError
from ._flows import Flow, TranslationFlow
from ._rotation_flow import RotationFlow

_ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh}
POOLS: dict[str | None, Callable[[Tensor], Tensor]] = {
    "max": lambda h: h.amax(-1),  # amax splits a gradient evenly among ties, which occur when all slices are equal
    "mean": lambda h: h.mean(-1),
    "sum": lambda h: h.sum(-1),
}


def check_kernel_size(given: object) -> None:
    """Check that a kernel size is a positive odd number."""
    if not is_whole(given) or given < 1 or given % 2 == 0:  # type: ignore[operator]
        raise InputError(f"kernel_size must be a positive odd number, got {given!r}")


def pool_slices(h: Tensor, how: str | None, dim: int) -> Tensor:
    """Pool over the axis of slices, or keep it when `how` is None."""
    return h if how is None else POOLS[how](h.movedim(dim, -1))


def _head(state: Any) -> Tensor:
    """Return the visible part of a state: the first tensor of a tuple, as in a convolutional LSTM."""
    return state[0] if isinstance(state, tuple) else state


class _FlowCell(nn.Module):
    """Base class of cells `(x_t, h) -> h` on lifted states."""

    flow: Flow

    def unroll(self, x: Tensor, h: Any, read: Callable[[Tensor], Tensor]) -> tuple[list[Tensor], Any]:
        """Run over a sequence and read every state.

        Args:
            x: Input `(batch, time, ...)`.
            h: Initial state, or None.
            read: Function applied to the visible part of the state after every step.

        Returns:
            The list of what `read` returned, and the last state.
        """
        out = []
        for t in range(x.shape[1]):
            h = self(x[:, t], h)
            out.append(read(_head(h)))
        return out, h


class FERNNCell(_FlowCell):
    """One step of a flow-equivariant RNN: every slice moves along its own flow, then state and input are convolved.

    $h'(\\nu, g) = s([h * W](\\nu, \\psi_1(\\nu)^{-1} g) + [x * U](g))$ (Keller 2025, arXiv 2507.14793, section 3). All
    slices share W and U, so the number of parameters does not depend on V; V = {0} is the plain convolutional RNN. One
    gather moves all slices and pads them for the convolution.

    Args:
        in_channels: Number of channels of a frame.
        hidden_channels: Number of channels of each slice of the state.
        flow: A `TranslationFlow` or a `RotationFlow`; use `LiftToFlow` for other actions.
        kernel_size: Size of the kernels, odd.
        v_mixing: Largest difference between two velocities (in generators) whose slices mix; 0 keeps slices separate,
            as in the paper.
        activation: Nonlinearity, `"relu"` or `"tanh"`.
        bias: Whether to add a learned bias per channel; the paper does not.
        lifted_input: Whether the input has slices, as for the second of two stacked cells.

    Raises:
        InputError: For another flow, an unknown activation or sizes that do not fit.

    Shapes:
        x `(batch, in_channels, *domain)`, or `(batch, V, in_channels, *space)` when lifted; h `(batch, V,
        hidden_channels, *space)`. The space of `RotationFlow` is `(orientations, height, width)`.

    Example:
        >>> cell = FERNNCell(1, 8, TranslationFlow.grid(1))
        >>> h = cell(torch.rand(2, 1, 14, 14))
        >>> h.shape, cell(torch.rand(2, 1, 14, 14), h).shape
        (torch.Size([2, 9, 8, 14, 14]), torch.Size([2, 9, 8, 14, 14]))
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        flow: Flow,
        kernel_size: int = 3,
        v_mixing: int = 0,
        activation: str = "relu",
        bias: bool = True,
        lifted_input: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(flow, TranslationFlow | RotationFlow):
            raise InputError(f"flow must be a TranslationFlow or RotationFlow, got {flow!r}; use LiftToFlow for others")
        whole("in_channels", in_channels)
        whole("hidden_channels", hidden_channels)
        check_kernel_size(kernel_size)
        whole("v_mixing", v_mixing, 0)
        one_of("activation", activation, _ACTIVATIONS)
        self.flow, self.in_channels, self.hidden_channels = flow, in_channels, hidden_channels
        self.pad, self.activation, self.lifted_input = kernel_size // 2, activation, lifted_input
        make = flow.state_map if lifted_input else flow.input_map
        self.input = make(in_channels, hidden_channels, kernel_size, bias)
        self.offsets = self._offsets(v_mixing)
        self.state = flow.state_map(hidden_channels * len(self.offsets), hidden_channels, kernel_size, False)

    def _offsets(self, radius: int) -> Tensor:
        """Return the differences of generators that mix, `(offsets, d)`."""
        d = self.flow.generators.shape[1]
        steps = torch.cartesian_prod(*[torch.arange(-radius, radius + 1)] * d).view(-1, d)
        return steps * 360 / self.flow.orientations if isinstance(self.flow, RotationFlow) else steps

    def forward(self, x: Tensor, h: Tensor | None = None) -> Tensor:
        """Return the next state.

        Args:
            x: Frame `(batch, in_channels, *domain)`, or `(batch, V, in_channels, *space)` when lifted.
            h: State `(batch, V, hidden_channels, *space)`; zero when absent.
        """
        return self.advance(self.drive(x), h)

    def drive(self, x: Tensor) -> Tensor:
        """Return the contribution of a frame to every slice, `(batch, V or 1, hidden_channels, *space)`.

        Args:
            x: Frame, as in `forward`.
        """
        dims = self.flow.space_dims if self.lifted_input else self.flow.domain_dims
        expected = 2 + self.lifted_input + (dims or 0)
        channels = x.shape[1 + self.lifted_input] if x.dim() == expected else None
        if channels != self.in_channels:
            slices = f"{len(self.flow)}, " if self.lifted_input else ""
            raise InputError(
                f"a frame must be (batch, {slices}{self.in_channels}, *domain) with {dims} axes of the domain, got "
                f"shape {tuple(x.shape)}"
            )
        if not self.lifted_input:
            return self.input(self.flow.pad(x, self.pad)).unsqueeze(1)  # type: ignore[attr-defined]
        flat = self.flow.pad(x.flatten(0, 1), self.pad)  # type: ignore[attr-defined]
        return self.input(flat).unflatten(0, x.shape[:2])

    def advance(self, drive: Tensor, h: Tensor | None) -> Tensor:
        """Return the next state from the contribution of a frame and a state.

        Args:
            drive: Contribution of a frame, as returned by `drive`.
            h: State `(batch, V, hidden_channels, *space)`; zero when absent.
        """
        s = _ACTIVATIONS[self.activation]
        if h is None:
            return s(drive.expand(-1, len(self.flow), *drive.shape[2:]))
        if h.shape != (drive.shape[0], len(self.flow), *drive.shape[2:]):
            expected = (drive.shape[0], len(self.flow), *drive.shape[2:])
            raise InputError(f"the state must be {expected}, got {tuple(h.shape)}")
        moved = self.flow.shift(self._mix(h), self.pad)
        return s(self.state(moved.flatten(0, 1)).unflatten(0, h.shape[:2]) + drive)

    def _mix(self, h: Tensor) -> Tensor:
        """Concatenate to every slice, along the channels, the slices whose generators differ by the offsets."""
        if len(self.offsets) == 1:
            return h
        sizes = tuple(h.shape[3:])
        neighbor = self.flow.index_of(self.flow.generators.unsqueeze(1) + self.offsets, sizes).to(h.device)
        taken = h[:, neighbor.clamp(min=0).flatten()].unflatten(1, neighbor.shape)
        present = (neighbor >= 0).view(*neighbor.shape, *[1] * (h.dim() - 2))
        return torch.where(present, taken, 0).flatten(2, 3)

    def unroll(self, x: Tensor, h: Any, read: Callable[[Tensor], Tensor]) -> tuple[list[Tensor], Any]:
        """Run over a sequence, with one input convolution over all steps; see the base class."""
        if x.shape[1] == 0:
            return [], h
        drives = self.drive(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        out = []
        for t in range(x.shape[1]):
            h = self.advance(drives[:, t], h)
            out.append(read(h))
        return out, h


class LiftToFlow(_FlowCell):
    """Any recurrent cell lifted to a flow: it runs on every slice, and the slices move between its steps.

    The result is flow-equivariant if the cell commutes with the action on single fields.

    Args:
        cell: Function or module `cell(x_t, h) -> h` with x `(batch, ...)` and h `(batch, channels, *space)`. The state
            may be a tuple, as in a convolutional LSTM. It must accept `h=None`.
        flow: Any `Flow`.

    Raises:
        InputError: For a class instead of a cell, or a flow that is not a `Flow`.

    Shapes:
        x has the shape that the cell expects; h is `(batch, V, channels, *space)`.

    Example:
        >>> mix = torch.nn.Conv1d(1, 1, 3, padding=1, padding_mode="circular")
        >>> cell = LiftToFlow(lambda x, h: torch.tanh(x if h is None else x + mix(h)), TranslationFlow.grid(1, dims=1))
        >>> cell(torch.rand(2, 1, 5), cell(torch.rand(2, 1, 5))).shape
        torch.Size([2, 3, 1, 5])
    """

    def __init__(self, cell: Callable[..., Any], flow: Flow) -> None:
        super().__init__()
        if not callable(cell) or isinstance(cell, type):
            given = f"the class {cell.__name__}; call it" if isinstance(cell, type) else type(cell).__name__
            raise InputError(f"cell must be a function or module (x, h) -> h, got {given}")
        if not isinstance(flow, Flow):
            raise InputError(f"flow must be a Flow such as TranslationFlow.grid(1), got {flow!r}")
        self.cell, self.flow = cell, flow

    def forward(self, x: Tensor, h: Any = None) -> Any:
        """Return the next lifted state.

        Args:
            x: Input of the step, in the shape that the cell expects.
            h: Lifted state `(batch, V, channels, *space)`, or a tuple of lifted states; None before the first step.
        """
        slices = len(self.flow)
        lifted = x.unsqueeze(1).expand(-1, slices, *x.shape[1:]).flatten(0, 1)
        if isinstance(h, tuple):
            before: Any = tuple(self.flow.shift(part).flatten(0, 1) for part in h)
        else:
            before = None if h is None else self.flow.shift(h).flatten(0, 1)
        out = self.cell(lifted, before)
        unfold = lambda t: t.unflatten(0, (x.shape[0], slices))  # noqa: E731
        return tuple(unfold(t) for t in out) if isinstance(out, tuple) else unfold(out)


class FlowRNN(nn.Module):
    """Stack of cells on lifted states, run over time; `FERNN` builds its own cells.

    Args:
        cells: `FERNNCell` or `LiftToFlow` modules with the same flow; all but the first take lifted input.
        pool: Pooling over the slices of the output, `"max"`, `"mean"` or `"sum"`, or None to keep them.

    Raises:
        InputError: For an empty list of cells or an unknown pooling.
    """

    def __init__(self, cells: Sequence[_FlowCell], pool: str | None = "max") -> None:
        super().__init__()
        if not cells:
            raise InputError("cells must hold at least one cell, got none")
        one_of("pool", pool, (*POOLS, None))
        self.cells, self.pool = nn.ModuleList(cells), pool

    @property
    def flow(self) -> Flow:
        """Return the flow of the cells."""
        return self.cells[0].flow  # type: ignore[return-value]

    def forward(self, x: Tensor, h_0: Sequence[Any] | None = None) -> tuple[Tensor, tuple[Any, ...]]:
        """Run over a sequence.

        Args:
            x: Input `(batch, time, channels, *domain)`, with at least one step unless h_0 is given.
            h_0: Initial state of each cell; zero when absent.

        Returns:
            The output `(batch, time, channels, *space)`, with an axis of slices after time if `pool` is None, and the
            last state of each cell.

        Raises:
            InputError: For an input or states of the wrong shape.
        """
        if h_0 is not None and len(h_0) != len(self.cells):
            raise InputError(f"h_0 must hold {len(self.cells)} states, one per cell, got {len(h_0)}")
        if not isinstance(x, Tensor):
            raise InputError(f"x must be a tensor, got {type(x).__name__}")
        if x.dim() < 3 or (x.shape[1] == 0 and h_0 is None):
            raise InputError(
                f"x must be (batch, time, channels, *domain), with at least one step unless h_0 is given, got shape "
                f"{tuple(x.shape)}"
            )
        finals = []
        for i, cell in enumerate(self.cells):
            pool = self.pool if i == len(self.cells) - 1 else None
            read = partial(pool_slices, how=pool, dim=1)
            out, last = cell.unroll(x, None if h_0 is None else h_0[i], read)  # type: ignore[operator]
            finals.append(last)
            x = torch.stack(out, 1) if out else read(_head(last)).unsqueeze(1)[:, :0]
        return x, tuple(finals)
