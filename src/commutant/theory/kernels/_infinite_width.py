"""Kernel map of a module whose layers are all infinitely wide, found by tracing."""

from __future__ import annotations

import math
import operator
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import fx, nn

from ..._checks import one_of
from ..._errors import InputError
from ...algebra import Activation
from ...parameters import unchanged
from ..diagnosis._initialize import Tracer, activation_of, is_pointwise
from ._kernel_maps import Dense, LayerNormalization, Pointwise
from ._soundness import (
    DROPOUT,
    SAME,
    OneInput,
    Value,
    in_place,
    input_features,
    need_centered,
    need_even,
    need_independent,
    need_no_hooks,
    need_one_input,
    need_sound,
    need_traced,
    result,
)
from ._traced import Scale, Traced, difference_of, same, sum_of

_REFUSED = {
    "BatchNorm1d": "its kernel depends on the rest of the batch",
    "BatchNorm2d": "its kernel depends on the rest of the batch",
    "Conv1d": "kernels between positions are not followed",
    "Conv2d": "kernels between positions are not followed",
    "MultiheadAttention": "attention at infinite width is not a function of these kernels",
}


def infinite_width(
    module: nn.Module,
    *,
    bias_variance: float | None = None,
    weight_variance: float | None = None,
    parametrization: Literal["standard", "ntk"] = "standard",
) -> Traced:
    """Return the map of kernels of a module at infinite width, found by tracing; call it with a `KernelState`.

    Tracing follows linear layers, elementwise activations (modules or functions), layer normalization, sums and
    differences of independent values, multiplication by a number, and dropout in evaluation mode. An activation must
    read outputs of linear layers, their sums or their normalized values, as only those are Gaussian at infinite width.
    Weights are assumed independent, with mean zero and the current variance of each layer. Frozen weights do not count
    in the tangent kernel. Use the map with `wide_kernel`, or compare it with a network of finite width.

    Args:
        module: Network that takes one tensor `(batch, features)`; further arguments keep their defaults.
        bias_variance: Variance $C_b$ of the biases of all layers, by default the current variance of each layer. Layers
            without biases keep none.
        weight_variance: Variance $C_W$ of weights times fan-in of all layers, by default the current one of each layer.
        parametrization: `"standard"` for the tangent kernel of plain gradients, as `empirical_ntk` measures it;
            `"ntk"` for that of weights scaled by $1/\\sqrt{\\text{fan-in}}$ in the forward pass.

    Raises:
        InputError: For a module that can't be traced or holds an operation without a map (batch normalization,
            convolution, attention); for an activation whose input is not Gaussian, layers that share weights, weights
            or biases with a mean other than zero, weights whose scale differs between rows or columns, or hooks.

    Example:
        >>> from commutant.theory import KernelState
        >>> net = nn.Sequential(nn.Linear(4, 512), nn.ReLU(), nn.Linear(512, 1))
        >>> spec = infinite_width(net, bias_variance=0.0, weight_variance=2.0, parametrization="ntk")
        >>> x = torch.eye(4) * 2
        >>> spec(KernelState.of_inputs(x, x)).tangent.diagonal()
        tensor([4., 4., 4., 4.], dtype=torch.float64)
    """
    if not isinstance(module, nn.Module):
        raise InputError(f"infinite_width takes an nn.Module, got {type(module).__name__}")
    one_of("parametrization", parametrization, ("standard", "ntk"))
    if next(module.children(), None) is None:
        module = nn.Sequential(module)  # tracing does not enter a single layer
    need_one_input(module)
    try:
        with unchanged(module):
            graph = Tracer().trace(OneInput(module))
    except Exception as error:
        raise InputError(f"{type(module).__name__} can't be traced ({type(error).__name__})") from error
    need_no_hooks(module)
    values: dict[fx.Node, Value] = {}
    steps: list[Any] = []
    known: dict[str, Activation] = {}
    layers: dict[str, nn.Linear] = {}
    variances = bias_variance, weight_variance
    width = input_features(graph, module)
    for node in graph.nodes:
        if node.op == "output":
            if not isinstance(node.args[0], fx.Node):
                raise InputError(f"{type(module).__name__} returns several values, but a kernel belongs to one")
            steps = steps[: values[node.args[0]].step + 1]
            break
        if node.op == "placeholder":
            values[node] = Value(0, gaussian=False, features=width, storage=node, roots=frozenset({node}))
            steps.append((None, ()))
            continue
        layer = module.get_submodule(str(node.target)) if node.op == "call_module" else None
        if isinstance(layer, nn.Linear):
            if str(node.target) in layers:
                raise InputError(f"{node.target} is called twice, so its weights are not independent")
            layers[str(node.target)] = layer
        operation = _operation(node, module, known, variances, parametrization)
        taken = [values[other] for other in node.all_input_nodes]
        need_sound(node, operation, taken, module)
        values[node] = result(node, operation, taken, len(steps), layer, same)
        if in_place(node, layer):
            for other in values.values():
                other.stale |= other.storage is values[node].storage and other is not values[node]
        steps.append((operation, tuple(value.step for value in taken)))
    need_independent(layers, drawn=weight_variance is not None)
    need_traced(graph, module, width)
    return Traced(tuple(steps), width)


