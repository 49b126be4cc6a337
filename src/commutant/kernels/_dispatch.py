"""Choice and tiling of fused kernels, and the custom operators that call them."""

from __future__ import annotations

import functools
import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .._errors import InputError
from . import _native

_GATES = {"gru": 3, "mingru": 2, "minlstm": 3, "sru": 2, "lstm": 3}
_WEIGHTS = {"gru": 3, "mingru": 0, "minlstm": 0, "sru": 1, "lstm": 5}
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
METHODS = ("sequential", "multishoot", "newton")
_MANY_CHANNELS = 32_768  # batch size times channels above which one thread per channel fills a large GPU (estimate)
_SHORT = 64  # number of steps below which chunks are not worth their second sweep
_interpreted = False  # set by tests, since Triton's interpreter takes tensors on the CPU
_REFERENCES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {}


def register_reference(name: str, loop: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    """Register the plain loop of a recurrence, which computes its second derivatives.

    Args:
        name: Name of the recurrence, such as "gru".
        loop: Function `(pre, weights, h_0) -> states`.
    """
    _REFERENCES[name] = loop


def reference(name: str) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Return the plain loop `(pre, weights, h_0) -> states` of a recurrence in PyTorch operators, for any precision.

    Args:
        name: Name of the recurrence, such as "gru".

    Raises:
        InputError: If no loop is registered; importing `commutant.sequences` registers its loops.
    """
    if name not in _REFERENCES:
        known = ", ".join(_REFERENCES) or "none"
        raise InputError(f"no plain loop is registered for {name!r}, only for {known}; import commutant.sequences")
    return _REFERENCES[name]


@dataclass(frozen=True)
class Fused:
    """Report of a fused solve, whose tensor stays on the device until it is read.

    Attributes:
        method: Method of the kernel.
        certificate: Largest boundary mismatch (the residual for Newton's method), NaN if the last state is NaN, and
            number of sweeps, for each program, `(programs, 2)`.
        language: Language of the kernel, "c" or "triton".
    """

    method: str
    certificate: Tensor
    language: str

    def read(self) -> tuple[int, float]:
        """Wait for the device, and return the largest number of sweeps and the largest mismatch of all programs."""
        if self.certificate.numel() == 0:
            return 0, 0.0
        worst = self.certificate.amax(0).tolist()
        return 0 if self.method == "sequential" else int(worst[1]), float(worst[0])


def _constant(function: Callable[[], bool]) -> Callable[[], bool]:
    """Mark a function like `torch.compiler.assume_constant_result`, which would import the whole compiler."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


@_constant
def _compiler_is_there() -> bool:
    return _native.library() is not None


@_constant
@functools.cache
def _triton_is_there() -> bool:
    if importlib.util.find_spec("triton") is not None:
        return True
    warnings.warn(
        "triton is not installed, so recurrences on CUDA run as PyTorch operators: correct but slow", stacklevel=4
    )
    return False


def fused_method(name: str, pre: Tensor, method: str) -> str | None:
    """Return the method of the fused kernel for a recurrence, or None if no kernel fits.

    Kernels run on CUDA if Triton is installed, and on a CPU if there is a C compiler. On a CPU they run for `auto`
    only, so that the other methods can be compared. They do not run in float64, under forward-mode differentiation or
    inside transforms of torch.func.

    Args:
        name: Name of the recurrence, such as "gru".
        pre: Pre-activations, `(time, batch, gates, channels)`.
        method: Requested method, such as "auto".
    """
    if name not in _GATES or pre.dtype not in _DTYPES or torch.autograd.forward_ad._current_level >= 0:
        return None
    if torch._C._are_functorch_transforms_active():  # type: ignore[attr-defined]
        return None
    if pre.is_cuda and method in ("auto", "sequential", "multishoot") and _triton_is_there():
        return _choose(pre) if method == "auto" else method
    if pre.device.type == "cpu" and method == "auto" and _compiler_is_there():
        return "sequential"
    return None


def fused_recurrence(
    name: str, pre: Tensor, weights: Tensor, h_0: Tensor, method: str = "auto", iterations: int = 3
) -> tuple[Tensor, Fused]:
    """Solve a gated recurrence with one kernel, forward and backward.

    On CUDA the kernels are written in Triton. On a CPU they are written in C and sequential: with one channel per
    vector lane, this is faster than any parallel method.

    `sequential` keeps the state in registers and steps through time. `multishoot` runs chunks of time in parallel and
    sweeps until their boundaries agree, which takes at most as many sweeps as there are chunks. Both are exact for any
    cell. `newton` is the paper's scheme with a fixed number of iterations, for comparison; its residual is reported but
    not tested. `auto` chooses `sequential` or `multishoot` by length and width.

    Args:
        name: Name of the recurrence: "gru", "lstm", "mingru", "minlstm" or "sru".
        pre: Pre-activations, `(time, batch, gates, channels)`.
        weights: Recurrent weights, `(recurrent, channels)`.
        h_0: Initial state, `(batch, channels)`, or `(batch, 2, channels)` for an LSTM.
        method: Solver, "auto", "sequential", "multishoot" or "newton".
        iterations: Number of iterations of Newton's method.

    Returns:
        States `(time, batch, channels)`, or `(time, batch, 2, channels)` for an LSTM, and the report of the solve.
    """
    _check(name, pre, weights, h_0)
    if method == "auto":
        method = _choose(pre)
    if method not in METHODS or (_on_cpu(pre) and method != "sequential"):
        known = "sequential on a CPU" if _on_cpu(pre) else ", ".join(METHODS)
        raise InputError(f"method of a fused kernel must be auto or {known}, got {method!r}")
    if pre.stride(-1) != 1 or pre.stride(-2) != pre.shape[-1]:
        pre = pre.contiguous()
    states, certificate = torch.ops.commutant.recurrence(
        pre, weights.contiguous(), h_0.to(pre.dtype).contiguous(), name, method, iterations
    )
    return states, Fused(method, certificate.detach(), "c" if _on_cpu(pre) else "triton")


def _check(name: str, pre: Tensor, weights: Tensor, h_0: Tensor) -> None:
    if name not in _GATES:
        raise InputError(f"there is no kernel for {name!r}; expected one of {', '.join(_GATES)}")
    slots = (2,) if name == "lstm" else ()
    fits = (
        pre.dim() == 4
        and pre.shape[2] == _GATES[name]
        and tuple(weights.shape) == (_WEIGHTS[name], pre.shape[3])
        and tuple(h_0.shape) == (pre.shape[1], *slots, pre.shape[3])
    )
    if not fits:
        raise InputError(
            f"{name} takes pre (time, batch, {_GATES[name]}, channels), weights ({_WEIGHTS[name]}, channels) and h_0 "
            f"(batch, {'2, ' if slots else ''}channels), got {[tuple(t.shape) for t in (pre, weights, h_0)]}"
        )
    if pre.dtype not in _DTYPES:
        raise InputError(f"pre must be float32, bfloat16 or float16 for a kernel, got {pre.dtype}")


def _on_cpu(x: Tensor) -> bool:
    return x.device.type == "cpu" and not _interpreted


def _choose(pre: Tensor) -> str:
    length, batch, _, channels = pre.shape
    if _on_cpu(pre):
        return "sequential"
    return "sequential" if length <= _SHORT or batch * channels >= _MANY_CHANNELS else "multishoot"


@dataclass(frozen=True)
class Tile:
    """Division of a kernel's work."""

    steps: int
    """Steps per chunk."""
    chunks: int
    """Chunks in parallel."""
    block: int
    """Channels per program."""
    warps: int
    """Warps per program."""


def tile(length: int, channels: int, method: str) -> Tile:
    """Return the tile of a problem: 32 chunks of 4 to 64 steps with 32 channels, or one chunk, a thread per channel.

    All sizes are powers of two, so that few kernels are compiled for many lengths.
    """
    block = min(32, _power_of_two(channels))
    if method == "newton":
        return Tile(min(256, max(2, _power_of_two(length))), 1, min(block, 8), 4)
    if method == "sequential" or length < 8:
        return Tile(64, 1, block, 1)
    chunks = min(32, _power_of_two(length // 4))
    return Tile(min(64, _power_of_two(-(-length // chunks))), chunks, block, 4)


def _power_of_two(n: int) -> int:
    """Return the smallest power of two that is at least n."""
    return 1 << max(0, n - 1).bit_length()


def _launch(name: str, kind: str, pre: Tensor, rest: tuple[Any, ...], how: Tile) -> None:
    from . import _one_slot, _two_slot

    module: Any = _two_slot if name == "lstm" else _one_slot
    constants: dict[str, Any] = {"STEPS": how.steps, "BLOCK": how.block, "num_warps": how.warps}
    if kind != "newton":
        constants["CHUNKS"] = how.chunks
    if name != "lstm":
        constants |= {"CELL": name, "GATES": _GATES[name], "WEIGHTS": _WEIGHTS[name]}
    with torch.cuda.device_of(pre):
        getattr(module, kind)[(_programs(pre, how),)](*rest, **constants)


def _programs(pre: Tensor, how: Tile) -> int:
    return pre.shape[1] * -(-pre.shape[3] // how.block)


@torch.library.custom_op(
    "commutant::recurrence",
    mutates_args=(),
    schema="(Tensor pre, Tensor weights, Tensor h_0, str name, str method, int iterations) -> (Tensor, Tensor)",
)
def _forward(
    pre: Tensor, weights: Tensor, h_0: Tensor, name: str, method: str, iterations: int
) -> tuple[Tensor, Tensor]:
    length, _, _, channels = pre.shape
    how = tile(length, channels, method)
    certificate = torch.zeros(_programs(pre, how), 2, dtype=torch.float32, device=pre.device)
    if _on_cpu(pre):
        states = _forward_in_c(pre, weights, h_0, name)
        if states.numel() and bool(states[-1].isnan().any()):  # NaN in any state reaches the last one
            certificate[:, 0] = torch.nan
        return states, certificate
    out = pre.new_empty((length, *h_0.shape))
    if out.numel():
        kind = "newton" if method == "newton" else "forward"
        last: Any = iterations if method == "newton" else 8 * torch.finfo(torch.float32).eps
        sizes = (length, channels, *_strides(pre, out))
        _launch(name, kind, pre, (pre, weights, h_0, out, certificate, *sizes, last), how)
    return out, certificate


def _strides(*tensors: Tensor) -> tuple[int, ...]:
    """Return the strides in time and batch of each tensor."""
    return tuple(t.stride(axis) for t in tensors for axis in (0, 1))


def _single(pre: Tensor) -> Tensor:
    """Return a tensor in float32, with contiguous strides if it is copied."""
    return pre if pre.dtype == torch.float32 else pre.to(torch.float32, memory_format=torch.contiguous_format)


def _forward_in_c(pre: Tensor, weights: Tensor, h_0: Tensor, name: str) -> Tensor:
    wide, start = _single(pre), h_0.float()
    out = wide.new_empty((pre.shape[0], *h_0.shape))
    if out.numel():
        tensors = (wide, weights.float(), start, out)
        sizes = (pre.shape[0], pre.shape[3], *_strides(wide, out))
        _native.run(name, "forward", tensors, sizes, pre.shape[1], out.numel())
    return out.to(pre.dtype)


def _backward_in_c(
    gradient: Tensor, pre: Tensor, weights: Tensor, h_0: Tensor, states: Tensor, name: str
) -> tuple[Tensor, Tensor, Tensor]:
    wide, out, direct = _single(pre), states.float().contiguous(), gradient.float().contiguous()
    d_pre = torch.empty_like(wide, memory_format=torch.contiguous_format)
    d_weights, d_h0 = wide.new_zeros(pre.shape[1], *weights.shape), torch.zeros_like(h_0, dtype=torch.float32)
    if states.numel():
        tensors = (wide, weights.float(), h_0.float(), out, direct, d_pre, d_weights, d_h0)
        sizes = (pre.shape[0], pre.shape[3], *_strides(wide, out, d_pre))
        _native.run(name, "backward", tensors, sizes, pre.shape[1], out.numel())
    return d_pre.to(pre.dtype), d_weights.sum(0).to(weights.dtype), d_h0.to(h_0.dtype)


@_forward.register_fake
def _(pre: Tensor, weights: Tensor, h_0: Tensor, name: str, method: str, iterations: int) -> tuple[Tensor, Tensor]:
    how = tile(pre.shape[0], pre.shape[3], method)
    return pre.new_empty((pre.shape[0], *h_0.shape)), pre.new_empty((_programs(pre, how), 2), dtype=torch.float32)


@torch.library.custom_op(
    "commutant::recurrence_backward",
    mutates_args=(),
    schema="(Tensor gradient, Tensor pre, Tensor weights, Tensor h_0, Tensor states, str name, str method) "
    "-> (Tensor, Tensor, Tensor)",
)
def _backward(
    gradient: Tensor, pre: Tensor, weights: Tensor, h_0: Tensor, states: Tensor, name: str, method: str
) -> tuple[Tensor, Tensor, Tensor]:
    if _on_cpu(pre):
        return _backward_in_c(gradient, pre, weights, h_0, states, name)
    length, batch, _, channels = pre.shape
    d_pre = torch.empty_like(pre, memory_format=torch.contiguous_format)
    d_weights = torch.zeros(batch, *weights.shape, dtype=torch.float32, device=pre.device)
    d_h0 = torch.zeros(h_0.shape, dtype=torch.float32, device=pre.device)
    if states.numel():
        gradient = gradient.contiguous()
        how = tile(length, channels, "sequential" if method == "sequential" else "multishoot")
        tensors = (pre, weights, h_0, states, gradient, d_pre, d_weights, d_h0)
        sizes = (length, channels, *_strides(pre, states, d_pre))
        _launch(name, "backward", pre, (*tensors, *sizes), how)
    return d_pre, d_weights.sum(0).to(weights.dtype), d_h0.to(h_0.dtype)


@_backward.register_fake
def _(
    gradient: Tensor, pre: Tensor, weights: Tensor, h_0: Tensor, states: Tensor, name: str, method: str
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.empty_like(pre, memory_format=torch.contiguous_format),
        torch.empty_like(weights, memory_format=torch.contiguous_format),
        torch.empty_like(h_0, memory_format=torch.contiguous_format),
    )


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    pre, weights, h_0, ctx.name, ctx.method, _ = inputs
    ctx.save_for_backward(pre, weights, h_0, output[0])


def _pull_back(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Any, ...]:
    pre, weights, h_0, states = ctx.saved_tensors
    if torch.is_grad_enabled() and ctx.name in _REFERENCES:  # second derivatives use the plain loop
        # aliases, since inputs may depend on each other and only the direct dependence belongs here
        inputs = [t.view_as(t) for t in (pre, weights, h_0)]
        out = _REFERENCES[ctx.name](*inputs)
        wanted = [t for t in inputs if t.requires_grad]
        grads = iter(torch.autograd.grad(out, wanted, gradient, create_graph=True, allow_unused=True))
        return *(next(grads) if t.requires_grad else None for t in inputs), None, None, None
    found = torch.ops.commutant.recurrence_backward(gradient, pre, weights, h_0, states, ctx.name, ctx.method)
    return *found, None, None, None


def _no_second_derivative(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
    raise InputError("the backward kernel has no derivative; compute the first gradient with create_graph=True")


_forward.register_autograd(_pull_back, setup_context=_keep)
_backward.register_autograd(_no_second_derivative)
