"""Solvers of h_t = f(h_{t-1}, x_t) for a whole trajectory, sequential and parallel over time.

Time is the first axis of every tensor here. `solve_recurrence` adds the choice of a solver, the fallbacks and the
backward pass.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .._errors import InputError
from ..algebra import ScalarKalman, Structure
from ..algebra.linear_maps import apply_map, chunk_count, compose_maps, identity_map, scan_time
from ._cell import Cell, Tensors


@dataclass
class Problem:
    """A recurrence to solve.

    Args:
        cell: Cell that defines the step.
        h_0: Initial states `(batch, *state)`.
        x: Inputs, each `(time, batch, ...)`.
        params: Further tensors of the step.
        tolerance: Largest relative step defect of a trajectory that counts as solved, see `defect`.
    """

    cell: Cell
    h_0: Tensor
    x: Tensors
    params: Tensors
    tolerance: float

    @property
    def length(self) -> int:
        """Return the number of steps."""
        return self.x[0].shape[0]

    def before(self, h: Tensor) -> Tensor:
        """Return the state from which each step starts."""
        return torch.cat([self.h_0[None], h[:-1]])

    def residual(self, h: Tensor) -> float:
        """Return the largest relative defect |f(h_{t-1}, x_t) - h_t| of a trajectory."""
        before = self.before(h)
        return defect(self.cell.step(before, self.x, self.params), h, before)


@dataclass
class Attempt:
    """A trajectory with its number of iterations and its errors.

    Args:
        h: States `(time, batch, *state)`.
        iterations: Number of iterations, 0 for the loop.
        mismatch: Largest relative error at a chunk boundary, see `SolveInfo`.
        residual: Largest relative step defect, or None if the jumps at the boundaries are the only defects.
    """

    h: Tensor
    iterations: int
    mismatch: float
    residual: float | None = None


def defect(found: Tensor, expected: Tensor, before: Tensor) -> float:
    """Return the largest entrywise difference of two states, relative to the larger of |expected| and |before|.

    Equal infinities and NaNs agree; one that occurs in only one state counts as an infinite difference.

    Args:
        found: States.
        expected: States of the same shape.
        before: States before the step, which set the scale because a step from a large state to zero has the rounding
            error of the large state.
    """
    if found.numel() == 0:
        return 0.0
    size = torch.maximum(expected.abs(), before.abs().nan_to_num(nan=0.0, posinf=0.0))
    gap = (found - expected).abs() / size.clamp(min=torch.finfo(size.dtype).tiny)
    return float(gap.masked_fill(agree(found, expected), 0).nan_to_num(nan=torch.inf, posinf=torch.inf).max())


def agree(a: Tensor, b: Tensor) -> Tensor:
    """Return a mask of the entries at which two tensors are equal, counting NaNs as equal.

    Args:
        a: First tensor.
        b: Second tensor, broadcast against the first.
    """
    return (a == b) | (a.isnan() & b.isnan())


def sequential(problem: Problem) -> Attempt:
    """Solve step by step, as the reference for all other solvers.

    Args:
        problem: Recurrence to solve.
    """
    h, out = problem.h_0, problem.h_0.new_empty((problem.length, *problem.h_0.shape))
    for t in range(problem.length):
        h = problem.cell.step(h, tuple(leaf[t] for leaf in problem.x), problem.params)
        out[t] = h
    return Attempt(out, 0, 0.0, 0.0)


class Chunks:
    """A trajectory cut into chunks that run in parallel; the remaining steps run last, one by one.

    Args:
        problem: Recurrence to solve.
        count: Number of chunks, at most the number of steps.
    """

    def __init__(self, problem: Problem, count: int) -> None:
        self.problem, self.count = problem, max(1, min(count, problem.length))
        self.size = problem.length // self.count
        self.body = self.count * self.size
        self.x = tuple(leaf[: self.body].unflatten(0, (self.count, self.size)) for leaf in problem.x)
        self.h = problem.h_0.new_empty((problem.length, *problem.h_0.shape))
        self.view = self.h[: self.body].unflatten(0, (self.count, self.size))

    def step(self, state: Tensor, j: int, chunks: slice = slice(None)) -> Tensor:
        """Return the states after step j of each chunk."""
        return self.problem.cell.step(state, tuple(leaf[chunks, j] for leaf in self.x), self.problem.params)

    def warm_up(self, steps: int) -> Tensor:
        """Guess each boundary state by running the last steps of the chunk before it from a zero state."""
        starts = self.problem.h_0.new_zeros((self.count, *self.problem.h_0.shape))
        starts[0] = self.problem.h_0
        state = starts[1:].clone()
        for j in range(self.size - min(steps, self.size), self.size):
            state = self.step(state, j, slice(0, -1))
        starts[1:] = state
        return starts

    def sweep(self, starts: Tensor) -> float:
        """Run every chunk from its start and return the mismatch at the boundaries."""
        state = starts
        for j in range(self.size):
            state = self.step(state, j)
            self.view[:, j] = state
        return self.mismatch(starts)

    def before(self, starts: Tensor) -> Tensor:
        """Return the states one step before the ends of the chunks."""
        return self.view[:, -2] if self.size > 1 else starts

    def mismatch(self, starts: Tensor) -> float:
        """Return the largest jump from the end of a chunk to the start of the next."""
        return defect(self.view[:-1, -1], starts[1:], self.before(starts)[:-1])

    def repair(self, starts: Tensor) -> tuple[Tensor, float]:
        """Rerun every chunk from the end of the one before, until all chunks agree with their old trajectories."""
        new = torch.cat([starts[:1], self.view[:-1, -1]])
        state = new
        for j in range(self.size):
            state = self.step(state, j)
            joined = j % 8 == 7 and bool(agree(state, self.view[:, j]).all())
            self.view[:, j] = state
            if joined:
                break
        return new, self.mismatch(new)

    def correct(self, starts: Tensor) -> tuple[Tensor, float]:
        """Apply one iteration of Newton's method to the boundary states; see `relay`."""
        cell, structure = self.problem.cell, self.problem.cell.structure
        total = identity_map(starts, structure)
        state = starts
        for j in range(self.size):
            jacobian, _ = cell.linearize(state, tuple(leaf[:, j] for leaf in self.x), self.problem.params)
            total = compose_maps(jacobian, total, structure)
            state = self.view[:, j]
        return relay(starts, self.view[:, -1], self.before(starts), total, structure)

    def finish(self) -> Tensor:
        """Run the steps after the last chunk and return the whole trajectory."""
        state = self.h[self.body - 1]
        for t in range(self.body, self.problem.length):
            state = self.problem.cell.step(state, tuple(leaf[t] for leaf in self.problem.x), self.problem.params)
            self.h[t] = state
        return self.h


