"""Paper "Revisiting Transformation Invariant Geometric Deep Learning" (TinvNN): its claims, with controls."""

from __future__ import annotations

from ...evidence import Paper
from ...geometry import (
    MDSCoordinates,
    RoutingCoordinates,
    TransformEquivariant,
    TransformInvariant,
    classical_mds,
    landmark_mds,
)
from .claims import CLAIMS

PAPER = Paper(
    slug="tinvnn",
    title="Revisiting Transformation Invariant Geometric Deep Learning: Are Initial Representations All You Need?",
    authors="Ziwei Zhang, Xin Wang, Zeyang Zhang, Peng Cui, Wenwu Zhu",
    year=2021,
    venue="arXiv preprint",
    link="https://arxiv.org/abs/2112.12345",
    room="geometry",
    idea="Layers that are invariant to rigid motions are specialized and costly. If the input coordinates are "
    "invariant and keep all distances, any network on them is invariant and loses nothing but the pose. "
    "Multidimensional scaling gives such coordinates once its signs are fixed.",
    usage="""import torch
from torch import nn
from commutant.geometry import TransformInvariant

net = nn.Sequential(nn.Linear(3, 32), nn.ReLU(), nn.Linear(32, 5))
model = TransformInvariant(net)
print(model(torch.randn(8, 100, 3)).shape)
""",
    subjects=(
        MDSCoordinates,
        TransformInvariant,
        TransformEquivariant,
        RoutingCoordinates,
        classical_mds,
        landmark_mds,
    ),
    claims=CLAIMS,
)
