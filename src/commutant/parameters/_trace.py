"""Tracing of a module to a graph of ATen operators: by `torch.export`, else by `make_fx` along one path."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import torch
from torch import fx, nn
from torch.func import functional_call, functionalize
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing, make_fx
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from .._errors import InputError
from ._unchanged import evaluating


@dataclass(frozen=True)
class Source:
    """Origin of a placeholder of the graph: a parameter, a persistent buffer, a constant or an input."""

    kind: str
    name: str
    value: Any


@dataclass(frozen=True)
class Trace:
    """Traced graph with the origins of its placeholders and the limits of its tracer.

    Attributes:
        module: Graph of ATen operators.
        sources: Origin of each placeholder.
        how: Name of the tracer.
        lost: Description of what the tracer could not follow, if anything.
        branches: Whether Python branched on computed values, so that other inputs may take other paths.
        written: For each output of the graph, the source that it is written into; None for an output of the module.
    """

    module: fx.GraphModule
    sources: tuple[Source, ...]
    how: str
    lost: str | None = None
    branches: bool = False
    written: tuple[str | None, ...] = ()

    def returned(self, outputs: Sequence[Any]) -> list[Any]:
        """Return the outputs of the graph that are outputs of the module."""
        return [x for x, name in zip_longest(outputs, self.written) if name is None]

    def used(self) -> set[str]:
        """Return the names of the parameters and buffers that the graph reads or writes."""
        placeholders = (node for node in self.module.graph.nodes if node.op == "placeholder")
        return {s.name for node, s in zip(placeholders, self.sources, strict=True)
                if s.kind in ("parameter", "buffer") and (node.users or s.name in self.written)}  # fmt: skip


def as_arguments(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the positional and keyword arguments that an example stands for.

    Args:
        example: A tensor, a sequence of positional arguments, or a mapping of keyword arguments.
    """
    if isinstance(example, Mapping):
        return (), dict(example)
    return (tuple(example) if isinstance(example, tuple | list) else (example,)), {}


def trace(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], *, prepared: bool = False) -> Trace:
    """Trace a module in evaluation mode on example inputs, without changing it.

    Modes are set as flags, because `eval()` may merge weights. A module that only runs after `eval()` is traced on a
    copy.
    """
    with _quietly(), evaluating(model):
        try:
            return _export(model, tuple(args), dict(kwargs))
        except Exception as error:
            first = error
        try:
            return _along_the_example(model, tuple(args), dict(kwargs), first)
        except Exception as error:
            failure = InputError(
                f"{type(model).__name__} could not be traced on the example inputs: torch.export says "
                f"{_first_line(first)!r}, make_fx says {_first_line(error)!r}; check that model(*example_inputs) "
                "runs, select the tensors of its output with outputs=, or give the symmetries with "
                "PermutationSpec.from_axes"
            )
            failure.__cause__ = error
    if prepared or not any(_prepares(module) for module in model.modules()):
        raise failure
    with _quietly():
        model = copy.deepcopy(model).eval()
    return trace(model, args, kwargs, prepared=True)


def _prepares(module: nn.Module) -> bool:
    """Return whether a module overrides `train` or `eval`, for example to merge weights."""
    return type(module).train is not nn.Module.train or type(module).eval is not nn.Module.eval


