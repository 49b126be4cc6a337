"""Paper "Exact Learning of Permutations for Nonzero Binary Inputs": its claims, with controls."""

from __future__ import annotations

from ...evidence import Paper
from ...permutations import ExactPermutationLearner, PermutationNTK, ReLUEnsemble, TemplateProgram
from .claims import CLAIMS

PAPER = Paper(
    slug="exact-permutation-learning",
    title="Exact Learning of Permutations for Nonzero Binary Inputs with Logarithmic Training Size and Quadratic "
    "Ensemble Complexity",
    authors="George Giapitzakis, Artur Back de Luca, Kimon Fountoulakis",
    year=2025,
    venue="arXiv preprint, version 1",
    link="https://arxiv.org/abs/2502.16763",
    room="permutations",
    idea="A wide two-layer ReLU network that is trained on the k basis vectors alone learns a permutation of all "
    "nonzero binary inputs: its outputs have a positive mean where a bit must be one, and a negative mean where it "
    "must be zero. Averaging enough networks and taking signs is exact, and the number of networks can be computed.",
    usage="""import torch
from commutant.permutations import ExactPermutationLearner

sigma = torch.randperm(12)
learner = ExactPermutationLearner().fit(torch.eye(12), torch.eye(12)[sigma])
print(learner.predict(torch.randint(0, 2, (5, 12)).clamp(min=torch.eye(5, 12, dtype=torch.long))))
""",
    subjects=(PermutationNTK, ExactPermutationLearner, ReLUEnsemble, TemplateProgram),
    claims=CLAIMS,
)
