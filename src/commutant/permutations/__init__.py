"""Networks that learn permutations exactly, and programs made of such maps."""

from . import _law_cases as _law_cases
from ._ensemble import NTKLinear as NTKLinear
from ._ensemble import ReLUEnsemble as ReLUEnsemble
from ._learner import ExactPermutationLearner as ExactPermutationLearner
from ._learner import FailureBound as FailureBound
from ._learner import FailureEstimate as FailureEstimate
from ._tangent_kernel import PermutationNTK as PermutationNTK
from ._tangent_kernel import arccos_kernels as arccos_kernels
from ._tangent_kernel import every_binary_input as every_binary_input
from ._tangent_kernel import round_outputs as round_outputs
from ._templates import Template as Template
from ._templates import TemplateProgram as TemplateProgram
from ._templates import addition as addition
from ._templates import multiplication as multiplication
