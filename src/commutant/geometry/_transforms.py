"""Transforms of PyTorch Geometric: a pose drawn from a frame, invariant coordinates, or a canonical order of nodes."""

from __future__ import annotations

import copy
from typing import Any

import torch

from .._errors import InputError
from ..algebra import FrameGroup, graph_frame, inverse, pca_frame
from ._mds import MDSCoordinates


class _Transform:
    """What a transform of PyTorch Geometric is, without the time that importing its base takes."""

    def __call__(self, data: Any) -> Any:
        return self.forward(copy.copy(data))

    def forward(self, data: Any) -> Any:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class StochasticFrame(_Transform):
    """Adds a pose of the frame of a graph, drawn anew each time: `fa_pos`, and `fa_rot`, the rotation that leads back.

    Frame averaging with one sample, for a network that reads `fa_pos` in place of `pos`; exact in expectation alone.
    Vectors are predicted in the pose: `out @ fa_rot[0].T` turns them back. Duval et al., "FAENet", ICML 2023, with the
    frame drawn instead of chosen by the coordinates of its vectors, which is not invariant.

    Args:
        group: as for `commutant.algebra.pca_frame`.
        generator: of the draws.
    """

    def __init__(self, group: FrameGroup = "E", generator: torch.Generator | None = None) -> None:
        self.group, self.generator = group, generator

    def forward(self, data: Any) -> Any:
        """The data with the pose added."""
        pos = _positions(data)
        frame = pca_frame(pos, self.group).sample(1, self.generator)
        data.fa_pos, data.fa_rot = frame.canonicalize(pos)[0], frame.rotation.to(pos.dtype)
        return data


class InvariantCoordinates(_Transform):
    """Replaces the positions of a graph by coordinates that do not change when it is moved; for `pre_transform`.

    Args:
        coordinates: an `MDSCoordinates`; by default one that keeps size, for molecules.
    """

    def __init__(self, coordinates: MDSCoordinates | None = None) -> None:
        self.coordinates = coordinates or MDSCoordinates(scale=None, on_degenerate="ignore")

    def forward(self, data: Any) -> Any:
        """The data with new positions."""
        data.pos = self.coordinates(_positions(data))
        return data


class CanonicalOrder(_Transform):
    """Renumbers the nodes of a graph, and sorts its edges, so that isomorphic graphs become one and the same.

    Any network is then invariant to relabelling, one that reads the numbers of nodes too (message passing with
    identities, or a flattened adjacency), at one evaluation. For `pre_transform`. Features of nodes and edges count
    where they are equal or not. Edges go both ways, with the same features, and each pair is joined once.

    Puny et al., ICLR 2022 (frames of graphs), with the one order that invariant outputs need.

    Args:
        max_frames: leaves of the search beyond which a graph is refused.
    """

    def __init__(self, max_frames: int = 10_000) -> None:
        self.max_frames = max_frames

    def forward(self, data: Any) -> Any:
        """The data with its nodes in the canonical order.

        Raises:
            InputError: no edge_index, edges in one direction alone or twice, or a graph with too large a search.
        """
        edges = getattr(data, "edge_index", None)
        if not isinstance(edges, torch.Tensor):
            raise InputError("the data has no tensor edge_index")
        n = int(data.num_nodes)
        kind = torch.ones(edges.shape[1], dtype=torch.long)
        if isinstance(getattr(data, "edge_attr", None), torch.Tensor):
            kind = torch.unique(data.edge_attr.reshape(edges.shape[1], -1), dim=0, return_inverse=True)[1].cpu() + 1
        source, target = edges.cpu()
        if len(torch.unique(source * n + target)) != len(source):
            raise InputError("an edge is there twice; join them: data.coalesce()")
        adjacency = torch.zeros(1, n, n, dtype=torch.float64)
        adjacency[0, source, target] = kind.double()
        features = data.x[None] if isinstance(getattr(data, "x", None), torch.Tensor) else None
        order = graph_frame(adjacency, features, invariant=True, max_frames=self.max_frames).order[0].to(edges.device)
        place = inverse(order)[edges]
        sequence = (place[0] * n + place[1]).argsort()
        for key, value in list(data.items()):
            if key == "edge_index" or not isinstance(value, torch.Tensor):
                continue
            if data.is_node_attr(key):
                data[key] = value[order]
            elif data.is_edge_attr(key):
                data[key] = value[sequence]
        data.edge_index = place[:, sequence]
        return data


def _positions(data: Any) -> torch.Tensor:
    pos = getattr(data, "pos", None)
    if not isinstance(pos, torch.Tensor):
        raise InputError("the data has no tensor pos, the positions of its nodes")
    return pos
