"""One step of a recurrence with what its parallel solution needs: its derivative and its pullback."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor

from .._errors import InputError
from ..algebra import Structure
from ..algebra._linear_scan import apply_map
from ._probes import check_step, scattered

Tensors: TypeAlias = tuple[Tensor, ...]
Step: TypeAlias = Callable[..., Tensor]


def directional(f: Callable[[Tensor], Tensor], state: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """f and its derivative in the direction v.

    On a copy: of a view, forward differentiation would fill a tangent as large as what it is a view of.
    """
    out = torch.func.jvp(f, (state.clone(),), (v.clone(),))
    return out[0], out[1]


class Cell:
    """A step `h' = f(h, x, params)` on any number of leading axes ("lanes"), whose derivative autograd finds.

    A subclass gives `step`, and overrides `linearize` and `pullback` where a closed form is faster.
    """

    structure: Structure = "diagonal"
    bound: float | None = None
    """Every entry of the state stays within it when the initial state does; None when nothing is known."""

    def step(self, state: Tensor, x: Tensors, params: Tensors) -> Tensor:
        """The next state, `(*lanes, *state)`."""
        raise NotImplementedError

    def linearize(self, state: Tensor, x: Tensors, params: Tensors, out: Tensors = ()) -> tuple[Tensor, Any]:
        """The Jacobian of the step with respect to the state, and what `pullback` wants to know.

        `out` is where `pullback` will write the gradient of x; a cell may keep its derivatives there in between.
        """
        return self.jacobian(state, x, params)[1], (state, x, params)

    def pullback(self, context: Any, gradient: Tensor, out: Tensors) -> list[Tensor | None]:
        """Write the gradient of x into `out` and return that of params, given the gradient of the next state."""
        state, x, params = context
        with torch.enable_grad():
            leaves = [t.detach().requires_grad_(t.is_floating_point()) for t in (*x, *params)]
            new = self.step(state.detach(), tuple(leaves[: len(x)]), tuple(leaves[len(x) :]))
            wanted = [leaf for leaf in leaves if leaf.requires_grad]
            found = iter(torch.autograd.grad(new, wanted, gradient, allow_unused=True)) if new.requires_grad else None
        grads = [next(found) if found is not None and leaf.requires_grad else None for leaf in leaves]
        for target, grad in zip(out, grads, strict=False):
            target.zero_() if grad is None else target.copy_(grad)
        return grads[len(x) :]

    def jacobian(self, state: Tensor, x: Tensors, params: Tensors) -> tuple[Tensor, Tensor]:
        """The next state and the Jacobian, one forward derivative for each column that the structure has."""

        def f(h: Tensor) -> Tensor:
            return self.step(h, x, params)

        if self.structure == "diagonal":
            return directional(f, state, torch.ones_like(state))
        axis = -2 if self.structure == "blocks" else -1
        width = state.shape[axis]
        eye = torch.eye(width, dtype=state.dtype, device=state.device)
        columns = []
        for i in range(width):
            tangent = eye[i, :, None] if self.structure == "blocks" else eye[i]
            out, column = directional(f, state, tangent.expand_as(state))
            columns.append(column)
        return out, torch.stack(columns, -2 if self.structure == "blocks" else -1)


class StepCell(Cell):
    """A user's `step(h, x, *params)`, which knows one batch axis: the lanes are folded into it."""

    def __init__(self, step: Step, structure: Structure, state_dim: int, x_dims: tuple[int, ...]) -> None:
        self.function, self.structure = step, structure
        self.state_dim, self.x_dims = state_dim, x_dims

    def step(self, state: Tensor, x: Tensors, params: Tensors) -> Tensor:
        lanes = state.shape[: state.dim() - self.state_dim]
        rows = [t.reshape(-1, *t.shape[t.dim() - dims :]) for t, dims in zip(x, self.x_dims, strict=True)]
        flat = state.reshape(-1, *state.shape[len(lanes) :])
        version = flat._version
        out = self.function(flat, rows[0] if len(rows) == 1 else tuple(rows), *params)
        if flat._version != version:
            raise InputError("step changed the state that it was given in place; it must return a new one")
        if not isinstance(out, Tensor) or out.shape != flat.shape:
            said = f"shape {tuple(out.shape)}" if isinstance(out, Tensor) else type(out).__name__
            raise InputError(f"step must return a state of the shape it was given, {tuple(flat.shape)}, got {said}")
        return out.reshape(state.shape)

    def verify(self, state: Tensor, x: Tensors, params: Tensors, jacobian: Tensor) -> None:
        """Compare a Jacobian with one directional derivative at every state of a trajectory."""
        if state.numel() == 0:
            return
        v = torch.randn(state.shape, generator=torch.Generator().manual_seed(1)).to(state)
        _, true = directional(lambda h: self.step(h, x, params), state, v)
        claimed = apply_map(jacobian, v, self.structure)
        scale = torch.maximum(true.abs(), claimed.abs()).flatten(1).amax(1).clamp(min=torch.finfo(v.dtype).tiny)
        gap = (true - claimed).abs().flatten(1).amax(1) / scale
        bad = (gap > _allowed(v.dtype)).nonzero()
        if self.structure != "dense" and bad.numel():
            raise InputError(
                f"the Jacobian of the step is not {self.structure} along its trajectory (off by "
                f"{float(gap.nan_to_num().max()):.1e} relative), though it looked so where it was probed; give "
                f"structure='dense'"
            )


