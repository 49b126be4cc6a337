"""SortedNet: its claims."""

from __future__ import annotations

from ...evidence import Paper
from ...weights import EarlyExit, Menu, SortedModule, segment_spec, select, sort_channels, sorted_loss
from .claims import CLAIMS

PAPER = Paper(
    slug="sortednet",
    title="SortedNet, a Place for Every Network and Every Network in its Place: Towards a Generalized Solution for "
    "Training Many-in-One Neural Networks",
    authors="Mojtaba Valipour, Mehdi Rezagholizadeh, Hossein Rajabzadeh, Parsa Kavehzadeh, Marzieh Tahaei, Boxing "
    "Chen, Ali Ghodsi",
    year=2023,
    venue="arXiv",
    link="https://arxiv.org/abs/2309.00255",
    room="weights",
    idea="Ordinary training leaves a network useless once it is cut. If each sub-network holds the first channels, "
    "heads and blocks of the larger ones, all can be trained in one run, by drawing one at random for each step. "
    "Choosing a size needs no search, and all sizes are stored as one model.",
    usage="""import torch
from torch import nn
from commutant.weights import Menu, SortedModule, sorted_loss

model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
x, y = torch.randn(32, 64), torch.randint(10, (32,))
nested = SortedModule(model, x, {"width": "auto"}, Menu.product(width=[16, 32, 64, 128]))
loss = sorted_loss(nested, (x, y), lambda net, batch: nn.functional.cross_entropy(net(batch[0]), batch[1]))
small = nested.extract({"width": 16})  # a plain module""",
    subjects=(SortedModule, Menu, sorted_loss, select, sort_channels, segment_spec, EarlyExit),
    claims=CLAIMS,
)
