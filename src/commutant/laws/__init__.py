"""Symmetries of functions, stated as identities and checked with counterexamples."""

from ._actions import Action as Action
from ._actions import ProductAction as ProductAction
from ._actions import Trivial as Trivial
from ._actions import check_action as check_action
from ._causality import Causality as Causality
from ._check import assert_law as assert_law
from ._check import check as check
from ._graphs import GraphPermutation as GraphPermutation
from ._grids import SquareSymmetry as SquareSymmetry
from ._inputs import Inputs as Inputs
from ._inputs import Sets as Sets
from ._inputs import map_tensors as map_tensors
from ._inputs import parse_input as parse_input
from ._laws import BatchIndependence as BatchIndependence
from ._laws import Equivariance as Equivariance
from ._laws import FunctionPreservation as FunctionPreservation
from ._laws import GradientEquivariance as GradientEquivariance
from ._laws import Invariance as Invariance
from ._laws import Law as Law
from ._operators import Associativity as Associativity
from ._operators import Commutativity as Commutativity
from ._operators import Homomorphism as Homomorphism
from ._operators import IdentityElement as IdentityElement
from ._permuting import BatchPermutation as BatchPermutation
from ._permuting import GeneratedPermutation as GeneratedPermutation
from ._permuting import SetPermutation as SetPermutation
from ._permuting import TimeShift as TimeShift
from ._pointwise import Euclidean as Euclidean
from ._pointwise import MatrixGroup as MatrixGroup
from ._pointwise import Orthogonal as Orthogonal
from ._pointwise import Reflection as Reflection
from ._pointwise import Rotation as Rotation
from ._pointwise import Scaling as Scaling
from ._pointwise import SignFlip as SignFlip
from ._pointwise import Translation as Translation
from ._registry import Draw as Draw
from ._registry import StatedLaw as StatedLaw
from ._registry import breaks as breaks
from ._registry import obeys as obeys
from ._registry import stated_laws as stated_laws
from ._report import LawReport as LawReport
from ._report import LayerReport as LayerReport
from ._report import Witness as Witness

ACTIONS: dict[str, type[Action]] = {
    action.name: action
    for action in (
        SetPermutation,
        BatchPermutation,
        GraphPermutation,
        Rotation,
        Orthogonal,
        Reflection,
        Translation,
        Euclidean,
        Scaling,
        SignFlip,
        TimeShift,
        SquareSymmetry,
        Trivial,
    )
}
"""Actions by their name on the command line."""
