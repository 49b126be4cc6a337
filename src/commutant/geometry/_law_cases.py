"""Test networks and drawn cases of the laws stated by the classes of this subpackage.

Functions take the class under test as an argument, so that this file imports none of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from ..algebra import pca_frame
from ..laws import Draw, Equivariance, Euclidean, GraphPermutation, Homomorphism, Invariance, Law, SquareSymmetry
from ._pose_codes import quaternion_product

Case: TypeAlias = tuple[Law, Callable[..., Any], Any]
SINGLE_PRECISION = {torch.float32: 1e-2}
"""Tolerance of laws of frames, whose axes lose digits where variances are close."""


def average_of_points(
    average: Callable[..., nn.Module],
    draw: Draw,
    law: Law,
    outputs: str = "scalars",
    group: str = "E(3)",
    samples: int | None = None,
) -> Case:
    """Return a case of the average over frames of a network of points; in training mode if `samples` is given."""
    width = 3 if outputs == "vectors" else 9 if outputs == "points" else 4
    net = draw.module(lambda: _PointNetwork(width))
    averaged = average(net, group, outputs=outputs, samples=samples)
    return law, averaged.train(samples is not None), draw.normal(3, draw.size + 3, 3)


class _PointNetwork(nn.Module):
    """Network of points that is symmetric under permutations alone."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(3, 16), nn.Linear(32, width)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.inner(x))
        h = self.outer(torch.cat([h, h.mean(-2, keepdim=True).expand_as(h)], -1)).cumsum(-1).sin()
        return h.mean(-2) if h.shape[-1] == 4 else h.unflatten(-1, (-1, 3))[..., 0, :]


def average_of_layers(average: Callable[..., nn.Module], draw: Draw) -> Case:
    """Return a case of two message-passing layers in latent frames, on a complete graph of points."""
    n = draw.size + 3
    edges = torch.combinations(torch.arange(n)).t()
    edges = torch.cat([edges, edges.flip(0)], 1)
    net = draw.module(lambda: average(nn.Linear(3, 12), [_MessageLayer(12), _MessageLayer(12)], nn.Linear(12, 3)))
    return Equivariance(Euclidean(3)), lambda x: net(x, edge_index=edges), draw.normal(n, 3)


class _MessageLayer(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * width, width)

    def forward(self, h: Tensor, edge_index: Tensor, edge_attr: Tensor | None = None) -> Tensor:
        message = torch.tanh(self.linear(torch.cat([h[edge_index[0]], h[edge_index[1]]], -1)))
        return h + torch.zeros_like(h).index_add(0, edge_index[0], message)


def average_of_graphs(average: Callable[..., nn.Module], draw: Draw, outputs: str, samples: int | None = None) -> Case:
    """Return a case of a network that reads a flattened adjacency, averaged over orders of the nodes."""
    n = 5 + draw.size % 3
    ends = n if outputs == "nodes" else 4
    net = draw.module(lambda: nn.Sequential(nn.Flatten(), nn.Linear(n * n, 16), nn.Tanh(), nn.Linear(16, ends)))
    averaged = average(net, outputs=outputs, samples=samples, kind="spectral" if samples else "refined")
    averaged.train(samples is not None)

    def read(x: Tensor, edges: Tensor) -> Tensor:
        pairs = x.new_zeros(1, n, n)
        pairs[0, edges[0], edges[1]] = 1.0
        found = averaged(pairs)[0]
        return found + x.sum() if outputs == "scalars" else found[:, None] * x

    ring = torch.stack([torch.arange(n), torch.arange(1, n + 1) % n])
    if not samples:  # a path that ends in a triangle has no symmetry, unlike a ring
        ring[:, -1] = torch.tensor([0, 2])
    both = torch.cat([ring, ring.flip(0)], 1)
    law = Invariance(GraphPermutation()) if outputs == "scalars" else Equivariance(GraphPermutation())
    return law, read, (draw.normal(n, 2), both)


def average_of_images(average: Callable[..., nn.Module], draw: Draw, outputs: str) -> Case:
    """Return a case of a small convolutional network, averaged over quarter turns and mirrors."""
    layers = [nn.Conv2d(2, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, 2, 3, padding=1), nn.Tanh()]
    head = [nn.Flatten(), nn.Linear(50, 3), nn.Tanh()] if outputs == "scalars" else []
    net = draw.module(lambda: nn.Sequential(*layers, *head))
    action = SquareSymmetry()
    laws = {
        "scalars": Invariance(action),
        "images": Equivariance(action),
        "vectors": Equivariance(action, SquareSymmetry(vectors=True)),
    }
    return laws[outputs], average(net, outputs=outputs), draw.normal(2, 2, 5, 5)


def clear_clouds(make: Callable[[], nn.Module], draw: Draw, law: Law) -> Case:
    """Return a case on clouds whose axes and signs are clear: twice as far from ties as `MDSCoordinates` asks."""

    def points(generator: torch.Generator) -> Tensor:
        while True:
            x = torch.randn(2, draw.size + 8, 3, generator=generator, dtype=torch.float64).exp().to(draw.dtype)
            frame = pca_frame(x, signs="maxabs")
            if float(torch.minimum(frame.gap, frame.margin).min()) > 2e-2:
                return x

    return law, draw.module(make), points


def point_layers(width: int) -> nn.Module:
    """Return a small network of single points without symmetry."""
    return nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, width))


def linear_in_code(predictor: Callable[..., nn.Module], draw: Draw, hyper_bias: bool) -> Case:
    """Return a case of the prediction from one representation, as a function of the code."""
    built = draw.module(lambda: predictor(draw.width, 4, hyper_bias=hyper_bias))
    z = draw.normal(draw.size, draw.width)

    def codes(generator: torch.Generator) -> tuple[Tensor, ...]:
        return tuple(torch.randn(draw.size, 4, generator=generator).to(draw.dtype) for _ in range(2))

    return Homomorphism(torch.add), lambda g: built(z, g), codes


def product_of_quaternions(predictor: Callable[..., Any], draw: Draw) -> Case:
    """Return a case of the matrix as a function of the quaternion; the second rotation multiplies from the left."""
    built = predictor(4 * draw.width)

    def codes(generator: torch.Generator) -> tuple[Tensor, ...]:
        drawn = [torch.randn(draw.size, 4, generator=generator).to(draw.dtype) for _ in range(2)]
        return tuple(nn.functional.normalize(q, dim=-1) for q in drawn)

    return Homomorphism(quaternion_product, lambda a, b: b @ a), built.matrix, codes


def sum_of_codes(predictor: Callable[..., Any], draw: Draw, axes: int) -> Case:
    """Return a case of the matrix as a function of the code: along one axis, or along two different ones."""
    built = draw.module(lambda: predictor(4 * draw.width, 3, block=4))

    def codes(generator: torch.Generator) -> tuple[Tensor, ...]:
        drawn = torch.randn(axes, 3, generator=generator).to(draw.dtype)
        sizes = torch.randn(2, draw.size, 1, generator=generator).to(draw.dtype)
        return tuple(sizes[i] * drawn[i % axes] for i in range(2))

    return Homomorphism(torch.add, torch.matmul), built.matrix, codes


def batches_of_views(draw: Draw, law: Law, objective: Callable[..., Tensor]) -> Case:
    """Return a case of an objective of five batches of features: both parts of two views, and a prediction."""
    return law, objective, tuple(draw.normal(draw.size + 2, draw.width + 1) for _ in range(5))
