"""Plain networks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn


def mlp(sizes: Sequence[int], activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Build an MLP in PyTorch's default initialization.

    Args:
        sizes: Widths of the input, of each hidden layer and of the output.
        activation: Activation between the linear layers.
    """
    pairs = [(nn.Linear(a, b), activation()) for a, b in pairwise(sizes)]
    return nn.Sequential(*[layer for pair in pairs for layer in pair][:-1])
