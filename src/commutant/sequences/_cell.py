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
from ..algebra.linear_maps import apply_map, transpose_map
from ._probes import check_step, scattered
from ._visible import writes

Tensors: TypeAlias = tuple[Tensor, ...]
Step: TypeAlias = Callable[..., Tensor]


def directional(f: Callable[[Tensor], Tensor], state: Tensor, v: Tensor) -> Tensor:
    """The derivative of f in the direction v.

    On a copy: of a view, forward differentiation would fill a tangent as large as what it is a view of.
    """
    return torch.func.jvp(f, (state.clone(),), (v.clone(),))[1]


def pulled(f: Callable[[Tensor], Tensor], state: Tensor, seeds: Tensors) -> list[Tensor]:
    """The gradient of f at a state for each seed, a gradient of its value."""
    with torch.enable_grad():
        h = state.detach().clone().requires_grad_()
        out = f(h)
        if not out.requires_grad:
            return [torch.zeros_like(h) for _ in seeds]
        return [
            torch.autograd.grad(out, h, seed, retain_graph=True, allow_unused=True, materialize_grads=True)[0]
            for seed in seeds
        ]


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
        return self.jacobian(state, x, params), (state, x, params)

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

    def jacobian(self, state: Tensor, x: Tensors, params: Tensors, reverse: bool = False) -> Tensor:
        """The Jacobian, one forward derivative for each column that the structure has, or a backward one for each row.

        Backward differentiation is that of the loop: what is finite there is finite here.
        """

        def f(h: Tensor) -> Tensor:
            return self.step(h, x, params)

        blocks = self.structure == "blocks"
        if self.structure == "diagonal":
            seeds: Tensors = (torch.ones_like(state),)
        else:
            eye = torch.eye(state.shape[-2 if blocks else -1], dtype=state.dtype, device=state.device)
            seeds = tuple((row[:, None] if blocks else row).expand_as(state) for row in eye)
        found = pulled(f, state, seeds) if reverse else [directional(f, state, seed) for seed in seeds]
        if self.structure == "diagonal":
            return found[0]
        column = -2 if blocks else -1
        return torch.stack(found, column - 1 if reverse else column)


class StepCell(Cell):
    """A user's `step(h, x, *params)`, which knows one batch axis: the lanes are folded into it."""

    def __init__(self, step: Step, structure: Structure, state_dim: int, x_dims: tuple[int, ...]) -> None:
        self.function, self.structure = step, structure
        self.state_dim, self.x_dims = state_dim, x_dims

    def step(self, state: Tensor, x: Tensors, params: Tensors) -> Tensor:
        lanes = state.shape[: state.dim() - self.state_dim]
        rows = [t.reshape(-1, *t.shape[t.dim() - dims :]) for t, dims in zip(x, self.x_dims, strict=True)]
        flat = state.reshape(-1, *state.shape[len(lanes) :])
        version = writes(flat)
        out = self.function(flat, rows[0] if len(rows) == 1 else tuple(rows), *params)
        if writes(flat) != version:
            raise InputError("step changed the state that it was given in place; it must return a new one")
        if not isinstance(out, Tensor) or out.shape != flat.shape:
            said = f"shape {tuple(out.shape)}" if isinstance(out, Tensor) else type(out).__name__
            raise InputError(f"step must return a state of the shape it was given, {tuple(flat.shape)}, got {said}")
        return out.reshape(state.shape)

    def verify(self, state: Tensor, x: Tensors, params: Tensors, jacobian: Tensor, reverse: bool = False) -> None:
        """Compare a Jacobian with one directional derivative, forward or in reverse, at every state of a trajectory."""
        if state.numel() == 0 or self.structure == "dense":
            return
        unit = _power_of_two(state)  # a channel counts in its own unit, however small
        v = _direction(state, torch.Generator().manual_seed(1)) * (1 / unit if reverse else unit)
        f = partial(self.step, x=x, params=params)
        true = pulled(f, state, (v,))[0] if reverse else directional(f, state, v)
        worst = float(
            _gap(true, transpose_map(jacobian, self.structure) if reverse else jacobian, v, self.structure).max()
        )
        if worst > _allowed(v.dtype):
            raise InputError(
                f"the Jacobian of the step is not {self.structure} along its trajectory (off by {worst:.1e} relative), "
                f"though it looked so where it was probed; give structure='dense'"
            )


def _direction(state: Tensor, noise: torch.Generator) -> Tensor:
    """Signed powers of two at random: a product with one is exact, so where nothing couples nothing is rounded."""
    exponent = torch.randint(-8, 9, state.shape, generator=noise)
    sign = torch.randint(0, 2, state.shape, generator=noise) * 2 - 1
    return (sign * torch.exp2(exponent)).to(state)


def _power_of_two(state: Tensor) -> Tensor:
    """The size of each entry, within 2**±60; 1 where it is zero or not finite."""
    _, exponent = torch.frexp(torch.where(state.isfinite() & (state != 0), state, 0.5))
    return torch.exp2(exponent.clamp(-60, 60).to(state.dtype))


def _gap(true: Tensor, jacobian: Tensor, v: Tensor, structure: Structure) -> Tensor:
    """How far a Jacobian is from a derivative in the direction v, relative and entry by entry; never NaN.

    What is NaN or the same infinity in both agrees; what is not finite in one of them alone is infinitely far.
    """
    claimed = apply_map(jacobian, v, structure)
    size = torch.maximum(true.abs(), apply_map(jacobian.abs(), v.abs(), structure))
    if structure == "blocks":
        size = size.amax(-2, keepdim=True)
    elif structure == "dense":
        size = size.amax(-1, keepdim=True)
    gap = (true - claimed).abs() / size.clamp(min=torch.finfo(v.dtype).tiny / torch.finfo(v.dtype).eps)
    same = (true == claimed) | (true.isnan() & claimed.isnan())
    return gap.masked_fill(same, 0).nan_to_num(nan=torch.inf, posinf=torch.inf)


def _allowed(dtype: torch.dtype) -> float:
    return min(256 * torch.finfo(dtype).eps, 0.1)


@dataclass(frozen=True)
class JacobianStructure:
    """What a step couples, found by probing it.

    Attributes:
        kind: "diagonal", "blocks" (the slots of one channel) or "dense".
        diagonal_error: how much a directional derivative differs from that of a diagonal Jacobian, relative, in the
            worst entry.
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
    known = torch.zeros_like(h, dtype=torch.bool)
    errors: dict[Structure, float] = {"diagonal": 0.0, "blocks": 0.0 if h.dim() == 3 else float("inf")}
    for _ in range(3):
        state = torch.tanh(h.detach() + torch.randn(h.shape, generator=noise).to(h))
        v = _direction(h, noise)
        for kind in errors:
            if errors[kind] == float("inf"):
                continue
            cell = StepCell(step, kind, h.dim() - 1, tuple(t.dim() - 1 for t in x))
            true = directional(partial(cell.step, x=x, params=params), state, v)
            known |= true.isfinite()
            errors[kind] = max(errors[kind], float(_gap(true, cell.jacobian(state, x, params), v, kind).max()))
    if not known.flatten(0, -2).any(0).all():  # a channel that was never seen may couple anything
        errors = dict.fromkeys(errors, float("inf"))
    allowed = _allowed(h.dtype)
    found: Structure = "dense"
    if errors["diagonal"] <= allowed:
        found = "diagonal"
    elif errors["blocks"] <= allowed:
        found = "blocks"
    return JacobianStructure(found, errors["diagonal"], errors["blocks"])
