"""Aggregations and random features of sets whose results do not depend on the rest of the batch."""

from ._aggregation import GRUFoldAggregation as GRUFoldAggregation
from ._aggregation import LCMAggregation as LCMAggregation
from ._aggregation import MonoidAggregation as MonoidAggregation
from ._aggregation import SetAggregation as SetAggregation
from ._associativity import associativity_defect as associativity_defect
from ._associativity import associativity_loss as associativity_loss
from ._associativity import associativity_triples as associativity_triples
from ._associativity import aux_loss as aux_loss
from ._attention_estimators import RandomAttentionClassifier as RandomAttentionClassifier
from ._attention_estimators import RandomAttentionRegressor as RandomAttentionRegressor
from ._attention_features import RandomAttentionAggregation as RandomAttentionAggregation
from ._attention_features import RandomAttentionFeatures as RandomAttentionFeatures
from ._attention_kernel import attention_kernel as attention_kernel
from ._binary_gru import BinaryGRU as BinaryGRU
from ._binary_gru import binary_gru as binary_gru
from ._exact import Conjugated as Conjugated
from ._exact import CouplingFlow as CouplingFlow
