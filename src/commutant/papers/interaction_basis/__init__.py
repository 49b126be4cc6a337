"""Papers on degeneracy in the loss landscape and the local interaction basis: their claims."""

from __future__ import annotations

from ...evidence import Paper
from ...weights import InteractionBasis, degeneracy_report, effective_parameters, factorize, interaction_graph
from .claims import CLAIMS

PAPER = Paper(
    slug="interaction-basis",
    title="The Local Interaction Basis: Identifying Computationally-Relevant and Sparsely Interacting Features in "
    "Neural Networks",
    authors="Lucius Bushnaq, Stefan Heimersheim, Nicholas Goldowsky-Dill, Dan Braun, Jake Mendel, Kaarel Hänni, Avery "
    "Griffin, Jörn Stöhler, Magdalena Wache, Marius Hobbhahn",
    year=2024,
    venue="arXiv",
    link="https://arxiv.org/abs/2405.10928",
    room="weights",
    idea="Many directions of a network's parameters change nothing that it computes. Coordinates of its activations "
    "that do not depend on those directions come from two steps: whiten the activations, then turn to the principal "
    "axes of the derivatives of what follows. Few interactions between such coordinates should be enough.",
    usage="""import torch
from torch import nn
from commutant.weights import InteractionBasis

model = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10))
basis = InteractionBasis(model, sections=["0", "2"]).fit([torch.randn(500, 64)])
edges = basis.edges([torch.randn(500, 64)])  # by section: (coordinates after, coordinates before)
with basis.ablate(nodes={"2": 5}):           # the five strongest coordinates alone
    model(torch.randn(3, 64))""",
    subjects=(InteractionBasis, effective_parameters, degeneracy_report, interaction_graph, factorize),
    claims=CLAIMS,
)