def _export(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Trace:
    program = torch.export.export(model, args, kwargs, strict=False)
    nodes = [n for m in program.graph_module.modules() if isinstance(m, fx.GraphModule) for n in m.graph.nodes]
    if any(_mutates(n.target) for n in nodes):
        program = program.run_decompositions({})
    if any(_symbolic(n.meta.get("val")) for n in nodes):
        raise RuntimeError("the sizes of some tensors depend on data")
    kinds = torch.export.graph_signature.InputKind
    sources = []
    inputs = iter(pytree.tree_leaves((args, kwargs)))
    for spec in program.graph_signature.input_specs:
        target = str(spec.target)
        if spec.kind is kinds.PARAMETER:
            sources.append(Source("parameter", target, program.state_dict[target]))
        elif spec.kind is kinds.BUFFER and spec.persistent:
            sources.append(Source("buffer", target, program.state_dict[target]))
        elif spec.kind is kinds.USER_INPUT:
            sources.append(Source("input", str(getattr(spec.arg, "name", "")), next(inputs, None)))
        else:
            sources.append(Source("constant", target, program.constants.get(target)))
    program.graph_module.graph.eliminate_dead_code()
    returned = torch.export.graph_signature.OutputKind.USER_OUTPUT
    written = [None if spec.kind is returned else str(spec.target) for spec in program.graph_signature.output_specs]
    return Trace(program.graph_module, tuple(sources), "torch.export", written=tuple(written))


def _along_the_example(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], why: Exception) -> Trace:
    parameters = dict(model.named_parameters(remove_duplicate=False))
    buffers = dict(model.named_buffers(remove_duplicate=False))
    persistent = set(model.state_dict())
    state = parameters | buffers
    leaves, structure = pytree.tree_flatten((args, kwargs))
    reading = _ReadingValues()

    def run(state: dict[str, torch.Tensor], leaves: list[Any]) -> list[Any]:
        reading.read.clear()
        own_args, own_kwargs = pytree.tree_unflatten(leaves, structure)
        found = pytree.tree_leaves(functional_call(model, state, own_args, own_kwargs, tie_weights=False))
        for x in found:
            if not isinstance(x, torch.Tensor | int | float | complex | str | None):
                raise RuntimeError(f"the output holds a {type(x).__name__}, whose contents can't be traced")
        # values that Python reads may decide its path, so they must be preserved like outputs
        return [x for x in (*found, *reading.read) if isinstance(x, torch.Tensor)]

    copies: dict[int, torch.Tensor] = {}  # the module may write into its buffers and inputs
    detached = {n: copies.setdefault(id(v), v.detach().clone()) for n, v in state.items()}
    leaves = [x.detach().clone() if isinstance(x, torch.Tensor) else x for x in leaves]
    with torch.no_grad(), reading, evaluating(model):
        graph = make_fx(run, tracing_mode="real")(detached, leaves)
        if any(_mutates(node.target) for node in graph.graph.nodes):
            graph = make_fx(functionalize(graph, remove="mutations"), tracing_mode="real")(detached, leaves)
    graph.graph.eliminate_dead_code()
    sources = [
        Source("parameter" if n in parameters else "buffer" if n in persistent else "constant", n, value)
        for n, value in state.items()
    ]
    sources += [Source("input", str(i), value) for i, value in enumerate(leaves)]
    placeholders = [node for node in graph.graph.nodes if node.op == "placeholder"]
    if len(placeholders) != len(sources):
        raise RuntimeError("the placeholders of the graph are not those of the module")
    return Trace(
        graph,
        tuple(sources),
        "make_fx",
        f"torch.export could not follow the module ({_first_line(why)}), so the symmetries hold on the path that the "
        "example took: give examples for the other paths too",
        branches=bool(reading.read),
    )


def _mutates(target: Any) -> bool:
    return isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable


def _symbolic(value: Any) -> bool:
    return any(isinstance(x, torch.Tensor) and any(isinstance(n, torch.SymInt) for n in x.shape)
               for x in pytree.tree_leaves(value))  # fmt: skip


class _ReadingValues(TorchFunctionMode):
    """Mode in which Python can read the numbers that it branches on, with the values of the example."""

    _READ = frozenset({torch.Tensor.item, torch.Tensor.tolist, torch.Tensor.__bool__, torch.Tensor.__float__,
             torch.Tensor.__int__, torch.Tensor.__index__})  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self.read: list[torch.Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.Tensor.numpy, torch.Tensor.__array__):
            raise RuntimeError("the module hands tensors to NumPy, where they can't be traced")
        if func in self._READ:
            self.read.append(args[0])
            with disable_proxy_modes_tracing():
                return func(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _first_line(error: Exception) -> str:
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {text[:160]}"


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Silence the warnings and log lines of a failed export; the error repeats the important ones."""
    logger = logging.getLogger("torch")
    level = logger.level
    children = [logging.getLogger(n) for n in ("torch._subclasses.fake_tensor", "torch.export", "torch.fx")]
    levels = [child.level for child in children]
    silent = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent):
        warnings.simplefilter("ignore")
        for child in (logger, *children):
            child.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for child, own in zip((logger, *children), (level, *levels), strict=True):
                child.setLevel(own)
