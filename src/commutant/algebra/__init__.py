"""Maths on plain tensors: monoids, their reductions and scans."""

from ._affine import DiagonalAffine as DiagonalAffine
from ._affine import MatrixAffine as MatrixAffine
from ._elements import Element as Element
from ._kalman import ScalarKalman as ScalarKalman
from ._library import Adjoin as Adjoin
from ._library import KSmallest as KSmallest
from ._library import LogSumExp as LogSumExp
from ._library import Max as Max
from ._library import Min as Min
from ._library import Product as Product
from ._library import Sum as Sum
from ._linear_scan import Structure as Structure
from ._linear_scan import linear_scan as linear_scan
from ._monoid import Monoid as Monoid
from ._plan import Bracketing as Bracketing
from ._plan import ReductionPlan as ReductionPlan
from ._plan import reduction_plan as reduction_plan
from ._segment_tree import SegmentTree as SegmentTree
