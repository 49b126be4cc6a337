"""Networks that only the experiments need: decoders with a fixed vocabulary, and a tagger of points."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..._errors import InputError
from ...data import PointerExamples
from ...permutations import PointerDecoder, PointerMemory, PointerNetwork, pointer_encoder


class FixedVocabularyDecoder(PointerDecoder):
    """Decoder of a sequence-to-sequence LSTM, whose outputs are n classes and the stop, for one n alone.

    Args:
        hidden_size: Width.
        n: Number of elements of every set.
        attention: Whether the decoder reads the encoded elements through attention.
    """

    def __init__(self, hidden_size: int, n: int, attention: bool) -> None:
        super().__init__(hidden_size)
        self.n, self.reads = n, attention
        self.classes = nn.Linear(2 * hidden_size if attention else hidden_size, n + 1)

    def projected(self, memory: Any) -> Tensor:
        """Return the keys, which attention reads, and their projections, `(batch, n, 2 hidden)`."""
        return torch.cat([memory.keys, self.attention.project_keys(memory.keys)], -1)

    def scorer(self, memory: PointerMemory) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the function from hidden states and allowed choices to scores."""
        projected = self.projected(memory)
        return lambda hidden, _: self.scores(hidden, projected, memory.valid)

    def scores(self, hidden: Tensor, projected: Tensor, valid: Tensor) -> Tensor:
        """Return the scores of the classes, `(batch, m, n + 1)`."""
        if valid.shape[1] != self.n or not bool(valid.all()):
            raise InputError(f"a fixed vocabulary of {self.n} elements can't serve sets of {valid.shape[1]}")
        if not self.reads:
            return self.classes(hidden)
        keys, projections = projected.chunk(2, -1)
        context = self.attention.score(hidden, projections).softmax(-1) @ keys
        return self.classes(torch.cat([hidden, context], -1))


class Objective(nn.Module):
    """Loss of a network on examples, as a module that a trainer can call.

    Args:
        network: Network with `loss`.
        options: Options of the loss.
    """

    def __init__(self, network: nn.Module, **options: Any) -> None:
        super().__init__()
        self.network, self.options = network, options

    def forward(self, examples: PointerExamples) -> Tensor:
        """Return the loss."""
        loss: Any = self.network.loss
        return loss(examples.x, examples.targets, examples.lengths, **self.options)


class HullTagger(nn.Module):
    """Classifier of each point as vertex of the hull or not; the polygon is its vertices by angle around their mean.

    Args:
        hidden_size: Width.
        encoder: Encoder, "set" or "deepsets".
    """

    def __init__(self, hidden_size: int, encoder: Literal["set", "deepsets"]) -> None:
        super().__init__()
        self.embedding = nn.Linear(2, hidden_size)
        self.encoder = pointer_encoder(encoder, hidden_size)
        self.logit = nn.Linear(hidden_size, 1)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Return the logit of each point, `(batch, n)`, minus infinity where there is none."""
        valid = torch.arange(x.shape[1], device=x.device) < lengths[:, None]
        logits = self.logit(self.encoder(self.embedding(x), valid)[0])[..., 0]
        return logits.masked_fill(~valid, -torch.inf)

    def loss(self, x: Tensor, targets: Tensor, lengths: Tensor) -> Tensor:
        """Return the mean cross-entropy of a point."""
        logits = self(x, lengths)
        vertex = torch.zeros(len(x), x.shape[1] + 1, device=x.device)
        vertex = vertex.scatter(1, torch.where(targets < 0, x.shape[1], targets), 1)[:, :-1]
        real = torch.isfinite(logits)
        return nn.functional.binary_cross_entropy_with_logits(logits[real], vertex[real])

    @torch.no_grad()
    def polygons(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Return the polygons of the points with a positive logit, then -1, `(batch, n)`."""
        vertex = self(x, lengths) > 0
        center = (x * vertex[..., None]).sum(1) / vertex.sum(1).clamp(min=1)[:, None]
        around = x - center[:, None]
        angle = torch.atan2(around[..., 1], around[..., 0]).masked_fill(~vertex, torch.inf)
        order = angle.argsort(dim=1, stable=True)
        place = torch.arange(x.shape[1], device=x.device)
        return order.masked_fill(place >= vertex.sum(1, keepdim=True), -1)


def fixed_vocabulary(hidden_size: int, n: int, attention: bool) -> PointerNetwork:
    """Return a sequence-to-sequence network with the encoder of a pointer network.

    Args:
        hidden_size: Width.
        n: Number of elements of every set.
        attention: Whether the decoder reads the encoded elements through attention.
    """
    network = PointerNetwork(2, hidden_size)
    network.decoder = FixedVocabularyDecoder(hidden_size, n, attention)
    return network
