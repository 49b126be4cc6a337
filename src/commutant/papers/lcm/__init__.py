"""Paper "Learnable Commutative Monoids for Graph Neural Networks": its claims, with controls."""

from __future__ import annotations

from ...evidence import Paper
from ...sets import BinaryGRU, Conjugated, GRUFoldAggregation, LCMAggregation, MonoidAggregation
from .claims import CLAIMS

PAPER = Paper(
    slug="lcm",
    title="Learnable Commutative Monoids for Graph Neural Networks",
    authors="Euan Ong, Petar Veličković",
    year=2022,
    venue="Learning on Graphs Conference",
    link="https://arxiv.org/abs/2212.08541",
    room="sets",
    idea="A permutation-invariant aggregation is a commutative monoid. A network with a fixed monoid (sum, max, mean) "
    "has to learn a map onto the monoid that the task needs, and such maps often fail outside the training range. LCM "
    "learns the operator itself, symmetrized to be commutative and trained to be nearly associative, and reduces a set "
    "by a balanced tree in logarithmic depth.",
    usage="""import torch
from torch_geometric.nn import SAGEConv
from commutant.sets import LCMAggregation, aux_loss

conv = SAGEConv(16, 32, aggr=LCMAggregation(16, 16))
x, edge_index = torch.randn(10, 16), torch.randint(0, 10, (2, 40))
out = conv(x, edge_index)                 # any order of edges, no padding
loss = out.square().mean() + aux_loss(conv)""",
    subjects=(BinaryGRU, LCMAggregation, MonoidAggregation, GRUFoldAggregation, Conjugated),
    claims=CLAIMS,
)
