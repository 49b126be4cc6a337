"""Text as characters: what every machine has, or a file."""

from __future__ import annotations

import gzip
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from .._errors import InputError
from ._graphs import data_folder

_LONGEST = 2_000_000


@dataclass(frozen=True)
class CharacterText:
    """A text as character numbers, cut into a training and a validation part (the last tenth).

    Attributes:
        train, valid: `(characters,)`.
        alphabet: the characters in order of their numbers; the last stands for all rare ones.
        source: where the text came from.
    """

    train: Int[Tensor, "train"]
    valid: Int[Tensor, "valid"]
    alphabet: str
    source: str

    def batch(
        self, generator: torch.Generator, count: int, length: int, part: str = "train"
    ) -> Int[Tensor, "count length"]:
        """Random excerpts."""
        text = self.train if part == "train" else self.valid
        if part not in ("train", "valid"):
            raise InputError(f"part must be 'train' or 'valid', got {part!r}")
        if not 0 < length <= len(text):
            raise InputError(f"excerpts must be 1 to {len(text)} characters long, got {length}")
        start = torch.randint(0, len(text) - length + 1, (count, 1), generator=generator)
        return text[start + torch.arange(length)]


def character_text(source: str = "python", data_dir: str | None = None) -> CharacterText:
    """A text for character language models.

    Args:
        source: "python", the source of the standard library of the running Python (its first two million characters,
            files in the order of their names); or "tinyshakespeare", `DATA_DIR/text/tinyshakespeare.txt.gz`.
        data_dir: the data folder of the second.

    Raises:
        InputError: for an unknown source, or a file that is missing or damaged.

    Example:
        >>> text = character_text()
        >>> text.batch(torch.Generator().manual_seed(0), 4, 32).shape
        torch.Size([4, 32])
    """
    if source == "python":
        return _encode(
            _standard_library(), f"source of Python's standard library, {_LONGEST // 1_000_000} M characters"
        )
    reason = text_unavailable(source, data_dir)
    if reason is not None:
        raise InputError(reason)
    path = _file(data_dir)
    assert path is not None
    try:
        text = gzip.decompress(path.read_bytes()).decode()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is damaged: {error}") from error
    if len(text) != 1_115_394:
        raise InputError(f"{path} holds {len(text)} characters, not the 1115394 of Tiny Shakespeare")
    return _encode(text, "Tiny Shakespeare")


def text_unavailable(source: str, data_dir: str | None) -> str | None:
    """Why `character_text` would fail, or None."""
    if source not in ("python", "tinyshakespeare"):
        return f"source must be 'python' or 'tinyshakespeare', got {source!r}"
    path = _file(data_dir)
    if source == "python" or (path is not None and path.is_file()):
        return None
    return "tinyshakespeare needs a data folder (--data-dir) with text/tinyshakespeare.txt.gz"


def _file(data_dir: str | None) -> Path | None:
    folder = data_folder(data_dir)
    return None if folder is None else folder / "text" / "tinyshakespeare.txt.gz"


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
