"""Networks made invariant or equivariant under motions of space."""

from ._frame_average import FrameAverage as FrameAverage
from ._frame_average import symmetrize_ as symmetrize_
