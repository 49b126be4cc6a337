"""When a fused kernel runs, how it is tiled, and the custom operators that hold it."""

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
_MANY_CHANNELS = 32_768  # batch times channels from which a thread a channel fills a large GPU (an estimate)
_SHORT = 64  # steps below which chunks are not worth their second sweep
_interpreted = False  # set by tests: Triton's interpreter takes tensors of the CPU
_REFERENCES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {}


def register_reference(name: str, loop: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    """Give a recurrence the plain loop `(pre, weights, h0) -> states` that its second derivatives go through."""
    _REFERENCES[name] = loop


def reference(name: str) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The plain loop `(pre, weights, h0) -> states` of a recurrence, in PyTorch's own operators and any precision.

    Raises:
        InputError: no loop was given for it; `commutant.sequences` gives its own when it is imported.
    """
    if name not in _REFERENCES:
        raise InputError(f"no plain loop for {name!r} is registered; there are {', '.join(_REFERENCES) or 'none'}")
    return _REFERENCES[name]


@dataclass(frozen=True)
class Fused:
    """What a fused solve reports, on its device: reading it waits for the device.

    Attributes:
        method: of the kernel.
        certificate: `(programs, 2)`: the largest boundary mismatch (of Newton's method the residual), NaN where the
            last state is NaN, and the sweeps.
        language: "c" or "triton".
    """

    method: str
    certificate: Tensor
    language: str

    def read(self) -> tuple[int, float]:
        """The most sweeps of any program, and the worst mismatch."""
        if self.certificate.numel() == 0:
            return 0, 0.0
        worst = self.certificate.amax(0).tolist()
        return 0 if self.method == "sequential" else int(worst[1]), float(worst[0])


def _constant(function: Callable[[], bool]) -> Callable[[], bool]:
    """`torch.compiler.assume_constant_result`, which would import the whole compiler to do this."""
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
        "triton is not installed: recurrences on CUDA run as PyTorch operators, which is right but slow", stacklevel=4
    )
    return False


def fused_method(name: str, pre: Tensor, solver: str) -> str | None:
    """The kernel's method for a recurrence and the solver that was asked for, or None where no kernel fits.

    Kernels run on CUDA where Triton is installed and on a CPU where a C compiler is; there for `auto` alone, so that
    the other solvers can be compared. Not in float64, under forward differentiation or the transforms of torch.func.
    """
    if name not in _GATES or pre.dtype not in _DTYPES or torch.autograd.forward_ad._current_level >= 0:
        return None
    if torch._C._are_functorch_transforms_active():  # type: ignore[attr-defined]
        return None
    if pre.is_cuda and solver in ("auto", "sequential", "multishoot") and _triton_is_there():
        return _choose(pre) if solver == "auto" else solver
    if pre.device.type == "cpu" and solver == "auto" and _compiler_is_there():
        return "sequential"
    return None


def fused_recurrence(
    name: str, pre: Tensor, weights: Tensor, h0: Tensor, method: str = "auto", iterations: int = 3
) -> tuple[Tensor, Fused]:
    """Solve a gated recurrence by one kernel, forward and backward.

    On CUDA the kernels are Triton's. On a CPU they are C and sequential: with a channel a lane of the vector units,
    that is faster than any parallel solution there.

    `sequential` keeps the state in registers and steps through time; `multishoot` runs chunks of time side by side and
    sweeps until they meet, which ends after as many sweeps as there are chunks at the latest, so both are exact for any
    cell. `newton` is the paper's scheme with a fixed number of iterations, for comparison; its residual is reported and
    not judged. `auto` takes the first two by length and width.

    Args:
        name: "gru", "lstm", "mingru", "minlstm" or "sru".
        pre: pre-activations `(time, batch, gates, channels)`.
        weights: recurrent weights `(recurrent, channels)`.
        h0: `(batch, channels)`, of an LSTM `(batch, 2, channels)`.
        method: "auto", "sequential", "multishoot" or "newton".
        iterations: of Newton's method.

    Returns:
        The states `(time, batch, channels)`, of an LSTM `(time, batch, 2, channels)`, and the certificate.
    """
    _check(name, pre, weights, h0)
    if method == "auto":
        method = _choose(pre)
    if method not in METHODS or (_on_cpu(pre) and method != "sequential"):
        known = "sequential on a CPU" if _on_cpu(pre) else ", ".join(METHODS)
        raise InputError(f"the method of a fused kernel must be auto or {known}, got {method!r}")
    if pre.stride(-1) != 1 or pre.stride(-2) != pre.shape[-1]:
        pre = pre.contiguous()
    states, certificate = torch.ops.commutant.recurrence(
        pre, weights.contiguous(), h0.to(pre.dtype).contiguous(), name, method, iterations
    )
    return states, Fused(method, certificate.detach(), "c" if _on_cpu(pre) else "triton")


def _check(name: str, pre: Tensor, weights: Tensor, h0: Tensor) -> None:
    if name not in _GATES:
        raise InputError(f"no kernel for {name!r}; there are {', '.join(_GATES)}")
    slots = (2,) if name == "lstm" else ()
    fits = (
        pre.dim() == 4
        and pre.shape[2] == _GATES[name]
        and tuple(weights.shape) == (_WEIGHTS[name], pre.shape[3])
        and tuple(h0.shape) == (pre.shape[1], *slots, pre.shape[3])
    )
    if not fits:
        raise InputError(
            f"{name} takes pre (time, batch, {_GATES[name]}, channels), weights ({_WEIGHTS[name]}, channels) and h0 "
            f"(batch, {'2, ' if slots else ''}channels), got {[tuple(t.shape) for t in (pre, weights, h0)]}"
        )
    if pre.dtype not in _DTYPES:
        raise InputError(f"the kernels take float32, bfloat16 and float16, got {pre.dtype}")


def _on_cpu(x: Tensor) -> bool:
    return x.device.type == "cpu" and not _interpreted


def _choose(pre: Tensor) -> str:
    length, batch, _, channels = pre.shape
    if _on_cpu(pre):
        return "sequential"
    return "sequential" if length <= _SHORT or batch * channels >= _MANY_CHANNELS else "multishoot"


@dataclass(frozen=True)
class Tile:
    """How a kernel cuts its work: `steps` a chunk, `chunks` side by side, `block` channels, warps."""

    steps: int
    chunks: int
    block: int
    warps: int


def tile(length: int, channels: int, method: str) -> Tile:
    """The tile of a problem: 32 chunks of 4 to 64 steps with 32 channels, or one chunk with a channel a thread.

    Everything is a power of two, so that few kernels are compiled whatever the lengths.
    """
    block = min(32, _power_of_two(channels))
    if method == "newton":
        return Tile(min(256, max(2, _power_of_two(length))), 1, min(block, 8), 4)
    if method == "sequential" or length < 8:
        return Tile(64, 1, block, 1)
    chunks = min(32, _power_of_two(length // 4))
    return Tile(min(64, _power_of_two(-(-length // chunks))), chunks, block, 4)


def _power_of_two(n: int) -> int:
    """The smallest one that is not below n."""
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
    schema="(Tensor pre, Tensor weights, Tensor h0, str name, str method, int iterations) -> (Tensor, Tensor)",
)
def _forward(
    pre: Tensor, weights: Tensor, h0: Tensor, name: str, method: str, iterations: int
) -> tuple[Tensor, Tensor]:
    length, _, _, channels = pre.shape
    how = tile(length, channels, method)
    certificate = torch.zeros(_programs(pre, how), 2, device=pre.device)
    if _on_cpu(pre):
        states = _forward_in_c(pre, weights, h0, name)
        if states.numel() and bool(states[-1].isnan().any()):  # a state that is NaN stays NaN
            certificate[:, 0] = torch.nan
        return states, certificate
    out = pre.new_empty((length, *h0.shape))
    if out.numel():
        kind = "newton" if method == "newton" else "forward"
        last: Any = iterations if method == "newton" else 8 * torch.finfo(torch.float32).eps
        sizes = (length, channels, *_strides(pre, out))
        _launch(name, kind, pre, (pre, weights, h0, out, certificate, *sizes, last), how)
    return out, certificate


def _strides(*tensors: Tensor) -> tuple[int, ...]:
    """Steps in time and batch of each."""
    return tuple(t.stride(axis) for t in tensors for axis in (0, 1))


def _single(pre: Tensor) -> Tensor:
    """In float32; a copy is laid out anew, whatever the strides were."""
    return pre if pre.dtype == torch.float32 else pre.to(torch.float32, memory_format=torch.contiguous_format)


def _forward_in_c(pre: Tensor, weights: Tensor, h0: Tensor, name: str) -> Tensor:
    wide, start = _single(pre), h0.float()
    out = wide.new_empty((pre.shape[0], *h0.shape))
    if out.numel():
        tensors = (wide, weights.float(), start, out)
        sizes = (pre.shape[0], pre.shape[3], *_strides(wide, out))
        _native.run(name, "forward", tensors, sizes, pre.shape[1], out.numel())
    return out.to(pre.dtype)


def _backward_in_c(
    gradient: Tensor, pre: Tensor, weights: Tensor, h0: Tensor, states: Tensor, name: str
) -> tuple[Tensor, Tensor, Tensor]:
    wide, out, direct = _single(pre), states.float().contiguous(), gradient.float().contiguous()
    d_pre = torch.empty_like(wide, memory_format=torch.contiguous_format)
    d_weights, d_h0 = wide.new_zeros(pre.shape[1], *weights.shape), torch.zeros_like(h0, dtype=torch.float32)
    if states.numel():
        tensors = (wide, weights.float(), h0.float(), out, direct, d_pre, d_weights, d_h0)
        sizes = (pre.shape[0], pre.shape[3], *_strides(wide, out, d_pre))
        _native.run(name, "backward", tensors, sizes, pre.shape[1], out.numel())
    return d_pre.to(pre.dtype), d_weights.sum(0).to(weights.dtype), d_h0.to(h0.dtype)


@_forward.register_fake
def _(pre: Tensor, weights: Tensor, h0: Tensor, name: str, method: str, iterations: int) -> tuple[Tensor, Tensor]:
    how = tile(pre.shape[0], pre.shape[3], method)
    return pre.new_empty((pre.shape[0], *h0.shape)), pre.new_empty((_programs(pre, how), 2), dtype=torch.float32)


@torch.library.custom_op(
    "commutant::recurrence_backward",
    mutates_args=(),
    schema="(Tensor gradient, Tensor pre, Tensor weights, Tensor h0, Tensor states, str name, str method) "
    "-> (Tensor, Tensor, Tensor)",
)
def _backward(
    gradient: Tensor, pre: Tensor, weights: Tensor, h0: Tensor, states: Tensor, name: str, method: str
) -> tuple[Tensor, Tensor, Tensor]:
    if _on_cpu(pre):
        return _backward_in_c(gradient, pre, weights, h0, states, name)
    length, batch, _, channels = pre.shape
    d_pre = torch.empty_like(pre, memory_format=torch.contiguous_format)
    d_weights = torch.zeros(batch, *weights.shape, device=pre.device)
    d_h0 = torch.zeros(h0.shape, device=pre.device)
    if states.numel():
        gradient = gradient.contiguous()
        how = tile(length, channels, "sequential" if method == "sequential" else "multishoot")
        tensors = (pre, weights, h0, states, gradient, d_pre, d_weights, d_h0)
        sizes = (length, channels, *_strides(pre, states, d_pre))
        _launch(name, "backward", pre, (*tensors, *sizes), how)
    return d_pre, d_weights.sum(0).to(weights.dtype), d_h0.to(h0.dtype)


@_backward.register_fake
def _(
    gradient: Tensor, pre: Tensor, weights: Tensor, h0: Tensor, states: Tensor, name: str, method: str
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.empty_like(pre, memory_format=torch.contiguous_format),
        torch.empty_like(weights, memory_format=torch.contiguous_format),
        torch.empty_like(h0, memory_format=torch.contiguous_format),
    )


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    pre, weights, h0, ctx.name, ctx.method, _ = inputs
    ctx.save_for_backward(pre, weights, h0, output[0])


def _pull_back(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Any, ...]:
    pre, weights, h0, states = ctx.saved_tensors
    if torch.is_grad_enabled() and ctx.name in _REFERENCES:  # a second derivative is wanted: through the plain loop
        # aliases: an input may itself depend on another, and only the direct dependence belongs here
        inputs = [t.view_as(t) for t in (pre, weights, h0)]
        out = _REFERENCES[ctx.name](*inputs)
        wanted = [t for t in inputs if t.requires_grad]
        grads = iter(torch.autograd.grad(out, wanted, gradient, create_graph=True, allow_unused=True))
        return *(next(grads) if t.requires_grad else None for t in inputs), None, None, None
    found = torch.ops.commutant.recurrence_backward(gradient, pre, weights, h0, states, ctx.name, ctx.method)
    return *found, None, None, None


def _no_second_derivative(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
    raise InputError("the backward kernel has no derivative; ask for the first with create_graph=True")


_forward.register_autograd(_pull_back, setup_context=_keep)
_backward.register_autograd(_no_second_derivative)
