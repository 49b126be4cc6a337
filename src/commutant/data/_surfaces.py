"""Random points with normals on the surfaces of unions of simple solids."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Surfaces(NamedTuple):
    """Points on surfaces with their unit normals."""

    points: Float[Tensor, "clouds n 3"]
    """Points, `(clouds, n, 3)`."""
    normals: Float[Tensor, "clouds n 3"]
    """Unit normals, `(clouds, n, 3)`."""


def _box(n: tuple[int, int], g: torch.Generator) -> Surfaces:
    x = torch.rand(*n, 3, generator=g) * 2 - 1
    axis = torch.randint(0, 3, n, generator=g)[..., None]
    side = torch.randint(0, 2, n, generator=g)[..., None].float() * 2 - 1
    return Surfaces(x.scatter(-1, axis, side), torch.zeros_like(x).scatter(-1, axis, side))


def _sphere(n: tuple[int, int], g: torch.Generator) -> Surfaces:
    x = torch.randn(*n, 3, generator=g)
    x = x / x.norm(dim=-1, keepdim=True)
    return Surfaces(x, x)


def _round(n: tuple[int, int], g: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    angle = torch.rand(n, generator=g) * 2 * math.pi
    return angle.cos(), angle.sin(), torch.rand(n, generator=g), torch.rand(n, generator=g)


def _cylinder(n: tuple[int, int], g: torch.Generator) -> Surfaces:
    """Draw points on a cylinder along z, 60 % of them on its side."""
    c, s, height, chance = _round(n, g)
    cap, radius = chance > 0.6, torch.rand(n, generator=g).sqrt()
    top = torch.where(chance > 0.8, 1.0, -1.0)
    x = torch.stack([torch.where(cap, radius * c, c), torch.where(cap, radius * s, s),
                     torch.where(cap, top, 2 * height - 1)], -1)  # fmt: skip
    normal = torch.stack([torch.where(cap, 0.0, c), torch.where(cap, 0.0, s), torch.where(cap, top, 0.0)], -1)
    return Surfaces(x, normal)


def _cone(n: tuple[int, int], g: torch.Generator) -> Surfaces:
    """Draw points on a cone along z with radius 1 at z = -1 and apex at z = 1, 30 % of them on its base."""
    c, s, share, chance = _round(n, g)
    base, radius = chance > 0.7, share.sqrt()
    x = torch.stack([radius * c, radius * s, torch.where(base, -1.0, 1 - 2 * radius)], -1)
    zero = torch.zeros(n)
    normal = torch.stack(
        [torch.where(base, zero, 2 * c), torch.where(base, zero, 2 * s), torch.where(base, -1.0, 1.0)], -1
    )
    return Surfaces(x, normal / normal.norm(dim=-1, keepdim=True))


def _torus(n: tuple[int, int], g: torch.Generator) -> Surfaces:
    """Draw points on a torus around z with radii 0.7 and 0.3."""
    c, s, turn, _ = _round(n, g)
    across, up = (turn * 2 * math.pi).cos(), (turn * 2 * math.pi).sin()
    ring = 0.7 + 0.3 * across
    return Surfaces(torch.stack([ring * c, ring * s, 0.3 * up], -1), torch.stack([across * c, across * s, up], -1))


BODIES = {"box": _box, "sphere": _sphere, "cylinder": _cylinder, "cone": _cone, "torus": _torus}
"""Functions from (clouds, points) and a generator to points and normals on a body of half-size one."""


def stretched(surface: Surfaces, sizes: Float[Tensor, "clouds n 3"]) -> Surfaces:
    """Return a surface scaled along the axes, with the normals of the scaled surface."""
    normals = surface.normals / sizes
    return Surfaces(surface.points * sizes, normals / normals.norm(dim=-1, keepdim=True))


def solid_surfaces(clouds: int, points: int, generator: torch.Generator) -> Surfaces:
    """Draw surfaces of upright boxes, ellipsoids, cylinders, cones and tori with half-axes between 0.35 and 1.

    Half of the surfaces are unions of two bodies. Each cloud is centered and divided by the standard deviation of the
    distances from its center.

    Args:
        clouds: Number of point clouds.
        points: Number of points in each cloud.
        generator: Source of randomness.
    """
    second = torch.rand(clouds, 1, generator=generator) < 0.5
    other = second & (torch.rand(clouds, points, generator=generator) < 0.5)
    bodies = []
    for _ in range(2):
        kind = torch.randint(0, len(BODIES), (1, clouds, 1, 1), generator=generator)
        made = [body((clouds, points), generator) for body in BODIES.values()]
        sizes = torch.rand(clouds, 1, 3, generator=generator) * 0.65 + 0.35
        points_of, normals_of = (
            torch.stack(part).gather(0, kind.expand(1, clouds, points, 3))[0] for part in zip(*made, strict=True)
        )
        bodies.append(stretched(Surfaces(points_of, normals_of), sizes))
    offset = torch.randn(clouds, 1, 3, generator=generator) * 0.5
    x = torch.where(other[..., None], bodies[1].points + offset, bodies[0].points)
    normals = torch.where(other[..., None], bodies[1].normals, bodies[0].normals)
    x = x - x.mean(1, keepdim=True)
    return Surfaces(x / x.norm(dim=-1).std(1)[:, None, None], normals)
