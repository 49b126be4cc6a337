"""Paper on linear mode connectivity by weight matching: its claims."""

from __future__ import annotations

from ...evidence import Paper
from ...parameters import PermutationSpec
from ...weights import match_many, ste_matching, weight_matching
from .claims import CLAIMS

PAPER = Paper(
    slug="weight-matching",
    title="Analysis of Linear Mode Connectivity via Permutation-Based Weight Matching",
    authors="Akira Ito, Masanori Yamada, Atsutoshi Kumagai",
    year=2025,
    venue="ICLR",
    link="https://arxiv.org/abs/2402.04051",
    room="weights",
    idea="Networks trained from different seeds can be joined by a line of low loss once the units of one are "
    "permuted. The permutation hardly brings the weights closer. Instead, it aligns the large singular directions of "
    "each layer, which carry the function.",
    usage="""import torch
from torch import nn
from commutant.parameters import PermutationSpec
from commutant.weights import interpolate, weight_matching

a, b = (nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)) for _ in range(2))
spec = PermutationSpec.from_module(a, torch.randn(4, 64))   # any module; verified
b2 = weight_matching(spec, a, b).apply(b)                   # the same function as b
merged = interpolate([a, b2])
print(spec.summary())""",
    subjects=(PermutationSpec, weight_matching, match_many, ste_matching),
    claims=CLAIMS,
)
