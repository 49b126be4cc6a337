"""Flow-equivariant recurrent networks: a state that has a slice for each velocity, and moves with it."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from .._errors import InputError
from ._flow_cells import FERNNCell, FlowRNN, pool_slices
from ._flows import Flow, RotationFlow, TranslationFlow


class FERNN(FlowRNN):
    """A flow-equivariant recurrent network over image sequences (Keller 2025, arXiv 2507.14793).

    When the input moves at a velocity of V, the output moves with it:
    $\\Phi[\\psi(\\nu) f]_t = \\psi_t(\\nu) \\Phi[f]_t$, exactly if V is closed under differences, and at
    velocities never seen in training. Use it where things move at constant velocity; cost and memory grow with the
    number of velocities, parameters do not.

    Args:
        in_channels: channels of a frame.
        hidden_channels: channels of each slice of the state.
        flow: `TranslationFlow` or `RotationFlow`, the velocities that the network knows.
        num_layers: cells on top of each other.
        pool: over velocities, `"max"` as in the paper, `"mean"`, `"sum"`, or None to return every slice.
        kernel_size, v_mixing, activation, bias: see `FERNNCell`.

    Shapes:
        x `(batch, time, in_channels, *domain)` to `(batch, time, hidden_channels, *space)`.

    Example:
        >>> net = FERNN(1, 8, TranslationFlow.grid(1))
        >>> y, h_n = net(torch.rand(2, 5, 1, 14, 14))
        >>> y.shape, h_n[0].shape
        (torch.Size([2, 5, 8, 14, 14]), torch.Size([2, 9, 8, 14, 14]))
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        flow: Flow,
        num_layers: int = 1,
        pool: str | None = "max",
        kernel_size: int = 3,
        v_mixing: int = 0,
        activation: str = "relu",
        bias: bool = True,
    ) -> None:
        if num_layers < 1:
            raise InputError(f"num_layers must be at least 1, got {num_layers}")
        channels = [in_channels] + [hidden_channels] * (num_layers - 1)
        cells = [
            FERNNCell(c, hidden_channels, flow, kernel_size, v_mixing, activation, bias, lifted_input=i > 0)
            for i, c in enumerate(channels)
        ]
        super().__init__(cells, pool)


class FieldDecoder(nn.Module):
    """Convolutions from a pooled state to a frame that commute with the flow's group at rest.

    Args:
        hidden_channels, out_channels: of state and frame.
        flow: gives the convolutions.
        layers: hidden layers, each followed by a ReLU; one more maps to the frame. The paper: 4.
        kernel_size: odd.
        bias: one number a channel.
    """

    def __init__(
        self, hidden_channels: int, out_channels: int, flow: TranslationFlow | RotationFlow, layers: int = 4,
        kernel_size: int = 3, bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.flow, self.pad = flow, kernel_size // 2
        if layers < 0:
            raise InputError(f"a decoder has no negative number of layers, got {layers}")
        widths = [hidden_channels] * (layers + 1) + [out_channels]
        pairs = itertools.pairwise(widths)
        self.maps = nn.ModuleList(flow.state_map(a, b, kernel_size, bias) for a, b in pairs)

    def forward(self, h: Tensor) -> Tensor:
        """A frame `(batch, out_channels, *domain)` from a pooled state; orientations are averaged."""
        for i, layer in enumerate(self.maps):
            h = layer(self.flow.pad(torch.relu(h) if i else h, self.pad))
        return h.mean(2) if isinstance(self.flow, RotationFlow) else h


class FERNNSeq2Seq(nn.Module):
    """Forecast the frames that follow: a flow-equivariant encoder, and a decoder that feeds its frames back.

    The *aligned* decoder predicts frame t + 1 from the state moved on by one step,
    $D(\\max_\\nu \\psi_1(\\nu) h(\\nu))$, and takes its
    prediction as the next input: forecasts move with the input exactly. The paper's released decoder (here
    `"lagged"`) shows the last input once more and reads the state where it stands; it is not equivariant, and drifts
    beyond the horizon of its training. Predictions are detached before they are fed back, as in the paper.

    Args:
        in_channels, hidden_channels, flow, kernel_size, activation, bias: see `FERNNCell`.
        decoder: from a pooled state to a frame; a `FieldDecoder` when absent.
        decoder_layers: of that decoder.
        decode: `"aligned"` or `"lagged"`.

    Example:
        >>> FERNNSeq2Seq(1, 8, TranslationFlow.grid(1))(torch.rand(2, 5, 1, 14, 14), 3).shape
        torch.Size([2, 3, 1, 14, 14])
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        flow: Flow,
        decoder: nn.Module | None = None,
        decode: str = "aligned",
        decoder_layers: int = 4,
        kernel_size: int = 3,
        activation: str = "relu",
        bias: bool = True,
    ) -> None:
        super().__init__()
        if decode not in ("aligned", "lagged"):
            raise InputError(f"decode must be 'aligned' or 'lagged', got {decode!r}")
        self.cell = FERNNCell(in_channels, hidden_channels, flow, kernel_size, 0, activation, bias)
        assert isinstance(flow, TranslationFlow | RotationFlow)
        self.decoder = decoder or FieldDecoder(hidden_channels, in_channels, flow, decoder_layers, kernel_size, bias)
        self.decode = decode

    def forward(self, x: Tensor, n_future: int) -> Tensor:
        """The next `n_future` frames `(batch, n_future, in_channels, *domain)` after x `(batch, time, ...)`."""
        if x.dim() < 3 or x.shape[1] == 0:
            raise InputError(f"a forecast needs frames (batch, time, channels, *domain), got shape {tuple(x.shape)}")
        if not isinstance(n_future, int) or n_future < 0:
            raise InputError(f"n_future must be a whole number of frames, 0 or more, got {n_future!r}")
        _, h = self.cell.unroll(x, None, lambda h: h[:0])
        frame, frames = x[:, -1], []
        for step in range(n_future):
            if self.decode == "lagged" or step:
                h = self.cell(frame, h)
            ahead = self.cell.flow.shift(h) if self.decode == "aligned" else h
            frames.append(self.decoder(pool_slices(ahead, "max", 1)))
            frame = frames[-1].detach()
        return torch.stack(frames, 1) if frames else x[:, :0]
