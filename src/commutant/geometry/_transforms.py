"""Transforms of PyTorch Geometric: a pose drawn from a frame, or invariant coordinates, for each graph of a set."""

from __future__ import annotations

from typing import Any

import torch

from .._errors import InputError
from ..algebra import FrameGroup, pca_frame
from ._mds import MDSCoordinates

try:
    from torch_geometric.transforms import BaseTransform as _Base
except ImportError:  # they are called in the same way without it
    _Base = object


class StochasticFrame(_Base):  # type: ignore[misc, valid-type]
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

    def __call__(self, data: Any) -> Any:
        return self.forward(data)


class InvariantCoordinates(_Base):  # type: ignore[misc, valid-type]
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

    def __call__(self, data: Any) -> Any:
        return self.forward(data)


def _positions(data: Any) -> torch.Tensor:
    pos = getattr(data, "pos", None)
    if not isinstance(pos, torch.Tensor):
        raise InputError("the data has no tensor pos, the positions of its nodes")
    return pos
