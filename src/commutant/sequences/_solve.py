"""The function `solve_recurrence`, which solves any step in parallel over time and certifies the result."""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from .._checks import one_of, positive
from .._errors import InputError
from ..algebra import Structure
from ._across_ranks import solve_across, widest_structure
from ._cell import Cell, Step, StepCell, Tensors
from ._find import HALF, METHODS, Method, Options, SolveInfo, adjoint, find_trajectory, loop, widened
from ._jacobian_structure import jacobian_structure
from ._probes import check_batch, check_gradients_arrive, pick_lanes


def solve_recurrence(
    step: Step,
    x: Float[Tensor, "batch time *features"] | tuple[Tensor, ...],
    h_0: Float[Tensor, "batch *state"],
    *,
    params: tuple[Tensor, ...] = (),
    structure: Structure | Literal["auto"] = "auto",
    method: Method = "auto",
    bound: float | None = None,
    max_iters: int | None = None,
    tol: float | None = None,
    on_fail: Literal["fallback", "raise", "warn"] = "fallback",
    process_group: Any = None,
) -> tuple[Float[Tensor, "batch time *state"], SolveInfo]:
    """Solve $h_t = f(h_{t-1}, x_t)$ for all t, in parallel over time where that is possible.

    The result equals that of the plain loop up to a few units in the last place; otherwise the function reports it.
    Every parallel solve is certified by its residual and the mismatch at chunk boundaries. If the certificate fails,
    the solver falls back to tabulated chunk maps (where a bound is known) and finally to the sequential loop. The
    backward pass is one linear recurrence run in reverse, exact at the solution. Second derivatives use the loop.

    Methods (Danieli et al. 2025, arXiv 2510.21450; Gonzalez et al. 2024, arXiv 2407.19115):

    - `loop`: the plain loop with the gradient of autograd, the reference of all others;
    - `sequential`: the same loop with the parallel backward pass;
    - `multishoot`: Newton's method on the states at chunk boundaries;
    - `tabulated`: chunk maps tabulated over a bounded state, for cells with permanent memory;
    - `newton`, `quasi`, `elk`, `picard`, `jacobi`: fixed-point iterations over the whole trajectory;
    - `auto`: one of them, chosen by device, length and width.

    Args:
        step: Function `step(h, x, *params)` from states `(batch, *state)` and one step of x to the next states. Each
            row must depend only on the same row of h and x. The solver calls the step on other rows and in another
            order than the loop. Probing finds batch statistics, changed attributes and random numbers, and raises an
            error. Keep memory in h, and pass noise (dropout) through x.
        x: Inputs `(batch, time, *features)`, or a tuple of inputs, which the step then gets as a tuple.
        h_0: Initial states `(batch, channels)`, or `(batch, slots, channels)`.
        params: Further tensors that the step uses. Gradients reach these, but not tensors that the step closes over.
        structure: Structure of the Jacobian. `"auto"` finds it by probing; any other value is verified by probing.
        method: Solver, one of those above.
        bound: Upper bound on |state|, valid whenever |h_0| is within it; required for `tabulated`.
        max_iters: Largest number of iterations of the first method; by default 3 for Newton's family (as in the paper),
            6 for shooting.
        tol: Largest relative step defect that counts as solved; by default 8 units in the last place.
        on_fail: Reaction to a failed certificate: `"fallback"` to the next method, `"raise"`, or `"warn"` and fall
            back.
        process_group: Process group of `torch.distributed` over which time is split. x and the returned states hold the
            steps of this rank. The number of steps may differ between ranks. h_0 is read on rank 0. Every rank must run
            the backward pass. Gradients of params cover the rank's own steps; sum them over the ranks (as DDP does).

    Returns:
        The states `(batch, time, *state)`, and a `SolveInfo`.

    Raises:
        InputError: For inconsistent shapes, an unknown option, a wrong structure, or a step whose rows depend on more
            than their own state and input.
        ConvergenceError: When the certificate fails with `on_fail="raise"`.
        CommutantError: When another rank of the group has stopped.

    Example:
        >>> a = torch.tensor([0.5, -0.4])
        >>> x = torch.randn(3, 500, 2)
        >>> h, info = solve_recurrence(lambda h, x, a: torch.tanh(a * h + x), x, torch.zeros(3, 2), params=(a,))
        >>> h.shape, info.converged
        (torch.Size([3, 500, 2]), True)
    """
    if torch.jit.is_tracing():
        raise InputError(
            "torch.jit.trace would fix the number of steps of a recurrence; use torch.export or torch.compile instead"
        )
    leaves = x if isinstance(x, tuple) else (x,)
    if not all(isinstance(t, Tensor) for t in leaves):
        raise InputError(f"x must be a tensor or a tuple of tensors, got {type(x).__name__}")
    if not isinstance(h_0, Tensor):
        raise InputError(f"h_0 must be a tensor, got {type(h_0).__name__}")
    if not isinstance(params, tuple) or not all(isinstance(t, Tensor) for t in params):
        raise InputError(f"params must be a tuple of tensors, got {type(params).__name__}")
    _check(leaves, h_0, method, on_fail)
    if bound is not None:
        positive("bound", bound)
    if torch.compiler.is_exporting():  # an exported graph cannot probe, and holds the plain loop
        out = loop(
            StepCell(step, "dense", h_0.dim() - 1, tuple(t.dim() - 2 for t in leaves)),
            tuple(t.transpose(0, 1) for t in leaves),
            h_0,
            params,
        )
        return out.transpose(0, 1), SolveInfo("sequential", 0, 0.0, 0.0, True)

    def probe() -> Structure:
        _probe_rows(step, leaves, h_0, params, method)
        return _structure(step, leaves, h_0, params, structure)

    kind = probe() if process_group is None else widest_structure(probe, h_0, process_group)
    cell = StepCell(step, kind, h_0.dim() - 1, tuple(t.dim() - 2 for t in leaves))
    cell.bound = bound
    options = Options(method, max_iters, tol, on_fail)
    timed = tuple(t.transpose(0, 1) for t in leaves)
    states, info = solve(cell, timed, h_0, params, options, process_group)
    return states.transpose(0, 1), info


