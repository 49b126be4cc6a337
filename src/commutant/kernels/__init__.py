"""Kernels in Triton and C behind recurrences, sums over pairs and additive attention, each with an equivalent in
PyTorch."""

from ._dispatch import Fused as Fused
from ._dispatch import fused_method as fused_method
from ._dispatch import fused_recurrence as fused_recurrence
from ._dispatch import reference as reference
from ._dispatch import register_reference as register_reference
from ._messages import edge_messages as edge_messages
from ._pairs import can_sum_pairs as can_sum_pairs
from ._pairs import sum_over_pairs as sum_over_pairs
from ._pointing import AdditiveKeys as AdditiveKeys
from ._pointing import additive_scores as additive_scores
from ._pointing import lstm_step as lstm_step
