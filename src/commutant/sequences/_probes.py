"""Probes of a user's step: its rows must not depend on other rows, on earlier calls or on random numbers.

A parallel solution calls a step on many times at once and in another order, which the plain loop never does. Only a
step that is a function of one row at a time gives the same states both ways.
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

_RULE = "a parallel solution calls the step on other rows and in another order"


@torch.compiler.disable
def check_step(step: Step, state: Tensor, x: Tensors, params: Tensors = ()) -> None:
    """Refuse a step whose rows are not functions of their own state and input, tried on a few rows.

    Args:
        step: `step(h, x, *params)`.
        state: States `(rows, *state)`.
        x: Inputs, each `(rows, ...)`.
        params: Further arguments of the step.

    Raises:
        InputError: For a step that couples rows, carries state of its own, draws random numbers or writes into its
            arguments.
    """
    rows = state.shape[0]
    if rows == 0 or state.numel() == 0:
        return

    def run(order: Tensor) -> Tensor:
        return _call(step, state[order], tuple(leaf[order] for leaf in x), params)

    every = torch.arange(rows, device=state.device)
    fresh = visible(step)
    first = run(every)  # a cache that is filled at the first call is not counted
    attributes, noise = visible(step), _noise(state)
    latched = overwritten(fresh, attributes)
    rolled = run(every.roll(1))
    if latched:  # what changes at every call shows in the values
        still = overwritten(attributes, visible(step))
        latched = [name for name in latched if name not in still]
    again = run(every)
    if _noise(state) != noise:
        raise InputError(f"the step draws random numbers, but {_RULE}; draw them before and pass them through x")
    name = latched[0] if latched else changed(attributes, visible(step))
    if name:
        raise InputError(f"the step changes {name} when it is called, but {_RULE}; keep what it remembers in h")
    tight, loose = 16 * torch.finfo(state.dtype).eps, 1e4 * torch.finfo(state.dtype).eps
    if _gap(first, again).max() > tight:
        raise InputError(
            f"the step gave other values when it was called again on the same rows, but {_RULE}; keep what it "
            f"remembers in h and pass random numbers through x"
        )
    # in calls of one shape a row is computed alike: rows that change when others do are coupled
    for kept in (0, 1):
        place = every % 2 == kept
        if rows < 2 or not place.any():
            continue
        mine = every[place]
        with_others = torch.where(place, every, mine[torch.arange(rows, device=every.device) // 2 % len(mine)])
        if _gap(first[place], run(with_others)[place]).max() > tight:
            raise InputError(_coupled("changes when other rows do"))
    steep = None
    for found, expected, said in (
        (rolled, first.roll(1, 0), "depends on its place in the batch"),
        (_alone(step, state, x, params), first[:1], "differs when it stands alone"),
    ):
        gap = _gap(expected, found)
        if gap.max() > loose:  # a steep step amplifies the rounding of another shape
            steep = _steepness(step, state, x, params, first) if steep is None else steep
            if (gap > loose + 64 * steep[: len(gap)].roll(0)).any():
                raise InputError(_coupled(said))


@torch.compiler.disable
def check_batch(step: Step, h_0: Tensor, x: Tensors, lanes: Tensors, params: Tensors) -> None:
    """Probe a step on lanes of a batch; say so where it runs on the batch but not on another number of rows.

    Args:
        step: `step(h, x, *params)`.
        h_0: States of the batch, `(batch, *state)`.
        x: One step of its inputs, each `(batch, ...)`.
        lanes: States and inputs as `pick_lanes` returns them.
        params: Further arguments of the step.
    """
    try:
        check_step(step, lanes[0], lanes[1:], params)
    except InputError:
        raise
    except Exception as error:
        _call(step, h_0, x, params)  # an error of the step's own comes through
        raise InputError(
            f"the step runs on the {h_0.shape[0]} rows of the batch but not on {lanes[0].shape[0]} rows "
            f"({type(error).__name__}: {str(error).splitlines()[0]}); pass what differs from row to row through x"
        ) from error


@torch.compiler.disable
def pick_lanes(h_0: Tensor, x: Tensors) -> Tensors:
    """Return states near h_0 and inputs of a few rows at a few times, the largest and smallest inputs among them."""
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
    """Return states moved by noise: rows of zeros would hide what couples them."""
    return state + torch.randn(state.shape, generator=torch.Generator().manual_seed(3)).to(state)


def check_trajectory(problem: Problem, h: Tensor) -> None:
    """Call the step on blocks of a solved trajectory; probe rows that come out otherwise, and the largest ones.

    Catches a step that couples rows on rare inputs or states only, whatever method solved it.
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
                f"the step gave other values at {len(off)} or more of its states when it was called again, but "
                f"{_RULE}; a step must be a function of h, x and params, row by row"
            )


