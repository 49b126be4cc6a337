"""Recurrent layers, one class per cell."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..algebra.arithmetic import blend
from ._layers import ParallelRecurrence


class _Clipped(ParallelRecurrence):
    """Base class of layers that clip their recurrent weights by default, which keeps the Jacobian contractive."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        num_heads: int = 1,
        a_max: float | None = 0.5,
        method: str = "auto",
        device: Any = None,
        dtype: Any = None,
        *,
        proj_size: int = 0,
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            num_heads,
            a_max,
            method,
            device,
            dtype,
            proj_size=proj_size,
        )


class ParaGRU(_Clipped):
    """A GRU with diagonal recurrence, trained in parallel over time; a replacement for `torch.nn.GRU`.

    $z = \\sigma(a_z h + p_z)$, $r = \\sigma(a_r h + p_r)$, $c = \\tanh(a_c (h r) + p_c)$, $h' = (1-z) h + z c$ with
    $p = B x + b$ (Danieli et al. 2025, arXiv 2510.21450, equations 3.1a and 3.3). It tracks state (parity) that no
    linear recurrence can track, and a step costs a few multiplications per channel. Channels interact only through B,
    so stack several layers or mix channels between layers. Weights of `nn.GRU` cannot be loaded: there z weights the
    old state, and r acts after the recurrent product. The state stays within |h| <= 1. The arguments are those of
    `ParallelRecurrence`.

    Example:
        >>> layer = ParaGRU(16, 32, batch_first=True)
        >>> y, h_n = layer(torch.randn(4, 1000, 16))
        >>> y.shape, h_n.shape
        (torch.Size([4, 1000, 32]), torch.Size([1, 4, 32]))
        >>> y_t, h = layer.step(torch.randn(4, 16), h_n)
    """

    cell_name = "gru"


class ParaLSTM(_Clipped):
    """A peephole LSTM with diagonal recurrence and coupled gates, trained in parallel over time.

    $f = \\sigma(a_f h + p_f + w_f c)$, $z = \\tanh(a_z h + p_z)$, $c' = f c + (1-f) z$,
    $o = \\sigma(a_o h + p_o + w_o c')$, $h' = o \\tanh(c')$ (Danieli et al. 2025, equations 3.1b and 3.3). Its Jacobian
    couples the two slots of a channel, in 2 x 2 blocks. It replaces `torch.nn.LSTM`: the state is the pair `(h, c)`,
    with |c| <= 1 and |h| < 1. The arguments are those of `ParallelRecurrence`.

    Example:
        >>> y, (h_n, c_n) = ParaLSTM(16, 32)(torch.randn(1000, 4, 16))
    """

    cell_name = "lstm"
    state_slots = (1, 0)


class MinGRU(ParallelRecurrence):
    """The minimal GRU, linear in its state (Feng et al. 2024, arXiv 2410.01201): fast, but it cannot track parity.

    $z = \\sigma(p_z)$, $h' = (1-z) h + z g(p_h)$ with $g(x) = x + 1/2$ for $x \\ge 0$, else $\\sigma(x)$. The arguments
    are those of `ParallelRecurrence`; `a_max` has no effect, because there are no recurrent weights.

    Example:
        >>> y, h_n = MinGRU(16, 32)(torch.randn(100, 4, 16))
    """

    cell_name = "mingru"


class MinLSTM(ParallelRecurrence):
    """The minimal LSTM, linear in its state (Feng et al. 2024): $h' = (f h + i g(p_h)) / (f + i)$.

    The function g is that of `MinGRU`, and the arguments are those of `ParallelRecurrence`; `a_max` has no effect.

    Example:
        >>> y, h_n = MinLSTM(16, 32)(torch.randn(100, 4, 16))
    """

    cell_name = "minlstm"


class SRU(ParallelRecurrence):
    """The simple recurrent unit (Lei et al. 2018, arXiv 1709.02755): a forget gate that sees the state, and a highway.

    $f = \\sigma(p_f + v_f c)$, $c' = f c + (1-f) p_c$, $r = \\sigma(p_r + v_r c)$, $y = r c' + (1-r) p_s$. The input of
    the highway, $p_s$, is always a projection of x. The state is c. The arguments are those of `ParallelRecurrence`,
    with `a_max=None` by default.

    Example:
        >>> y, c_n = SRU(16, 32)(torch.randn(100, 4, 16))
    """

    cell_name = "sru"
    output_gates = 2
    output_weights = 1

    def _output(self, states: Tensor, before: Tensor, pre: Tensor, weights: Tensor) -> Tensor:
        p_r, p_s = torch.unbind(pre, -2)
        # under autocast the weight keeps its own dtype, which is wider than that of the gates
        logit = (p_r + weights[0] * before).to(states.dtype)
        return blend(p_s.to(states.dtype), states, logit)


class SLSTM(ParallelRecurrence):
    """The sLSTM of xLSTM (Beck et al. 2024, arXiv 2405.04517), with exponential gates and a diagonal recurrence.

    The state is `(h, c, n, m)`: output, cell, normalizer and the running maximum that keeps the gates finite. Its
    Jacobian couples the four slots of a channel. The arguments are those of `ParallelRecurrence`, with `a_max=None` by
    default.

    Example:
        >>> y, state = SLSTM(16, 32)(torch.randn(100, 4, 16))
        >>> len(state)
        4
    """

    cell_name = "slstm"
    state_slots = (3, 0, 1, 2)
