"""Search for a trajectory with its certificate and fallbacks, and its adjoint, outside autograd and with time first."""

from __future__ import annotations

import math
import warnings
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from .._errors import CommutantError
from ..algebra.linear_maps import apply_map, chunk_count, scan_time, transpose_map
from ._cell import Cell, StepCell, Tensors
from ._probes import check_trajectory
from .solvers import NEWTON_LIKE, Attempt, Problem, multishoot, newton_like, sequential, tabulated

Method: TypeAlias = Literal[
    "auto", "loop", "sequential", "multishoot", "tabulated", "newton", "quasi", "elk", "picard", "jacobi"
]
METHODS = ("auto", "loop", "sequential", "multishoot", "tabulated", *NEWTON_LIKE)
WARM_UP = 32  # number of steps after which a cell of moderate memory has forgotten a wrong start
_SHORTEST = 2 * WARM_UP  # chunks shorter than this gain nothing over the loop
HALF = (torch.bfloat16, torch.float16)


class ConvergenceError(CommutantError):
    """A parallel solve did not meet its certificate, and falling back was not allowed."""


@dataclass(frozen=True)
class SolveInfo:
    """Report of a solve: the method that found the trajectory, and the errors that certify it.

    Attributes:
        method: Method that gave the result. The name of a compiled kernel ends in its language, as in
            `"sequential-c"` and `"multishoot-triton"`.
        iterations: Number of iterations (sweeps over all chunks for the shooting methods); 0 for the loop.
        residual: Largest entrywise defect $|f(h_{t-1}, x_t) - h_t| / \\max(|h_t|, |h_{t-1}|)$; NaN if a state is NaN.
        mismatch: Largest relative error of a state at a chunk boundary, measured by the jumps between rerun chunks
            and their growth until the end.
        converged: Whether the first method met the tolerance and no state is NaN.
        fell_back: Methods that were tried before and did not meet the tolerance.
    """

    method: str
    iterations: int
    residual: float
    mismatch: float
    converged: bool
    fell_back: tuple[str, ...] = ()


@dataclass(frozen=True)
class Options:
    """Options of a solve; see `solve_recurrence`."""

    method: str = "auto"
    max_iters: int | None = None
    tol: float | None = None
    on_fail: str = "fallback"


def loop(cell: Cell, x: Tensors, h_0: Tensor, params: Tensors) -> Tensor:
    """Run the plain differentiable loop, which is the reference and serves transforms and second derivatives."""
    dtype, states = h_0.dtype, []
    h, *wide = (widened(t) for t in (h_0, *params))
    with torch.autocast(h_0.device.type, enabled=False):
        for t in range(x[0].shape[0]):
            h = cell.step(h, tuple(widened(leaf[t]) for leaf in x), tuple(wide))
            states.append(h)
        return torch.stack(states).to(dtype)


def without_autocast(device_type: str) -> AbstractContextManager[Any]:
    """Return a context without autocast, also for devices (meta) that have no autocast."""
    if not torch.amp.is_autocast_available(device_type):
        return nullcontext()
    return torch.autocast(device_type, enabled=False)


def widened(t: Tensor) -> Tensor:
    """Return a tensor of half precision in float32, and any other tensor as it is."""
    return t.float() if t.dtype in HALF else t


def find_trajectory(cell: Cell, x: Tensors, h_0: Tensor, params: Tensors, options: Options) -> tuple[Tensor, SolveInfo]:
    """Return the trajectory and its certificate, outside autograd."""
    tolerance = options.tol if options.tol is not None else 8 * torch.finfo(h_0.dtype).eps
    problem = Problem(cell, h_0, x, params, tolerance)
    first = choose(problem) if options.method == "auto" else options.method
    chain = [first]
    if first != "sequential":
        chain += ["multishoot"] if first in NEWTON_LIKE else []
        chain += (
            ["tabulated"] if cell.bound is not None and cell.structure == "diagonal" and first != "tabulated" else []
        )
        chain += ["sequential"]
    failed: list[str] = []
    for method in chain:
        attempt = _attempt(problem, method, options.max_iters if method == first else None)
        if method == "sequential" or max(attempt.mismatch, attempt.residual or 0.0) <= _allowed(method, tolerance):
            break
        failed.append(method)
        if options.on_fail == "raise":
            raise ConvergenceError(
                f"method {method!r} did not converge in {attempt.iterations} iterations over {problem.length} steps: "
                f"boundary mismatch {attempt.mismatch:.1e}, residual {attempt.residual or 0:.1e}, "
                f"tolerance {tolerance:.1e}"
            )
    if isinstance(cell, StepCell):
        check_trajectory(problem, attempt.h)
    if failed and options.on_fail == "warn":
        warnings.warn(f"{' and '.join(failed)} did not converge; solved by {method}", RuntimeWarning, stacklevel=4)
    # within chunks, shooting runs the exact steps, so its only defects are the jumps at the boundaries
    residual = attempt.mismatch if attempt.residual is None else attempt.residual
    if bool(attempt.h.isnan().any()):  # the loop gives NaN too, but NaN solves nothing
        info = SolveInfo(method, attempt.iterations, math.nan, attempt.mismatch, False, tuple(failed))
        return attempt.h, info
    info = SolveInfo(method, attempt.iterations, residual, attempt.mismatch, not failed, tuple(failed))
    return attempt.h, info


