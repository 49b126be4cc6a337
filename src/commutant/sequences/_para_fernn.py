"""A flow-equivariant recurrence that trains in parallel over time."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .._errors import InputError
from ._find import METHODS, SolveInfo
from ._flow_cells import POOLS, pool_slices
from ._flows import Flow, TranslationFlow
from ._gated import read_info, solve_gated
from ._layers import clip_weights


class ParaFERNN(nn.Module):
    """A flow-equivariant recurrence that trains in parallel over time: a ParaGRU in every slice, in its moving frame.

    $h'(\\nu, x) = \\mathrm{GRU}(h(\\nu, x - \\nu), [f * U](x))$ with diagonal recurrent weights: along the path of its
    velocity each place is a recurrence of its own, so the solver of `ParaGRU` runs all paths at once and nothing is
    resampled step by step. Space mixes in the input convolution only; stack it with convolutions between.

    Args:
        in_channels: channels of a frame.
        hidden_channels: channels of each slice.
        flow: a `TranslationFlow` on a torus.
        kernel_size: of the input convolution, odd.
        pool: over velocities, or None.
        a_max: bound of the recurrent weights, see `ParaGRU`.
        method: see `solve_recurrence`.

    Shapes:
        x `(batch, time, in_channels, *domain)` to `(batch, time, hidden_channels, *domain)` and the last state,
        `(batch, V, hidden_channels, *domain)`.

    Example:
        >>> y, h_n = ParaFERNN(1, 4, TranslationFlow.grid(1))(torch.rand(2, 20, 1, 8, 8))
        >>> y.shape, h_n.shape
        (torch.Size([2, 20, 4, 8, 8]), torch.Size([2, 9, 4, 8, 8]))
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        flow: Flow,
        kernel_size: int = 3,
        pool: str | None = "max",
        a_max: float | None = 0.5,
        method: str = "auto",
    ) -> None:
        super().__init__()
        if not isinstance(flow, TranslationFlow) or flow.boundary != "circular" or flow.interpolation != "exact":
            raise InputError(f"ParaFERNN follows whole velocities on a torus, got {flow!r}")
        if method not in METHODS or kernel_size % 2 == 0 or not (a_max is None or a_max > 0):
            raise InputError(
                f"method must be one of {', '.join(METHODS)}, kernel_size odd and a_max positive or None, got "
                f"{method!r}, {kernel_size} and {a_max}"
            )
        if pool not in (*POOLS, None):
            raise InputError(f"pool must be 'max', 'mean', 'sum' or None, got {pool!r}")
        self.flow, self.hidden_channels, self.pad, self.pool = flow, hidden_channels, kernel_size // 2, pool
        self.a_max, self.method, self.in_channels = a_max, method, in_channels
        self.input = flow.input_map(in_channels, 3 * hidden_channels, kernel_size, True)
        self.weight_hh = nn.Parameter(torch.randn(3, hidden_channels) * 0.3)
        if a_max is not None:
            with torch.no_grad():
                self.weight_hh.clamp_(-a_max, a_max)
        self.info: tuple[SolveInfo, ...] = ()

    def forward(self, x: Tensor, h_0: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run over a sequence, from an initial state `(batch, V, hidden_channels, *domain)` (zero when absent)."""
        dims = self.flow.domain_dims or 0
        if x.dim() != 3 + dims or x.shape[1] == 0 or x.shape[2] != self.in_channels:
            raise InputError(
                f"x must be (batch, time, {self.in_channels}, and {dims} axes) with at least one step, got shape "
                f"{tuple(x.shape)}"
            )
        batch, length = x.shape[:2]
        space, slices, width = tuple(x.shape[3:]), len(self.flow), self.hidden_channels
        pre = self.input(self.flow.pad(x.flatten(0, 1), self.pad)).view(batch, length, 3 * width, -1)
        paths = self._paths(length, space).to(x.device)  # where the path of each place is at each time
        moving = pre.transpose(0, 1).unsqueeze(1).expand(-1, slices, -1, -1, -1)
        moving = moving.gather(-1, paths[:, :, None, None].expand(-1, -1, batch, 3 * width, -1))
        moving = moving.unflatten(3, (3, width)).permute(0, 2, 3, 1, 4, 5).flatten(3)  # (time, batch, 3, lanes)
        weight = self.weight_hh if self.a_max is None else clip_weights(self.weight_hh, self.a_max)
        lanes = weight[:, None, :, None].expand(3, slices, width, pre.shape[-1]).reshape(3, -1)
        if h_0 is None:
            start = moving.new_zeros(batch, moving.shape[-1])
        else:
            expected = (batch, slices, width, *space)
            if h_0.shape != expected:
                raise InputError(f"h_0 must be {expected}, got {tuple(h_0.shape)}")
            start = self.flow.shift(h_0).reshape(batch, -1)  # the first input meets the state moved by one step
        states, info = solve_gated("gru", moving, start, lanes, self.method)
        self.info = (read_info(info),)
        states = states.view(length, batch, slices, width, -1)
        back = torch.empty_like(paths).scatter_(
            -1, paths, torch.arange(paths.shape[-1], device=x.device).expand_as(paths)
        )
        still = states.gather(-1, back[:, None, :, None].expand(-1, batch, -1, width, -1))
        out = still.transpose(0, 1).unflatten(-1, space)
        return pool_slices(out, self.pool, 2), out[:, -1]

    def _paths(self, length: int, space: tuple[int, ...]) -> Tensor:
        """`(time, V, places)`: the place where each path of each slice is at each time."""
        steps = torch.arange(length).view(-1, 1, 1) * self.flow.generators
        index, _ = self.flow.table(-steps.flatten(0, 1), space, 0)
        return index.flatten(1).unflatten(0, (length, len(self.flow)))
