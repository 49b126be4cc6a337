"""Paper on network feature complexity and iterative feature merging: its claims."""

from __future__ import annotations

from ...evidence import Paper
from ...weights import FeatureMerger, feature_complexity, functionally_equivalent
from .claims import CLAIMS

PAPER = Paper(
    slug="iterative-feature-merging",
    title="Going Beyond Neural Network Feature Similarity: The Network Feature Complexity and Its Interpretation Using "
    "Category Theory",
    authors="Yiting Chen, Zhanpeng Zhou, Junchi Yan",
    year=2024,
    venue="International Conference on Learning Representations",
    link="https://arxiv.org/abs/2310.06756",
    room="weights",
    idea="Features of two networks are equivalent when an invertible change of coordinates turns one network's "
    "computation, layer by layer, into the other's. Channels of one network that could be exchanged are redundant. "
    "Merging the two most similar channels repeatedly counts those that are not redundant, and shrinks a network "
    "without data.",
    usage="""import torch
from torch import nn
from commutant.weights import FeatureMerger

model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))
merger = FeatureMerger(model, torch.randn(4, 64))  # any module; names the groups that can't be merged
small = merger.shrink(parameters=0.5)              # any size, from the same path of merges
print(small.module, small.summary())""",
    subjects=(FeatureMerger, feature_complexity, functionally_equivalent),
    claims=CLAIMS,
)
