"""Paper "Subgraph Permutation Equivariant Networks": its claims, with controls."""

from __future__ import annotations

from ...algebra import PermutationEquivariantLinear, equivariant_basis
from ...evidence import Paper
from ...graphs import SPEN, EgoNets, SPENConv
from .claims import CLAIMS

PAPER = Paper(
    slug="spen",
    title="Subgraph Permutation Equivariant Networks",
    authors="Joshua Mitton, Roderick Murray-Smith",
    year=2021,
    venue="arXiv",
    link="https://arxiv.org/abs/2111.11840",
    room="graphs",
    idea="Layers on all pairs of nodes are more expressive than message passing, and need memory quadratic in the "
    "number of nodes. SPEN applies the linear maps that commute with all permutations to the ego-net of each node, "
    "and averages the results where ego-nets overlap. Memory then grows with the ego-nets.",
    usage="""import torch
from torch_geometric.data import Batch, Data
from commutant.graphs import SPEN, EgoNets

edges = torch.tensor([[0, 1, 2, 3, 1, 2, 3, 0], [1, 2, 3, 0, 0, 1, 2, 3]])
ring = Data(x=torch.randn(4, 8), edge_index=edges)
batch = Batch.from_data_list([EgoNets(k=2)(ring)])  # or pre_transform
model = SPEN(8, 32, out_channels=2, rooted=True)
logits = model(batch)""",
    subjects=(SPEN, SPENConv, EgoNets, PermutationEquivariantLinear, equivariant_basis),
    claims=CLAIMS,
)
