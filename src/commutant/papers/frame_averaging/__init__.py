"""Paper "Frame Averaging for Invariant and Equivariant Network Design": its claims, with controls."""

from __future__ import annotations

from ...algebra import graph_frame, pca_frame, weighted_frame
from ...evidence import Paper
from ...geometry import FrameAverage, GraphAverage, LatentFrameAverage, symmetrize_
from .claims import CLAIMS

PAPER = Paper(
    slug="frame-averaging",
    title="Frame Averaging for Invariant and Equivariant Network Design",
    authors="Omri Puny, Matan Atzmon, Heli Ben-Hamu, Ishan Misra, Aditya Grover, Edward J. Smith, Yaron Lipman",
    year=2022,
    venue="International Conference on Learning Representations",
    link="https://arxiv.org/abs/2110.03336",
    room="geometry",
    idea="The mean of a network over all elements of a group is symmetric but expensive. A frame replaces the group by "
    "a few elements that depend on the input and move with it: the mean over them is just as symmetric and loses no "
    "expressive power. Principal axes with all signs are a frame of point clouds, and orders by Laplacian eigenvectors "
    "are a frame of graphs.",
    usage="""import torch
from torch import nn
from commutant.geometry import FrameAverage

net = nn.Sequential(nn.Linear(3, 32), nn.ReLU(), nn.Linear(32, 3))
field = FrameAverage(net, "SE(3)", outputs="vectors")
print(field(torch.randn(8, 100, 3)).shape)
""",
    subjects=(FrameAverage, LatentFrameAverage, GraphAverage, symmetrize_, pca_frame, weighted_frame, graph_frame),
    claims=CLAIMS,
)
