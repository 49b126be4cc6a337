"""Evaluation of a traced graph in float64, and comparison of outputs, to verify derived symmetries."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from .._errors import InputError
from ..kernels import reference
from ._lookahead import stretch_of
from ._trace import Trace
from ._walk import CALLED_ONCE, name_of

_FLOATS = {torch.float32: torch.float64, torch.float16: torch.float64, torch.bfloat16: torch.float64,
           torch.complex64: torch.complex128}  # fmt: skip


class InDouble(fx.Interpreter):
    """Interpreter that runs a graph in float64, overriding its dtypes, with differentiable operators.

    Batch norm in evaluation mode becomes plain arithmetic, so that running statistics have derivatives too.
    """

    def run_node(self, n: fx.Node) -> Any:
        if str(n.target) in CALLED_ONCE:
            args = self.fetch_args_kwargs_from_env(n)[0]
            for i, argument in enumerate(args):
                if isinstance(argument, fx.GraphModule):
                    return InDouble(argument).run(*args[i + 1 :])
        return super().run_node(n)

    def fetch_args_kwargs_from_env(self, n: fx.Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
        args, kwargs = super().fetch_args_kwargs_from_env(n)
        return fx.node.map_aggregate(args, _double), fx.node.map_aggregate(kwargs, _double)  # type: ignore[return-value]

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if "_assert_tensor_metadata" in str(target):
            return None
        if "commutant.recurrence" in str(target):  # the kernel has no float64: use its PyTorch twin
            return reference(args[3])(*args[:3]), torch.zeros(1, 2)
        name = name_of(target).removeprefix("aten.")
        if name == "view" and not isinstance(args[1], torch.dtype):  # differentiable kernels have other memory layouts
            return args[0].reshape(args[1])
        if name in ("_grouped_mm", "transformers.grouped_mm_fallback"):
            return _grouped_matmul(args[0], args[1], kwargs["offs"] if "offs" in kwargs else args[2])
        if name == "slice_scatter" and not kwargs and args[0].is_complex() and len(args) < 6:
            return _overwritten(*args)
        if name == "copy":
            return args[1].to(args[0].dtype).expand_as(args[0])
        if not kwargs and (name == "_native_batch_norm_legit_no_training" or (name == "batch_norm" and not args[5])):
            out = _batch_norm(*args[:5], eps=args[6] if name != "batch_norm" else args[7])
            return out if name == "batch_norm" else (out, *args[3:5])
        return super().call_function(target, args, kwargs)


def _batch_norm(
    x: Tensor, gain: Tensor | None, shift: Tensor | None, mean: Tensor, variance: Tensor, *, eps: float
) -> Tensor:
    """Return batch norm in evaluation mode, as plain arithmetic."""
    shape = [1, -1, *[1] * (x.dim() - 2)]
    scale = (variance + eps).rsqrt()
    scale = scale if gain is None else gain * scale
    out = (x - mean.view(shape)) * scale.view(shape)
    return out if shift is None else out + shift.view(shape)


def _overwritten(whole: Tensor, part: Tensor, dim: int = 0, start: int | None = None, end: int | None = None) -> Tensor:
    """Return a copy with a stretch of an axis overwritten; torch's operator has no derivative for complex numbers."""
    first, _ = stretch_of(start, part.shape[dim], whole.shape[dim])
    after = first + part.shape[dim]
    return torch.cat([whole.narrow(dim, 0, first), part, whole.narrow(dim, after, whole.shape[dim] - after)], dim)


def _grouped_matmul(x: Tensor, weights: Tensor, ends: Tensor) -> Tensor:
    """Multiply each stretch of rows by its own matrix; the kernel has no float64."""
    borders = [0, *ends.tolist()]
    parts = [x[low:high] @ w for low, high, w in zip(borders, borders[1:], weights, strict=False)]
    return torch.cat([*parts, x.new_zeros(len(x) - borders[-1], weights.shape[-1])])


