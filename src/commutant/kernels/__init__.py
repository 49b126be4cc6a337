"""Kernels of recurrences in Triton and C, as custom operators, each with an equivalent in PyTorch."""

from ._dispatch import Fused as Fused
from ._dispatch import fused_method as fused_method
from ._dispatch import fused_recurrence as fused_recurrence
from ._dispatch import reference as reference
from ._dispatch import register_reference as register_reference