def relay(starts: Tensor, ends: Tensor, before: Tensor, products: Tensor, structure: Structure) -> tuple[Tensor, float]:
    """Propagate the jumps between chunks through the chunks' derivatives; return corrected starts and the old error.

    To first order, the correction of a start is its error, the sum of the propagated jumps before it. The returned
    error is relative to the size at which the state is rounded. This is its own size or that of earlier states that the
    recurrence still remembers.

    Args:
        starts: Start states of the chunks, `(chunks, batch, *state)`.
        ends: End states of the chunks.
        before: States one step before the ends.
        products: Derivatives of the ends with respect to the starts.
        structure: Structure of these derivatives.
    """
    new, size = starts.clone(), starts.abs()
    moved = torch.empty_like(starts[1:])
    for k in range(len(starts) - 1):
        jump = new[k] - starts[k]
        still = jump == 0 if structure == "diagonal" else (jump == 0).all()  # a derivative that overflows gives 0 * inf
        moved[k] = torch.where(still, ends[k], ends[k] + apply_map(products[k], jump, structure))
        new[k + 1] = torch.where(moved[k].isfinite(), moved[k], ends[k])
        most = size[k] if structure == "diagonal" else size[k].amax(-2 if structure == "blocks" else -1, keepdim=True)
        remembered = torch.minimum(apply_map(products[k].abs(), size[k], structure), most).nan_to_num(
            nan=0.0, posinf=0.0
        )
        size[k + 1] = torch.maximum(
            torch.maximum(ends[k].abs(), before[k].abs()).nan_to_num(nan=0.0, posinf=0.0), remembered
        )
    return new, defect(moved, starts[1:], size[1:])


