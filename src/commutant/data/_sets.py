"""Sets with targets: multisets of integers with their second minimum, and handwritten digits as point sets."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .._errors import InputError, require

_LIT_PIXELS = 58_736


@dataclass(frozen=True)
class SetBatch:
    """Ragged batch of sets with one target for each set.

    Attributes:
        x: Elements of all sets, `(elements, ...)`.
        index: Index of the set of each element, sorted, `(elements,)`.
        target: Targets, `(sets,)`.
    """

    x: Tensor
    index: Tensor
    target: Tensor

    def to(self, device: torch.device) -> SetBatch:
        """Return the batch on another device."""
        return SetBatch(self.x.to(device), self.index.to(device), self.target.to(device))


def second_minimum(
    generator: torch.Generator, sets: int, *, smallest: int = 2, largest: int = 16, bits: int = 8, spread_low: int = 0
) -> SetBatch:
    """Draw multisets of integers whose target is the second smallest element (Ong and Velickovic 2022, section 3.1).

    Sizes are uniform on smallest..largest. Each set is drawn from its own range a..2^bits - 1, where a is uniform on
    0..spread_low. With `spread_low=0` the target of a large set is nearly always 0.

    Args:
        generator: Source of randomness.
        sets: Number of sets.
        smallest: Smallest set size, at least 2.
        largest: Largest set size.
        bits: Number of bits of the integers, which lie in 0..2^bits - 1.
        spread_low: Largest lower bound a of the range of a set.

    Example:
        >>> batch = second_minimum(torch.Generator().manual_seed(0), 3, largest=4)
        >>> batch.target.shape
        torch.Size([3])
    """
    if smallest < 2 or largest < smallest:
        raise InputError(f"sizes must satisfy 2 <= smallest <= largest, got {smallest} and {largest}")
    lengths = torch.randint(smallest, largest + 1, (sets,), generator=generator)
    low = torch.randint(0, spread_low + 1, (sets,), generator=generator)
    index = torch.repeat_interleave(lengths)
    share = torch.rand(int(lengths.sum()), generator=generator, dtype=torch.float64)
    x = low[index] + (share * (2**bits - low[index])).long()
    order = (index * 2 ** (bits + 1) + x).argsort()
    starts = lengths.cumsum(0) - lengths
    return SetBatch(x, index, x[order][starts + 1])


@dataclass(frozen=True)
class DigitPoints:
    """Handwritten digits as point sets, with one point for each nonzero pixel.

    Attributes:
        points: Column and row in -1..1 and intensity in 0..1 of each pixel, `(elements, 3)`.
        sizes: Number of pixels of each image, `(images,)`.
        labels: Digits, `(images,)`.
    """

    points: Float[Tensor, "elements 3"]
    sizes: Int[Tensor, " images"]
    labels: Int[Tensor, " images"]

    def batch(self, images: Int[Tensor, " chosen"]) -> SetBatch:
        """Return the chosen images as a ragged batch.

        Args:
            images: Indices of images, `(chosen,)`.
        """
        starts = self.sizes.cumsum(0) - self.sizes
        sizes = self.sizes[images]
        index = torch.repeat_interleave(sizes)
        within = torch.arange(index.numel()) - (sizes.cumsum(0) - sizes)[index]
        return SetBatch(self.points[starts[images][index] + within], index, self.labels[images])


def digit_points() -> DigitPoints:
    """Return scikit-learn's 1797 handwritten digits (8 x 8) as point sets, one point for each nonzero pixel.

    Raises:
        InputError: If the bundled data differs from the expected 1797 images.
    """
    digits = require("sklearn.datasets", "evidence").load_digits()
    images = torch.from_numpy(digits.images).float() / 16
    if images.shape != (1797, 8, 8) or int(images.gt(0).sum()) != _LIT_PIXELS:
        raise InputError(
            f"expected scikit-learn's 1797 digits with {_LIT_PIXELS} nonzero pixels, got {tuple(images.shape)}"
        )
    which, row, column = images.nonzero(as_tuple=True)
    points = torch.stack([column / 3.5 - 1, row / 3.5 - 1, images[which, row, column]], 1)
    return DigitPoints(points, torch.bincount(which, minlength=1797), torch.from_numpy(digits.target).long())
