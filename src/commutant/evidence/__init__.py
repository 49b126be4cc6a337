"""Claims of papers, runs on disk, and verdicts computed from them."""

from ._claim import Claim as Claim
from ._claim import Experiment as Experiment
from ._claim import Paper as Paper
from ._context import Context as Context
from ._context import Measurement as Measurement
from ._execute import Task as Task
from ._execute import execute as execute
from ._execute import run_folder as run_folder
from ._execute import run_task as run_task
from ._folder import RunFolder as RunFolder
from ._folder import environment as environment
from ._folder import write_json as write_json
from ._record import Judged as Judged
from ._record import figures as figures
from ._record import judge_runs as judge_runs
from ._record import read_records as read_records
from ._record import record as record
from ._series import series as series
from ._verdict import Interval as Interval
from ._verdict import Verdict as Verdict
from ._verdict import judge as judge
