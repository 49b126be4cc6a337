"""Linear recurrences h_t = A_t h_{t-1} + b_t, solved in parallel over time, forward and backward."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from .._errors import InputError
from ..laws import BatchIndependence, Causality, obeys
from ._affine import DiagonalAffine, MatrixAffine
from ._law_cases import recurrence, solve_recurrence

Structure: TypeAlias = Literal["diagonal", "blocks", "dense"]
"""What couples the entries of a state: nothing, the slots of one channel, or everything."""


def apply_map(matrix: Tensor, vector: Tensor, structure: Structure) -> Tensor:
    """A v for a Jacobian of the given structure.

    Shapes:
        diagonal: matrix and vector `(..., channels)`; blocks: `(..., slots, slots, channels)` and
        `(..., slots, channels)`; dense: `(..., width, width)` and `(..., width)`.
    """
    if structure == "diagonal":
        return matrix * vector
    if structure == "blocks":
        return (matrix * vector.unsqueeze(-3)).sum(-2)
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)


def compose_maps(later: Tensor, earlier: Tensor, structure: Structure) -> Tensor:
    """The matrix of "earlier, then later"; shapes as in `apply_map`."""
    if structure == "diagonal":
        return later * earlier
    if structure == "blocks":
        return (later.unsqueeze(-2) * earlier.unsqueeze(-4)).sum(-3)
    return later @ earlier


def transpose_map(matrix: Tensor, structure: Structure) -> Tensor:
    """The adjoint of a map; shapes as in `apply_map`."""
    if structure == "diagonal":
        return matrix
    return matrix.transpose(-3, -2) if structure == "blocks" else matrix.mT


def identity_map(state: Tensor, structure: Structure) -> Tensor:
    """The identity on states of the shape of `state`."""
    if structure == "diagonal":
        return torch.ones_like(state)
    width = state.shape[-2] if structure == "blocks" else state.shape[-1]
    eye = torch.eye(width, dtype=state.dtype, device=state.device)
    if structure == "blocks":
        return eye[:, :, None].expand(*state.shape[:-2], width, width, state.shape[-1])
    return eye.expand(*state.shape[:-1], width, width)


@obeys("causality", lambda draw: (Causality(), solve_recurrence, recurrence(draw)))
@obeys("batch independence", lambda draw: (BatchIndependence(), solve_recurrence, recurrence(draw)))
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

    The maps $(A_t, b_t)$ compose associatively (`DiagonalAffine`, `MatrixAffine`), so time is cut into chunks that run
    side by side and meet at their boundaries. It is the inner step of Newton's method on a nonlinear recurrence, the
    adjoint of any recurrence (run it in `reverse` on transposed maps), and a gated linear RNN by itself. Half precision
    is solved in float32. Differentiable any number of times.

    Args:
        A: the maps; `(batch, length, channels)` for `structure="diagonal"`, `(batch, length, slots, slots, channels)`
            for `"blocks"`, `(batch, length, width, width)` for `"dense"`.
        b: the shifts; `(batch, length, channels)`, `(batch, length, slots, channels)`, `(batch, length, width)`.
        h_0: the state before the first step, b without its time axis; zero when absent.
        dim: the axis of time, in both A and b.
        reverse: solve $h_t = A_t h_{t+1} + b_t$ from the end instead.

    Returns:
        The states, in the shape of b.

    Raises:
        InputError: when the shapes of A, b and h_0 do not fit the structure.

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
        raise InputError(f"A, b and h_0 must share one dtype, got {[t.dtype for t in (A, b, h_0) if t is not None]}")
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
    if structure not in ("diagonal", "blocks", "dense"):
        raise InputError(f"structure must be 'diagonal', 'blocks' or 'dense', got {structure!r}")
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
        raise InputError(f"A of a {structure} recurrence must be {expected} beside b, got {tuple(A.shape)}")
    state = (*b.shape[:dim], *b.shape[dim + 1 :])
    if h_0 is not None and tuple(h_0.shape) != state:
        raise InputError(f"h_0 must be b without time, {state}, got {tuple(h_0.shape)}")


class _LinearScan(torch.autograd.Function):
    """Time leads. The backward pass is the same recurrence run the other way on the transposed maps."""

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
    """The solution for tensors whose time leads, outside autograd; the core of `linear_scan`."""
    if b.device.type != "cpu":
        return _scan_tree(A, b, h_0, structure, reverse)
    return _scan_chunks(A, b, h_0, structure, reverse)


def _scan_tree(A: Tensor, b: Tensor, h_0: Tensor, structure: Structure, reverse: bool) -> Tensor:
    """Logarithmic depth: an associative scan of the maps, the first of which swallows the initial state."""
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
        # a product may overflow where its steps, one by one, stay finite
        return _scan_chunks(maps, shifts, h_0, structure, reverse, lanes=0)
    return h.flip(0) if reverse else h


_LANES = 8192  # numbers a CPU operator should work on at a time: enough to hide its call, little enough for the cache


def chunk_count(length: int, lane_size: int, shortest: int, lanes: int = _LANES) -> int:
    """How many chunks of a CPU recurrence run side by side."""
    return max(1, min(lanes // max(lane_size, 1), length // shortest))


def _scan_chunks(A: Tensor, b: Tensor, h_0: Tensor, structure: Structure, reverse: bool, lanes: int = _LANES) -> Tensor:
    """Chunks side by side: run each from zero with its product, relay the boundaries, run each from its boundary."""
    length = b.shape[0]
    out = torch.empty_like(b, memory_format=torch.contiguous_format)
    # A map costs `width` times a vector to compose, so wide maps want fewer, longer chunks.
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
        if not total.isfinite().all():  # inf times zero would be NaN where the steps, one by one, stay finite
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
