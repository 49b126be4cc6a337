"""Iterative feature merging: its claims."""

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
    idea="Features of two networks are the same when an invertible change of coordinates turns one network's "
    "computation, layer by layer, into the other's. Within a network, channels that could be exchanged are redundant; "
    "merging the two that are most alike, again and again, counts those that are not, and shrinks a network without "
    "data.",
    usage="""import torch
from torch import nn
from commutant.weights import FeatureMerger

model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))
merger = FeatureMerger(model, torch.randn(4, 64))  # any module; groups that can't be merged are named
small = merger.shrink(parameters=0.5)              # every cut of the same path of merges
print(small.module, small.summary())""",
    subjects=(FeatureMerger, feature_complexity, functionally_equivalent),
    claims=CLAIMS,
)
