"""Probes that check that the rows of a user's step do not depend on other rows, earlier calls or random numbers.

A parallel solver calls the step on many time steps at once and in a different order than the plain loop. The results
agree only if each row of the step is a function of the same row of its arguments.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor

from .._errors import InputError
from ._cell import Step, Tensors
from ._visible import changed, overwritten, visible
from .solvers import Problem

_RULE = "a parallel solver calls the step on other rows and in another order"


@torch.compiler.disable
def check_step(step: Step, state: Tensor, x: Tensors, params: Tensors = ()) -> None:
    """Check on a few rows that each row of a step is a function of its own state and input.

    Args:
        step: Function `step(h, x, *params)`.
        state: States `(rows, *state)`.
        x: Inputs, each `(rows, ...)`.
        params: Further arguments of the step.

    Raises:
        InputError: For a step that couples rows, keeps state between calls, draws random numbers or writes into its
            arguments.
    """
    rows = state.shape[0]
    if rows == 0 or state.numel() == 0:
        return

    def run(order: Tensor) -> Tensor:
        return _call(step, state[order], tuple(leaf[order] for leaf in x), params)

    every = torch.arange(rows, device=state.device)
    fresh = visible(step)
    first = run(every)  # may fill a cache, which is allowed
    attributes, noise = visible(step), _noise(state)
    latched = overwritten(fresh, attributes)
    rolled = run(every.roll(1))
    if latched:  # a change at every call is found below
        still = overwritten(attributes, visible(step))
        latched = [name for name in latched if name not in still]
    again = run(every)
    if _noise(state) != noise:
        raise InputError(f"the step draws random numbers, but {_RULE}; draw them beforehand and pass them through x")
    name = latched[0] if latched else changed(attributes, visible(step))
    if name:
        raise InputError(f"the step changes {name} when it is called, but {_RULE}; keep its state in h")
    tight, loose = 16 * torch.finfo(state.dtype).eps, 1e4 * torch.finfo(state.dtype).eps
    if _gap(first, again).max() > tight:
        raise InputError(
            f"the step returned different values in two calls on the same rows, but {_RULE}; keep its state in h and "
            f"pass random numbers through x"
        )
    # calls of the same shape round equally, so a row that changes when other rows do is coupled to them
    for kept in (0, 1):
        place = every % 2 == kept
        if rows < 2 or not place.any():
            continue
        mine = every[place]
        with_others = torch.where(place, every, mine[torch.arange(rows, device=every.device) // 2 % len(mine)])
        if _gap(first[place], run(with_others)[place]).max() > tight:
            raise InputError(_coupled("changes when other rows change"))
    steep = None
    for found, expected, said in (
        (rolled, first.roll(1, 0), "depends on its position in the batch"),
        (_alone(step, state, x, params), first[:1], "differs when it is the only row"),
    ):
        gap = _gap(expected, found)
        if gap.max() > loose:  # a steep step amplifies the different rounding of another shape
            steep = _steepness(step, state, x, params, first) if steep is None else steep
            if (gap > loose + 64 * steep[: len(gap)].roll(0)).any():
                raise InputError(_coupled(said))


@torch.compiler.disable
def check_batch(step: Step, h_0: Tensor, x: Tensors, lanes: Tensors, params: Tensors) -> None:
    """Check a step on lanes of a batch; explain the error if it runs only on the batch's number of rows.

    Args:
        step: Function `step(h, x, *params)`.
        h_0: States of the batch, `(batch, *state)`.
        x: Inputs of one step, each `(batch, ...)`.
        lanes: States and inputs returned by `pick_lanes`.
        params: Further arguments of the step.

    Raises:
        InputError: As `check_step`, and for a step that fails on another number of rows.
    """
    try:
        check_step(step, lanes[0], lanes[1:], params)
    except InputError:
        raise
    except Exception as error:
        _call(step, h_0, x, params)  # raises the step's own error, if it fails on the batch too
        raise InputError(
            f"the step runs on the {h_0.shape[0]} rows of the batch but not on {lanes[0].shape[0]} rows "
            f"({type(error).__name__}: {str(error).splitlines()[0]}); pass data of single rows through x"
        ) from error


@torch.compiler.disable
def pick_lanes(h_0: Tensor, x: Tensors) -> Tensors:
    """Return states near h_0 and inputs at a few rows and times, including the largest and smallest inputs."""
    batch, length = x[0].shape[:2]
    times = torch.linspace(0, length - 1, 8).long().unique()
    lanes = {(row, int(t)) for row in range(min(batch, 3)) for t in times}
    for leaf in x:
        size = leaf.detach().flatten(2).float().nan_to_num() if leaf[:1].numel() else h_0.new_zeros(batch, length, 1)
        for place in (size.amax(2).argmax(), size.amin(2).argmin()):
            row, time = divmod(int(place), length)
            lanes.add((row, time))
    rows, steps = torch.tensor(sorted(lanes), device=h_0.device).T
    return scattered(h_0.detach()[rows]), *(leaf.detach()[rows, steps] for leaf in x)


def scattered(state: Tensor) -> Tensor:
    """Return states with added noise, because rows of zeros would hide a coupling."""
    return state + torch.randn(state.shape, generator=torch.Generator().manual_seed(3)).to(state)


def check_trajectory(problem: Problem, h: Tensor) -> None:
    """Call the step again along a solved trajectory, and probe rows that differ and the rows with the largest values.

    This finds a step that couples rows only on rare inputs or states.
    """
    if h.numel() == 0:
        return
    eps = torch.finfo(h.dtype).eps
    before, block = problem.before(h), max(1, (1 << 15) // max(problem.h_0.numel(), 1))
    found = torch.empty_like(h)
    for start in range(0, len(h), block):
        part = slice(start, start + block)
        found[part] = problem.cell.step(before[part], tuple(leaf[part] for leaf in problem.x), problem.params)
    gap = _gap(h.flatten(0, 1), found.flatten(0, 1))
    lanes = gap.topk(min(8, len(gap))).indices
    flat = (before.flatten(0, 1), *(leaf.flatten(0, 1) for leaf in problem.x))
    extremes = []
    for leaf in flat:
        size = leaf.flatten(1).float().nan_to_num().abs().amax(1) if leaf[:1].numel() else gap
        extremes.append(size.topk(min(4, len(size))).indices)
    lanes = torch.cat([lanes, *extremes, torch.linspace(0, len(gap) - 1, 8, device=lanes.device).long()]).unique()
    state, *x = (leaf[lanes] for leaf in flat)
    step: Step = problem.cell.function  # type: ignore[attr-defined]
    check_step(step, state, tuple(x), problem.params)
    allowed = max(1e4 * eps, 32 * problem.tolerance)
    off = lanes[gap[lanes] > allowed]
    if len(off):
        state, *x = (leaf[off] for leaf in flat)
        expected = _call(step, state, tuple(x), problem.params)
        if (gap[off] > allowed + 64 * _steepness(step, state, tuple(x), problem.params, expected)).any():
            raise InputError(
                f"the step returned different values at {len(off)} or more states when it was called again, but "
                f"{_RULE}; a step must be a function of h, x and params, row by row"
            )


@torch.compiler.disable
def check_gradients_arrive(step: Step, state: Tensor, x: Tensors, params: Tensors) -> None:
    """Check that every tensor that requires a gradient reaches the step as an argument."""
    with torch.enable_grad():
        out = _call(step, state.detach(), tuple(t.detach() for t in x), tuple(p.detach() for p in params), raw=True)
    if out.requires_grad:
        raise InputError(
            "the step reads a tensor that requires a gradient but is not among params, so it would get no gradient; "
            "pass it through params, or detach it"
        )


def _coupled(said: str) -> str:
    return (
        f"a row of the step {said}, but {_RULE}; compute each row of the next state from the same row of h and x "
        f"(without batch statistics such as BatchNorm in training)"
    )


def _call(step: Step, state: Tensor, x: Tensors, params: Tensors, raw: bool = False) -> Tensor:
    given = (state.clone(), *(leaf.clone() for leaf in x))
    out = step(given[0], given[1] if len(x) == 1 else given[1:], *params)
    if not isinstance(out, Tensor) or out.shape != state.shape:
        said = f"shape {tuple(out.shape)}" if isinstance(out, Tensor) else type(out).__name__
        raise InputError(f"step must return a state of the given shape {tuple(state.shape)}, got {said}")
    for name, now, was in zip(("state", *("input",) * len(x)), given, (state, *x), strict=True):
        if not torch.equal(now.nan_to_num(), was.nan_to_num()):
            raise InputError(f"step changed the given {name} in place; it must not write into its arguments")
    return out if raw else out.detach().clone()


def _alone(step: Step, state: Tensor, x: Tensors, params: Tensors) -> Tensor:
    try:
        return _call(step, state[:1], tuple(leaf[:1] for leaf in x), params)
    except InputError:
        raise
    except Exception as error:
        raise InputError(_coupled(f"fails when it is the only row ({str(error).splitlines()[0]})")) from error


def _steepness(step: Step, state: Tensor, x: Tensors, params: Tensors, out: Tensor) -> Tensor:
    """Return how much each row changes when state and inputs change by rounding errors."""
    moved = torch.zeros(len(state), dtype=out.dtype, device=out.device)
    for sign in (1, -1):
        near = [t * (1 + sign * 4 * torch.finfo(t.dtype).eps) if t.is_floating_point() else t for t in (state, *x)]
        moved = torch.maximum(moved, _gap(out, _call(step, near[0], tuple(near[1:]), params)))
    return moved


def _gap(a: Tensor, b: Tensor) -> Tensor:
    """Return the largest difference in each row, relative to its largest entry; equal NaNs and infinities agree."""
    a, b = a.flatten(1), b.flatten(1)
    same = (a == b) | (a.isnan() & b.isnan())
    gap = (a - b).abs().masked_fill(same, 0).nan_to_num(nan=torch.inf)
    scale = torch.maximum(a.abs(), b.abs()).nan_to_num(posinf=1.0).amax(1).clamp(min=torch.finfo(a.dtype).tiny)
    return gap.amax(1) / scale


def _noise(like: Tensor) -> tuple[Any, ...]:
    """Return the states of the global random generators, except Python's, from which run-time type checkers draw."""
    states: list[Any] = [torch.get_rng_state().numpy().tobytes()]
    if like.is_cuda:
        states.append(torch.cuda.get_rng_state(like.device).numpy().tobytes())
    if "numpy" in sys.modules:
        state = sys.modules["numpy"].random.get_state(legacy=False)["state"]
        states.append((state["key"].tobytes(), state["pos"]))
    return tuple(states)
