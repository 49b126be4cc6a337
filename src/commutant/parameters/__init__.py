"""Parameters of a network as data: their permutation symmetries, derived from any module."""

from ._action import WeightPermutation as WeightPermutation
from ._checkpoint import Checkpoint as Checkpoint
from ._generated import GeneratedLinear as GeneratedLinear
from ._labels import AxisLabel as AxisLabel
from ._labels import Factor as Factor
from ._labels import multiply_along as multiply_along
from ._labels import positions_by_group as positions_by_group
from ._linear_maps import Part as Part
from ._linear_maps import act_linearly as act_linearly
from ._linear_maps import part_rows as part_rows
from ._linear_symmetries import LinearSymmetry as LinearSymmetry
from ._permutation import Permutation as Permutation
from ._prefixes import prefix as prefix
from ._prefixes import prefix_positions as prefix_positions
from ._spec import PermutationSpec as PermutationSpec
from ._trace import as_arguments as as_arguments
from ._unchanged import called_with as called_with
from ._unchanged import evaluating as evaluating
from ._unchanged import unchanged as unchanged
from ._verify import difference as difference
from ._verify import generic as generic

from . import _law_cases  # isort: skip  # noqa: F401  (states the laws)
