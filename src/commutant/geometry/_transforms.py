"""Transforms of PyTorch Geometric: a random pose of a frame, invariant coordinates, and a canonical order of nodes."""

from __future__ import annotations

import copy
from typing import Any

import torch

from .._checks import check_generator, one_of, whole
from .._errors import InputError
from ..algebra import FrameGroup, graph_frame, inverse, pca_frame
from ._mds import MDSCoordinates


class _Transform:
    """Transform of PyTorch Geometric that does not import PyTorch Geometric."""

    def __call__(self, data: Any) -> Any:
        return self.forward(copy.copy(data))

    def forward(self, data: Any) -> Any:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class StochasticFrame(_Transform):
    """Transform that adds a random pose from a graph's frame: positions `fa_pos` and the inverse rotation `fa_rot`.

    It is frame averaging with one sample, for a network that reads `fa_pos` instead of `pos`. The symmetry is exact
    only in expectation. Vectors are predicted in this pose, and `out @ fa_rot[0].T` rotates them back. Duval et al.,
    "FAENet", ICML 2023; their choice of the pose by the coordinates of the axes is not invariant.

    Args:
        group: Group of motions, as for `commutant.algebra.pca_frame`.
        generator: Source of randomness; by default torch's global generator.
    """

    def __init__(self, group: FrameGroup = "E", generator: torch.Generator | None = None) -> None:
        one_of("group", group, ("T", "O", "SO", "E", "SE"))
        check_generator(generator)
        self.group, self.generator = group, generator

    def forward(self, data: Any) -> Any:
        """Return the data with the pose added.

        Args:
            data: A `Data` of PyG with `pos`.
        """
        pos = _positions(data)
        frame = pca_frame(pos, self.group).sample(1, self.generator)
        data.fa_pos, data.fa_rot = frame.canonicalize(pos)[0], frame.rotation.to(pos.dtype)
        return data


class InvariantCoordinates(_Transform):
    """Transform that replaces the positions of a graph by invariant coordinates, for use as `pre_transform`.

    Args:
        coordinates: Module that computes the coordinates; by default `MDSCoordinates` without scaling, for molecules.
    """

    def __init__(self, coordinates: MDSCoordinates | None = None) -> None:
        if not isinstance(coordinates, MDSCoordinates | None):
            raise InputError(f"coordinates must be an MDSCoordinates, got {coordinates!r}")
        self.coordinates = coordinates or MDSCoordinates(scale=None, on_degenerate="ignore")

    def forward(self, data: Any) -> Any:
        """Return the data with new positions.

        Args:
            data: A `Data` of PyG with `pos`.
        """
        data.pos = self.coordinates(_positions(data))
        return data


class CanonicalOrder(_Transform):
    """Transform that renumbers the nodes of a graph and sorts its edges, so that isomorphic graphs become equal.

    Any network is then invariant to relabeling at the cost of one evaluation. This includes networks that read the
    numbers of nodes (message passing with identities, or a flattened adjacency). Use it as `pre_transform`, before
    graphs are batched. All attributes of nodes and edges, as PyTorch Geometric classifies them, are compared and
    permuted. Edges must go both ways with the same attributes, at most one per ordered pair.

    The order is one element of the graph frames of Puny et al., ICLR 2022, which suffices for invariant outputs.

    Args:
        max_frames: Largest number of leaves of the search; graphs with more raise an error.
    """

    def __init__(self, max_frames: int = 10_000) -> None:
        whole("max_frames", max_frames)
        self.max_frames = max_frames

    def forward(self, data: Any) -> Any:
        """Return the data with its nodes in the canonical order.

        Args:
            data: A single `Data` of PyG with `edge_index`.

        Raises:
            InputError: If the data is a batch, edge_index is missing or out of range, edges are directed or duplicated,
                attributes are not finite, or the search is too large.
        """
        edges, n = getattr(data, "edge_index", None), int(getattr(data, "num_nodes", None) or 0)
        if not isinstance(edges, torch.Tensor) or edges.dim() != 2 or len(edges) != 2:
            raise InputError("the data has no tensor edge_index of shape (2, edges)")
        if "ptr" in data or "batch" in data:
            raise InputError("the data is a batch; transform graphs one by one before batching")
        if edges.numel() and not (int(edges.min()) >= 0 and int(edges.max()) < n):
            raise InputError(
                f"edge_index must name nodes from 0 to {n - 1}, got {int(edges.min())} to {int(edges.max())}"
            )
        source, target = edges.cpu()
        if len(torch.unique(source * n + target)) != len(source):
            raise InputError("an edge occurs twice; merge duplicates with data.coalesce()")
        tensors = {k: v for k, v in data.items() if isinstance(v, torch.Tensor) and k != "edge_index"}
        adjacency = torch.zeros(1, n, n, dtype=torch.float64)
        adjacency[0, source, target] = 1.0 + _kinds(
            {k: v for k, v in tensors.items() if data.is_edge_attr(k)}, len(source)
        )
        if not torch.equal(adjacency, adjacency.mT):
            raise InputError("edges must go both ways with the same attributes; apply ToUndirected() first")
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
    """Return a number per row, equal for rows with equal attributes and ordered by their values."""
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
