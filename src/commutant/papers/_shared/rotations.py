"""Random rotations of space."""

from __future__ import annotations

import torch
from torch import Tensor

from ...laws import Rotation


def random_rotations(number: int, generator: torch.Generator) -> Tensor:
    """Return random rotations of space, `(number, 3, 3)`, in float64."""
    action = Rotation(3)
    return torch.stack([action.sample(torch.zeros(1, 3), generator) for _ in range(number)])
