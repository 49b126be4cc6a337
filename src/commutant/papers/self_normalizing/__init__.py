"""Paper "Self-Normalizing Neural Networks": its claims, with controls."""

from __future__ import annotations

from ...evidence import Paper
from ...theory import is_self_normalizing, moment_map
from .claims import CLAIMS

PAPER = Paper(
    slug="self-normalizing",
    title="Self-Normalizing Neural Networks",
    authors="Günter Klambauer, Thomas Unterthiner, Andreas Mayr, Sepp Hochreiter",
    year=2017,
    venue="NeurIPS",
    link="https://arxiv.org/abs/1706.02515",
    room="theory",
    idea="An activation whose map of mean and variance contracts to (0, 1) keeps the signals of plain deep networks "
    "at their scale without normalization layers. SELU is such an activation, with weights of variance 1 / fan-in and "
    "a matching dropout.",
    usage="""import torch
from commutant.theory import SNN, moment_report

net = SNN(64, 10, hidden=256, depth=16)
print(moment_report(net, torch.randn(512, 64)))
""",
    subjects=(moment_map, is_self_normalizing),
    claims=CLAIMS,
)
