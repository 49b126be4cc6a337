"""Text as character indices: the source of Python's standard library, or Tiny Shakespeare."""

from __future__ import annotations

import gzip
import hashlib
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from .._checks import one_of
from .._errors import InputError
from ._hub import hub_source, hub_splits

_LONGEST = 2_000_000
_NAMES = ("python", "tinyshakespeare")
_REPOSITORY, _FILE = "karpathy/tiny_shakespeare", "text/tinyshakespeare.txt.gz"
_CHARACTERS = 1_115_394
_DIGEST = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"

SHAKESPEARE = hub_source("tinyshakespeare", _REPOSITORY, _FILE)


@dataclass(frozen=True)
class CharacterText:
    """Text as character indices, split into a training part and a validation part (the last tenth).

    Attributes:
        train: Character indices of the training part, `(characters,)`.
        valid: Character indices of the validation part, `(characters,)`.
        alphabet: Characters in the order of their indices; the last one stands for all rare characters.
        source: Origin of the text, in words.
    """

    train: Int[Tensor, "train"]
    valid: Int[Tensor, "valid"]
    alphabet: str
    source: str

    def batch(
        self, generator: torch.Generator, count: int, length: int, part: str = "train"
    ) -> Int[Tensor, "count length"]:
        """Draw random excerpts.

        Args:
            generator: Source of randomness.
            count: Number of excerpts.
            length: Length of each excerpt, in characters.
            part: Part of the text, `"train"` or `"valid"`.
        """
        one_of("part", part, ("train", "valid"))
        text = self.train if part == "train" else self.valid
        if not 0 < length <= len(text):
            raise InputError(f"excerpts must be 1 to {len(text)} characters long, got {length}")
        start = torch.randint(0, len(text) - length + 1, (count, 1), generator=generator)
        return text[start + torch.arange(length)]


def character_text(source: str = "python", data_dir: str | None = None) -> CharacterText:
    """Load a text for character language models.

    Tiny Shakespeare is read from the data folder if it is there, otherwise from the cache of Hugging Face `datasets`,
    otherwise it is downloaded. Every copy is checked by length and SHA-256.

    Args:
        source: Name of the text. `"python"` is the first two million characters of the standard library of the running
            Python, with files sorted by name. `"tinyshakespeare"` is `text/tinyshakespeare.txt.gz` in a data folder.
        data_dir: Data folder; by default `$COMMUTANT_DATA`.

    Raises:
        InputError: For an unknown source, a damaged copy, or a text that is neither local nor downloadable.

    Example:
        >>> text = character_text()
        >>> text.batch(torch.Generator().manual_seed(0), 4, 32).shape
        torch.Size([4, 32])
    """
    one_of("source", source, _NAMES)
    if source == "python":
        return _encode(
            _standard_library(), f"source of Python's standard library, {_LONGEST // 1_000_000} M characters"
        )
    folder = SHAKESPEARE.folder(data_dir)
    place = SHAKESPEARE.origin if folder is None else str(folder / _FILE)
    if folder is None:
        with SHAKESPEARE.downloading():
            splits = hub_splits(_REPOSITORY)
            text = "".join(line for part in ("train", "validation", "test") for line in splits[part]["text"])
    else:
        text = _read(folder / _FILE)
    if len(text) != _CHARACTERS:
        raise InputError(f"{place} holds {len(text)} characters, not the {_CHARACTERS} of Tiny Shakespeare")
    if hashlib.sha256(text.encode()).hexdigest() != _DIGEST:
        raise InputError(f"{place} does not hold the text of Tiny Shakespeare; fetch a fresh copy")
    return _encode(text, "Tiny Shakespeare")


def text_unavailable(source: str, data_dir: str | None) -> str | None:
    """Return the reason why `character_text` would fail or would have to download, or None.

    This function does not access the network: a text that is only online counts as unavailable until it is cached.

    Args:
        source: Name of a text, as for `character_text`.
        data_dir: Data folder; by default `$COMMUTANT_DATA`.
    """
    if source not in _NAMES:
        return f"source must be one of {', '.join(_NAMES)}, got {source!r}"
    return None if source == "python" else SHAKESPEARE.unavailable(data_dir)


def _read(path: Path) -> str:
    try:
        return gzip.decompress(path.read_bytes()).decode()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is damaged: {error}") from error


def _standard_library() -> str:
    folder = Path(sysconfig.get_paths()["stdlib"])
    parts, total = [], 0
    for path in sorted(folder.glob("*.py")):
        parts.append(path.read_text(encoding="utf-8", errors="replace"))
        total += len(parts[-1])
        if total >= _LONGEST:
            break
    if total < 100_000:
        raise InputError(f"the standard library in {folder} has no source files")
    return "".join(parts)[:_LONGEST]


def _encode(text: str, source: str) -> CharacterText:
    raw = torch.frombuffer(bytearray(text.encode("utf-32-le")), dtype=torch.int32).long()
    seen, inverse, counts = raw.unique(return_inverse=True, return_counts=True)
    common = counts >= len(raw) // 100_000 + 1
    number = torch.where(common, common.cumsum(0) - 1, int(common.sum()))
    codes = number[inverse]
    cut = len(codes) - len(codes) // 10
    alphabet = "".join(chr(c) for c in seen[common].tolist()) + "�"
    return CharacterText(codes[:cut], codes[cut:], alphabet, source)
