"""Paper "Self-supervised learning of Split Invariant Equivariant representations" (SIE): its claims."""

from __future__ import annotations

from ...data import shapes3d
from ...evidence import Paper
from ...geometry import (
    HyperPredictor,
    OrthogonalPredictor,
    QuaternionPredictor,
    SIELoss,
    SplitRepresentation,
    collapse_floor,
    equivariance_report,
    retrieval,
    rotation_r2,
)
from .claims import CLAIMS

PAPER = Paper(
    slug="sie",
    title="Self-supervised learning of Split Invariant Equivariant representations",
    authors="Quentin Garrido, Laurent Najman, Yann LeCun",
    year=2023,
    venue="ICML",
    link="https://arxiv.org/abs/2302.10283",
    room="geometry",
    idea="Self-supervision by agreement discards the pose of an object. SIE trains half of the features to agree "
    "between two views, and the other half to be predictable from the known rotation between them. The weights of the "
    "predictor are linear in the code of the rotation, so that it cannot ignore it and the features cannot collapse to "
    "invariance.",
    usage="""import torch
from torch import nn
from commutant.data import object_clouds, shapes3d
from commutant.geometry import HyperPredictor, SIELoss, SplitRepresentation, quaternion_code

generator = torch.Generator().manual_seed(0)
views = shapes3d(object_clouds(8, 4000, generator), 4, generator)
net = SplitRepresentation(nn.Sequential(nn.Flatten(), nn.Linear(3072, 64)), 64, projector=(64, 64))
predictor, objective = HyperPredictor(32, 4), SIELoss()

pairs = views.pairs(16, generator)
first, second = net(pairs.first / 255), net(pairs.second / 255)
moved = predictor(first.equivariant, quaternion_code(*pairs.poses))
print(objective(first, second, moved)["total"])
""",
    subjects=(
        SplitRepresentation,
        HyperPredictor,
        QuaternionPredictor,
        OrthogonalPredictor,
        SIELoss,
        collapse_floor,
        rotation_r2,
        retrieval,
        equivariance_report,
        shapes3d,
    ),
    claims=CLAIMS,
)
