"""Entry point of `python -m commutant.cli`."""

from . import main

main()