def _check(x: Tensors, h_0: Tensor, method: str, on_fail: str) -> None:
    if not x or any(t.dim() < 2 for t in x) or len({t.shape[:2] for t in x}) != 1:
        raise InputError(f"x must be one or more tensors (batch, time, ...), got shapes {[tuple(t.shape) for t in x]}")
    if h_0.dim() < 2 or h_0.shape[0] != x[0].shape[0] or not h_0.is_floating_point():
        raise InputError(
            f"h_0 must be floating point of shape ({x[0].shape[0]}, *state) for x of shape {tuple(x[0].shape)}, "
            f"got {h_0.dtype} of shape {tuple(h_0.shape)}"
        )
    if h_0.dim() > 3:
        raise InputError(f"h_0 must be (batch, channels) or (batch, slots, channels), got shape {tuple(h_0.shape)}")
    one_of("method", method, METHODS)
    one_of("on_fail", on_fail, ("fallback", "raise", "warn"))


def _probe_rows(step: Step, x: Tensors, h_0: Tensor, params: Tensors, method: str) -> None:
    if h_0.numel() == 0 or x[0].shape[1] == 0 or torch._C._are_functorch_transforms_active():  # type: ignore[attr-defined]
        return
    lanes = tuple(widened(t) for t in pick_lanes(h_0, x))
    wide = tuple(widened(p.detach()) for p in params)
    with torch.no_grad():
        check_batch(step, widened(h_0.detach()), tuple(widened(t[:, 0].detach()) for t in x), lanes, wide)
    if method != "loop" and torch.is_grad_enabled():
        check_gradients_arrive(step, lanes[0], lanes[1:], wide)


