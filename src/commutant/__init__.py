"""commutant: symmetry of data and of weights in PyTorch, stated as laws and tested as such.

Users import from the rooms: `commutant.laws`, `commutant.algebra`, `commutant.sets`, `commutant.evidence`.
Importing the package itself loads nothing heavy: torch comes with the first room, PyG with the rooms that extend it.
"""

from ._errors import CommutantError as CommutantError
from ._errors import InputError as InputError
from ._errors import MissingExtraError as MissingExtraError
from ._errors import RunError as RunError

__version__ = "0.1.0"
