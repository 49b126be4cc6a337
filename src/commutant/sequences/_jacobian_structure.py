"""Detection of the Jacobian structure of a user's step, by derivatives in random directions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ..algebra import Structure
from ._cell import Step, StepCell, Tensors, allowed_gap, derivative_gap, directional, random_direction
from ._probes import check_step, scattered


@dataclass(frozen=True)
class JacobianStructure:
    """Structure of a step's Jacobian, as found by probing.

    Attributes:
        kind: "diagonal", "blocks" (the slots of one channel are coupled) or "dense".
        diagonal_error: Largest relative difference between a directional derivative of the step and that of a
            diagonal Jacobian.
        block_error: Same difference for a block Jacobian; infinite when the state has no axis of slots.
    """

    kind: Structure
    diagonal_error: float
    block_error: float


def jacobian_structure(step: Step, h: Tensor, x: Tensor | Tensors, params: Tensors = ()) -> JacobianStructure:
    """Find the structure of a step's Jacobian from derivatives in random directions at random states.

    A Jacobian J is diagonal exactly when $J v = (J 1) \\odot v$ for every v. If J is not diagonal, one random v shows
    it almost surely. (A vector-Jacobian product with ones gives the column sums of J, not its diagonal.)

    Args:
        step: Function `step(h, x, *params)` from `(batch, *state)` to `(batch, *state)`.
        h: States `(batch, channels)`, or `(batch, slots, channels)` where each channel may couple its own slots.
        x: Input of one step, a tensor or tuple of tensors with a batch axis.
        params: Further arguments of the step.

    Example:
        >>> jacobian_structure(lambda h, x: torch.tanh(h * x), torch.zeros(2, 3), torch.randn(2, 3)).kind
        'diagonal'
        >>> mix = torch.randn(3, 3)
        >>> jacobian_structure(lambda h, x: torch.tanh(h @ mix + x), torch.zeros(2, 3), torch.randn(2, 3)).kind
        'dense'
    """
    x = x if isinstance(x, tuple) else (x,)
    with torch.no_grad():
        check_step(step, scattered(h), x, params)
    noise = torch.Generator().manual_seed(0)
    known = torch.zeros_like(h, dtype=torch.bool)
    errors: dict[Structure, float] = {"diagonal": 0.0, "blocks": 0.0 if h.dim() == 3 else float("inf")}
    for _ in range(3):
        state = torch.tanh(h.detach() + torch.randn(h.shape, generator=noise).to(h))
        v = random_direction(h, noise)
        for kind in errors:
            if errors[kind] == float("inf"):
                continue
            cell = StepCell(step, kind, h.dim() - 1, tuple(t.dim() - 1 for t in x))
            true = directional(partial(cell.step, x=x, params=params), state, v)
            known |= true.isfinite()
            gap = derivative_gap(true, cell.jacobian(state, x, params), v, kind)
            errors[kind] = max(errors[kind], float(gap.max()))
    if not known.flatten(0, -2).any(0).all():  # a channel without a finite derivative may couple anything
        errors = dict.fromkeys(errors, float("inf"))
    allowed = allowed_gap(h.dtype)
    found: Structure = "dense"
    if errors["diagonal"] <= allowed:
        found = "diagonal"
    elif errors["blocks"] <= allowed:
        found = "blocks"
    return JacobianStructure(found, errors["diagonal"], errors["blocks"])
