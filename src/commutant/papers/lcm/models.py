"""Networks that the claims of the LCM paper compare."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ...algebra import Max, Min, Sum
from ...data import SetBatch
from ...sets import GRUFoldAggregation, LCMAggregation, MonoidAggregation, SetAggregation, aux_loss


class PNAAggregation(SetAggregation):
    """Principal neighborhood aggregation (PNA, Corso et al. 2020) as the LCM paper uses it.

    A linear layer of mean, standard deviation, maximum and minimum, each times {1, s, 1/s} with s = log(n + 1) / log 9.

    Args:
        channels: Width of the elements and of the result.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = nn.Linear(12 * channels, channels)

    def aggregate(self, x: Tensor, index: Tensor | None, ptr: Tensor | None, num_sets: int | None) -> Tensor:
        """Return the combined statistics of each set, `(sets, channels)`."""

        def reduce(monoid: Sum | Max | Min, values: Tensor) -> Tensor:
            return monoid.segment_reduce(values, index, ptr, num_sets)

        count = reduce(Sum(), torch.ones_like(x[:, :1])).clamp(min=1)
        mean = reduce(Sum(), x) / count
        variance = (reduce(Sum(), x * x) / count - mean * mean).clamp(min=0)
        high, low = reduce(Max(), x).clamp(min=-1e9), reduce(Min(), x).clamp(max=1e9)
        statistics = torch.cat([mean, (variance + 1e-5).sqrt(), high, low], 1)
        scale = (count + 1).log() / math.log(9)
        return self.mix(torch.cat([statistics, statistics * scale, statistics / scale], 1))


def aggregation(name: str, channels: int) -> nn.Module:
    """Build an aggregation that the paper compares.

    Args:
        name: Name of the arm.
        channels: Width of the elements and of the result.
    """
    make: dict[str, Callable[[], nn.Module]] = {
        "gru": lambda: GRUFoldAggregation(channels, channels),
        "binary-gru": lambda: LCMAggregation(channels, channels, project=False),
        "binary-gru-assoc": lambda: LCMAggregation(channels, channels, project=False, associativity_weight=1.0),
        "binary-gru-random": lambda: LCMAggregation(channels, channels, project=False, random_bracketing=True),
        "pna": lambda: PNAAggregation(channels),
        "sum": lambda: MonoidAggregation(Sum()),
        "max": lambda: MonoidAggregation(Max()),
        "sum-wide": lambda: MonoidAggregation(Sum()),
    }
    return make[name]()


class SetModel(nn.Module):
    """Encoder (linear, GELU), aggregation and decoder (linear, GELU, linear) of appendix C.

    Args:
        embed: Embedding of the elements.
        arm: Name of the aggregation.
        channels: Width of the embedding and of the hidden layers.
        outputs: Number of outputs.
    """

    def __init__(self, embed: nn.Module, arm: str, channels: int, outputs: int) -> None:
        super().__init__()
        self.embed = embed
        self.encoder = nn.Sequential(nn.Linear(channels, channels), nn.GELU())
        self.aggregation = aggregation(arm, channels)
        width = channels if arm != "sum-wide" else _matched_width(channels)
        self.decoder = nn.Sequential(
            nn.Linear(channels, width), nn.GELU(), *_extra(arm, width), nn.Linear(width, outputs)
        )

    def forward(self, batch: SetBatch) -> Tensor:
        """Return the outputs of each set, `(sets, outputs)`."""
        sets = batch.target.shape[0]
        return self.decoder(self.aggregation(self.encoder(self.embed(batch.x)), batch.index, dim_size=sets))


def _matched_width(channels: int) -> int:
    """Return the decoder width that gives sum about as many parameters as LCM: w^2 + 2 h w = 6 h^2 + h^2."""
    return round(channels * (8**0.5 - 1))


def _extra(arm: str, width: int) -> list[nn.Module]:
    return [nn.Linear(width, width), nn.GELU()] if arm == "sum-wide" else []


class BitEmbedding(nn.Module):
    """Embedding of integers: the sum over bits of one of two learnable vectors (appendix C).

    Args:
        bits: Number of bits of an integer.
        channels: Width of the embedding.
    """

    def __init__(self, bits: int, channels: int) -> None:
        super().__init__()
        self.bits = bits
        self.table = nn.Parameter(torch.randn(2 * bits, channels) / math.sqrt(bits))

    def forward(self, x: Tensor) -> Tensor:
        """Return the embeddings of integers, `(elements, channels)`."""
        places = torch.arange(self.bits, device=x.device)
        which = 2 * places + ((x[:, None] >> places) & 1)
        return nn.functional.embedding(which, self.table).sum(1)


class PointEmbedding(nn.Module):
    """Embedding of pixels: a small network of their coordinates, sines and cosines of these, and ink.

    Args:
        channels: Width of the embedding.
        octaves: Number of frequencies of the sines and cosines.
    """

    def __init__(self, channels: int, octaves: int = 4) -> None:
        super().__init__()
        self.octaves = octaves
        self.mix = nn.Sequential(nn.Linear(3 + 4 * octaves, channels), nn.GELU(), nn.Linear(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return the embeddings of `(x, y, ink)`, `(pixels, channels)`."""
        angles = [x[:, :2] * (math.pi / 2 * 2**k) for k in range(self.octaves)]
        return self.mix(torch.cat([x, *(wave(a) for a in angles for wave in (torch.sin, torch.cos))], 1))


def bit_loss(model: nn.Module, batch: SetBatch, bits: int) -> Tensor:
    """Return the binary cross-entropy of the bits of the target, plus the associativity loss of arms that have one."""
    places = torch.arange(bits, device=batch.target.device)
    wanted = ((batch.target[:, None] >> places) & 1).float()
    return nn.functional.binary_cross_entropy_with_logits(model(batch), wanted) + aux_loss(model)


@torch.no_grad()
def bit_accuracy(model: nn.Module, batch: SetBatch, bits: int) -> float:
    """Return the share of sets whose bits are all right."""
    places = torch.arange(bits, device=batch.target.device)
    guess = ((model(batch) > 0).long() << places).sum(1)
    return float((guess == batch.target).double().mean())
