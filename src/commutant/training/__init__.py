"""One training loop, resumable to the last bit, on any device that Lightning Fabric drives."""

from ._checkpoint import Checkpoints as Checkpoints
from ._loop import Fit as Fit
from ._loop import fit as fit
