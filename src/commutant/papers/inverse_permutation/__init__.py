"""Paper "The Impossibility of Inverse Permutation Learning in Transformer Models": its claims, with controls."""

from __future__ import annotations

from ...evidence import Paper
from ...permutations import (
    DisentangledTransformer,
    InversePermutation,
    causal_floor,
    inverse_permutation_feasible,
    min_scratch,
    visible_inputs,
)
from .claims import CLAIMS

PAPER = Paper(
    slug="inverse-permutation",
    title="The Impossibility of Inverse Permutation Learning in Transformer Models",
    authors="Rohan Alur, Chris Hays, Manish Raghavan, Devavrat Shah",
    year=2025,
    venue="arXiv",
    link="https://arxiv.org/abs/2509.24125",
    room="permutations",
    idea="Given a permutation and permuted rows, a causal network of any depth cannot write the rows in their first "
    "order: some row arrives after the position where it must be written. Without the mask two attention layers "
    "suffice, and with it as soon as meaningless scratch tokens follow the input.",
    usage="""import torch
from commutant.permutations import InversePermutation, causal_mask, inverse_permutation_feasible

print(inverse_permutation_feasible(causal_mask(8), d=4))             # which move is blocked
p, y = torch.tensor([[2, 0, 3, 1]]), torch.randn(1, 4, 4)
model = InversePermutation(4, "causal", scratch=3)                    # d - 1 scratch tokens suffice
print(torch.equal(model(p, y[:, p[0]]), y))""",
    subjects=(
        InversePermutation,
        DisentangledTransformer,
        visible_inputs,
        inverse_permutation_feasible,
        min_scratch,
        causal_floor,
    ),
    claims=CLAIMS,
)
