"""Book "The Principles of Deep Learning Theory": its claims, with controls."""

from __future__ import annotations

from ...evidence import Paper
from ...theory import criticality, finite_width, kernel_flow, nonlinearity, plain_network
from .claims import CLAIMS

PAPER = Paper(
    slug="deep-learning-theory",
    title="The Principles of Deep Learning Theory",
    authors="Daniel A. Roberts, Sho Yaida, Boris Hanin",
    year=2022,
    venue="Cambridge University Press",
    link="https://arxiv.org/abs/2106.10165",
    room="theory",
    idea="Recursions from layer to layer describe a deep network at initialization. At the critical point of its "
    "activation, signals and gradients neither explode nor vanish. The remaining fluctuations grow with depth over "
    "width, the ratio that decides whether a network is Gaussian, learns or is chaotic.",
    usage="""import torch
from torch import nn
from commutant.theory import critical_, criticality, optimal_ratio

print(criticality("silu").sentence)
net = nn.Sequential(nn.Linear(64, 128), nn.SiLU(), nn.Linear(128, 128), nn.SiLU(), nn.Linear(128, 10))
critical_(net)
print(optimal_ratio("silu", outputs=10))
""",
    subjects=(criticality, finite_width, kernel_flow, nonlinearity, plain_network),
    claims=CLAIMS,
)