def _allowed(method: str, tolerance: float) -> float:
    # small defects of a Newton-like trajectory add up along each rerun chunk
    return 16 * tolerance if method in NEWTON_LIKE else tolerance


def _attempt(problem: Problem, method: str, max_iters: int | None) -> Attempt:
    lane = problem.h_0.numel()
    if method == "sequential":
        return sequential(problem)
    if method == "multishoot":
        shortest = min(_SHORTEST, max(2, problem.length // 4))
        return multishoot(problem, max_iters or 6, max(2, chunk_count(problem.length, lane, shortest)), WARM_UP)
    if method == "tabulated":
        count = max(2, chunk_count(problem.length, lane, max(2, min(_SHORTEST, problem.length // 4))))
        return tabulated(problem, max_iters or 6, count)
    return newton_like(problem, method, 3 if max_iters is None else max_iters)


def choose(problem: Problem) -> str:
    """Return the method of `auto`: multiple shooting if chunks of useful length fill the machine and the cell forgets.

    Otherwise it is `tabulated` for a diagonal bounded cell with few lanes, and else `sequential`.
    """
    lane = problem.h_0.numel()
    if problem.cell.structure == "dense" and problem.h_0.shape[-1] > 16:
        return "sequential"
    if chunk_count(problem.length, lane, _SHORTEST) < 2 or problem.length < 4 * _SHORTEST:
        return "sequential"  # testing whether the cell forgets would cost more than it saves
    if forgets(problem):
        return "multishoot"
    # every chunk runs from 16 states, which pays only if there are few lanes
    tables = problem.cell.structure == "diagonal" and problem.cell.bound is not None and 16 * lane <= 1 << 11
    return "tabulated" if tables else "sequential"


def forgets(problem: Problem) -> bool:
    """Return whether two states converge within a warm-up, tested at a few times in a few rows."""
    places = torch.linspace(0, problem.length - WARM_UP, 4).long()
    start = problem.h_0.new_zeros((2, 4, *problem.h_0[:2].shape))
    start[1] = 0.9
    steps = tuple(leaf[places[:, None] + torch.arange(WARM_UP), :2] for leaf in problem.x)  # (places, steps, rows, ...)
    both = start
    for j in range(WARM_UP):
        x = tuple(leaf[:, j].expand(2, *leaf[:, j].shape) for leaf in steps)
        both = problem.cell.step(both, x, problem.params)
    size = both[1].abs().max().clamp(torch.finfo(both.dtype).tiny, 1)
    return float((both[0] - both[1]).abs().max() / size) < 0.03  # false for NaN


def adjoint(
    cell: Cell, x: Tensors, h_0: Tensor, params: Tensors, states: Tensor, gradient: Tensor
) -> tuple[Tensor, list[Tensor], list[Tensor | None]]:
    """Return the gradients of h_0, x and params from those of the states: linearize in blocks, scan, pull back."""
    length = states.shape[0]
    before = torch.cat([h_0[None], states[:-1]])
    block = max(1, (1 << 15) // max(h_0.numel(), 1))
    d_x = [torch.empty_like(leaf) for leaf in x]
    parts = [slice(start, min(start + block, length)) for start in range(0, length, block)]
    # one more entry than there are steps, a zero, because the last state has no successor
    jacobian, contexts = None, []
    for part in parts:
        inputs = before[part], tuple(leaf[part] for leaf in x), params
        own, context = cell.linearize(*inputs, tuple(grad[part] for grad in d_x))
        reverse = not bool(own.isfinite().all())
        if reverse:  # forward differentiation can give NaN behind a closed relu, where backward gives zero
            own = cell.jacobian(*inputs, reverse=True)
        if isinstance(cell, StepCell):
            cell.verify(*inputs, own, reverse)
        if jacobian is None:
            jacobian = own.new_zeros((length + 1, *own.shape[1:]))
        jacobian[part] = own
        contexts.append(context)
    assert jacobian is not None
    lam = scan_time(transpose_map(jacobian[1:], cell.structure), gradient, torch.zeros_like(h_0), cell.structure, True)
    d_params: list[Tensor | None] = [None] * len(params)
    for part, context in zip(parts, contexts, strict=True):
        own_params = cell.pullback(context, lam[part], tuple(grad[part] for grad in d_x))
        d_params = [_plus(old, new) for old, new in zip(d_params, own_params, strict=True)]
    d_h0 = apply_map(transpose_map(jacobian[0], cell.structure), lam[0], cell.structure)
    return d_h0, d_x, d_params


def _plus(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b
