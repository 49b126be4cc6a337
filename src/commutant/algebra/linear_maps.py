"""Linear recurrences h_t = A_t h_{t-1} + b_t, solved in parallel over time in the forward and backward pass."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from .._checks import one_of
from .._errors import InputError
from ._affine import DiagonalAffine, MatrixAffine

Structure: TypeAlias = Literal["diagonal", "blocks", "dense"]
"""Coupling between the entries of a state: none (diagonal), the slots of each channel (blocks), or all (dense)."""


def apply_map(matrix: Tensor, vector: Tensor, structure: Structure) -> Tensor:
    """Return the product of a Jacobian and a vector.

    Args:
        matrix: Jacobian, `(..., channels)` if diagonal, `(..., slots, slots, channels)` for blocks, `(..., width,
            width)` if dense.
        vector: Vector, `(..., channels)`, `(..., slots, channels)` or `(..., width)`.
        structure: Structure of the Jacobian.
    """
    if structure == "diagonal":
        return matrix * vector
    if structure == "blocks":
        return (matrix * vector.unsqueeze(-3)).sum(-2)
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)


def compose_maps(later: Tensor, earlier: Tensor, structure: Structure) -> Tensor:
    """Return the Jacobian of the map `earlier` followed by the map `later`.

    Args:
        later: Jacobian of the second map, in a shape as for `apply_map`.
        earlier: Jacobian of the first map.
        structure: Structure of both.
    """
    if structure == "diagonal":
        return later * earlier
    if structure == "blocks":
        return (later.unsqueeze(-2) * earlier.unsqueeze(-4)).sum(-3)
    return later @ earlier


def transpose_map(matrix: Tensor, structure: Structure) -> Tensor:
    """Return the transposed Jacobian.

    Args:
        matrix: Jacobian, in a shape as for `apply_map`.
        structure: Structure of the Jacobian.
    """
    if structure == "diagonal":
        return matrix
    return matrix.transpose(-3, -2) if structure == "blocks" else matrix.mT


def identity_map(state: Tensor, structure: Structure) -> Tensor:
    """Return the Jacobian of the identity.

    Args:
        state: State that gives shape, dtype and device, as the vector of `apply_map`.
        structure: Structure of the Jacobian.
    """
    if structure == "diagonal":
        return torch.ones_like(state)
    width = state.shape[-2] if structure == "blocks" else state.shape[-1]
    eye = torch.eye(width, dtype=state.dtype, device=state.device)
    if structure == "blocks":
        return eye[:, :, None].expand(*state.shape[:-2], width, width, state.shape[-1])
    return eye.expand(*state.shape[:-1], width, width)


def linear_scan(
    A: Float[Tensor, "*a"],
    b: Float[Tensor, "*b"],
    h_0: Float[Tensor, "*h"] | None = None,
    *,
    dim: int = 1,
    reverse: bool = False,
    structure: Structure = "diagonal",
) -> Float[Tensor, "*b"]:
    """Solve the linear recurrence $h_t = A_t h_{t-1} + b_t$ for all t at once.

    The composition of the maps $(A_t, b_t)$ is associative (`DiagonalAffine`, `MatrixAffine`), so time is split into
    chunks that run in parallel and are joined at their boundaries. This is the inner step of Newton's method on a
    nonlinear recurrence, the adjoint of any recurrence (with `reverse` and transposed maps), and a gated linear RNN.
    Half precision is solved in float32. The result is differentiable any number of times.

    Args:
        A: Maps, `(batch, length, channels)` for `structure="diagonal"`, `(batch, length, slots, slots, channels)` for
            `"blocks"`, `(batch, length, width, width)` for `"dense"`.
        b: Shifts, `(batch, length, channels)`, `(batch, length, slots, channels)` or `(batch, length, width)`.
        h_0: State before the first step, in the shape of b without its time axis; zero by default.
        dim: Time axis of both A and b.
        reverse: Whether to solve $h_t = A_t h_{t+1} + b_t$ from the end instead.
        structure: Structure of the maps.

    Returns:
        States in the shape of b.

    Raises:
        InputError: If the shapes of A, b and h_0 do not fit the structure.

    Example:
        >>> a, b = torch.full((1, 3, 1), 0.5), torch.ones(1, 3, 1)
        >>> linear_scan(a, b).flatten()
        tensor([1.0000, 1.5000, 1.7500])
    """
    for name, value in (("A", A), ("b", b), ("h_0", h_0)):
        if not isinstance(value, Tensor) and (name != "h_0" or value is not None):
            raise InputError(f"{name} must be a tensor, got {type(value).__name__}")
    if not -b.dim() <= dim < b.dim():
        raise InputError(f"dim={dim} is not an axis of b of shape {tuple(b.shape)}")
    dim %= b.dim()
    if len({t.dtype for t in (A, b, h_0) if t is not None}) != 1:
        raise InputError(f"A, b and h_0 must share a dtype, got {[t.dtype for t in (A, b, h_0) if t is not None]}")
    _check_shapes(A, b, h_0, dim, structure)
    A, b = A.movedim(dim, 0), b.movedim(dim, 0)
    dtype = b.dtype
    if dtype in (torch.bfloat16, torch.float16):
        A, b = A.float(), b.float()
    h_0 = torch.zeros_like(b[0]) if b.shape[0] and h_0 is None else h_0
    if h_0 is None or b.shape[0] == 0:
        return b.movedim(0, dim).to(dtype)
    out = _LinearScan.apply(A.to(b.dtype), b, h_0.to(b.dtype), reverse, structure)
    return out.movedim(0, dim).to(dtype)


def _check_shapes(A: Tensor, b: Tensor, h_0: Tensor | None, dim: int, structure: Structure) -> None:
    one_of("structure", structure, ("diagonal", "blocks", "dense"))
    carrier = {"diagonal": 1, "blocks": 2, "dense": 1}[structure]
    if b.dim() - carrier <= dim or not b.is_floating_point():
        raise InputError(
            f"a {structure} recurrence along dim={dim} needs floating point b with {carrier} axes after time, "
            f"got {b.dtype} of shape {tuple(b.shape)}"
        )
    expected: tuple[int, ...] = tuple(b.shape)
    if structure == "blocks":
        expected = (*b.shape[:-2], b.shape[-2], b.shape[-2], b.shape[-1])
    elif structure == "dense":
        expected = (*b.shape, b.shape[-1])
    if tuple(A.shape) != expected:
        raise InputError(f"A of a {structure} recurrence must have shape {expected} to fit b, got {tuple(A.shape)}")
    state = (*b.shape[:dim], *b.shape[dim + 1 :])
    if h_0 is not None and tuple(h_0.shape) != state:
        raise InputError(f"h_0 must have the shape of b without time, {state}, got {tuple(h_0.shape)}")


class _LinearScan(torch.autograd.Function):
    """Linear recurrence with leading time axis, whose backward pass is the reverse recurrence of transposed maps."""

    @staticmethod
    def forward(A: Tensor, b: Tensor, h_0: Tensor, reverse: bool, structure: Structure) -> Tensor:
        return scan_time(A, b, h_0, structure, reverse)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        A, _, h_0, ctx.reverse, ctx.structure = inputs
        ctx.save_for_backward(A, h_0, output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        A, h_0, h = ctx.saved_tensors
        structure, reverse = ctx.structure, ctx.reverse
        first = A.shape[0] - 1 if reverse else 0
        adjoint = transpose_map(A, structure)
        zero = torch.zeros_like(h_0)
        shifted = (
            torch.cat([torch.zeros_like(adjoint[:1]), adjoint[:-1]])
            if reverse
            else torch.cat([adjoint[1:], torch.zeros_like(adjoint[:1])])
        )
        lam = _LinearScan.apply(shifted, gradient, zero, not reverse, structure)
        before = torch.cat([h[1:], h_0[None]]) if reverse else torch.cat([h_0[None], h[:-1]])
        if structure == "diagonal":
            d_A = lam * before
        elif structure == "blocks":
            d_A = lam.unsqueeze(-2) * before.unsqueeze(-3)
        else:
            d_A = lam.unsqueeze(-1) * before.unsqueeze(-2)
        return d_A, lam, apply_map(adjoint[first], lam[first], structure), None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Tensor, int]:
        def second(t: Tensor, dim: int | None, axis: int) -> Tensor:
            t = t.unsqueeze(0).expand(info.batch_size, *t.shape) if dim is None else t.movedim(dim, 0)
            return t.movedim(0, axis)

        parts = [second(t, d, axis) for t, d, axis in zip(args[:3], in_dims[:3], (1, 1, 0), strict=True)]
        return _LinearScan.apply(*parts, *args[3:]), 1


def scan_time(A: Tensor, b: Tensor, h_0: Tensor, structure: Structure, reverse: bool = False) -> Tensor:
    """Solve a linear recurrence without autograd.

    Args:
        A: Maps with time as the leading axis.
        b: Shifts with time as the leading axis.
        h_0: State before the first step.
        structure: Structure of the maps.
        reverse: Whether to start from the end.
    """
    if b.device.type != "cpu":
        return _scan_tree(A, b, h_0, structure, reverse)
    return _scan_chunks(A, b, h_0, structure, reverse)


def _scan_tree(A: Tensor, b: Tensor, h_0: Tensor, structure: Structure, reverse: bool) -> Tensor:
    """Solve by an associative scan of logarithmic depth, with the initial state absorbed into the first map."""
    maps, shifts = A, b
    first = -1 if reverse else 0
    b = b.clone()
    b[first] += apply_map(A[first], h_0, structure)
    A = A.clone()
    A[first] = 0
    if reverse:
        A, b = A.flip(0), b.flip(0)
    if structure == "diagonal":
        h = DiagonalAffine().scan((A, b))[1]
    elif structure == "blocks":
        h = MatrixAffine().scan((A.movedim(-1, -3).contiguous(), b.movedim(-1, -2).contiguous()))[1].movedim(-2, -1)
    else:
        h = MatrixAffine().scan((A, b))[1]
    if not torch.compiler.is_compiling() and not bool(h.isfinite().all()):
        # a product of maps may overflow although the sequential steps stay finite
        return _scan_chunks(maps, shifts, h_0, structure, reverse, lanes=0)
    return h.flip(0) if reverse else h


_LANES = 8192  # numbers that a CPU operator processes at a time, to hide the cost of its call but fit in the cache


def chunk_count(length: int, lane_size: int, shortest: int, lanes: int = _LANES) -> int:
    """Return the number of chunks of a CPU recurrence that run in parallel.

    Args:
        length: Number of steps.
        lane_size: Numbers in one step.
        shortest: Fewest steps in a chunk.
        lanes: Numbers that an operator should process at a time.
    """
    return max(1, min(lanes // max(lane_size, 1), length // shortest))


def _scan_chunks(A: Tensor, b: Tensor, h_0: Tensor, structure: Structure, reverse: bool, lanes: int = _LANES) -> Tensor:
    """Solve in parallel chunks: run each from zero, pass states across boundaries, run each from its boundary."""
    length = b.shape[0]
    out = torch.empty_like(b, memory_format=torch.contiguous_format)
    # composing a map costs `width` times as much as applying it, so wide maps need fewer, longer chunks
    overhead = max(1, A[:1].numel() // max(b[:1].numel(), 1))
    count = chunk_count(length, b[0].numel() * overhead, 16 * overhead, lanes)
    chunk = length // count
    ragged = length - count * chunk
    body = slice(ragged, None) if reverse else slice(0, length - ragged)
    steps = range(chunk - 1, -1, -1) if reverse else range(chunk)
    view = lambda t: t[body].unflatten(0, (count, chunk))  # noqa: E731
    maps, shifts, result = view(A), view(b), view(out)
    order = range(count - 1, -1, -1) if reverse else range(count)
    starts = torch.empty_like(shifts[:, 0])
    state = h_0
    if count > 1:
        total = identity_map(starts, structure)
        end = torch.zeros_like(starts)
        for j in steps:
            end = _advance(maps[:, j], end, shifts[:, j], structure)
            total = compose_maps(maps[:, j], total, structure)
        if not total.isfinite().all():  # inf times zero would be NaN although the sequential steps stay finite
            return _scan_chunks(A, b, h_0, structure, reverse, lanes=0)
        for k in order:
            starts[k] = state
            moved = apply_map(total[k], state, structure)
            state = end[k] + moved
    else:
        starts[0] = state
    h = starts
    for j in steps:
        h = _advance(maps[:, j], h, shifts[:, j], structure)
        result[:, j] = h
    tail = range(ragged - 1, -1, -1) if reverse else range(length - ragged, length)
    h = h[order[-1]]
    for t in tail:
        h = _advance(A[t], h, b[t], structure)
        out[t] = h
    return out


def _advance(matrix: Tensor, state: Tensor, shift: Tensor, structure: Structure) -> Tensor:
    if structure == "diagonal":
        return torch.addcmul(shift, matrix, state)
    return apply_map(matrix, state, structure).add_(shift)
