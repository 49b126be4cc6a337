"""Paper "Symbolic Synthesis of Neural Networks": its claims, with controls."""

from __future__ import annotations

from ...evidence import Paper
from ...programs import (
    Grammar,
    GraphMachine,
    GraphModule,
    GraphModules,
    TiedLinear,
    TieMachine,
    compress,
    enumerate_programs,
    evolve,
    search_states,
    search_ties,
    variance_components,
)
from .claims import CLAIMS

PAPER = Paper(
    slug="symbolic-synthesis",
    title="Symbolic Synthesis of Neural Networks",
    authors="Eli Whitehouse",
    year=2023,
    venue="arXiv",
    link="https://arxiv.org/abs/2303.03340",
    room="programs",
    idea="A small program builds a graph, and the graph conditions a network: segments of a vector, tagged by the "
    "elements of the graph, pass messages along it. Programs are searched, trained, selected and shortened by a "
    "library that they share. Here the same search also generates permutation groups, and with them the weight "
    "sharing of equivariant layers.",
    usage="""import torch
from commutant.programs import GraphMachine, GraphModule, LinearTieScore, search_states, search_ties

graphs = [found.output for found in search_states(GraphMachine(), max_cost=10)]   # simplest first
head = GraphModule(graphs[-1], features=96, out_features=1)                       # (batch, 96) -> (batch, 1)
x = torch.randn(50, 6)
y = x - x.roll(1, dims=1)                                                         # commutes with shifts
print(search_ties(LinearTieScore(x, y), n=6, max_cost=5).chosen.found.program)    # (rotate (tie identity))""",
    subjects=(
        GraphMachine,
        GraphModule,
        GraphModules,
        search_states,
        enumerate_programs,
        Grammar,
        compress,
        evolve,
        variance_components,
        TieMachine,
        TiedLinear,
        search_ties,
    ),
    claims=CLAIMS,
)
