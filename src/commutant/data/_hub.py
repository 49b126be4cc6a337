"""Data sets of the Hugging Face hub, read from the cache of `datasets` if it holds them."""

from __future__ import annotations

import os
import re
from functools import partial
from pathlib import Path
from typing import Any

from .._errors import require
from ._sources import Source, cache_home


def hub_source(name: str, repository: str, *files: str) -> Source:
    """Return the source of a data set that `datasets` downloads."""
    return Source(name, files, f"Hugging Face {repository}", "datasets", "hf", partial(_is_cached, repository))


def hub_splits(repository: str) -> dict[str, Any]:
    """Return the splits of a repository by name; a cached copy is read without asking the hub.

    Args:
        repository: OWNER/NAME on the hub, or a local folder that `datasets.load_dataset` reads.
    """
    datasets = require("datasets", "hf")
    cached = _cached_files(repository)
    if not cached:
        return dict(datasets.load_dataset(repository))
    read = datasets.Dataset.from_file
    return {split: datasets.concatenate_datasets([read(str(p)) for p in paths]) for split, paths in cached.items()}


def _is_cached(repository: str) -> bool:
    return bool(_cached_files(repository))


def _cached_files(repository: str) -> dict[str, list[Path]]:
    """Return the Arrow files of each split in the newest cached copy."""
    hub = Path(os.environ.get("HF_HOME") or cache_home() / "huggingface").expanduser()
    root = Path(os.environ.get("HF_DATASETS_CACHE") or hub / "datasets").expanduser()
    copies = list((root / repository.replace("/", "___")).glob("*/*/*/dataset_info.json"))
    if not copies:
        return {}
    newest = max(copies, key=lambda path: path.stat().st_mtime).parent
    found: dict[str, list[Path]] = {}
    for path in sorted(newest.glob("*.arrow")):
        name = re.fullmatch(r".+?-(?P<split>\w+)(-\d+-of-\d+)?", path.stem)
        if name:
            found.setdefault(name["split"], []).append(path)
    return found
