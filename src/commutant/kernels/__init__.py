"""Triton kernels of the recurrences, as custom operators of PyTorch; each has a twin in PyTorch operators elsewhere."""

from ._dispatch import Fused as Fused
from ._dispatch import fused_cell as fused_cell
from ._dispatch import fused_recurrence as fused_recurrence
