"""Solution of one recurrence over several processes, each of which holds a segment of time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from .._errors import CommutantError, InputError
from ..algebra import Structure
from ..algebra.linear_maps import apply_map, compose_maps, identity_map, scan_time, transpose_map
from ._cell import Cell, Tensors
from ._find import WARM_UP, Options, SolveInfo, adjoint, find_trajectory, widened
from .solvers import defect, relay


def solve_across(
    cell: Cell, x: Tensors, h_0: Tensor, params: Tensors, options: Options, group: Any
) -> tuple[Tensor, SolveInfo]:
    """Return this rank's segment, `(time, batch, *state)`, of the trajectory over all ranks of the group.

    This is multiple shooting with ranks as chunks. Every sweep solves all segments from their start states and gathers
    the end states. Where an end differs from the next start, Newton's method corrects the start states. After k sweeps
    the first k ranks are exact for any cell. At most as many sweeps as ranks are needed, and no unconverged result is
    returned. All ranks decide on another sweep from the same gathered numbers.
    """
    _check_group(group)
    if options.method == "loop":
        raise InputError("method 'loop' cannot run across ranks; use method='auto' or leave process_group out")
    if torch._C._are_functorch_transforms_active():  # type: ignore[attr-defined]
        raise InputError("process_group cannot be used under transforms of torch.func; leave it out")
    if _any_rank_wants_gradients(h_0, (*x, *params), group):
        # the backward pass of another rank would wait for this one
        h_0 = h_0 if h_0.requires_grad or not torch.is_grad_enabled() else h_0.detach().requires_grad_()
    report: list[SolveInfo] = []
    states = _Across.apply(cell, options, report, group, len(x), h_0, *x, *params)
    return states, report[0]


def _check_group(group: Any) -> None:
    if not (dist.is_available() and dist.is_initialized()):
        raise InputError("process_group needs torch.distributed; call init_process_group, or start with torchrun")
    if not isinstance(group, dist.ProcessGroup):
        raise InputError(f"process_group must be a torch.distributed process group, got {type(group).__name__}")


def widest_structure(probe: Callable[[], Structure], like: Tensor, group: Any) -> Structure:
    """Return the widest structure that the probes of all ranks find; an error on one rank is raised on all."""
    _check_group(group)
    order: tuple[Structure, ...] = ("diagonal", "blocks", "dense")
    error: Exception | None = None
    try:
        found = order.index(probe())
    except Exception as raised:
        found, error = len(order), raised
    everywhere = _gather(torch.tensor(found, device=like.device), group)
    _raise_together(error, everywhere == len(order))
    return order[int(everywhere.max())]


def _raise_together(error: Exception | None, failed: Tensor) -> None:
    """Raise the error of this rank, or name the rank that failed, so that no rank is left waiting."""
    if error is not None:
        raise error
    if failed.any():
        raise CommutantError(f"rank {int(failed.nonzero()[0])} of the process group failed; see its own error")


def _any_rank_wants_gradients(h_0: Tensor, others: Tensors, group: Any) -> bool:
    """Check that all ranks agree on shapes, and return whether any rank wants gradients.

    Gathering tensors of different sizes later would hang or fail without a reason.
    """
    own = torch.full((8,), -1, dtype=torch.long, device=h_0.device)
    own[: h_0.dim()] = torch.tensor(h_0.shape)
    own[6] = (torch.float16, torch.bfloat16, torch.float32, torch.float64).index(h_0.dtype)
    own[7] = torch.is_grad_enabled() and any(t.requires_grad for t in (h_0, *others))
    shapes = _gather(own, group)
    if (shapes[:, :7] != shapes[0, :7]).any():
        raise InputError(
            f"h_0 must have the same shape and dtype on every rank, got shapes "
            f"{[tuple(s[:6][s[:6] >= 0].tolist()) for s in shapes]} over the ranks"
        )
    return bool((shapes[:, 7] == 1).any())


def _gather(t: Tensor, group: Any) -> Tensor:
    """Return the tensors of all ranks, stacked."""
    out = t.new_empty((dist.get_world_size(group), *t.shape))
    try:
        dist.all_gather(list(out.unbind(0)), t.contiguous(), group=group)
    except RuntimeError as error:  # a rank died, or exceeded the timeout of the group
        rank, size = dist.get_rank(group), dist.get_world_size(group)
        raise CommutantError(
            f"rank {rank} of {size} lost another rank of the process group ({str(error).splitlines()[0]}); run the "
            "forward and the backward pass on every rank"
        ) from error
    return out


def _find(
    cell: Cell, x: Tensors, h_0: Tensor, params: Tensors, options: Options, group: Any
) -> tuple[Tensor, Tensor, SolveInfo]:
    """Return the segment of this rank, its start state, and the certificate."""
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    tolerance = options.tol if options.tol is not None else 8 * torch.finfo(h_0.dtype).eps
    state = torch.zeros_like(h_0) if rank else h_0
    try:
        for t in range(max(0, x[0].shape[0] - WARM_UP), x[0].shape[0]):
            state = cell.step(state, tuple(leaf[t] for leaf in x), params)
    except Exception:  # the solve below raises it again, on all ranks
        state = torch.zeros_like(h_0)
    starts = torch.cat([h_0[None], _gather(state, group)[:-1]])
    sweeps = 0
    while True:
        error: Exception | None = None
        try:
            states, info = _local(cell, x, starts[rank], params, options)
        except Exception as raised:  # errors of the user's step too, because the other ranks must stop as well
            states, error = h_0.new_empty((0, *h_0.shape)), raised
        sweeps += 1
        # starts are gathered too, so that all ranks decide from the same numbers
        end = states[-1] if len(states) else starts[rank]
        before = states[-2] if len(states) > 1 else starts[rank]
        said = torch.stack([starts[rank], end, before, torch.full_like(end, float(error is not None))])
        everywhere = _gather(said, group)
        _raise_together(error, everywhere[:, 3].flatten(1).amax(1) > 0 if end.numel() else torch.zeros(size))
        starts, ends, befores = everywhere[:, 0], everywhere[:, 1], everywhere[:, 2]
        mismatch = defect(ends[:-1], starts[1:], befores[:-1])
        if mismatch == 0 or sweeps > size:
            break
        product = _product(cell, x, starts[rank], params, states)
        products = _gather(product, group)
        corrected, mismatch = relay(starts, ends, befores, products, cell.structure)
        if mismatch <= tolerance:
            break
        starts = corrected
    residual = info.residual if math.isnan(info.residual) else max(info.residual, mismatch)
    converged = info.converged and mismatch <= tolerance
    return states, starts[rank], SolveInfo(info.method, sweeps, residual, mismatch, converged, info.fell_back)


def _local(cell: Cell, x: Tensors, start: Tensor, params: Tensors, options: Options) -> tuple[Tensor, SolveInfo]:
    if x[0].shape[0] == 0:
        return start.new_empty((0, *start.shape)), SolveInfo("sequential", 0, 0.0, 0.0, True)
    return find_trajectory(cell, x, start, params, options)


def _jacobians(cell: Cell, x: Tensors, start: Tensor, params: Tensors, states: Tensor) -> Tensor:
    before = torch.cat([start[None], states[:-1]])
    out = tuple(torch.empty_like(leaf) for leaf in x)
    return cell.linearize(before, x, params, out)[0]


def _product(cell: Cell, x: Tensors, start: Tensor, params: Tensors, states: Tensor) -> Tensor:
    """Return the derivative of a segment's end state with respect to its start state, as a product in log depth."""
    if len(states) == 0:
        return identity_map(start, cell.structure).contiguous()
    maps = _jacobians(cell, x, start, params, states)
    while len(maps) > 1:
        odd = maps[-1:] if len(maps) % 2 else maps[:0]
        maps = torch.cat([compose_maps(maps[1::2], maps[: len(maps) // 2 * 2 : 2], cell.structure), odd])
    return maps[0]


def _handed_back(maps: Tensor, gradient: Tensor, arriving: Tensor, structure: Structure) -> Tensor:
    """Return the gradient of a segment's start state; `maps` are the transposed Jacobians of its steps."""
    if len(gradient) == 0:
        return arriving
    gradient = torch.cat([gradient[:-1], gradient[-1:] + arriving])
    behind = torch.cat([maps[1:], torch.zeros_like(maps[:1])])
    lam = scan_time(behind, gradient, torch.zeros_like(arriving), structure, True)
    return apply_map(maps[0], lam[0], structure)


class _Across(torch.autograd.Function):
    """Solver across ranks, whose backward pass is a linear recurrence across ranks."""

    @staticmethod
    def forward(
        ctx: Any,
        cell: Cell,
        options: Options,
        report: list[SolveInfo],
        group: Any,
        count: int,
        h_0: Tensor,
        *rest: Tensor,
    ) -> Tensor:
        h0_wide, *wide = (widened(t) for t in (h_0, *rest))
        with torch.autocast(h_0.device.type, enabled=False):
            states, start, info = _find(cell, tuple(wide[:count]), h0_wide, tuple(wide[count:]), options, group)
        report.append(info)
        ctx.cell, ctx.count, ctx.group = cell, count, group
        ctx.save_for_backward(states, start, h_0, *rest)
        return states.to(h_0.dtype, copy=True)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        if torch.is_grad_enabled():
            raise InputError("a recurrence with process_group has no second derivative; leave process_group out")
        states, start, h_0, *rest = ctx.saved_tensors
        cell, count, group = ctx.cell, ctx.count, ctx.group
        rank, structure = dist.get_rank(group), cell.structure
        wide = [widened(t) for t in rest]
        x, params = tuple(wide[:count]), tuple(wide[count:])
        gradient = gradient.to(states.dtype)
        with torch.autocast(h_0.device.type, enabled=False):
            # the gradient that a segment passes to the one before is affine in the gradient from the one after
            product = transpose_map(_product(cell, x, start, params, states), structure).contiguous()
            maps = transpose_map(_jacobians(cell, x, start, params, states), structure) if len(states) else product[:0]
            arriving = torch.zeros_like(start)
            products = _gather(product, group)
            shifts = _gather(_handed_back(maps, gradient, arriving, structure), group)
            finite = bool(products.isfinite().all() & shifts.isfinite().all())
            for k in range(len(shifts) - 1, 0, -1):
                if not finite:  # the product over a segment overflowed, so the ranks take turns
                    shifts = _gather(_handed_back(maps, gradient, arriving, structure), group)
                if k > rank:
                    arriving = shifts[k] + (apply_map(products[k], arriving, structure) if finite else 0)
            if len(states):
                gradient = gradient.clone()
                gradient[-1] += arriving
                d_start, d_x, d_params = adjoint(cell, x, start, params, states, gradient)
            else:
                d_start, d_x, d_params = (
                    arriving,
                    [torch.zeros_like(t) for t in x],
                    [torch.zeros_like(p) for p in params],
                )
        d_h0 = d_start if rank == 0 else torch.zeros_like(d_start)
        grads = [
            None if g is None else g.to(t.dtype) for g, t in zip((d_h0, *d_x, *d_params), (h_0, *rest), strict=True)
        ]
        return None, None, None, None, None, *grads
