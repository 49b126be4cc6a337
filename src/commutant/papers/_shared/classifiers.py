"""Loss and accuracy of classifiers."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def cross_entropy(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    """Return the mean cross-entropy of the logits on a batch of inputs and classes."""
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def accuracy(model: nn.Module, part: tuple[Tensor, ...]) -> float:
    """Return the share of inputs that the model classifies correctly."""
    with torch.no_grad():
        right = [(model(x).argmax(1) == y).sum() for x, y in zip(part[0].split(1000), part[1].split(1000), strict=True)]
    return float(sum(right)) / len(part[1])
