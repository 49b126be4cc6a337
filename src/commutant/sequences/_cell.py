"""One step of a recurrence, with the derivative and the pullback that a parallel solution needs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor

from .._errors import InputError
from ..algebra import Structure
from ..algebra.linear_maps import apply_map, transpose_map
from ._visible import writes

Tensors: TypeAlias = tuple[Tensor, ...]
Step: TypeAlias = Callable[..., Tensor]


def directional(f: Callable[[Tensor], Tensor], state: Tensor, v: Tensor) -> Tensor:
    """Return the derivative of f in the direction v."""
    # copies, because the tangent of a view is as large as the tensor behind the view
    return torch.func.jvp(f, (state.clone(),), (v.clone(),))[1]


def pulled(f: Callable[[Tensor], Tensor], state: Tensor, seeds: Tensors) -> list[Tensor]:
    """Return the vector-Jacobian product of f at a state, for each cotangent in `seeds`."""
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
    """One step `h' = f(h, x, params)` on any number of leading axes ("lanes"), differentiated by autograd.

    A subclass implements `step`. It overrides `linearize` and `pullback` where a closed form is faster.
    """

    structure: Structure = "diagonal"
    bound: float | None = None
    """Upper bound on |state|, valid whenever the initial state is within it; None when no bound is known."""

    def step(self, state: Tensor, x: Tensors, params: Tensors) -> Tensor:
        """Return the next state, `(*lanes, *state)`."""
        raise NotImplementedError

    def linearize(self, state: Tensor, x: Tensors, params: Tensors, out: Tensors = ()) -> tuple[Tensor, Any]:
        """Return the Jacobian of the step with respect to the state, and the context for `pullback`.

        `pullback` later writes the gradient of x into `out`. A cell may store its derivatives there until then.
        """
        return self.jacobian(state, x, params), (state, x, params)

    def pullback(self, context: Any, gradient: Tensor, out: Tensors) -> list[Tensor | None]:
        """Write the gradient of x into `out` and return the gradient of params, given that of the next state."""
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
        """Return the Jacobian, by one forward-mode derivative per column or, with `reverse`, one reverse-mode per row.

        The gradient of the loop uses reverse mode too, so a reverse Jacobian is finite wherever that gradient is.
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
    """A user's `step(h, x, *params)` with one batch axis, into which all lanes are folded."""

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
            raise InputError("step changed the given state in place; it must return a new state")
        if not isinstance(out, Tensor) or out.shape != flat.shape:
            said = f"shape {tuple(out.shape)}" if isinstance(out, Tensor) else type(out).__name__
            raise InputError(f"step must return a state of the given shape {tuple(flat.shape)}, got {said}")
        return out.reshape(state.shape)

    def verify(self, state: Tensor, x: Tensors, params: Tensors, jacobian: Tensor, reverse: bool = False) -> None:
        """Check a Jacobian against one random derivative, forward or reverse, at every state of a trajectory."""
        if state.numel() == 0 or self.structure == "dense":
            return
        unit = _power_of_two(state)  # small channels count as much as large ones
        v = random_direction(state, torch.Generator().manual_seed(1)) * (1 / unit if reverse else unit)
        f = partial(self.step, x=x, params=params)
        true = pulled(f, state, (v,))[0] if reverse else directional(f, state, v)
        claimed = transpose_map(jacobian, self.structure) if reverse else jacobian
        worst = float(derivative_gap(true, claimed, v, self.structure).max())
        if worst > allowed_gap(v.dtype):
            raise InputError(
                f"the Jacobian of the step is not {self.structure} along its trajectory (relative error {worst:.1e}), "
                f"although the probes found it {self.structure}; give structure='dense'"
            )


def random_direction(state: Tensor, noise: torch.Generator) -> Tensor:
    """Draw random signed powers of two, by which products are exact: uncoupled entries show no rounding error."""
    exponent = torch.randint(-8, 9, state.shape, generator=noise)
    sign = torch.randint(0, 2, state.shape, generator=noise) * 2 - 1
    return (sign * torch.exp2(exponent)).to(state)


def _power_of_two(state: Tensor) -> Tensor:
    """Return the power of two just above each entry, within 2**±60; 1 where the entry is zero or not finite."""
    _, exponent = torch.frexp(torch.where(state.isfinite() & (state != 0), state, 0.5))
    return torch.exp2(exponent.clamp(-60, 60).to(state.dtype))


def derivative_gap(true: Tensor, jacobian: Tensor, v: Tensor, structure: Structure) -> Tensor:
    """Return the entrywise relative difference between `jacobian @ v` and the true derivative; never NaN.

    Entries that are NaN or the same infinity in both agree. An entry that is finite in only one differs by infinity.
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


def allowed_gap(dtype: torch.dtype) -> float:
    """Return the relative difference that rounding may cause."""
    return min(256 * torch.finfo(dtype).eps, 0.1)
