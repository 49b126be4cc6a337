"""Gated cells of the recurrent layers: diagonal recurrences on gate inputs that are computed beforehand."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..algebra.arithmetic import blend, both_weights
from ..kernels import Fused, fused_method, fused_recurrence, register_reference
from ._cell import Cell, Tensors
from ._find import Options, SolveInfo, loop
from ._solve import solve

_sigmoid_backward = torch.ops.aten.sigmoid_backward
_tanh_backward = torch.ops.aten.tanh_backward


class GatedCell(Cell):
    """Base class of gated cells with inputs `x = (p,)` and parameters `params = (a,)`.

    The pre-activations p are `(*lanes, gates, channels)`, and the recurrent weights a are `(recurrent, channels)`. The
    state is `(*lanes, channels)`, or `(*lanes, slots, channels)`.
    """

    gates: ClassVar[int]
    recurrent: ClassVar[int]
    slots: ClassVar[int] = 1
    output: ClassVar[int] = 0
    """Slot of the state that the layer returns as output."""

    def initial(self, batch: int, channels: int, like: Tensor) -> Tensor:
        """Return the default initial state."""
        return like.new_zeros((batch, channels) if self.slots == 1 else (batch, self.slots, channels))


class GRU(GatedCell):
    """The cell of `ParaGRU` (equation 3.1a with 3.3).

    z = s(a_z h + p_z), r = s(a_r h + p_r), c = tanh(a_c (h r) + p_c), h' = (1 - z) h + z c. Unlike in `torch.nn.GRU`,
    z weights the new candidate and r acts before the recurrent weight.
    """

    gates, recurrent, bound = 3, 3, 1.0

    def step(self, state: Tensor, x: Tensors, params: Tensors) -> Tensor:
        opening, _, c = self._gates(state, x, params)
        return blend(state, c, opening)

    def _gates(self, h: Tensor, x: Tensors, params: Tensors) -> tuple[Tensor, Tensor, Tensor]:
        """Return the logit of z, then r and c."""
        (pre,), (a,) = x, params
        opening, reset = torch.addcmul(pre[..., :2, :], h.unsqueeze(-2), a[:2]).unbind(-2)
        r = torch.sigmoid(reset)
        return opening, r, torch.tanh(torch.addcmul(pre[..., 2, :], h * r, a[2]))

    def linearize(self, state: Tensor, x: Tensors, params: Tensors, out: Tensors = ()) -> tuple[Tensor, Any]:
        h, (a_z, a_r, a_c) = state, params[0].unbind(0)
        opening, r, c = self._gates(h, x, params)
        z, keep, small = both_weights(opening)
        slope = out[0] if out else torch.empty_like(x[0])  # derivative of h' by each pre-activation
        s_z = _sigmoid_backward.grad_input(c - h, small, grad_input=slope[..., 0, :])
        s_c = _tanh_backward.grad_input(z, c, grad_input=slope[..., 2, :])
        through = s_c * a_c
        s_r = _sigmoid_backward.grad_input(through * h, r, grad_input=slope[..., 1, :])
        jacobian = torch.addcmul(keep, through, r).addcmul_(s_z, a_z).addcmul_(s_r, a_r)
        return jacobian, (slope, h, r)

    def pullback(self, context: Any, gradient: Tensor, out: Tensors) -> list[Tensor | None]:
        slope, h, r = context
        d_z, d_r, d_c = torch.mul(slope, gradient.unsqueeze(-2), out=out[0]).unbind(-2)
        lanes = tuple(range(h.dim() - 1))
        return [torch.stack([(d_z * h).sum(lanes), (d_r * h).sum(lanes), (d_c * h).mul_(r).sum(lanes)])]


class LSTM(GatedCell):
    """The cell of `ParaLSTM` (equation 3.1b with 3.3), with gates f, z, o and peepholes w_f, w_o.

    f = s(a_f h + p_f + w_f c), z = tanh(a_z h + p_z), c' = f c + (1 - f) z, o = s(a_o h + p_o + w_o c'),
    h' = o tanh(c'). The state is (c, h).
    """

    gates, recurrent, slots, output, structure = 3, 5, 2, 1, "blocks"

    def step(self, state: Tensor, x: Tensors, params: Tensors) -> Tensor:
        _, _, c, _, h = self._gates(state, x, params)
        return torch.stack([c, h], -2)

    def _gates(self, state: Tensor, x: Tensors, params: Tensors) -> tuple[Tensor, ...]:
        """Return the logit of f, then z, c', o and h'."""
        c, h = state.unbind(-2)
        p_f, p_z, p_o = x[0].unbind(-2)
        a_f, a_z, a_o, w_f, w_o = params[0].unbind(0)
        forget = torch.addcmul(p_f, h, a_f).addcmul(c, w_f)
        z = torch.tanh(torch.addcmul(p_z, h, a_z))
        new = blend(z, c, forget)
        o = torch.sigmoid(torch.addcmul(p_o, h, a_o).addcmul(new, w_o))
        return forget, z, new, o, o * torch.tanh(new)

    def linearize(self, state: Tensor, x: Tensors, params: Tensors, out: Tensors = ()) -> tuple[Tensor, Any]:
        c, h = state.unbind(-2)
        a_f, a_z, a_o, w_f, w_o = params[0].unbind(0)
        forget, z, new, o, _ = self._gates(state, x, params)
        f, add, small = both_weights(forget)
        squashed = torch.tanh(new)
        s_o = _sigmoid_backward(squashed, o)  # derivative of h' by p_o
        k = torch.addcmul(_tanh_backward(o, squashed), s_o, w_o)  # derivative of h' by c'
        s_f, s_z = _sigmoid_backward(c - z, small), _tanh_backward(add, z)  # derivatives of c' by p_f and p_z
        cc = torch.addcmul(f, s_f, w_f)
        ch = torch.addcmul(s_f * a_f, s_z, a_z)
        hh = torch.addcmul(s_o * a_o, k, ch)
        jacobian = torch.stack([torch.stack([cc, ch], -2), torch.stack([k * cc, hh], -2)], -3)
        return jacobian, (s_f, s_z, s_o, k, c, h, new)

    def pullback(self, context: Any, gradient: Tensor, out: Tensors) -> list[Tensor | None]:
        s_f, s_z, s_o, k, c, h, new = context
        to_c, to_h = gradient.unbind(-2)
        through = torch.addcmul(to_c, k, to_h)
        d_f, d_z, d_o = out[0].unbind(-2)
        torch.mul(through, s_f, out=d_f)
        torch.mul(through, s_z, out=d_z)
        torch.mul(to_h, s_o, out=d_o)
        lanes = tuple(range(h.dim() - 1))
        weights = [(a * b).sum(lanes) for a, b in ((d_f, h), (d_z, h), (d_o, h), (d_f, c), (d_o, new))]
        return [torch.stack(weights)]


class MinGRU(GatedCell):
    """The cell of minGRU (Feng et al. 2024).

    z = s(p_z), h' = (1 - z) h + z g(p_h), g(x) = x + 1/2 for x >= 0, else s(x). It is linear in h, so one Newton
    iteration is exact.
    """

    gates, recurrent = 2, 0

    def step(self, state: Tensor, x: Tensors, params: Tensors) -> Tensor:
        p_z, p_h = x[0].unbind(-2)
        return blend(state, _positive(p_h), p_z)


class MinLSTM(GatedCell):
    """The cell of minLSTM (Feng et al. 2024), linear in h: f = s(p_f), i = s(p_i), h' = (f h + i g(p_h)) / (f + i)."""

    gates, recurrent = 3, 0

    def step(self, state: Tensor, x: Tensors, params: Tensors) -> Tensor:
        p_f, p_i, p_h = x[0].unbind(-2)
        # f / (f + i) as a sigmoid, because f and i may both underflow
        keep = torch.nn.functional.logsigmoid(p_f) - torch.nn.functional.logsigmoid(p_i)
        return blend(_positive(p_h), state, keep)


