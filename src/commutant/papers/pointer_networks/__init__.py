"""Paper "Pointer Networks": its claims, with controls."""

from __future__ import annotations

from ...algebra import convex_hull, tour_lower_bound
from ...evidence import Paper
from ...permutations import PointerAttention, PointerNetwork, tour_length
from .claims import CLAIMS

PAPER = Paper(
    slug="pointer-networks",
    title="Pointer Networks",
    authors="Oriol Vinyals, Meire Fortunato, Navdeep Jaitly",
    year=2015,
    venue="NeurIPS",
    link="https://arxiv.org/abs/1506.03134",
    room="permutations",
    idea="A network that answers with positions of its input needs no fixed vocabulary: the attention over the input "
    "is its output distribution. One model then serves inputs of any length, and learns convex hulls, triangulations "
    "and tours from examples.",
    usage="""import torch
from commutant.data import hull_examples
from commutant.permutations import ClosedPolygon, PointerNetwork

batch = hull_examples(torch.Generator().manual_seed(0), 32, (5, 10))   # sets of five to ten points
network = PointerNetwork(2, 64)
network.loss(batch.x, batch.targets, batch.lengths).backward()
found = network.decode(batch.x, "beam", lengths=batch.lengths, constraint=ClosedPolygon())
print(found.best[0])                                                     # indices, then -1""",
    subjects=(PointerNetwork, PointerAttention, tour_length, convex_hull, tour_lower_bound),
    claims=CLAIMS,
)
