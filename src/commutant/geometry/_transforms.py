"""Transforms of PyTorch Geometric: a pose drawn from a frame, invariant coordinates, or a canonical order of nodes."""

from __future__ import annotations

import copy
from typing import Any

import torch

from .._errors import InputError
from ..algebra import FrameGroup, graph_frame, inverse, pca_frame
from ._arguments import whole_given
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
        if group not in ("T", "O", "SO", "E", "SE"):
            raise InputError(f"group must be T, O, SO, E or SE, got {group!r}")
        if not isinstance(generator, torch.Generator | None):
            raise InputError(f"generator must be a torch.Generator, got {type(generator).__name__}")
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
        if not isinstance(coordinates, MDSCoordinates | None):
            raise InputError(f"coordinates must be an MDSCoordinates, got {coordinates!r}")
        self.coordinates = coordinates or MDSCoordinates(scale=None, on_degenerate="ignore")

    def forward(self, data: Any) -> Any:
        """The data with new positions."""
        data.pos = self.coordinates(_positions(data))
        return data


class CanonicalOrder(_Transform):
    """Renumbers the nodes of a graph, and sorts its edges, so that isomorphic graphs become one and the same.

    Any network is then invariant to relabelling, one that reads the numbers of nodes too (message passing with
    identities, or a flattened adjacency), at one evaluation. For `pre_transform`, before graphs are batched. All that
    PyTorch Geometric takes for an attribute of nodes or of edges counts, where it is equal or not, and moves along.
    Edges go both ways, with the same attributes, and each pair is joined once.

    Puny et al., ICLR 2022 (frames of graphs), with the one order that invariant outputs need.

    Args:
        max_frames: leaves of the search beyond which a graph is refused.
    """

    def __init__(self, max_frames: int = 10_000) -> None:
        whole_given("max_frames", max_frames)
        self.max_frames = max_frames

    def forward(self, data: Any) -> Any:
        """The data with its nodes in the canonical order.

        Raises:
            InputError: a batch, no edge_index or one that names no node, edges in one direction alone or twice,
                attributes that are not finite, or a graph with too large a search.
        """
        edges, n = getattr(data, "edge_index", None), int(getattr(data, "num_nodes", None) or 0)
        if not isinstance(edges, torch.Tensor) or edges.dim() != 2 or len(edges) != 2:
            raise InputError("the data has no tensor edge_index of shape (2, edges)")
        if "ptr" in data or "batch" in data:
            raise InputError("the data is a batch; graphs are put in order one by one, before they are batched")
        if edges.numel() and not (int(edges.min()) >= 0 and int(edges.max()) < n):
            raise InputError(
                f"edge_index must name nodes from 0 to {n - 1}, got {int(edges.min())} to {int(edges.max())}"
            )
        source, target = edges.cpu()
        if len(torch.unique(source * n + target)) != len(source):
            raise InputError("an edge is there twice; join them: data.coalesce()")
        tensors = {k: v for k, v in data.items() if isinstance(v, torch.Tensor) and k != "edge_index"}
        adjacency = torch.zeros(1, n, n, dtype=torch.float64)
        adjacency[0, source, target] = 1.0 + _kinds(
            {k: v for k, v in tensors.items() if data.is_edge_attr(k)}, len(source)
        )
        if not torch.equal(adjacency, adjacency.mT):
            raise InputError("edges must go both ways, with the same attributes, for instance by ToUndirected()")
        kinds = _kinds({k: v for k, v in tensors.items() if data.is_node_attr(k)}, n)
        frame = graph_frame(adjacency, kinds[None, :, None], invariant=True, max_frames=self.max_frames)
        order = frame.order[0].to(edges.device)
        rank = inverse(order)
        place = rank[edges]
        sequence = (place[0] * n + place[1]).argsort()
        for key, value in tensors.items():
            if data.__inc__(key, value) == n and n != 0 and not value.is_floating_point():
                data[key] = rank[value]  # numbers of nodes, such as edge_label_index
            elif data.is_node_attr(key):
                data[key] = value[order]
            elif data.is_edge_attr(key):
                data[key] = value[sequence]
        data.edge_index = place[:, sequence]
        return data


def _kinds(attributes: dict[str, torch.Tensor], rows: int) -> torch.Tensor:
    """A number for each row, equal where all attributes are equal: their order is that of the values."""
    columns = []
    for key in sorted(attributes):
        value = attributes[key].detach().cpu().reshape(rows, attributes[key].numel() // max(1, rows)).double()
        if not bool(value.isfinite().all()):
            raise InputError(f"{key} must be finite, got NaN or infinities")
        columns.append(value)
    whole = torch.cat([*columns, torch.zeros(rows, 1, dtype=torch.float64)], 1)
    return torch.unique(whole, dim=0, return_inverse=True)[1].double() if rows else whole[:, 0]


def _positions(data: Any) -> torch.Tensor:
    pos = getattr(data, "pos", None)
    if not isinstance(pos, torch.Tensor):
        raise InputError("the data has no tensor pos, the positions of its nodes")
    return pos
