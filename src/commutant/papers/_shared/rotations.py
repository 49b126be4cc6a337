"""Random rotations in three dimensions."""

from __future__ import annotations

import torch
from torch import Tensor

from ...laws import Rotation


def random_rotations(number: int, generator: torch.Generator) -> Tensor:
    """Draw random rotations in three dimensions, `(number, 3, 3)`, in float64."""
    action = Rotation(3)
    return torch.stack([action.sample(torch.zeros(1, 3), generator) for _ in range(number)])
