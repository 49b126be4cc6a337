"""A flow-equivariant recurrence that trains in parallel over time."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .._checks import one_of, positive
from .._errors import InputError
from ._find import METHODS, SolveInfo
from ._flow_cells import POOLS, check_kernel_size, pool_slices
from ._flows import Flow, TranslationFlow
from ._gated import read_info, solve_gated
from ._layers import clip_weights


class ParaFERNN(nn.Module):
    """A flow-equivariant recurrence that trains in parallel over time: a ParaGRU in the moving frame of every slice.

    $h'(\\nu, x) = \\mathrm{GRU}(h(\\nu, x - \\nu), [f * U](x))$ with diagonal recurrent weights. Each path along a
    velocity is a separate recurrence, so the solver of `ParaGRU` runs all paths in parallel without resampling at
    every step. Space mixes only in the input convolution; stack layers with convolutions between them.

    Args:
        in_channels: Number of channels of a frame.
        hidden_channels: Number of channels of each slice of the state.
        flow: A `TranslationFlow` on a torus.
        kernel_size: Size of the kernel of the input convolution, odd.
        pool: Pooling over velocities, `"max"`, `"mean"` or `"sum"`, or None to return every slice.
        a_max: Bound of the recurrent weights, see `ParallelRecurrence`.
        method: Solver, see `solve_recurrence`.

    Raises:
        InputError: For another flow, an unknown option or an even kernel size.

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
            raise InputError(f"flow must be a TranslationFlow of whole velocities on a torus, got {flow!r}")
        one_of("method", method, METHODS)
        check_kernel_size(kernel_size)
        if a_max is not None:
            positive("a_max", a_max)
        one_of("pool", pool, (*POOLS, None))
        self.flow, self.hidden_channels, self.pad, self.pool = flow, hidden_channels, kernel_size // 2, pool
        self.a_max, self.method, self.in_channels = a_max, method, in_channels
        self.input = flow.input_map(in_channels, 3 * hidden_channels, kernel_size, True)
        self.weight_hh = nn.Parameter(torch.randn(3, hidden_channels) * 0.3)
        if a_max is not None:
            with torch.no_grad():
                self.weight_hh.clamp_(-a_max, a_max)
        self.info: tuple[SolveInfo, ...] = ()

    def forward(self, x: Tensor, h_0: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run over a sequence.

        Args:
            x: Input `(batch, time, in_channels, *domain)`, with at least one step.
            h_0: Initial state `(batch, V, hidden_channels, *domain)`; zero when absent.

        Returns:
            The output `(batch, time, hidden_channels, *domain)`, with an axis of slices after time if `pool` is None,
            and the last state.
        """
        dims = self.flow.domain_dims or 0
        if x.dim() != 3 + dims or x.shape[1] == 0 or x.shape[2] != self.in_channels:
            raise InputError(
                f"x must be (batch, time, {self.in_channels}, *domain) with {dims} axes of the domain and at least one "
                f"step, got shape {tuple(x.shape)}"
            )
        batch, length = x.shape[:2]
        space, slices, width = tuple(x.shape[3:]), len(self.flow), self.hidden_channels
        pre = self.input(self.flow.pad(x.flatten(0, 1), self.pad)).view(batch, length, 3 * width, -1)
        paths = self._paths(length, space).to(x.device)
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
            start = self.flow.shift(h_0).reshape(batch, -1)  # the state moves before it meets the first input
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
        """Return the place of each path of each slice at each time, `(time, V, places)`."""
        steps = torch.arange(length).view(-1, 1, 1) * self.flow.generators
        index, _ = self.flow.table(-steps.flatten(0, 1), space, 0)
        return index.flatten(1).unflatten(0, (length, len(self.flow)))
