"""Networks that learn to undo permutations: the disentangled transformer, and a standard decoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...permutations import DisentangledTransformer, causal_mask


def disentangled(d: int, scratch: int, causal: bool) -> DisentangledTransformer:
    """Return the trainable network of the paper: two layers and a linear readout, all from zero weights.

    From a random readout most runs stay on a plateau for thousands of steps.

    Args:
        d: Number of rows.
        scratch: Number of scratch tokens.
        causal: Whether it has a causal mask.
    """
    mask = causal_mask(2 * d + scratch) if causal else None
    network = DisentangledTransformer(d, {"P": d, "Y": d, "scratch": scratch}, 2, mask=mask, readout=d)
    for parameter in network.parameters():
        nn.init.zeros_(parameter)
    return network


class Decoder(nn.Module):
    """Standard causal decoder: four layers with MLPs, norms and learned positions.

    Args:
        features: Width of a token, or number of different tokens.
        length: Number of positions.
        outputs: Width of the output.
        tokens: Whether the input holds token ids instead of vectors.
    """

    mask: Tensor

    def __init__(self, features: int, length: int, outputs: int, tokens: bool = False, width: int = 64) -> None:
        super().__init__()
        self.embedding: nn.Module = nn.Embedding(features, width) if tokens else nn.Linear(features, width)
        self.positions = nn.Parameter(torch.randn(length, width) * 0.02)
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 4, nn.LayerNorm(width), enable_nested_tensor=False)
        self.readout = nn.Linear(width, outputs)
        self.register_buffer("mask", ~causal_mask(length))

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs, `(batch, length, outputs)`."""
        return self.readout(self.layers(self.embedding(x) + self.positions, mask=self.mask))
