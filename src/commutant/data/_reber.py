"""Strings of the Reber grammar, with near misses of the same length and ending."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from .._errors import InputError

LETTERS = "BEPSTVX"
_NEXT: dict[int, tuple[tuple[str, int], ...]] = {
    0: (("B", 1),),
    1: (("T", 2), ("P", 3)),
    2: (("S", 2), ("X", 4)),
    3: (("T", 3), ("V", 5)),
    4: (("X", 3), ("S", 6)),
    5: (("P", 4), ("V", 6)),
    6: (("E", 7),),
}
_END = 7
_TARGETS: dict[str, set[int]] = defaultdict(set)
for _moves in _NEXT.values():
    for _letter, _state in _moves:
        _TARGETS[_letter].add(_state)


@dataclass(frozen=True)
class ReberStrings:
    """Padded batch of strings with labels.

    Attributes:
        tokens: Letters as indices 1..7 in the order of `BEPSTVX`, padded with 0, `(count, longest)`.
        lengths: Lengths of the strings, `(count,)`.
        labels: 1 if the grammar generates the string, else 0, `(count,)`.
    """

    tokens: Int[Tensor, "count longest"]
    lengths: Int[Tensor, "count"]
    labels: Int[Tensor, "count"]

    def __len__(self) -> int:
        return len(self.labels)

    def texts(self) -> list[str]:
        """Return the strings as letters."""
        rows = zip(self.tokens.tolist(), self.lengths.tolist(), strict=True)
        return ["".join(LETTERS[t - 1] for t in row[:n]) for row, n in rows]


def reber_accepts(text: str) -> bool:
    """Return whether the Reber grammar generates a string.

    Args:
        text: String of letters.

    Example:
        >>> reber_accepts("BTXSE"), reber_accepts("BTXXE")
        (True, False)
    """
    state = 0
    for letter in text:
        state = dict(_NEXT.get(state, ())).get(letter, -1)
    return state == _END


def reber_strings(
    generator: torch.Generator, pairs: int, *, min_length: int = 13, max_length: int = 30, held_out: int = 0
) -> tuple[ReberStrings, ReberStrings]:
    """Draw distinct pairs of a valid and an invalid string of equal length, split into a training and a held-out batch.

    An invalid string follows the grammar up to some letter, then continues from another state that the same letter can
    lead to. It ends in the same four letters as its partner. Neither its length, its beginning, its ending nor the set
    of its letter pairs predicts its label. It contains three letters in a row that the grammar does not allow, and a
    network must remember them to the end. (In commonly used data, the last four letters alone give 94 % accuracy.)

    Args:
        generator: Source of randomness.
        pairs: Number of pairs, including those held out.
        min_length: Length of the shortest string.
        max_length: Length of the longest string.
        held_out: Number of pairs in the second batch.

    Returns:
        The training batch and the held-out batch.

    Raises:
        InputError: If the grammar does not have enough distinct strings of these lengths.

    Example:
        >>> train, test = reber_strings(torch.Generator().manual_seed(0), 60, held_out=10)
        >>> len(train), len(test), float(train.labels.float().mean())
        (100, 20, 0.5)
    """
    if not 0 <= held_out <= pairs or min_length < 8 or max_length < min_length:
        raise InputError(
            f"expected held_out between 0 and pairs and 8 <= min_length <= max_length, got {held_out}, {pairs}, "
            f"{min_length} and {max_length}"
        )
    source = random.Random(int(torch.randint(0, 2**31, (), generator=generator)))
    found: list[tuple[str, str]] = []
    seen: set[str] = set()
    tries = 0
    while len(found) < pairs:
        tries += 1
        if tries > 2_000 * (pairs + 1):
            raise InputError(
                f"found only {len(found)} of {pairs} different pairs of strings of {min_length} to {max_length} "
                "letters; ask for fewer or longer ones"
            )
        valid = _walk(source, 0, max_length)
        if valid is None or len(valid) < min_length or valid in seen:
            continue
        invalid = _near_miss(source, valid, seen)
        if invalid is not None:
            seen |= {valid, invalid}
            found.append((valid, invalid))
    cut = pairs - held_out
    return _batch(found[:cut]), _batch(found[cut:])


def _walk(source: random.Random, state: int, longest: int) -> str | None:
    """Return the letters of a random walk to the end state, or None if it gets too long."""
    letters = ""
    while state != _END:
        letter, state = source.choice(_NEXT[state])
        letters += letter
        if len(letters) > longest:
            return None
    return letters


def _near_miss(source: random.Random, valid: str, seen: set[str]) -> str | None:
    for _ in range(80):
        cut = source.randrange(3, max(4, len(valid) - 7))
        state = 0
        for letter in valid[:cut]:
            state = dict(_NEXT[state])[letter]
        others = sorted(_TARGETS[valid[cut - 1]] - {state})
        if not others:
            continue
        tail = _walk(source, source.choice(others), len(valid) - cut)
        if tail is not None and len(tail) == len(valid) - cut:
            text = valid[:cut] + tail
            if text[-4:] == valid[-4:] and text not in seen and not reber_accepts(text):
                return text
    return None


def _batch(pairs: list[tuple[str, str]]) -> ReberStrings:
    texts = [text for pair in pairs for text in pair]
    lengths = torch.tensor([len(t) for t in texts], dtype=torch.long)
    tokens = torch.zeros(len(texts), int(lengths.max()) if texts else 0, dtype=torch.long)
    for row, text in zip(tokens, texts, strict=True):
        row[: len(text)] = torch.tensor([LETTERS.index(letter) + 1 for letter in text])
    return ReberStrings(tokens, lengths, torch.tensor([1, 0] * len(pairs), dtype=torch.long))
