"""Checks that a traced forward pass has the infinite-width limit that kernel maps assume."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..._errors import InputError
from ...parameters import unchanged
from ..normalization._selu import AlphaDropout
from ._kernel_maps import Dense, Pointwise
from ._traced import difference_of, sum_of

SAME = (nn.Identity, nn.Flatten)
DROPOUT = (nn.Dropout, AlphaDropout, nn.AlphaDropout)
_SIGMAS = 5  # standard errors by which the mean of random weights may differ from zero
_CHANCE = 20.0  # negative logarithm of the probability of a false alarm for weights of one variance
_UNEVEN = 0.05  # squared spread of variances between rows or columns, below which kernels hardly change


@dataclass
class Value:
    """Facts about one value of the forward pass.

    Attributes:
        step: Number of the value.
        gaussian: Whether it is a centered Gaussian over the weights.
        features: Width of the value, or None if unknown.
        storage: Node whose memory it shares.
        roots: Linear layers and input that it is computed from, without another linear layer between.
        stale: Whether a later operation has overwritten it.
    """

    step: int
    gaussian: bool
    features: int | None
    storage: fx.Node
    roots: frozenset[fx.Node]
    stale: bool = False


def result(
    node: fx.Node, operation: Any, taken: list[Value], step: int, layer: nn.Module | None, views: Callable[..., Any]
) -> Value:
    """Return the facts about the value of an operation."""
    gaussian, features = all(value.gaussian for value in taken), taken[0].features
    roots = frozenset[fx.Node]().union(*(value.roots for value in taken))
    if isinstance(operation, Dense):
        assert isinstance(layer, nn.Linear)
        gaussian, features, roots = True, layer.out_features, frozenset({node})
    elif isinstance(operation, Pointwise):
        gaussian = False
    inside = operation is views or in_place(node, layer)
    return Value(step, gaussian, features, taken[0].storage if inside else node, roots)


def in_place(node: fx.Node, layer: nn.Module | None) -> bool:
    """Return whether an operation writes into its argument."""
    if layer is not None:
        return bool(getattr(layer, "inplace", False))
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    flags = (*node.args[1:], node.kwargs.get("inplace"))
    return name.endswith("_") or name in ("iadd", "isub", "imul", "itruediv") or any(flag is True for flag in flags)


def need_sound(node: fx.Node, operation: Any, taken: list[Value], module: nn.Module) -> None:
    """Check that the limit of an operation is known for these values."""
    sources = node.all_input_nodes
    if len(taken) != (2 if operation in (sum_of, difference_of) else 1):
        raise InputError(f"{node.name} takes {len(taken)} values, for which no map of kernels is known")
    for source, value in zip(sources, taken, strict=True):
        if value.stale:
            raise InputError(f"{node.name} reads {source.name}, which an operation in place has overwritten")
    if isinstance(operation, Pointwise) and not taken[0].gaussian:
        what = "the input of the network" if sources[0].op == "placeholder" else sources[0].name
        raise InputError(
            f"{node.name} ({operation.activation.name}) acts on {what}, which is not a sum of outputs of linear layers "
            "and therefore not Gaussian at infinite width: put a linear layer before it"
        )
    if operation in (sum_of, difference_of):
        shared = taken[0].roots & taken[1].roots
        if shared:
            raise InputError(
                f"{node.name} adds two values that both read {min(shared).name} without a linear layer between, so "
                "they are not independent"
            )
        if not (taken[0].gaussian or taken[1].gaussian):
            raise InputError(f"{node.name} adds two values, neither of which is a sum of outputs of linear layers")
        widths = {value.features for value in taken if value.features is not None}
        if len(widths) > 1:
            raise InputError(f"{node.name} adds values of {' and '.join(map(str, sorted(widths)))} features")


def input_features(graph: fx.Graph, module: nn.Module) -> int | None:
    """Return the width that the first linear layer on the input expects, or None."""
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


class OneInput(nn.Module):
    """View of a module as a function of its first argument, with the same submodule names."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._modules, self._parameters, self._buffers = module._modules, module._parameters, module._buffers
        self.__dict__["_whole"] = module

    def forward(self, x: Any) -> Any:
        """Return the module's output for its first argument, with defaults for all others."""
        whole: nn.Module = self.__dict__["_whole"]
        return whole.forward(x)


def need_one_input(module: nn.Module) -> None:
    """Check that a module can be called with one argument."""
    taken = inspect.signature(module.forward).parameters.values()
    fixed = [p for p in taken if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if len(fixed) > 1:
        raise InputError(f"{type(module).__name__} takes more than one input, but a kernel has one")


def need_no_hooks(module: nn.Module) -> None:
    """Check that a module has no hooks, which tracing does not see, and no uninitialized weights."""
    for name, part in module.named_modules():
        if any(isinstance(p, nn.parameter.UninitializedParameter) for p in part._parameters.values()):
            raise InputError(f"{name or type(part).__name__} has no weights yet: run the module on one batch first")
        if part._forward_hooks or part._forward_pre_hooks:
            raise InputError(
                f"{name or type(part).__name__} has forward hooks, which tracing does not follow: remove them first"
            )


def need_centered(name: str, what: str, values: Tensor) -> None:
    """Check that values are plausible random draws with mean zero."""
    values = values.detach().double().flatten()
    count, mean, rms = values.numel(), float(values.mean().abs()), float(values.square().mean().sqrt())
    constant = count > 1 and mean > 0 and bool((values == values[0]).all())
    if constant or mean * count**0.5 > _SIGMAS * rms:
        raise InputError(
            f"the {what} of layer {name} have mean {float(values.mean()):.3g}, but infinite width assumes random "
            f"values with mean zero: initialize them so, or pass {'bias' if what == 'biases' else 'weight'}_variance="
        )


def need_even(name: str, weight: Tensor) -> None:
    """Check that the weights of a layer are plausible draws of one variance: no row or column is much larger."""
    squares = weight.detach().double().square()
    if not bool(squares.any()):
        return
    squares = squares / squares.mean()
    for axis, what in enumerate(("columns", "rows")):
        apart = (squares.mean(axis) - 1).square()
        chance = float((squares.square().mean() - 1) / squares.shape[axis])
        free = len(apart) - 1
        bound = chance * (free + 2 * (_CHANCE * free) ** 0.5 + 2 * _CHANCE)
        if free and float(apart.sum()) > max(bound, _UNEVEN * free):
            raise InputError(
                f"the {what} of the weights of layer {name} differ in size, but infinite width assumes draws of one "
                "variance: initialize them so, or pass weight_variance="
            )


def need_independent(layers: dict[str, nn.Linear], *, drawn: bool) -> None:
    """Check that layers share no weights and, unless weights are redrawn, have no equal ones."""
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
    """Check that the traced operations give the output of the module on a random batch."""
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
            "that is used again: rewrite it without in-place operations"
        )