def _operation(
    node: fx.Node, module: nn.Module, known: dict[str, Activation], variances: tuple[float | None, float | None],
    parametrization: str,
) -> Any:  # fmt: skip
    if node.op == "call_module":
        operation = _module(node, module, variances, parametrization)
    elif node.op in ("call_function", "call_method"):
        operation = _function(node)
    else:
        operation = None
    if operation is not None:
        return operation
    act = activation_of(node, module, known)
    if act is None:
        raise InputError(f"{node.name} ({node.target}) can't be followed to infinite width")
    return Pointwise(act)


def _module(
    node: fx.Node, module: nn.Module, variances: tuple[float | None, float | None], parametrization: str
) -> Any:
    """Return the map of a submodule, or None for an activation."""
    layer = module.get_submodule(str(node.target))
    kind = type(layer).__name__
    if "forward" in vars(layer):
        raise InputError(f"{node.target} ({kind}) has a forward of its own, which tracing does not follow")
    trains = isinstance(layer, nn.PReLU | nn.LayerNorm) and any(p.requires_grad for p in layer.parameters())
    if trains and parametrization == "ntk":
        raise InputError(f"{node.target} ({kind}) trains, and no tangent kernel is known for it: freeze its parameters")
    if type(layer) is nn.Linear:
        return _dense(str(node.target), layer, variances, parametrization)
    if type(layer) is nn.LayerNorm:
        affine = layer.elementwise_affine
        if affine and not (bool((layer.weight == 1).all()) and bool((layer.bias is None) or (layer.bias == 0).all())):
            raise InputError(f"{node.target} (LayerNorm) has gains other than one, or shifts")
        return LayerNormalization(layer.eps)
    random = isinstance(layer, nn.RReLU) or (isinstance(layer, DROPOUT) and layer.p > 0)
    if random and layer.training:
        raise InputError(f"{node.target} ({kind}) is random: call eval() first")
    if isinstance(layer, nn.Flatten) and layer.start_dim != 1:
        raise InputError(f"{node.target} (Flatten) joins the rows of the batch: use start_dim=1")
    if isinstance(layer, (*SAME, *DROPOUT)):
        return same
    if not is_pointwise(layer):
        reason = _REFUSED.get(kind, "it has no map of kernels here")
        raise InputError(f"{node.target} ({kind}) can't be followed to infinite width: {reason}")
    return None


def _function(node: fx.Node) -> Any:
    """Return the map of a function or method, or None if it may be an activation."""
    if node.target in (torch.flatten, "flatten"):
        start = node.args[1] if len(node.args) > 1 else node.kwargs.get("start_dim", 0)
        if start != 1:
            raise InputError(f"{node.name} joins the rows of the batch: use start_dim=1")
        return same
    if node.target in (F.dropout, F.alpha_dropout, torch.dropout, torch.alpha_dropout):
        given = dict(zip(("input", "p", "training"), node.args, strict=False)) | node.kwargs
        if given.get("training", node.target is F.dropout) and given.get("p", 0.5):
            raise InputError(f"{node.name} is random: call eval() first, and pass training=self.training")
        return same
    if node.kwargs:
        return None
    if node.target == "contiguous":
        return same
    if len(node.args) == len(node.all_input_nodes) == 2:
        if node.target in (operator.add, torch.add, operator.iadd, "add", "add_"):
            return sum_of
        if node.target in (operator.sub, torch.sub, operator.isub, "sub", "sub_"):
            return difference_of
    if node.target in (operator.neg, torch.neg, torch.negative, "neg", "negative"):
        return Scale(-1.0)
    numbers = [a for a in node.args if isinstance(a, int | float)]
    if len(numbers) != 1 or len(node.args) != 2 or not math.isfinite(numbers[0]):
        return None
    if node.target in (operator.mul, torch.mul, operator.imul, "mul", "mul_"):
        return Scale(float(numbers[0]))
    if (
        node.target in (operator.truediv, torch.div, operator.itruediv, "div", "div_")
        and node.args[1] is numbers[0]
        and numbers[0]
    ):
        return Scale(1 / float(numbers[0]))
    return None


def _dense(
    name: str, layer: nn.Linear, variances: tuple[float | None, float | None], parametrization: str
) -> Dense:  # fmt: skip
    bias, weight = variances
    if "weight" not in layer._parameters:
        raise InputError(f"the weight of layer {name} is computed from others: remove what computes it first")
    if layer.weight.is_complex() or layer.weight.is_meta:
        raise InputError(f"the weights of layer {name} are {'complex' if layer.weight.is_complex() else 'on meta'}")
    if weight is None:
        need_centered(name, "weights", layer.weight)
        need_even(name, layer.weight)
        weight = layer.in_features * float(layer.weight.detach().double().square().mean())
    if layer.bias is None:
        bias = 0.0
    elif bias is None:
        need_centered(name, "biases", layer.bias)
        bias = float(layer.bias.detach().double().square().mean())
    rates = (bias, weight) if parametrization == "ntk" else (1.0, float(layer.in_features))
    trained = layer.bias is not None and layer.bias.requires_grad, layer.weight.requires_grad
    return Dense(bias, weight, rates[0] if trained[0] else 0.0, rates[1] if trained[1] else 0.0)
