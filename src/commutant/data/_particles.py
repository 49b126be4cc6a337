"""Charged particles that attract and repel each other: the n-body problem of equivariant networks."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Trajectories(NamedTuple):
    """Where particles are, how they move and where they will be."""

    position: Float[Tensor, "systems n 3"]
    velocity: Float[Tensor, "systems n 3"]
    charge: Float[Tensor, "systems n"]
    target: Float[Tensor, "systems n 3"]


def charged_particles(
    systems: int,
    generator: torch.Generator,
    *,
    particles: int = 5,
    warm_up: int = 3000,
    horizon: int = 1000,
    step: float = 1e-3,
) -> Trajectories:
    """Systems of charges of either sign under Coulomb forces, observed after a warm-up and again after a horizon.

    Positions begin as standard normal, velocities with length 1/2 in any direction. The force on i is
    `sum_j q_i q_j (x_i - x_j) / |x_i - x_j|^3`, each component of a pair cut at 100. The setting of Satorras, Hoogeboom
    and Welling, "E(n) Equivariant Graph Neural Networks", 2021, without walls.

    Args:
        systems: how many.
        generator: of the beginnings.
        particles: in each system.
        warm_up: steps before the observation.
        horizon: steps from there to the target.
        step: in time.

    Example:
        >>> charged_particles(2, torch.Generator().manual_seed(0), warm_up=10, horizon=10).target.shape
        torch.Size([2, 5, 3])
    """
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    x, v = draw(systems, particles, 3), draw(systems, particles, 3)
    v = v / v.norm(dim=-1, keepdim=True) / 2
    charge = torch.randint(0, 2, (systems, particles), generator=generator).double() * 2 - 1
    pairs = (charge[:, :, None] * charge[:, None, :])[..., None]
    self_pair = torch.eye(particles, dtype=torch.bool)[..., None]

    def forward(steps: int) -> None:
        nonlocal x, v
        for _ in range(steps):
            x = x + step * v
            apart = x[:, :, None] - x[:, None, :]
            distance = torch.where(self_pair, 1.0, apart.norm(dim=-1, keepdim=True))
            # at the new places (symplectic), so that energy does not grow
            v = v + step * (pairs * apart / distance**3).clamp(-100, 100).sum(2)

    forward(warm_up)
    position, velocity = x, v
    forward(horizon)
    return Trajectories(position.float(), velocity.float(), charge.float(), x.float())
