"""Encoders of pointer networks: recurrent ones, which read an order, and permutation-equivariant ones."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from .._checks import one_of
from .._errors import InputError

Encoding: TypeAlias = Literal["lstm", "bilstm", "set", "deepsets"]


class RecurrentEncoder(nn.Module):
    """LSTM over the elements in the order of the input, which stops at the true length of each set.

    Args:
        hidden_size: Width of inputs and outputs.
        bidirectional: Whether a second LSTM reads backwards; each then has half of the width.
    """

    def __init__(self, hidden_size: int, bidirectional: bool = False) -> None:
        super().__init__()
        if bidirectional and hidden_size % 2:
            raise InputError(f"hidden_size must be even for the bilstm encoder, got {hidden_size}")
        width = hidden_size // 2 if bidirectional else hidden_size
        self.lstm = nn.LSTM(hidden_size, width, batch_first=True, bidirectional=bidirectional)

    def forward(self, x: Tensor, valid: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return encoded elements and the final states, `(batch, n, hidden)` and twice `(batch, hidden)`."""
        lengths = valid.sum(1)
        if bool((lengths == x.shape[1]).all()):
            out, (h, c) = self.lstm(x)
        else:
            packed = nn.utils.rnn.pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
            packed, (h, c) = self.lstm(packed)
            out, _ = nn.utils.rnn.pad_packed_sequence(packed, batch_first=True, total_length=x.shape[1])
        return out, (h.transpose(0, 1).flatten(1), c.transpose(0, 1).flatten(1))


class InitialState(nn.Module):
    """Initial state of the decoder: a layer on the mean of the encoded elements."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.layer = nn.Linear(hidden_size, 2 * hidden_size)

    def forward(self, x: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Return hidden and cell state, each `(batch, hidden)`."""
        h, c = self.layer(masked_mean(x, valid)).chunk(2, -1)
        return torch.tanh(h), c


class SetEncoder(nn.Module):
    """Transformer without positions: permutation-equivariant, with all pairs of elements.

    Args:
        hidden_size: Width, a multiple of `heads`.
        layers: Number of layers.
        heads: Number of attention heads.
    """

    def __init__(self, hidden_size: int, layers: int = 2, heads: int = 4) -> None:
        super().__init__()
        if hidden_size % heads:
            raise InputError(f"hidden_size must be a multiple of {heads} for the set encoder, got {hidden_size}")
        layer = nn.TransformerEncoderLayer(
            hidden_size, heads, 2 * hidden_size, dropout=0.0, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, layers, nn.LayerNorm(hidden_size), enable_nested_tensor=False)
        for p in self.layers.parameters():  # a TransformerEncoder copies one layer
            if p.dim() > 1:
                nn.init.xavier_uniform_(p)
        self.initial = InitialState(hidden_size)

    def forward(self, x: Tensor, valid: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return encoded elements and the initial states, `(batch, n, hidden)` and twice `(batch, hidden)`."""
        out = self.layers(x, src_key_padding_mask=~valid)
        return out, self.initial(out, valid)


class DeepSetsEncoder(nn.Module):
    """Residual layers of each element, the mean and the maximum: permutation-equivariant, in linear time.

    Args:
        hidden_size: Width.
        layers: Number of layers.
    """

    def __init__(self, hidden_size: int, layers: int = 3) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(hidden_size) for _ in range(layers))
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(3 * hidden_size, hidden_size), nn.ReLU(), nn.Linear(hidden_size, hidden_size))
            for _ in range(layers)
        )
        self.initial = InitialState(hidden_size)

    def forward(self, x: Tensor, valid: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return encoded elements and the initial states, `(batch, n, hidden)` and twice `(batch, hidden)`."""
        for norm, layer in zip(self.norms, self.layers, strict=True):
            y = norm(x)
            mean = masked_mean(y, valid)[:, None].expand_as(y)
            largest = y.masked_fill(~valid[..., None], -torch.inf).amax(1, keepdim=True).expand_as(y)
            x = x + layer(torch.cat([y, mean, largest], -1))
        return x, self.initial(x, valid)


def masked_mean(x: Tensor, valid: Tensor) -> Tensor:
    """Return the mean over elements, `(batch, features)`."""
    return x.masked_fill(~valid[..., None], 0).sum(1) / valid.sum(1, keepdim=True).to(x.dtype)


def pointer_encoder(kind: Encoding, hidden_size: int) -> nn.Module:
    """Return an encoder of sets with new weights.

    It maps embedded elements `(batch, n, hidden)` and validity `(batch, n)` to encoded elements and the initial state
    of a decoder, `(h, c)`, each `(batch, hidden)`.

    Args:
        kind: `"lstm"`, `"bilstm"`, `"set"` (Transformer without positions) or `"deepsets"`.
        hidden_size: Width of inputs and outputs.
    """
    one_of("kind", kind, ("lstm", "bilstm", "set", "deepsets"))
    if kind in ("lstm", "bilstm"):
        return RecurrentEncoder(hidden_size, kind == "bilstm")
    return SetEncoder(hidden_size) if kind == "set" else DeepSetsEncoder(hidden_size)