def _positive(x: Tensor) -> Tensor:
    return torch.where(x >= 0, x + 0.5, torch.sigmoid(x))


class SRU(GatedCell):
    """The cell of SRU (Lei et al. 2018): f = s(p_f + v_f c), c' = f c + (1 - f) p_c; the layer adds the highway."""

    gates, recurrent = 2, 1

    def step(self, state: Tensor, x: Tensors, params: Tensors) -> Tensor:
        p_c, p_f = x[0].unbind(-2)
        return blend(p_c, state, torch.addcmul(p_f, state, params[0][0]))


class SLSTM(GatedCell):
    """The cell of sLSTM (Beck et al. 2024) with a diagonal recurrence; the running maximum m keeps its gates finite.

    i = p_i + r_i h, f = log s(p_f + r_f h), m' = max(f + m, i), c' = e^{f+m-m'} c + e^{i-m'} tanh(p_z + r_z h),
    n' = e^{f+m-m'} n + e^{i-m'}, h' = s(p_o + r_o h) c' / n'. The state is (c, n, m, h).
    """

    gates, recurrent, slots, output, structure = 4, 4, 4, 3, "blocks"

    def step(self, state: Tensor, x: Tensors, params: Tensors) -> Tensor:
        c, n, m, h = state.unbind(-2)
        drive = torch.addcmul(x[0], h.unsqueeze(-2), params[0])
        p_i, p_f, p_z, p_o = drive.unbind(-2)
        decayed = torch.nn.functional.logsigmoid(p_f) + m
        top = torch.maximum(decayed, p_i)
        keep, add = torch.exp(decayed - top), torch.exp(p_i - top)
        c, n = torch.addcmul(add * torch.tanh(p_z), keep, c), torch.addcmul(add, keep, n)
        return torch.stack([c, n, top, torch.sigmoid(p_o) * c / n.clamp(min=torch.finfo(n.dtype).tiny)], -2)

    def initial(self, batch: int, channels: int, like: Tensor) -> Tensor:
        state = super().initial(batch, channels, like)
        state[:, 2] = -1e4  # low enough that the first input sets the maximum
        return state


