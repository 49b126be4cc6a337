"""Command line to check laws of a model, align and merge checkpoints, and reproduce claims of papers."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path


def main() -> None:
    """Run the command line; a failure prints one sentence with exit code 2, and exit code 1 is a negative verdict."""
    from .._errors import CommutantError
    from ._app import app

    _open_streams()
    logging.basicConfig(format="commutant: %(message)s", level=logging.WARNING)
    try:
        app(standalone_mode=True)
    except CommutantError as error:
        _fail(str(error))


def _open_streams() -> None:
    """Open closed streams on the null device, and print question marks on streams without Unicode."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115  (as long as the process)
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def _fail(sentence: str) -> None:
    print(f"commutant: {' '.join(sentence.split())}", file=sys.stderr)
    sys.exit(2)