def multishoot(problem: Problem, max_iters: int, count: int, warm_up: int) -> Attempt:
    """Solve by multiple shooting: guess the boundary states of all chunks, run the chunks in parallel, and correct.

    The guess ignores everything older than the warm-up, so one sweep solves a cell that forgets within it. Otherwise
    the chunks are rerun from the ends of their neighbors, and Newton's method then corrects the boundary states. The
    remaining jumps are accepted when their sum, propagated to the end, is within the tolerance.

    Args:
        problem: Recurrence to solve.
        max_iters: Largest number of sweeps over all chunks.
        count: Number of chunks.
        warm_up: Number of steps run before each chunk to guess its start.
    """
    chunks = Chunks(problem, count)
    return _shoot(chunks, chunks.warm_up(warm_up), max_iters)


def _shoot(chunks: Chunks, starts: Tensor, max_iters: int) -> Attempt:
    mismatch, iterations = chunks.sweep(starts), 1
    if mismatch > 0 and iterations < max_iters:
        starts, mismatch = chunks.repair(starts)
        iterations += 1
    while mismatch > 0:
        corrected, mismatch = chunks.correct(starts)
        if mismatch <= chunks.problem.tolerance or iterations >= max_iters:
            break
        starts = corrected
        mismatch = chunks.sweep(starts)
        iterations += 1
    return Attempt(chunks.finish(), iterations, mismatch)


def tabulated(problem: Problem, max_iters: int, count: int, points: int = 16) -> Attempt:
    """Solve by tabulating the map of each chunk, for diagonal cells whose channels are bounded.

    Every chunk runs from `points` states spread over the bound, and the boundary states follow by interpolation in the
    tables. The tables need no derivatives. This method solves bistable cells (parity), on which Newton's methods need a
    number of iterations that grows with the length.

    Args:
        problem: Recurrence to solve, whose cell is diagonal and bounded.
        max_iters: Largest number of sweeps over all chunks.
        count: Number of chunks.
        points: Number of states per channel in each table.
    """
    bound = problem.cell.bound
    if problem.cell.structure != "diagonal" or bound is None:
        raise InputError("method 'tabulated' needs a diagonal cell whose state is bounded; give bound or use 'auto'")
    if not problem.h_0.isfinite().all():
        return Attempt(problem.h_0.new_full((problem.length, *problem.h_0.shape), torch.nan), 0, torch.inf)
    bound = max(bound, float(problem.h_0.abs().max()) if problem.h_0.numel() else 0.0)
    chunks = Chunks(problem, count)
    grid = torch.linspace(-bound, bound, points, dtype=problem.h_0.dtype, device=problem.h_0.device)
    table = grid.view(-1, *[1] * (problem.h_0.dim() + 1)).expand(points, chunks.count, *problem.h_0.shape)
    x = tuple(leaf.expand(points, *leaf.shape) for leaf in chunks.x)
    for j in range(chunks.size):
        table = problem.cell.step(table, tuple(leaf[:, :, j] for leaf in x), problem.params)
    starts = problem.h_0.new_empty((chunks.count, *problem.h_0.shape))
    starts[0] = problem.h_0
    for k in range(chunks.count - 1):
        place = (starts[k].nan_to_num().clamp(-bound, bound) + bound) * ((points - 1) / (2 * bound))
        low = place.floor().long().clamp(0, points - 2)
        ends = table[:, k].gather(0, torch.stack([low, low + 1]))
        starts[k + 1] = torch.lerp(ends[0], ends[1], place - low)
    return _shoot(chunks, starts, max_iters)


