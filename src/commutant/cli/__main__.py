"""`python -m commutant.cli`."""

from . import main

main()
