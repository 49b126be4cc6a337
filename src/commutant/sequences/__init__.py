"""Sequences: nonlinear recurrences that train in parallel over time, and are never silently wrong."""

from ._cell import JacobianStructure as JacobianStructure
from ._cell import jacobian_structure as jacobian_structure
from ._layers import ParallelRecurrence as ParallelRecurrence
from ._models import SLSTM as SLSTM
from ._models import SRU as SRU
from ._models import MinGRU as MinGRU
from ._models import MinLSTM as MinLSTM
from ._models import ParaGRU as ParaGRU
from ._models import ParaLSTM as ParaLSTM
from ._solve import ConvergenceError as ConvergenceError
from ._solve import SolveInfo as SolveInfo
from ._solve import solve_recurrence as solve_recurrence
from ._tools import AgreementReport as AgreementReport
from ._tools import ParallelCell as ParallelCell
from ._tools import check_parallel as check_parallel
from ._tools import lyapunov_exponent as lyapunov_exponent
from ._tools import parallel_rnn as parallel_rnn
