"""The command line: laws of your own model, weights of your own networks, claims of papers."""

from __future__ import annotations

import logging
import sys


def main() -> None:
    """Entry point: errors of the library become one sentence and exit code 2."""
    from .._errors import CommutantError
    from ._app import app

    logging.basicConfig(format="commutant: %(message)s", level=logging.WARNING)
    try:
        app(standalone_mode=True)
    except CommutantError as error:
        print(f"commutant: {error}", file=sys.stderr)
        sys.exit(2)
