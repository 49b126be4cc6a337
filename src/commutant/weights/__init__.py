"""Networks as points in weight space: matched by their symmetries, interpolated, merged, shrunk."""

from ._activations import activation_matching as activation_matching
from ._alignment import Alignment as Alignment
from ._alignment import singular_alignment as singular_alignment
from ._barrier import Barrier as Barrier
from ._barrier import distance as distance
from ._barrier import loss_barrier as loss_barrier
from ._barrier import taylor_barrier as taylor_barrier
from ._basis import Basis as Basis
from ._degeneracy import DegeneracyReport as DegeneracyReport
from ._degeneracy import SectionDegeneracy as SectionDegeneracy
from ._degeneracy import behavioral_spectrum as behavioral_spectrum
from ._degeneracy import degeneracy_report as degeneracy_report
from ._degeneracy import effective_parameters as effective_parameters
from ._edge_ablation import edge_ablation_curve as edge_ablation_curve
from ._edge_ablation import edges_required as edges_required
from ._edge_ablation import interaction_graph as interaction_graph
from ._equivalence import Equivalence as Equivalence
from ._equivalence import functionally_equivalent as functionally_equivalent
from ._feature_merging import FeatureMerger as FeatureMerger
from ._feature_merging import feature_complexity as feature_complexity
from ._interaction_basis import InteractionBasis as InteractionBasis
from ._many import match_many as match_many
from ._matching import weight_matching as weight_matching
from ._merging import interpolate as interpolate
from ._procrustes import LinearMatching as LinearMatching
from ._procrustes import fold_gains as fold_gains
from ._procrustes import procrustes_matching as procrustes_matching
from ._repair import repair as repair
from ._resizing import resize as resize
from ._shrunk import Shrunk as Shrunk
from ._statistics import reset_batchnorm_stats as reset_batchnorm_stats
from ._straight_through import ste_matching as ste_matching

from . import _law_cases  # isort: skip  # noqa: F401  (states the laws)
