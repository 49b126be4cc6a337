"""Residual block of a language model, with a nonlinear recurrence in place of attention."""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from .._checks import one_of, whole
from .._errors import InputError
from ._layers import ParallelRecurrence, State
from ._models import MinGRU, MinLSTM, ParaGRU, ParaLSTM

CELLS: dict[str, type[ParallelRecurrence]] = {
    "paragru": ParaGRU, "paralstm": ParaLSTM, "mingru": MinGRU, "minlstm": MinLSTM
}  # fmt: skip
BlockState: TypeAlias = tuple[Tensor, State]
"""Last inputs of the convolution, `(batch, conv - 1, d_model)`, and the state of the recurrence."""


class RNNBlock(nn.Module):
    """A residual block around a recurrence, followed by one around a gated MLP.

    $x \\leftarrow s \\odot x + W_o\\,(\\mathrm{norm}(\\mathrm{rnn}(\\mathrm{conv}(v))) \\odot \\mathrm{silu}(g))$ with
    $(v, g) = W_i\\,\\mathrm{norm}(x)$ and a learned scale s, then
    $x \\leftarrow s' \\odot x + \\mathrm{SwiGLU}(\\mathrm{norm}(x))$ (Danieli et al. 2025, section 5.2 and figure 9).
    The convolution is causal, with one short filter per channel, and is followed by a SiLU as in Mamba. The block
    replaces a transformer block. It needs no positions, and its cost per decoded token does not grow with the length.

    Args:
        d_model: Number of features.
        cell: Recurrent layer, `"paragru"`, `"paralstm"`, `"mingru"` or `"minlstm"`.
        conv: Kernel size of the causal convolution, in steps.
        heads: Number of diagonal blocks of the recurrence's input maps; must divide `d_model`.
        mlp_size: Number of hidden features of the MLP. None for 8/3 of `d_model`, rounded up to a multiple of 32; 0
            for no MLP.
        a_max: Bound of the recurrent weights, see `ParallelRecurrence`.
        method: Solver, see `solve_recurrence`.

    Raises:
        InputError: For an unknown cell or method, or sizes that do not fit.

    Shapes:
        x `(batch, time, d_model)` to an output of the same shape, and a state.

    Example:
        >>> block = RNNBlock(32)
        >>> y, state = block(torch.randn(2, 100, 32))
        >>> y_t, state = block.step(torch.randn(2, 32), state)
        >>> y.shape, y_t.shape
        (torch.Size([2, 100, 32]), torch.Size([2, 32]))
    """

    def __init__(
        self,
        d_model: int,
        cell: str = "paragru",
        conv: int = 4,
        heads: int = 4,
        mlp_size: int | None = None,
        a_max: float | None = 0.5,
        method: str = "auto",
    ) -> None:
        super().__init__()
        one_of("cell", cell, CELLS)
        for name, size in (("d_model", d_model), ("conv", conv), ("heads", heads)):
            whole(name, size)
        if d_model % heads:
            raise InputError(f"heads must divide d_model = {d_model}, got {heads}")
        if mlp_size is not None:
            whole("mlp_size", mlp_size, 0)
        self.mixer_norm, self.mixer_scale = nn.RMSNorm(d_model), nn.Parameter(torch.ones(d_model))
        self.in_proj = nn.Linear(d_model, 2 * d_model, bias=False)
        self.conv = nn.Conv1d(d_model, d_model, conv, groups=d_model)
        self.recurrence = CELLS[cell](d_model, d_model, batch_first=True, num_heads=heads, a_max=a_max, method=method)
        self.gate_norm = nn.RMSNorm(d_model)
        self.out_proj = nn.Linear(d_model, d_model, bias=False)
        mlp_size = -(-8 * d_model // 96) * 32 if mlp_size is None else mlp_size
        self.mlp_size = mlp_size
        if mlp_size:
            self.mlp_norm, self.mlp_scale = nn.RMSNorm(d_model), nn.Parameter(torch.ones(d_model))
            self.mlp_in = nn.Linear(d_model, 2 * mlp_size, bias=False)
            self.mlp_out = nn.Linear(mlp_size, d_model, bias=False)

    def forward(
        self, x: Tensor, state: BlockState | None = None, *, lengths: Tensor | None = None
    ) -> tuple[Tensor, BlockState]:
        """Run over whole sequences.

        Args:
            x: Input `(batch, time, d_model)`, with at least one step.
            state: State returned by an earlier call; zero when absent.
            lengths: Number of real steps of each row, `(batch,)`, at least 1. The remaining steps are padding, and the
                returned state is the state after the last real step.

        Returns:
            The output `(batch, time, d_model)` and the state after the last step.
        """
        if not isinstance(x, Tensor):
            raise InputError(f"x must be a tensor, got {type(x).__name__}")
        width = self.in_proj.in_features
        if x.dim() != 3 or x.shape[1] == 0 or x.shape[2] != width:
            raise InputError(f"x must be (batch, time, {width}) with at least one step, got shape {tuple(x.shape)}")
        value, gate = self.in_proj(self.mixer_norm(x)).chunk(2, -1)
        if lengths is not None and not bool(((lengths >= 1) & (lengths <= x.shape[1])).all()):
            raise InputError(f"lengths must lie between 1 and {x.shape[1]}, got {lengths.tolist()}")
        past, before = (None, None) if state is None else state
        width = self.conv.kernel_size[0] - 1
        past = value.new_zeros(x.shape[0], width, x.shape[2]) if past is None else past.to(value.dtype)
        joined = torch.cat([past, value], 1)
        value = nn.functional.silu(self.conv(joined.mT).mT)
        if lengths is None:
            past = joined[:, joined.shape[1] - width :]
            mixed, after = self.recurrence(value.contiguous(), before)
        else:
            place = lengths.to(x.device)[:, None] + torch.arange(width, device=x.device)
            past = joined.gather(1, place[:, :, None].expand(-1, -1, x.shape[2]))
            packed = pack_padded_sequence(value, lengths.cpu(), batch_first=True, enforce_sorted=False)
            packed, after = self.recurrence(packed, before)
            mixed = pad_packed_sequence(packed, batch_first=True, total_length=x.shape[1])[0]
        return self._close(x, mixed, gate), (past, after)

    def step(self, x: Tensor, state: BlockState | None = None) -> tuple[Tensor, BlockState]:
        """Run one step of decoding.

        Args:
            x: Input of the step, `(batch, d_model)`.
            state: State returned by an earlier call; zero when absent.

        Returns:
            The output `(batch, d_model)` and the next state.
        """
        value, gate = self.in_proj(self.mixer_norm(x)).chunk(2, -1)
        past, before = (None, None) if state is None else state
        width = self.conv.kernel_size[0] - 1
        past = value.new_zeros(x.shape[0], width, x.shape[1]) if past is None else past.to(value.dtype)
        joined = torch.cat([past, value[:, None]], 1)
        value = nn.functional.silu(self.conv(joined.mT)[..., 0])
        mixed, after = self.recurrence.step(value, before)
        return self._close(x, mixed, gate), (joined[:, 1:], after)

    def _close(self, x: Tensor, mixed: Tensor, gate: Tensor) -> Tensor:
        x = self.mixer_scale * x + self.out_proj(self.gate_norm(mixed) * nn.functional.silu(gate))
        if not self.mlp_size:
            return x
        up, gate = self.mlp_in(self.mlp_norm(x)).chunk(2, -1)
        return self.mlp_scale * x + self.mlp_out(up * nn.functional.silu(gate))
