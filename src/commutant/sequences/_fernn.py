"""Flow-equivariant recurrent networks, whose state has one slice per velocity."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from .._checks import one_of, whole
from .._errors import InputError
from ._flow_cells import FERNNCell, FlowRNN, check_kernel_size, pool_slices
from ._flows import Flow, TranslationFlow
from ._rotation_flow import RotationFlow


class FERNN(FlowRNN):
    """A flow-equivariant recurrent network over image sequences (Keller 2025, arXiv 2507.14793).

    When the input moves at a velocity of V, the output moves with it:
    $\\Phi[\\psi(\\nu) f]_t = \\psi_t(\\nu) \\Phi[f]_t$. This is exact if V is closed under differences, and holds at
    velocities never seen in training. Use it where things move at constant velocity. Time and memory grow with the
    number of velocities, while the number of parameters does not.

    Args:
        in_channels: Number of channels of a frame.
        hidden_channels: Number of channels of each slice of the state.
        flow: `TranslationFlow` or `RotationFlow` with the velocities of the network.
        num_layers: Number of stacked cells.
        pool: Pooling over velocities, `"max"` (as in the paper), `"mean"` or `"sum"`, or None to return every slice.
        kernel_size: Size of the kernels, odd.
        v_mixing: Largest difference between two velocities whose slices mix, see `FERNNCell`.
        activation: Nonlinearity, `"relu"` or `"tanh"`.
        bias: Whether to add a learned bias per channel; the paper does not.

    Raises:
        InputError: For an unknown option or sizes that do not fit.

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
        whole("num_layers", num_layers)
        channels = [in_channels] + [hidden_channels] * (num_layers - 1)
        cells = [
            FERNNCell(c, hidden_channels, flow, kernel_size, v_mixing, activation, bias, lifted_input=i > 0)
            for i, c in enumerate(channels)
        ]
        super().__init__(cells, pool)


class FieldDecoder(nn.Module):
    """Convolutional decoder from a pooled state to a frame, equivariant under static transformations of the flow.

    Args:
        hidden_channels: Number of channels of the state.
        out_channels: Number of channels of the frame.
        flow: Flow that defines the convolutions.
        layers: Number of hidden layers, each followed by a ReLU; one more layer maps to the frame. The paper uses 4.
        kernel_size: Size of the kernels, odd.
        bias: Whether to add a learned bias per channel.

    Raises:
        InputError: For a negative number of layers or an even kernel size.
    """

    def __init__(
        self, hidden_channels: int, out_channels: int, flow: TranslationFlow | RotationFlow, layers: int = 4,
        kernel_size: int = 3, bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        whole("layers", layers, 0)
        check_kernel_size(kernel_size)
        self.flow, self.pad = flow, kernel_size // 2
        widths = [hidden_channels] * (layers + 1) + [out_channels]
        pairs = itertools.pairwise(widths)
        self.maps = nn.ModuleList(flow.state_map(a, b, kernel_size, bias) for a, b in pairs)

    def forward(self, h: Tensor) -> Tensor:
        """Return a frame `(batch, out_channels, *domain)`, averaged over orientations.

        Args:
            h: Pooled state `(batch, hidden_channels, *space)`.
        """
        for i, layer in enumerate(self.maps):
            h = layer(self.flow.pad(torch.relu(h) if i else h, self.pad))
        return h.mean(2) if isinstance(self.flow, RotationFlow) else h


class FERNNSeq2Seq(nn.Module):
    """Forecasting network with a flow-equivariant encoder and a decoder that feeds its predictions back.

    The *aligned* decoder predicts frame t + 1 from the state advanced by one step,
    $D(\\max_\\nu \\psi_1(\\nu) h(\\nu))$, and takes its prediction as the next input. Its forecasts are exactly
    flow-equivariant. The *lagged* decoder, released with the paper, feeds the last frame in again and reads the state
    without advancing it. It is not equivariant, and drifts beyond the training horizon. Predictions are detached before
    they are fed back, as in the paper.

    Args:
        in_channels: Number of channels of a frame.
        hidden_channels: Number of channels of each slice of the state.
        flow: `TranslationFlow` or `RotationFlow` with the velocities of the network.
        decoder: Module from a pooled state to a frame; by default a `FieldDecoder`.
        decode: Decoding scheme, `"aligned"` or `"lagged"`.
        decoder_layers: Number of hidden layers of the default decoder.
        kernel_size: Size of the kernels, odd.
        activation: Nonlinearity, `"relu"` or `"tanh"`.
        bias: Whether to add a learned bias per channel; the paper does not.

    Raises:
        InputError: For an unknown option or sizes that do not fit.

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
        one_of("decode", decode, ("aligned", "lagged"))
        self.cell = FERNNCell(in_channels, hidden_channels, flow, kernel_size, 0, activation, bias)
        assert isinstance(flow, TranslationFlow | RotationFlow)
        self.decoder = decoder or FieldDecoder(hidden_channels, in_channels, flow, decoder_layers, kernel_size, bias)
        self.decode = decode

    def forward(self, x: Tensor, n_future: int) -> Tensor:
        """Forecast frames.

        Args:
            x: Past frames `(batch, time, in_channels, *domain)`, at least one.
            n_future: Number of frames to predict.

        Returns:
            The predicted frames `(batch, n_future, in_channels, *domain)`.

        Raises:
            InputError: For an input without frames, or a negative number of frames to predict.
        """
        if x.dim() < 3 or x.shape[1] == 0:
            raise InputError(
                f"x must be (batch, time, channels, *domain) with at least one frame, got shape {tuple(x.shape)}"
            )
        whole("n_future", n_future, 0)
        _, h = self.cell.unroll(x, None, lambda h: h[:0])
        frame, frames = x[:, -1], []
        for step in range(n_future):
            if self.decode == "lagged" or step:
                h = self.cell(frame, h)
            ahead = self.cell.flow.shift(h) if self.decode == "aligned" else h
            frames.append(self.decoder(pool_slices(ahead, "max", 1)))
            frame = frames[-1].detach()
        return torch.stack(frames, 1) if frames else x[:, :0]
