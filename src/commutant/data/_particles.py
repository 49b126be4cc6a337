"""Charged particles that attract and repel each other, the n-body benchmark of equivariant networks."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Trajectories(NamedTuple):
    """Positions, velocities and charges of particles, with their later positions as targets."""

    position: Float[Tensor, "systems n 3"]
    """Positions at the observation, `(systems, n, 3)`."""
    velocity: Float[Tensor, "systems n 3"]
    """Velocities at the observation, `(systems, n, 3)`."""
    charge: Float[Tensor, "systems n"]
    """Charges, 1 or -1, `(systems, n)`."""
    target: Float[Tensor, "systems n 3"]
    """Positions after the horizon, `(systems, n, 3)`."""


def charged_particles(
    systems: int,
    generator: torch.Generator,
    *,
    particles: int = 5,
    warm_up: int = 3000,
    horizon: int = 1000,
    step: float = 1e-3,
) -> Trajectories:
    """Simulate systems of positive and negative charges under Coulomb forces, from an observed state to a later target.

    Initial positions are standard normal; initial velocities have length 1/2 and uniform direction. The force on i is
    `sum_j q_i q_j (x_i - x_j) / |x_i - x_j|^3`, with each component of a pair's force clamped to +-100. The setup is
    that of Satorras, Hoogeboom and Welling, "E(n) Equivariant Graph Neural Networks", 2021, without walls.

    Args:
        systems: Number of systems.
        generator: Source of randomness for charges and initial states.
        particles: Number of particles in each system.
        warm_up: Number of steps before the observation.
        horizon: Number of steps from the observation to the target.
        step: Length of a time step.

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
            # forces at the new positions make the integrator symplectic: energy does not drift
            v = v + step * (pairs * apart / distance**3).clamp(-100, 100).sum(2)

    forward(warm_up)
    position, velocity = x, v
    forward(horizon)
    return Trajectories(position.float(), velocity.float(), charge.float(), x.float())