def _double(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.to(_FLOATS[value.dtype]) if value.dtype in _FLOATS else value
    return _FLOATS.get(value, value) if isinstance(value, torch.dtype) else value


def outputs(trace: Trace, state: Mapping[str, Tensor], factor: float = 1.0) -> list[Tensor]:
    """Return the outputs of the traced graph for other parameters, in float64.

    The outputs have gradients where gradients are enabled and one of the given parameters requires them.

    Args:
        trace: Traced graph; its example is the input.
        state: Parameters and buffers; entries left out are taken from the trace.
        factor: Factor on the real numbers among the inputs.
    """
    given = []
    for source in trace.sources:
        value = state.get(source.name, source.value) if source.kind in ("parameter", "buffer") else source.value
        scaled = source.kind == "input" and isinstance(value, Tensor) and value.is_floating_point() and factor != 1
        given.append(_double(value) * factor if scaled else _double(value))
    with torch.set_grad_enabled(torch.is_grad_enabled() and any(v.requires_grad for v in state.values())):
        found = InDouble(trace.module).run(*given)
    return [x for x in trace.returned(pytree.tree_leaves(found)) if isinstance(x, Tensor)]


def captured(
    trace: Trace, state: Mapping[str, Tensor], inputs: Sequence[Any], names: Collection[str]
) -> dict[str, Tensor]:
    """Return the values of some nodes of the graph, in the precision of the given parameters and inputs."""
    given: list[Any] = []
    left = iter(inputs)
    for source in trace.sources:
        if source.kind == "input":
            value = next(left, None)
            if isinstance(source.value, Tensor) and (
                not isinstance(value, Tensor) or value.shape != source.value.shape
            ):
                got = tuple(value.shape) if isinstance(value, Tensor) else value
                raise InputError(f"inputs must have the shapes of the example, {tuple(source.value.shape)}, got {got}")
            given.append(value)
        else:
            given.append(state[source.name] if source.kind in ("parameter", "buffer") else source.value)
    found: dict[str, Tensor] = {}

    class Reader(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            if n.name in names:
                found[n.name] = value
            return value

    with torch.no_grad():
        Reader(trace.module).run(*given)
    return found


def generic(state: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """Return parameters near the given ones without zeros, ones and repetitions, which would hide a wrong group.

    Args:
        state: State dict; not modified.
        generator: Random generator of the changes.
    """
    result: dict[str, Tensor] = {}
    shared: dict[tuple[Any, ...], Tensor] = {}
    fast = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))  # faster than torch.rand
    for key, value in state.items():
        place = (value.data_ptr(), value.shape, value.stride())
        if not value.is_floating_point() or value.numel() == 0:
            result[key] = value
        elif place in shared:
            result[key] = shared[place]
        else:
            own = value.double().cpu()
            drawn = torch.from_numpy(fast.random(own.shape))
            moved = torch.addcmul(own.mul(0.7), own, drawn, value=0.6)
            if not (own > 0).all():  # variances stay positive
                # large enough that no signal dies out in a deep network
                scale = own[0].numel() ** -0.5 if own.ndim > 1 else 0.15
                scale *= 12**0.5
                moved.add_(drawn.mul_(2.0**20).frac_(), alpha=scale).sub_(scale / 2)  # the lower bits are another draw
            result[key] = shared[place] = moved
    return result


def difference(first: list[Tensor], second: list[Tensor], elsewhere: list[Tensor] | None = None) -> float:
    """Return the largest difference between two lists of tensors, relative to the largest entry of each tensor.

    Entries that are equal in `first` and `elsewhere` are constants, such as a mask's -1e9. They are compared, but do
    not count towards the largest entry.

    Args:
        first: Tensors that set the scale.
        second: Tensors of the same shapes.
        elsewhere: Tensors like `first`, computed with other parameters.

    Raises:
        InputError: The shapes differ.
    """
    worst = 0.0
    if [x.shape for x in first] != [y.shape for y in second]:
        shapes = ([tuple(x.shape) for x in own] for own in (first, second))
        raise InputError("only tensors of the same shapes can be compared, got {} and {}".format(*shapes))
    for x, y, other in zip(first, second, elsewhere or second, strict=True):
        if x.numel() == 0:
            continue
        if not (x.is_floating_point() or x.is_complex()):
            worst = max(worst, float((x != y).any()))
            continue
        same = (x == y) | (x.isnan() & y.isnan())
        gap = (x - y).abs()[~same]
        counted = x.isfinite() if elsewhere is None else x.isfinite() & (x != other)
        largest = x.abs()[counted if bool(counted.any()) else x.isfinite()]
        if gap.numel():
            size = float(largest.max()) if largest.numel() else 0.0
            worst = max(worst, float(gap.nan_to_num(nan=float("inf")).max()) / (size or 1.0))
    return worst
