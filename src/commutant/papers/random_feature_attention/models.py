"""Rivals of random-feature attention: random features of the concatenated tokens, and a trained DeepSets network."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def mlp_features(query: Tensor, keys: Tensor, width: int, generator: torch.Generator) -> Tensor:
    """Return random ReLU features of the query and all keys in a row (RFMLP), `(sets, width)`.

    Args:
        query: Queries, `(sets, d)`.
        keys: Keys, `(sets, n, d)`.
        width: Number of features.
        generator: Source of the weights, for pre-activations of variance one.
    """
    x = torch.cat([query[:, None], keys], 1).flatten(1)
    weight = torch.randn(x.shape[1], width, generator=generator, dtype=x.dtype) / (keys.shape[1] + 1) ** 0.5
    return (x @ weight).relu() / width**0.5


class DeepSets(nn.Module):
    """DeepSets network on pairs of the query and one key, trained end to end.

    Args:
        features: Number of features of a token.
        width: Width of the hidden layers.
    """

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(2 * features, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.outer = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        """Return one number for each set, `(sets,)`."""
        pairs = torch.cat([query[:, None].expand(-1, keys.shape[1], -1), keys], 2)
        return self.outer(self.inner(pairs).mean(1)).squeeze(1)  # type: ignore[no-any-return]
