"""Inference with sparse recurrent weights, stored as compressed rows."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from .._errors import InputError
from ._layers import only_one
from ._pruning import _GATES


class SparseRecurrence(nn.Module):
    """A pruned `nn.RNN`, `nn.GRU` or `nn.LSTM` for inference with its nonzero weights; returned by `to_sparse`.

    The products of a step read compressed rows (CSR, 32-bit indices), so their time grows with the number of nonzero
    weights. Internally states are `(hidden, batch)`, the layout of sparse products.

    Args:
        dense: Recurrent layer whose weights are copied.
    """

    def __init__(self, dense: nn.RNNBase) -> None:
        super().__init__()
        self.mode, self.hidden_size, self.num_layers = dense.mode, dense.hidden_size, dense.num_layers
        self.input_size, self.batch_first, self.bidirectional = dense.input_size, dense.batch_first, dense.bidirectional
        self.directions = 2 if dense.bidirectional else 1
        for layer in range(dense.num_layers):
            for suffix in ("", "_reverse")[: self.directions]:
                end = f"_l{layer}{suffix}"
                for kind in ("ih", "hh"):
                    for part, tensor in _compress(getattr(dense, f"weight_{kind}{end}")).items():
                        self.register_buffer(f"weight_{kind}{end}_{part}", tensor)
                    bias = getattr(dense, f"bias_{kind}{end}").detach().clone() if dense.bias else None
                    self.register_buffer(f"bias_{kind}{end}", bias)

    @torch.no_grad()
    def forward(
        self,
        input: Tensor,
        hx: Tensor | tuple[Tensor, Tensor] | None = None,
        *,
        h_0: Tensor | tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Any]:
        """Run the layer without gradients.

        Args:
            input: Input `(time, batch, features)`, or `(batch, time, features)` if the dense layer is batch first.
            hx: Initial state in the layout of the dense layer; zero when absent.
            h_0: Another name of `hx`.

        Returns:
            The output and the final state, in the layouts of the dense layer.

        Raises:
            InputError: For an input or state of the wrong shape or dtype, and under `torch.jit.trace`.
        """
        x, h_0 = input, only_one(hx, h_0)
        if torch.jit.is_tracing():
            raise InputError(
                "torch.jit.trace would fix the number of steps of a sparse layer; use torch.compile instead"
            )
        if not isinstance(x, Tensor) or x.dim() != 3 or x.shape[-1] != self.input_size or 0 in x.shape:
            said = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise InputError(f"x must have 3 axes, none empty, and {self.input_size} features, got {said}")
        weight = self.weight_hh_l0_values
        assert isinstance(weight, Tensor)
        dtype, kind = weight.dtype, x.device.type
        if torch.is_autocast_enabled(kind):  # sparse products do not support half precision
            lower = torch.get_autocast_dtype(kind)
            states = None if h_0 is None else _converted(h_0, dtype)
            with torch.autocast(kind, enabled=False):
                y, final = self(x.to(dtype), states)
            return y.to(lower), _converted(final, lower)
        if x.dtype != dtype:
            raise InputError(f"x is {x.dtype} but the weights are {dtype}; convert one of them")
        x = x.transpose(0, 1) if self.batch_first else x
        batch, lstm = x.shape[1], self.mode == "LSTM"
        parts = h_0 if isinstance(h_0, tuple) else (h_0,) * (1 + lstm)
        expected = (self.num_layers * self.directions, batch, self.hidden_size)
        if any(part is not None and tuple(part.shape) != expected for part in parts) or len(parts) != 1 + lstm:
            given = [None if part is None else tuple(part.shape) for part in parts]
            raise InputError(f"the state must be {1 + lstm} tensor(s) of shape {expected}, got {given}")
        finals: list[tuple[Tensor, ...]] = []
        for layer in range(self.num_layers):
            outputs = []
            for suffix in ("", "_reverse")[: self.directions]:
                start = [x.new_zeros(expected[1:]) if p is None else p[len(finals)] for p in parts]
                y, final = self._run(
                    x.flip(0) if suffix else x, [s.mT.contiguous() for s in start], f"_l{layer}{suffix}"
                )
                outputs.append(y.flip(0) if suffix else y)
                finals.append(final)
            x = torch.cat(outputs, -1) if len(outputs) == 2 else outputs[0]
        out = tuple(torch.stack([final[i].mT for final in finals]) for i in range(1 + lstm))
        return (x.transpose(0, 1) if self.batch_first else x), out if lstm else out[0]

    def flatten_parameters(self) -> None:
        """Do nothing: code written for `torch.nn.GRU` calls it."""

    def _run(self, x: Tensor, state: list[Tensor], end: str) -> tuple[Tensor, tuple[Tensor, ...]]:
        w_ih, w_hh = self._rows(f"weight_ih{end}"), self._rows(f"weight_hh{end}")
        b_ih, b_hh = getattr(self, f"bias_ih{end}"), getattr(self, f"bias_hh{end}")
        length, batch, _ = x.shape
        drive = (w_ih @ x.reshape(length * batch, -1).mT.contiguous()).view(-1, length, batch)
        column = None if b_hh is None else b_hh[:, None].expand(-1, batch)
        if b_ih is not None:
            drive += b_ih[:, None, None]
        drive = drive.transpose(0, 1).contiguous()
        h, c = state[0], state[-1]
        out = x.new_empty(length, self.hidden_size, batch)
        for t in range(length):
            own = w_hh @ h if column is None else torch.addmm(column, w_hh, h)
            if self.mode == "GRU":
                r, z = torch.sigmoid_(own[: 2 * self.hidden_size].add_(drive[t, : 2 * self.hidden_size])).chunk(2)
                n = torch.addcmul(drive[t, 2 * self.hidden_size :], r, own[2 * self.hidden_size :]).tanh_()
                h = torch.lerp(n, h, z, out=out[t])
            elif self.mode == "LSTM":
                i, f, g, o = own.add_(drive[t]).chunk(4)
                c = torch.addcmul(i.sigmoid_() * g.tanh_(), f.sigmoid_(), c)
                h = torch.mul(o.sigmoid_(), c.tanh(), out=out[t])
            else:
                squash = torch.tanh if self.mode == "RNN_TANH" else torch.relu
                h = out[t].copy_(squash(own.add_(drive[t])))
        return out.transpose(1, 2), (h.clone(), c)[: len(state)]

    def _rows(self, name: str) -> Tensor:
        starts, columns, values = (getattr(self, f"{name}_{part}") for part in ("starts", "columns", "values"))
        size = (len(starts) - 1, self.hidden_size if "_hh_" in name else self._width(name))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse")
            return torch.sparse_csr_tensor(starts, columns, values, size, check_invariants=False)

    def _width(self, name: str) -> int:
        return self.input_size if "_l0" in name else self.hidden_size * self.directions


def _converted(state: Any, dtype: torch.dtype) -> Any:
    return state.to(dtype) if isinstance(state, Tensor) else tuple(part.to(dtype) for part in state)


def _compress(weight: Tensor) -> dict[str, Tensor]:
    """Return compressed rows with 32-bit indices as plain tensors, which can be copied and saved."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse")
        rows = weight.detach().to_sparse_csr()
    parts = {"starts": rows.crow_indices().int(), "columns": rows.col_indices().int()}
    return {**parts, "values": rows.values().clone()}


