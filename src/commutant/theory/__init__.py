"""Theory that one can use: criticality, kernels of wide networks, self-normalisation, and a doctor for networks."""

from ._criticality import Criticality as Criticality
from ._criticality import criticality as criticality
from ._depth import four_point_exact as four_point_exact
from ._depth import nonlinearity as nonlinearity
from ._depth import optimal_ratio as optimal_ratio
from ._depth import residual_four_point as residual_four_point
from ._depth import skip_for as skip_for
from ._finite_width import FiniteWidth as FiniteWidth
from ._finite_width import finite_width as finite_width
from ._flow import KernelFlow as KernelFlow
from ._flow import depth_scale as depth_scale
from ._flow import kernel_flow as kernel_flow
from ._kernel_maps import Chain as Chain
from ._kernel_maps import Dense as Dense
from ._kernel_maps import KernelMap as KernelMap
from ._kernel_maps import KernelState as KernelState
from ._kernel_maps import LayerNormalisation as LayerNormalisation
from ._kernel_maps import Pointwise as Pointwise
from ._kernel_maps import Residual as Residual
from ._kernel_maps import plain_network as plain_network
