"""Cells on lifted states: a slice for each velocity, which moves with it; and how they run over time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .._errors import InputError
from ._flows import Flow, RotationFlow, TranslationFlow

_ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh}
POOLS: dict[str | None, Callable[[Tensor], Tensor]] = {
    "max": lambda h: h.amax(-1),  # amax shares a gradient evenly among ties, as when all slices are equal
    "mean": lambda h: h.mean(-1),
    "sum": lambda h: h.sum(-1),
}


def pool_slices(h: Tensor, how: str | None, dim: int) -> Tensor:
    """Pool over the slices, or keep them when `how` is None."""
    return h if how is None else POOLS[how](h.movedim(dim, -1))


def _head(state: Any) -> Tensor:
    """What a cell shows of its state: the first part, as a convolutional LSTM does."""
    return state[0] if isinstance(state, tuple) else state


class _FlowCell(nn.Module):
    """A cell `(x_t, h) -> h` on lifted states, with its own way to run over time."""

    flow: Flow

    def unroll(self, x: Tensor, h: Any, read: Callable[[Tensor], Tensor]) -> tuple[list[Tensor], Any]:
        """What `read` finds in the states after every step, and the last state; x is `(batch, time, ...)`."""
        out = []
        for t in range(x.shape[1]):
            h = self(x[:, t], h)
            out.append(read(_head(h)))
        return out, h


class FERNNCell(_FlowCell):
    """One step of a flow-equivariant RNN: every slice moves by one step of its own flow, then both inputs convolve.

    $h'(\\nu, g) = s([h * W](\\nu, \\psi_1(\\nu)^{-1} g) + [x * U](g))$ (Keller 2025, arXiv 2507.14793, section 3). All
    slices share W and U, so the number of parameters does not depend on V; V = {0} is the plain convolutional RNN. All
    slices move in one gather that pads for the convolution as well.

    Args:
        in_channels: channels of a frame.
        hidden_channels: channels of each slice of the state.
        flow: a `TranslationFlow` or a `RotationFlow`; other actions go with `LiftToFlow`.
        kernel_size: odd.
        v_mixing: velocities that differ by up to this much (in generators) mix; 0 keeps slices apart, as in the paper.
        activation: `"relu"` or `"tanh"`.
        bias: one number a channel; the paper has none.
        lifted_input: the input has slices, as it does for the second of two stacked cells.

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
            raise InputError(f"FERNNCell convolves over translations or rotations, got {flow!r}; LiftToFlow takes any")
        if min(in_channels, hidden_channels) < 1 or kernel_size < 1 or kernel_size % 2 == 0 or v_mixing < 0:
            raise InputError(
                f"channels must be positive, kernel_size odd and v_mixing not negative, got {in_channels}, "
                f"{hidden_channels}, {kernel_size} and {v_mixing}"
            )
        if activation not in _ACTIVATIONS:
            raise InputError(f"activation must be one of {', '.join(_ACTIVATIONS)}, got {activation!r}")
        self.flow, self.in_channels, self.hidden_channels = flow, in_channels, hidden_channels
        self.pad, self.activation, self.lifted_input = kernel_size // 2, activation, lifted_input
        make = flow.state_map if lifted_input else flow.input_map
        self.input = make(in_channels, hidden_channels, kernel_size, bias)
        self.offsets = self._offsets(v_mixing)
        self.state = flow.state_map(hidden_channels * len(self.offsets), hidden_channels, kernel_size, False)

    def _offsets(self, radius: int) -> Tensor:
        """The differences of generators that mix, `(offsets, d)`."""
        d = self.flow.generators.shape[1]
        steps = torch.cartesian_prod(*[torch.arange(-radius, radius + 1)] * d).view(-1, d)
        return steps * 360 / self.flow.orientations if isinstance(self.flow, RotationFlow) else steps

    def forward(self, x: Tensor, h: Tensor | None = None) -> Tensor:
        """The next state; a zero state when none is given."""
        return self.advance(self.drive(x), h)

    def drive(self, x: Tensor) -> Tensor:
        """What a frame adds to every slice, `(batch, V or 1, hidden_channels, *space)`."""
        dims = self.flow.space_dims if self.lifted_input else self.flow.domain_dims
        expected = 2 + self.lifted_input + (dims or 0)
        channels = x.shape[1 + self.lifted_input] if x.dim() == expected else None
        if channels != self.in_channels:
            slices = f"{len(self.flow)}, " if self.lifted_input else ""
            raise InputError(
                f"a frame must be (batch, {slices}{self.in_channels}, and {dims} axes), got shape {tuple(x.shape)}"
            )
        if not self.lifted_input:
            return self.input(self.flow.pad(x, self.pad)).unsqueeze(1)  # type: ignore[attr-defined]
        flat = self.flow.pad(x.flatten(0, 1), self.pad)  # type: ignore[attr-defined]
        return self.input(flat).unflatten(0, x.shape[:2])

    def advance(self, drive: Tensor, h: Tensor | None) -> Tensor:
        """The next state from a drive and a state."""
        s = _ACTIVATIONS[self.activation]
        if h is None:
            return s(drive.expand(-1, len(self.flow), *drive.shape[2:]))
        if h.shape != (drive.shape[0], len(self.flow), *drive.shape[2:]):
            expected = (drive.shape[0], len(self.flow), *drive.shape[2:])
            raise InputError(f"the state must be {expected}, got {tuple(h.shape)}")
        moved = self.flow.shift(self._mix(h), self.pad)
        return s(self.state(moved.flatten(0, 1)).unflatten(0, h.shape[:2]) + drive)

    def _mix(self, h: Tensor) -> Tensor:
        """For every slice, those whose generators differ by the offsets, along the channels."""
        if len(self.offsets) == 1:
            return h
        sizes = tuple(h.shape[3:])
        neighbour = self.flow.index_of(self.flow.generators.unsqueeze(1) + self.offsets, sizes).to(h.device)
        taken = h[:, neighbour.clamp(min=0).flatten()].unflatten(1, neighbour.shape)
        present = (neighbour >= 0).view(*neighbour.shape, *[1] * (h.dim() - 2))
        return torch.where(present, taken, 0).flatten(2, 3)

    def unroll(self, x: Tensor, h: Any, read: Callable[[Tensor], Tensor]) -> tuple[list[Tensor], Any]:
        """As the base class, with the drives of all steps in one convolution."""
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

    Flow equivariant when the cell commutes with the action at rest.

    Args:
        cell: `cell(x_t, h) -> h` with x `(batch, ...)` and h `(batch, channels, *space)`, or a tuple of such
            states as a convolutional LSTM has. It must accept `h=None`.
        flow: any `Flow`.

    Shapes:
        x as the cell takes it; h `(batch, V, channels, *space)`.

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
            raise InputError(f"LiftToFlow lifts a cell (x, h) -> h, got {given}")
        if not isinstance(flow, Flow):
            raise InputError(f"flow must be a Flow such as TranslationFlow.grid(1), got {flow!r}")
        self.cell, self.flow = cell, flow

    def forward(self, x: Tensor, h: Any = None) -> Any:
        """The next lifted state."""
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
    """Cells on lifted states, stacked and run over time; `FERNN` builds its own.

    Args:
        cells: `FERNNCell` or `LiftToFlow`, all of one flow; from the second on they take lifted input.
        pool: over the slices of the output: `"max"`, `"mean"`, `"sum"`, or None to keep them.
    """

    def __init__(self, cells: Sequence[_FlowCell], pool: str | None = "max") -> None:
        super().__init__()
        if not cells or pool not in (*POOLS, None):
            raise InputError(
                f"at least one cell and a pool of 'max', 'mean', 'sum' or None, got {len(cells)}, {pool!r}"
            )
        self.cells, self.pool = nn.ModuleList(cells), pool

    @property
    def flow(self) -> Flow:
        """The flow of its cells."""
        return self.cells[0].flow  # type: ignore[return-value]

    def forward(self, x: Tensor, h_0: Sequence[Any] | None = None) -> tuple[Tensor, tuple[Any, ...]]:
        """Run over a sequence.

        Args:
            x: `(batch, time, channels, *domain)`, at least one step unless h_0 is given.
            h_0: a state for each cell; zero when absent.

        Returns:
            The output `(batch, time, channels, *space)`, with an axis of slices behind time when nothing pools them,
            and the last state of each cell.
        """
        if h_0 is not None and len(h_0) != len(self.cells):
            raise InputError(f"h_0 must hold {len(self.cells)} states, one a cell, got {len(h_0)}")
        if not isinstance(x, Tensor):
            raise InputError(f"x must be a tensor, got {type(x).__name__}")
        if x.dim() < 3 or (x.shape[1] == 0 and h_0 is None):
            raise InputError(
                f"x must be (batch, time, channels, *domain) with at least one step when there is no h_0, got shape "
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
