"""The command line: laws of your own model, weights of your own networks, claims of papers."""

from __future__ import annotations

import logging
import sys
import traceback


def main() -> None:
    """Run the command line: whatever fails is one sentence and exit code 2; 1 is left to verdicts."""
    from .._errors import CommutantError
    from ._app import app

    for stream in (sys.stdout, sys.stderr):  # a terminal without Unicode shows question marks instead of failing
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    logging.basicConfig(format="commutant: %(message)s", level=logging.WARNING)
    try:
        app(standalone_mode=True)
    except CommutantError as error:
        _fail(str(error))
    except BrokenPipeError:
        sys.stdout = None  # type: ignore[assignment]  # the reader is gone: nothing to flush at exit
        sys.exit(2)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        _fail(f"{type(error).__name__}: {error} (at {place.filename}:{place.lineno})")


def _fail(sentence: str) -> None:
    print(f"commutant: {' '.join(sentence.split())}", file=sys.stderr)
    sys.exit(2)
