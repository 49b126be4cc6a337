"""Checks that a traced pass has the limit that its kernel maps assume."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from .._errors import InputError
from ..parameters import unchanged
from ._kernel_maps import Dense, Pointwise
from ._selu import AlphaDropout
from ._traced import sum_of

SAME = (nn.Identity, nn.Flatten)
DROPOUT = (nn.Dropout, AlphaDropout, nn.AlphaDropout)
_SCALES = (operator.mul, torch.mul, "mul", operator.truediv, torch.div, "div")
_SIGMAS = 5  # by which the mean of random weights may miss zero


@dataclass
class Value:
    """What is known of one value of the pass.

    Attributes:
        step: its number.
        gaussian: Whether it is a centered Gaussian over the weights.
        features: its width, or None when unknown.
        storage: the node whose memory it shares.
        stale: Whether something has written over it since.
    """

    step: int
    gaussian: bool
    features: int | None
    storage: fx.Node
    stale: bool = False


def result(
    node: fx.Node, operation: Any, taken: list[Value], step: int, layer: nn.Module | None, views: Callable[..., Any]
) -> Value:
    """Return what is known of the value of an operation."""
    gaussian, features = all(value.gaussian for value in taken), taken[0].features
    if isinstance(operation, Dense):
        assert isinstance(layer, nn.Linear)
        gaussian, features = True, layer.out_features
    elif isinstance(operation, Pointwise):
        gaussian = False
    inside = operation is views or in_place(node, layer)
    return Value(step, gaussian, features, taken[0].storage if inside else node)


def in_place(node: fx.Node, layer: nn.Module | None) -> bool:
    """Whether an operation writes into what it is given."""
    if layer is not None:
        return bool(getattr(layer, "inplace", False))
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    flags = (*node.args[1:], node.kwargs.get("inplace"))
    return name.endswith("_") or name in ("iadd", "imul", "itruediv") or any(flag is True for flag in flags)


def need_sound(node: fx.Node, operation: Any, taken: list[Value], module: nn.Module) -> None:
    """Check that an operation may take these values."""
    sources = node.all_input_nodes
    if len(taken) != (2 if operation is sum_of else 1):
        raise InputError(f"{node.name} takes {len(taken)} values, of which no map of kernels is known")
    for source, value in zip(sources, taken, strict=True):
        if value.stale:
            raise InputError(f"{node.name} reads {source.name}, which an operation in place has overwritten")
    if isinstance(operation, Pointwise) and not taken[0].gaussian:
        what = "the input of the network" if sources[0].op == "placeholder" else sources[0].name
        raise InputError(
            f"{node.name} ({operation.activation.name}) acts on {what}, which is no sum of outputs of linear layers, "
            "and so not Gaussian at infinite width: put a linear layer before it"
        )
    if operation is sum_of:
        if not (_fresh(node.args[0], module) or _fresh(node.args[1], module)):
            raise InputError(f"{node.name} adds two values of which neither ends in a layer: they are not independent")
        widths = {value.features for value in taken if value.features is not None}
        if len(widths) > 1:
            raise InputError(f"{node.name} adds values of {' and '.join(map(str, sorted(widths)))} features")


def _fresh(node: Any, module: nn.Module) -> bool:
    """Whether a value is a linear layer's own, used here alone: over its weights it is independent of all else."""
    while isinstance(node, fx.Node) and len(node.users) == 1:
        layer = module.get_submodule(str(node.target)) if node.op == "call_module" else None
        if type(layer) is nn.Linear:
            return True
        if not (isinstance(layer, (*SAME, *DROPOUT)) or node.target in _SCALES) or len(node.all_input_nodes) != 1:
            return False
        node = node.all_input_nodes[0]
    return False


def input_features(graph: fx.Graph, module: nn.Module) -> int | None:
    """Return the width of the input by the first linear layer that reads it, or None."""
    for node in graph.nodes:
        layer = module.get_submodule(str(node.target)) if node.op == "call_module" else None
        if isinstance(layer, nn.Linear):
            source = node
            while source.op != "placeholder" and len(source.all_input_nodes) == 1:
                source = source.all_input_nodes[0]
                if source.op == "call_module" and isinstance(module.get_submodule(str(source.target)), nn.Linear):
                    break
            if source.op == "placeholder":
                return layer.in_features
    return None


def need_no_hooks(module: nn.Module) -> None:
    """Check that nothing changes the values of a module where tracing does not see it."""
    for name, part in module.named_modules():
        if any(isinstance(p, nn.parameter.UninitializedParameter) for p in part._parameters.values()):
            raise InputError(f"{name or type(part).__name__} has no weights yet: run the module on one batch first")
        if part._forward_hooks or part._forward_pre_hooks:
            raise InputError(
                f"{name or type(part).__name__} has forward hooks, which tracing does not follow: remove them first"
            )


def need_centered(name: str, what: str, values: Tensor) -> None:
    """Check that values can be draws of mean zero."""
    values = values.detach().double().flatten()
    count, mean, rms = values.numel(), float(values.mean().abs()), float(values.square().mean().sqrt())
    constant = count > 1 and mean > 0 and bool((values == values[0]).all())
    if constant or mean * count**0.5 > _SIGMAS * rms:
        raise InputError(
            f"the {what} of layer {name} have mean {float(values.mean()):.3g}, and infinite width takes them as random "
            f"with mean zero: initialize them so, or give {'bias' if what == 'biases' else 'weight'}_variance="
        )


def need_independent(layers: dict[str, nn.Linear], *, drawn: bool) -> None:
    """Check that layers share no weights; nor equal ones, unless they stand for others that are drawn."""
    seen: dict[object, str] = {}
    for name, layer in layers.items():
        for tensor in (layer.weight, layer.bias):
            if tensor is None or not tensor.numel():
                continue
            keys: list[object] = [tensor.data_ptr()]
            if not drawn and tensor.numel() > 1 and bool(tensor.any()):
                values = tensor.detach().double()
                keys.append((tuple(values.shape), float(values.sum()), float(values.abs().sum())))
            for key in keys:
                if seen.setdefault(key, name) != name:
                    raise InputError(f"layers {seen[key]} and {name} have the same weights: they are not independent")


def need_traced(graph: fx.Graph, module: nn.Module, features: int | None) -> None:
    """Check that the traced operations do what the module does, on a random batch."""
    like = next((p for p in module.parameters() if p.is_floating_point()), None)
    if features is None or like is None:
        return
    x = torch.randn(3, features, generator=torch.Generator().manual_seed(0)).to(like)
    with torch.no_grad(), unchanged(module):
        try:
            want, got = module(x.clone()), fx.Interpreter(module, graph=graph).run(x.clone())
        except Exception as error:
            raise InputError(
                f"{type(module).__name__} fails on inputs (3, {features}) ({type(error).__name__}: {error})"
            ) from error
    if want.shape != got.shape or not torch.allclose(want, got, rtol=1e-3, atol=1e-5, equal_nan=True):
        raise InputError(
            f"{type(module).__name__} does something that tracing does not follow, such as writing (+=) into a value "
            "that is used again: write it without"
        )
