"""Networks made invariant or equivariant under motions of space and relabelling of graphs."""

from ._frame_average import FrameAverage as FrameAverage
from ._frame_average import symmetrize_ as symmetrize_
from ._graph_average import GraphAverage as GraphAverage
from ._image_average import ImageAverage as ImageAverage
from ._latent_frames import LatentFrameAverage as LatentFrameAverage
from ._mds import Embedding as Embedding
from ._mds import MDSCoordinates as MDSCoordinates
from ._mds import RoutingCoordinates as RoutingCoordinates
from ._mds import TransformEquivariant as TransformEquivariant
from ._mds import TransformInvariant as TransformInvariant
from ._mds import classical_mds as classical_mds
from ._mds import landmark_mds as landmark_mds
from ._split import HyperPredictor as HyperPredictor
from ._split import SIELoss as SIELoss
from ._split import Split as Split
from ._split import SplitRepresentation as SplitRepresentation
from ._split import collapse_floor as collapse_floor
from ._split import vicreg_covariance as vicreg_covariance
from ._split import vicreg_variance as vicreg_variance
from ._transforms import InvariantCoordinates as InvariantCoordinates
from ._transforms import StochasticFrame as StochasticFrame