NEWTON_LIKE = ("newton", "quasi", "picard", "jacobi", "elk")


def newton_like(problem: Problem, method: str, max_iters: int, trust: float = 1e-8) -> Attempt:
    """Solve by iterating $h^{k+1}_t = A_t h^{k+1}_{t-1} + f(h^k_{t-1}, x_t) - A_t h^k_{t-1}$.

    A_t is the Jacobian for `newton` (DEER, ParaRNN), its diagonal for `quasi`, the identity for `picard` and zero for
    `jacobi`. `elk` uses the diagonal in a Kalman filter that keeps the iterate near the last one. The iteration starts
    at the paper's guess f(0, x_t) (equation A.1).

    Args:
        problem: Recurrence to solve.
        method: Choice of A_t, one of those above.
        max_iters: Largest number of iterations.
        trust: Precision with which the Kalman filter of `elk` observes the last iterate.
    """
    cell, structure = problem.cell, problem.cell.structure
    h = cell.step(torch.zeros_like(problem.h_0).expand(problem.length, *problem.h_0.shape), problem.x, problem.params)
    h[0] = cell.step(problem.h_0, tuple(leaf[0] for leaf in problem.x), problem.params)
    residual, iterations = torch.inf, 0
    while iterations < max_iters:
        before = problem.before(h)
        f = cell.step(before, problem.x, problem.params)
        residual = defect(f, h, before)
        if residual <= problem.tolerance or not h.isfinite().all():
            break
        h = _newton_update(problem, method, h, before, f, structure, trust)
        iterations += 1
    else:
        residual = problem.residual(h)
    return Attempt(h, iterations, _boundary_check(problem, h), residual)


def _newton_update(
    problem: Problem, method: str, h: Tensor, before: Tensor, f: Tensor, structure: str, trust: float
) -> Tensor:
    if method == "jacobi":
        return f
    if method == "picard":
        return scan_time(torch.ones_like(f), f - before, before[0], "diagonal")
    jacobian, _ = problem.cell.linearize(before, problem.x, problem.params)
    if method == "newton":
        return scan_time(jacobian, f - apply_map(jacobian, before, structure), before[0], structure)  # type: ignore[arg-type]
    if structure == "blocks":
        jacobian = jacobian.diagonal(dim1=-3, dim2=-2).movedim(-1, -2)
    elif structure == "dense":
        jacobian = jacobian.diagonal(dim1=-2, dim2=-1)
    if method == "quasi":
        return scan_time(jacobian, f - jacobian * before, before[0], "diagonal")
    return ScalarKalman.filtered_means(jacobian, f - jacobian * before, before[0], h, trust)


def _boundary_check(problem: Problem, h: Tensor) -> float:
    """Rerun the chunks and return the error of their ends, because many small defects may sum to a large error."""
    if not h.isfinite().all():
        return torch.inf
    count = chunk_count(problem.length, problem.h_0.numel(), 32)
    chunks = Chunks(problem, count)
    starts = torch.cat([problem.h_0[None], h[: chunks.body].unflatten(0, (chunks.count, chunks.size))[:-1, -1]])
    last = h[: chunks.body].unflatten(0, (chunks.count, chunks.size))[-1:, -1]
    before = h[max(chunks.body - 2, 0)][None]
    mismatch = max(chunks.sweep(starts), defect(chunks.view[-1:, -1], last, before))
    return max(mismatch, chunks.correct(starts)[1]) if mismatch > 0 else mismatch