def to_sparse(module: nn.RNNBase) -> SparseRecurrence:
    """Copy a pruned recurrent layer into compressed rows, for inference on CPU.

    The sparse form is faster from about 95 % sparsity and a thousand hidden units. A dense `nn.LSTM` of 256 units stays
    faster than its sparse form (see the benchmark). Later changes of the layer do not affect the copy.

    Args:
        module: `nn.RNN`, `nn.GRU` or `nn.LSTM` with zeros among its recurrent weights, for example after
            `prune_recurrent`.

    Returns:
        The sparse layer.

    Raises:
        InputError: For another module, an LSTM with projections or weights in half precision.

    Example:
        >>> from commutant.sequences import prune_recurrent
        >>> rnn, x = prune_recurrent(torch.nn.GRU(8, 16), 0.95), torch.randn(5, 2, 8)
        >>> torch.allclose(to_sparse(rnn)(x)[0], rnn(x)[0], atol=1e-6)
        True
    """
    if not isinstance(module, nn.RNNBase) or module.mode not in _GATES or module.proj_size:
        raise InputError(
            f"module must be an nn.RNN, nn.GRU or nn.LSTM without projections, got {type(module).__name__}"
        )
    if module.weight_hh_l0.dtype not in (torch.float32, torch.float64):
        raise InputError(f"module must have weights in float32 or float64, got {module.weight_hh_l0.dtype}")
    return SparseRecurrence(module)
