"""Point clouds of ten classes of objects, each built from a few simple bodies of varying size."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .._errors import InputError
from ._surfaces import BODIES, Surfaces, stretched

_B, _S, _Y, _K = "box", "sphere", "cylinder", "cone"
# for each part: body, center and half-sizes; no class is symmetric under a rotation
_CLASSES: dict[str, tuple[tuple[str, tuple[float, float, float], tuple[float, float, float]], ...]] = {
    "armchair": ((_B, (0, 0, 0), (0.45, 0.45, 0.08)), (_B, (0, -0.4, 0.4), (0.45, 0.06, 0.4)),
                 (_B, (0.38, 0, 0.15), (0.06, 0.4, 0.06))),
    "mug": ((_Y, (0, 0, -0.1), (0.35, 0.35, 0.5)), (_B, (0.5, 0, 0), (0.15, 0.06, 0.3)),
            (_S, (0, 0.2, 0.5), (0.15, 0.15, 0.15))),
    "car": ((_B, (0, 0, -0.1), (0.75, 0.3, 0.18)), (_B, (-0.15, 0, 0.2), (0.35, 0.26, 0.15)),
            (_K, (0.6, 0, 0.2), (0.12, 0.12, 0.2))),
    "lamp": ((_Y, (0, 0, -0.2), (0.12, 0.12, 0.55)), (_K, (0, 0, 0.45), (0.45, 0.45, 0.25)),
             (_B, (0.25, 0.25, -0.7), (0.35, 0.35, 0.05))),
    "plane": ((_B, (0, 0, 0), (0.12, 0.75, 0.1)), (_B, (0, 0.1, 0), (0.8, 0.18, 0.05)),
              (_B, (0, -0.65, 0.22), (0.04, 0.12, 0.22))),
    "table": ((_B, (0, 0, 0.35), (0.7, 0.45, 0.06)), (_B, (-0.6, -0.35, -0.15), (0.07, 0.07, 0.45)),
              (_B, (0.6, 0.35, -0.15), (0.07, 0.07, 0.45)), (_S, (0.4, -0.2, 0.55), (0.18, 0.18, 0.18))),
    "bird": ((_S, (0, 0, 0), (0.5, 0.4, 0.35)), (_S, (0.5, 0, 0.3), (0.22, 0.22, 0.22)),
             (_K, (0.78, 0, 0.3), (0.1, 0.1, 0.2)), (_B, (-0.5, 0, 0), (0.2, 0.05, 0.05))),
    "fridge": ((_B, (0, 0, 0), (0.35, 0.25, 0.7)), (_S, (0, 0.28, 0.35), (0.2, 0.1, 0.2)),
               (_B, (0.42, 0, -0.3), (0.1, 0.1, 0.1))),
    "pan": ((_Y, (0, 0, 0), (0.6, 0.6, 0.12)), (_B, (0.75, 0, 0), (0.35, 0.07, 0.07)),
            (_K, (-0.2, 0.1, 0.25), (0.2, 0.2, 0.15))),
    "laptop": ((_B, (-0.4, 0, 0), (0.08, 0.5, 0.5)), (_B, (0.2, 0, -0.45), (0.55, 0.5, 0.06)),
               (_Y, (0.3, 0.25, -0.2), (0.12, 0.12, 0.25))),
}  # fmt: skip
OBJECT_CLASSES = tuple(_CLASSES)
"""Names of the classes, in the order of their labels."""


class Objects(NamedTuple):
    """Point clouds of upright objects within the unit ball, with normals, part indices and class labels."""

    points: Float[Tensor, "objects n 3"]
    """Points, `(objects, n, 3)`."""
    normals: Float[Tensor, "objects n 3"]
    """Unit normals, `(objects, n, 3)`."""
    parts: Int[Tensor, "objects n"]
    """Index of the body of each point within its object, `(objects, n)`."""
    labels: Int[Tensor, " objects"]
    """Class of each object, `(objects,)`."""


def object_clouds(objects: int, points: int, generator: torch.Generator) -> Objects:
    """Draw objects of ten balanced classes, each an asymmetric arrangement of three or four simple bodies.

    Half-sizes vary by 30 %, centers by 0.05, and the whole object by 25 % along each axis. The object is then centered
    on its bounding box and scaled to the unit ball. Points are spread over the parts in proportion to their area.

    Args:
        objects: Number of objects.
        points: Number of points on each object, at least 40.
        generator: Source of randomness.

    Raises:
        InputError: If there are too few points to cover every part.

    Example:
        >>> object_clouds(20, 50, torch.Generator().manual_seed(0)).labels.unique().numel()
        10
    """
    if points < 40:
        raise InputError(f"points must be at least 40 to show every part of an object, got {points}")
    labels = torch.arange(objects) % len(_CLASSES)
    x, normals = (torch.zeros(objects, points, 3) for _ in range(2))
    which = torch.zeros(objects, points, dtype=torch.long)
    for label, parts in enumerate(_CLASSES.values()):
        rows = labels == label
        if bool(rows.any()):
            x[rows], normals[rows], which[rows] = _of_class(parts, int(rows.sum()), points, generator)
    return Objects(x, normals, which, labels)


def _of_class(parts: tuple, number: int, points: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    uniform = lambda low, high, *shape: torch.rand(*shape, generator=generator) * (high - low) + low  # noqa: E731
    stretch = uniform(0.75, 1.25, number, 1, 3)
    area = torch.tensor([a * b + b * c + c * a for _, _, (a, b, c) in parts])
    counts = (points * area / area.sum()).int().clamp(min=points // 10).tolist()
    counts[max(range(len(counts)), key=lambda i: counts[i])] += points - sum(counts)
    surfaces, which = [], []
    for index, ((body, center, half), count) in enumerate(zip(parts, counts, strict=True)):
        sizes = torch.tensor(half) * uniform(0.7, 1.3, number, 1, 3) * stretch
        place = (torch.tensor(center) + 0.05 * torch.randn(number, 1, 3, generator=generator)) * stretch
        surface = stretched(BODIES[body]((number, count), generator), sizes)
        surfaces.append(Surfaces(surface.points + place, surface.normals))
        which.append(torch.full((number, count), index))
    x, normals = (torch.cat(part, 1) for part in zip(*surfaces, strict=True))
    x = x - (x.amax(1, keepdim=True) + x.amin(1, keepdim=True)) / 2
    return x / x.norm(dim=-1).amax(1)[:, None, None], normals, torch.cat(which, 1)
