"""Networks whose sub-networks are nested: trained in one run, cut and exported exactly."""

from ._choice import Cost as Cost
from ._choice import Pareto as Pareto
from ._choice import cost as cost
from ._choice import pareto as pareto
from ._choice import select as select
from ._early_exit import EarlyExit as EarlyExit
from ._early_exit import Exits as Exits
from ._loss import sorted_loss as sorted_loss
from ._menu import Budget as Budget
from ._menu import Menu as Menu
from ._menu import Value as Value
from ._module import SortedModule as SortedModule
from ._module import check_nested as check_nested
from ._order import sort_channels as sort_channels
from ._segments import segment_spec as segment_spec
