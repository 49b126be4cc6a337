"""Process that torchrun starts for a run on several devices."""

import sys

from commutant import CommutantError
from commutant.evidence._execute import main

if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1]))
    except CommutantError as error:
        print(f"commutant: {error}", file=sys.stderr)
        sys.exit(2)
