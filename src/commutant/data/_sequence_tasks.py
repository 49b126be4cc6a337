"""Token tasks that distinguish sequence models: recall of a token, recall by key, and induction hops."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from .._errors import InputError

IGNORED = -100
"""Target of positions without a loss, the default `ignore_index` of `torch.nn.functional.cross_entropy`."""


@dataclass(frozen=True)
class TokenTask:
    """Token sequences with a target at each position."""

    tokens: Int[Tensor, "count length"]
    """Tokens, `(count, length)`."""
    targets: Int[Tensor, "count length"]
    """Target of each position, or `IGNORED` where there is none, `(count, length)`."""

    def to(self, device: torch.device) -> TokenTask:
        """Return the task on another device."""
        return TokenTask(self.tokens.to(device), self.targets.to(device))


def keep_nth(
    generator: torch.Generator, count: int, *, length: int = 100, vocabulary: int = 128, n: int = 5
) -> TokenTask:
    """Draw sequences whose last position must recall the n-th token (Danieli et al. 2025, appendix C.2).

    Args:
        generator: Source of randomness.
        count: Number of sequences.
        length: Length of each sequence.
        vocabulary: Number of different tokens.
        n: Position of the token to recall, counted from 1.

    Example:
        >>> task = keep_nth(torch.Generator().manual_seed(0), 2, length=8)
        >>> bool((task.targets[:, -1] == task.tokens[:, 4]).all())
        True
    """
    if not 1 <= n <= length or vocabulary < 2:
        raise InputError(f"expected 1 <= n <= length and a vocabulary of at least 2, got {n}, {length}, {vocabulary}")
    tokens = torch.randint(0, vocabulary, (count, length), generator=generator)
    targets = torch.full_like(tokens, IGNORED)
    targets[:, -1] = tokens[:, n - 1]
    return TokenTask(tokens, targets)


def associative_recall(
    generator: torch.Generator, count: int, *, pairs: int = 8, length: int = 64, vocabulary: int = 128
) -> TokenTask:
    """Draw sequences of multi-query associative recall: key-value pairs, then keys among noise.

    The target at each later key is its value; every key is queried once. Keys are the first third of the vocabulary,
    values the second third, noise the rest.

    Args:
        generator: Source of randomness.
        count: Number of sequences.
        pairs: Number of key-value pairs.
        length: Length of each sequence, at least three times `pairs`.
        vocabulary: Number of different tokens.

    Example:
        >>> task = associative_recall(torch.Generator().manual_seed(0), 2, pairs=2, length=8, vocabulary=12)
        >>> (task.targets >= 0).sum(1)
        tensor([2, 2])
    """
    third = vocabulary // 3
    if pairs < 1 or third < pairs or length < 3 * pairs:
        raise InputError(
            f"expected pairs between 1 and a third of the vocabulary and length of at least 3 pairs, got {pairs} "
            f"pairs, vocabulary {vocabulary}, length {length}"
        )
    keys = torch.rand(count, third, generator=generator).argsort(1)[:, :pairs]
    values = third + torch.randint(0, third, (count, pairs), generator=generator)
    tail = length - 2 * pairs
    place = torch.rand(count, tail, generator=generator).argsort(1)[:, :pairs]
    asked = torch.randint(2 * third, vocabulary, (count, tail), generator=generator).scatter(1, place, keys)
    tokens = torch.cat([torch.stack([keys, values], 2).flatten(1), asked], 1)
    targets = torch.full_like(tokens, IGNORED)
    targets[:, 2 * pairs :] = targets[:, 2 * pairs :].scatter(1, place, values)
    return TokenTask(tokens, targets)


def k_hop(
    generator: torch.Generator, count: int, *, hops: int = 1, length: int = 100, vocabulary: int = 10
) -> TokenTask:
    """Draw random sequences whose targets follow `hops` induction hops from each position.

    A hop goes to the last earlier occurrence of the same token and then to the token after it, as an induction head
    does. Positions whose chain of hops ends early have the target -100, which losses ignore.

    Args:
        generator: Source of randomness.
        count: Number of sequences.
        hops: Number of hops.
        length: Length of each sequence.
        vocabulary: Number of different tokens.

    Example:
        >>> task = k_hop(torch.Generator().manual_seed(0), 1, length=12, vocabulary=3)
        >>> int(task.targets[0, 0])
        -100
    """
    if hops < 1 or length < 2 or vocabulary < 2:
        raise InputError(f"expected at least 1 hop, 2 steps and 2 tokens, got {hops}, {length} and {vocabulary}")
    tokens = torch.randint(0, vocabulary, (count, length), generator=generator)
    place = torch.arange(length)
    same = tokens[:, :, None] == tokens[:, None, :]
    earlier = (place[None, :] < place[:, None]) & same
    before = torch.where(earlier, place, -1).amax(2)  # last earlier position of the same token
    where = place.expand(count, -1)
    for _ in range(hops):
        found = before.gather(1, where.clamp(min=0))
        where = torch.where((where >= 0) & (found >= 0), found + 1, -1)
    targets = torch.where(where >= 0, tokens.gather(1, where.clamp(min=0)), IGNORED)
    return TokenTask(tokens, targets)
