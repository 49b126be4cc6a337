"""Digest of the data folder, so that runs on other data are never mixed in."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from functools import cache
from pathlib import Path

from ..data import data_folder

DATA_MARK = "data.json"
"""Name of the file of a run that holds the digest of the data folder that it read."""
_PIECE = 1 << 19  # bytes read at either end of a data file
_DEPTH = 3  # levels of the data folder that count; the layouts that the loaders read have two


def data_digest(data_dir: str | None) -> str:
    """Return six hex digits of the names, sizes and contents of the files in the data folder, or `"none"` without one.

    For a file larger than 1 MiB, the first and the last 512 KiB count. Hidden and unreadable files are left out.
    """
    folder = data_folder(data_dir)
    if folder is None:
        return "none"
    found = []
    for root, folders, files in os.walk(folder):
        deepest = len(Path(root).relative_to(folder).parts) >= _DEPTH - 1
        folders[:] = [] if deepest else [name for name in folders if not name.startswith(".")]
        for path in (Path(root, name) for name in files if not name.startswith(".")):
            with suppress(OSError):
                state = path.stat()
                found.append(f"{path.relative_to(folder)} {_contents(path, state.st_size, state.st_mtime_ns)}")
    return hashlib.sha256("\n".join(sorted(found)).encode(errors="surrogateescape")).hexdigest()[:6]


@cache
def _contents(path: Path, size: int, _changed: int) -> str:
    """Return the size and hash of a file, reading it again only after a change."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        digest.update(file.read(_PIECE))
        file.seek(max(_PIECE, size - _PIECE))
        digest.update(file.read(_PIECE))
    return f"{size} {digest.hexdigest()}"