def _allowed(dtype: torch.dtype) -> float:
    return 256 * torch.finfo(dtype).eps


@dataclass(frozen=True)
class JacobianStructure:
    """What a step couples, found by probing it.

    Attributes:
        kind: "diagonal", "blocks" (the slots of one channel) or "dense".
        diagonal_error: how much a directional derivative differs from that of a diagonal Jacobian, relative.
        block_error: the same for blocks; infinite when the state has no axis of slots.
    """

    kind: Structure
    diagonal_error: float
    block_error: float


def jacobian_structure(step: Step, h: Tensor, x: Tensor | Tensors, params: Tensors = ()) -> JacobianStructure:
    """Find what the Jacobian of a step couples, by derivatives in random directions at random states.

    A Jacobian J is diagonal exactly when $J v = (J 1) \\odot v$ for every v; one random v refutes it almost surely
    when it is not. (A vector-Jacobian product with ones, often taken for the diagonal, gives column sums for any J.)

    Args:
        step: `step(h, x, *params)`, from `(batch, *state)` to `(batch, *state)`.
        h: states `(batch, channels)`, or `(batch, slots, channels)` where channels may couple their own slots.
        x: the input of one step, a tensor or tuple of tensors with a batch axis.
        params: further arguments of the step.

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
    errors: dict[Structure, float] = {"diagonal": 0.0, "blocks": 0.0 if h.dim() == 3 else float("inf")}
    for _ in range(3):
        state = torch.tanh(h.detach() + torch.randn(h.shape, generator=noise).to(h))
        v = torch.randn(h.shape, generator=noise).to(h)
        for kind in errors:
            if errors[kind] == float("inf"):
                continue
            cell = StepCell(step, kind, h.dim() - 1, tuple(t.dim() - 1 for t in x))
            claimed = apply_map(cell.jacobian(state, x, params)[1], v, kind)
            _, true = directional(partial(cell.step, x=x, params=params), state, v)
            scale = max(float(true.abs().max()), float(claimed.abs().max()), torch.finfo(h.dtype).tiny)
            errors[kind] = max(errors[kind], float((claimed - true).abs().max()) / scale)
    allowed = _allowed(h.dtype)
    found: Structure = "dense"
    if errors["diagonal"] <= allowed:
        found = "diagonal"
    elif errors["blocks"] <= allowed:
        found = "blocks"
    return JacobianStructure(found, errors["diagonal"], errors["blocks"])
