"""Search for the first submodule that breaks a law although its inputs obeyed it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from torch import nn

from ._actions import GroupElement
from ._inputs import Inputs, call, map_tensors
from ._laws import Function, Law
from ._report import LayerReport


def first_break(
    law: Law,
    f: Function,
    x: Inputs,
    g: GroupElement,
    frozen: Callable[[], AbstractContextManager[None]],
    close: Callable[[Any, Any], bool],
) -> list[LayerReport]:
    """Run a module on both sides of a law and compare the outputs of every submodule, in order of execution.

    A submodule obeys the law if its output is invariant or equivariant, since hidden features may be either.

    Args:
        law: Law that f breaks.
        f: Function under test; submodules are compared if it is a module.
        x: Input at which the law breaks.
        g: Draw at which the law breaks.
        frozen: Context that seeds random numbers and restores buffers.
        close: Comparison of two outputs.

    Returns:
        One report for each submodule whose inputs obey the law, up to the first that breaks it.
    """
    pair = law.layer_inputs(x, g)
    if pair is None or not isinstance(f, nn.Module):
        return []
    traces = [_trace(f, inputs, frozen) for inputs in pair]
    if [name for name, *_ in traces[0]] != [name for name, *_ in traces[1]]:
        return []
    reports: list[LayerReport] = []
    for (name, kind, inputs, output), (_, _, moved_inputs, moved_output) in zip(*traces, strict=True):
        fed = _lawful(law, inputs, moved_inputs, x, g, close)
        lawful = _lawful(law, output, moved_output, x, g, close)
        if fed is not False:
            reports.append(LayerReport(name, kind, lawful))
            if lawful is False:
                break
    return reports


def _lawful(
    law: Law, value: Any, moved: Any, x: Inputs, g: GroupElement, close: Callable[[Any, Any], bool]
) -> bool | None:
    candidates = law.witness_of(value, x, g)
    return any(close(candidate, moved) for candidate in candidates) if candidates else None


def _trace(
    module: nn.Module, x: Inputs, frozen: Callable[[], AbstractContextManager[None]]
) -> list[tuple[str, str, Any, Any]]:
    """Record name, class, inputs and output of every submodule call, in the order in which the calls end."""
    calls: list[tuple[str, str, Any, Any]] = []
    running: list[Any] = []

    def before(inner: nn.Module, args: Any, kwargs: Any) -> None:
        running.append(_detach((args, kwargs)))  # copied before the call, which may change them in place

    def after(name: str) -> Callable[..., None]:
        def hook(inner: nn.Module, args: Any, output: Any) -> None:
            calls.append((name, type(inner).__name__, running.pop(), _detach(output)))

        return hook

    handles = []
    for name, inner in module.named_modules():
        if name:
            handles.append(inner.register_forward_pre_hook(before, with_kwargs=True))
            handles.append(inner.register_forward_hook(after(name)))
    try:
        with frozen():
            call(module, _detach(x))
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _detach(value: Any) -> Any:
    return map_tensors(lambda _, t: t.detach().clone(), value)
