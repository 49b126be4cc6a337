"""Tasks that tell sequence models apart: keep a token, recall by key, follow induction hops."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from .._errors import InputError

IGNORED = -100
"""Target of positions that do not count, as `torch.nn.functional.cross_entropy` leaves them out."""


@dataclass(frozen=True)
class TokenTask:
    """Tokens and what to say at each position: `tokens` and `targets`, both `(count, length)`."""

    tokens: Int[Tensor, "count length"]
    targets: Int[Tensor, "count length"]

    def to(self, device: torch.device) -> TokenTask:
        """The task on another device."""
        return TokenTask(self.tokens.to(device), self.targets.to(device))


def keep_nth(
    generator: torch.Generator, count: int, *, length: int = 100, vocabulary: int = 128, n: int = 5
) -> TokenTask:
    """Say at the last position what the n-th token was (Danieli et al. 2025, appendix C.2).

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
    """Multi-query associative recall: pairs of key and value, then keys among noise; at each key say its value.

    Keys are the first third of the vocabulary, values the second, noise the rest. Every key is asked for once.

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
    """At each position go to the last earlier place of the same token, take the one behind it; so many times.

    One hop is an induction head. Positions whose chain ends before it is done do not count.

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
    before = torch.where(earlier, place, -1).amax(2)  # the last earlier place of the token at each position
    where = place.expand(count, -1)
    for _ in range(hops):
        found = before.gather(1, where.clamp(min=0))
        where = torch.where((where >= 0) & (found >= 0), found + 1, -1)
    targets = torch.where(where >= 0, tokens.gather(1, where.clamp(min=0)), IGNORED)
    return TokenTask(tokens, targets)