@torch.compiler.disable
def check_gradients_arrive(step: Step, state: Tensor, x: Tensors, params: Tensors) -> None:
    """Refuse a step that reads tensors that require a gradient without being among its arguments."""
    with torch.enable_grad():
        out = _call(step, state.detach(), tuple(t.detach() for t in x), tuple(p.detach() for p in params), raw=True)
    if out.requires_grad:
        raise InputError(
            "the step reads a tensor that requires a gradient and is not among params, so that none would reach it; "
            "pass it through params, or detach it"
        )


def _coupled(said: str) -> str:
    return (
        f"a row of the step {said}, but {_RULE}; each row of the next state must be a function of the same row of h "
        f"and x (batch statistics such as BatchNorm in training are not)"
    )


def _call(step: Step, state: Tensor, x: Tensors, params: Tensors, raw: bool = False) -> Tensor:
    given = (state.clone(), *(leaf.clone() for leaf in x))
    out = step(given[0], given[1] if len(x) == 1 else given[1:], *params)
    if not isinstance(out, Tensor) or out.shape != state.shape:
        said = f"shape {tuple(out.shape)}" if isinstance(out, Tensor) else type(out).__name__
        raise InputError(f"step must return a state of the shape it was given, {tuple(state.shape)}, got {said}")
    for name, now, was in zip(("state", *("input",) * len(x)), given, (state, *x), strict=True):
        if not torch.equal(now.nan_to_num(), was.nan_to_num()):
            raise InputError(f"step changed the {name} that it was given in place; it must leave its arguments alone")
    return out if raw else out.detach().clone()


def _alone(step: Step, state: Tensor, x: Tensors, params: Tensors) -> Tensor:
    try:
        return _call(step, state[:1], tuple(leaf[:1] for leaf in x), params)
    except InputError:
        raise
    except Exception as error:
        raise InputError(_coupled(f"fails when it stands alone ({str(error).splitlines()[0]})")) from error


def _steepness(step: Step, state: Tensor, x: Tensors, params: Tensors, out: Tensor) -> Tensor:
    """How much each row moves when state and inputs move by their rounding."""
    moved = torch.zeros(len(state), dtype=out.dtype, device=out.device)
    for sign in (1, -1):
        near = [t * (1 + sign * 4 * torch.finfo(t.dtype).eps) if t.is_floating_point() else t for t in (state, *x)]
        moved = torch.maximum(moved, _gap(out, _call(step, near[0], tuple(near[1:]), params)))
    return moved


def _gap(a: Tensor, b: Tensor) -> Tensor:
    """The largest difference in each row, relative to the largest entry of the row; equal NaNs and infinities agree."""
    a, b = a.flatten(1), b.flatten(1)
    same = (a == b) | (a.isnan() & b.isnan())
    gap = (a - b).abs().masked_fill(same, 0).nan_to_num(nan=torch.inf)
    scale = torch.maximum(a.abs(), b.abs()).nan_to_num(posinf=1.0).amax(1).clamp(min=torch.finfo(a.dtype).tiny)
    return gap.amax(1) / scale


def _noise(like: Tensor) -> tuple[Any, ...]:
    """The states of the global sources of randomness (Python's own is drawn from by run-time type checkers too)."""
    states: list[Any] = [torch.get_rng_state().numpy().tobytes()]
    if like.is_cuda:
        states.append(torch.cuda.get_rng_state(like.device).numpy().tobytes())
    if "numpy" in sys.modules:
        state = sys.modules["numpy"].random.get_state(legacy=False)["state"]
        states.append((state["key"].tobytes(), state["pos"]))
    return tuple(states)