GATED_CELLS: dict[str, GatedCell] = {
    "gru": GRU(),
    "lstm": LSTM(),
    "mingru": MinGRU(),
    "minlstm": MinLSTM(),
    "sru": SRU(),
    "slstm": SLSTM(),
}
"""Gated cells by name; the layers refer to them by `cell_name`."""


def solve_gated(
    name: str, pre: Tensor, h_0: Tensor, weights: Tensor, method: str, process_group: Any = None
) -> tuple[Tensor, SolveInfo | Fused]:
    """Solve a gated recurrence, with time as the first axis, by a fused kernel if there is one and else by `solve`."""
    fused = fused_method(name, pre, method) if process_group is None else None
    if fused is not None:
        return fused_recurrence(name, pre, weights, h_0, fused)
    return solve(GATED_CELLS[name], (pre,), h_0, (weights,), Options(method), process_group)


def read_info(info: SolveInfo | Fused) -> SolveInfo:
    """Return the report of a solve, reading the report of a kernel from its device."""
    if isinstance(info, SolveInfo):
        return info
    sweeps, mismatch = info.read()
    return SolveInfo(f"{info.method}-{info.language}", sweeps, mismatch, mismatch, not math.isnan(mismatch))


def _register(name: str, cell: GatedCell) -> None:
    register_reference(name, lambda pre, weights, h_0: loop(cell, (pre,), h_0, (weights,)))


for _name, _cell in GATED_CELLS.items():
    _register(_name, _cell)
