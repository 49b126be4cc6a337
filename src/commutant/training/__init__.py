"""A training loop that resumes exactly, on any device that Lightning Fabric supports."""

from ._checkpoint import Checkpoints as Checkpoints
from ._loop import Fit as Fit
from ._loop import fit as fit