def _structure(step: Step, x: Tensors, h_0: Tensor, params: Tensors, claimed: str) -> Structure:
    one_of("structure", claimed, ("auto", "diagonal", "blocks", "dense"))
    if h_0.numel() == 0 or x[0].shape[1] == 0 or torch._C._are_functorch_transforms_active():  # type: ignore[attr-defined]
        return "diagonal" if claimed == "auto" else claimed  # type: ignore[return-value]
    rows, times = slice(0, 4), torch.linspace(0, x[0].shape[1] - 1, 8).long().unique()
    with torch.no_grad():
        # several rows and times, because a step may couple more on some inputs than on others
        sample = tuple(widened(t[rows, times].detach()).flatten(0, 1) for t in x)
        sample = tuple(t.nan_to_num() if t.is_floating_point() else t for t in sample)
        states = widened(h_0[rows].detach()).nan_to_num().repeat_interleave(len(times), 0)
        found = jacobian_structure(step, states, sample, tuple(widened(p.detach()) for p in params))
    order = ("diagonal", "blocks", "dense")
    if claimed == "auto":
        claimed = found.kind
    elif order.index(claimed) < order.index(found.kind):
        raise InputError(
            f"structure={claimed!r} was given, but the Jacobian of the step is {found.kind} (relative error "
            f"{found.diagonal_error if claimed == 'diagonal' else found.block_error:.1e} of a random derivative); give "
            f"structure={found.kind!r} or 'auto'"
        )
    if claimed == "dense" and h_0.dim() == 3:
        raise InputError(f"h_0 must be (batch, features) for a dense Jacobian, got shape {tuple(h_0.shape)}")
    return claimed  # type: ignore[return-value]


@torch.compiler.disable
def solve(
    cell: Cell, x: Tensors, h_0: Tensor, params: Tensors, options: Options, process_group: Any = None
) -> tuple[Tensor, SolveInfo]:
    """Solve a recurrence with x of leaves `(time, batch, ...)` and states `(time, batch, *state)`."""
    if process_group is not None:
        return solve_across(cell, x, h_0, params, options, process_group)
    if x[0].shape[0] == 0 or h_0.numel() == 0:
        # connected to all arguments, so that an empty batch supports a backward pass
        joined = sum((t.sum() * 0 for t in (*x, *params) if t.is_floating_point()), h_0 * 0)
        empty = h_0.new_zeros((x[0].shape[0], *h_0.shape)) + joined.to(h_0.dtype)
        return empty, SolveInfo("sequential", 0, 0.0, 0.0, True)
    forward_mode = torch.autograd.forward_ad._current_level >= 0
    if options.method == "loop" or forward_mode or torch._C._are_functorch_transforms_active():  # type: ignore[attr-defined]
        return loop(cell, x, h_0, params), SolveInfo("sequential", 0, 0.0, 0.0, True)
    report: list[SolveInfo] = []
    states = _Solve.apply(cell, options, report, len(x), h_0, *x, *params)
    return states, report[0]


class _Solve(torch.autograd.Function):
    """Solver with implicit differentiation, whose backward pass is a linear recurrence."""

    @staticmethod
    def forward(
        ctx: Any, cell: Cell, options: Options, report: list[SolveInfo], count: int, h_0: Tensor, *rest: Tensor
    ) -> Tensor:
        x, params = rest[:count], rest[count:]
        dtype = h_0.dtype
        wide = [widened(t) for t in (h_0, *rest)]
        with torch.autocast(h_0.device.type, enabled=False):
            states, info = find_trajectory(cell, tuple(wide[1 : count + 1]), wide[0], tuple(wide[count + 1 :]), options)
        report.append(info)
        ctx.cell, ctx.count = cell, count
        ctx.save_for_backward(states, h_0, *x, *params)
        return states.to(dtype) if dtype in HALF else states.clone() if not states.is_contiguous() else states

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        states, h_0, *rest = ctx.saved_tensors
        cell, count = ctx.cell, ctx.count
        if torch.is_grad_enabled():  # second derivatives differentiate the plain loop
            # views, because one input may depend on another, and only the direct dependence counts here
            inputs = [t.view_as(t) for t in (h_0, *rest)]
            wanted = [t for t in inputs if t.requires_grad]
            out = loop(cell, tuple(inputs[1 : count + 1]), inputs[0], tuple(inputs[count + 1 :]))
            found = iter(torch.autograd.grad(out, wanted, gradient, create_graph=True, allow_unused=True))
            return None, None, None, None, *(next(found) if t.requires_grad else None for t in inputs)
        wide = [widened(t) for t in (h_0, *rest)]
        x, params = tuple(wide[1 : count + 1]), tuple(wide[count + 1 :])
        with torch.autocast(h_0.device.type, enabled=False):
            d_h0, d_x, d_params = adjoint(cell, x, wide[0], params, states, gradient.to(states.dtype))
        grads = [
            None if g is None else g.to(t.dtype) for g, t in zip((d_h0, *d_x, *d_params), (h_0, *rest), strict=True)
        ]
        return None, None, None, None, *grads
