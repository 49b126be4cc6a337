"""Sequences: nonlinear recurrences that train in parallel over time, and are never silently wrong."""

from ._cell import JacobianStructure as JacobianStructure
from ._cell import jacobian_structure as jacobian_structure
from ._solve import ConvergenceError as ConvergenceError
from ._solve import SolveInfo as SolveInfo
from ._solve import solve_recurrence as solve_recurrence
