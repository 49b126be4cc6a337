"""Critical initialization of a module in place, for the activations that tracing finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from ..._errors import InputError
from ...algebra import Activation
from ..criticality._criticality import Source, as_activation, critical_point
from ..normalization._selu import SELU, AlphaDropout, Normalized

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (
    nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm,
    nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d,
)  # fmt: skip
_NORM_FUNCTIONS = {"layer_norm", "group_norm", "rms_norm", "batch_norm", "instance_norm"}
_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
_MOVING = (
    nn.Identity, nn.Flatten, nn.Unflatten, nn.Fold, nn.Unfold, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle,
    nn.Upsample, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout,
    AlphaDropout, nn.modules.pooling._MaxPoolNd, nn.modules.pooling._AvgPoolNd, nn.modules.pooling._AdaptiveMaxPoolNd,
    nn.modules.pooling._AdaptiveAvgPoolNd, nn.modules.padding._ConstantPadNd, nn.modules.padding._ReflectionPadNd,
    nn.modules.padding._ReplicationPadNd, nn.modules.padding._CircularPadNd,
)  # fmt: skip
"""Modules that move, drop or pool values, so that the activation before them still applies."""
_NOT_POINTWISE = (nn.MultiheadAttention, nn.Softmax, nn.LogSoftmax, nn.Softmax2d, nn.Softmin, nn.GLU)
_POINTWISE = {
    "relu", "relu_", "relu6", "tanh", "sigmoid", "gelu", "silu", "mish", "elu", "elu_", "selu", "selu_", "celu", "sin",
    "cos", "leaky_relu", "leaky_relu_", "softplus", "softsign", "hardtanh", "hardswish", "hardsigmoid", "erf", "atan",
    "abs",
}  # fmt: skip

_TRANSPARENT = {
    "add", "add_", "iadd", "sub", "sub_", "isub", "mul", "mul_", "imul", "truediv", "div", "div_", "neg", "flatten",
    "view", "reshape", "permute", "transpose", "contiguous", "squeeze", "unsqueeze", "expand", "repeat", "chunk",
    "split", "getitem", "getattr", "size", "clone", "detach", "to", "float", "double", "mean", "sum", "amax", "max",
    "cat", "stack", "dropout", "alpha_dropout", "dropout2d", "pad", "interpolate", "roll", "flip", "max_pool1d",
    "max_pool2d", "boolean_dispatch", "fn", "avg_pool1d", "avg_pool2d", "adaptive_avg_pool1d", "adaptive_avg_pool2d",
    "adaptive_max_pool2d", "matmul", "T", "t",
}  # fmt: skip
_POINTS = torch.linspace(-3, 3, 25, dtype=torch.float64)


@dataclass(frozen=True)
class InitializedLayer:
    """Change that `critical_` made to one layer.

    Attributes:
        layer: Name of the layer in the module.
        after: Activation before the layer, or None for a layer that reads inputs or normalized features.
        bias_variance: Variance $C_b$ of biases.
        weight_variance: Variance $C_W$ of a weight times its fan-in.
        std: Standard deviation of the weights, $\\sqrt{C_W / \\text{fan-in}}$.
    """

    layer: str
    after: str | None
    bias_variance: float
    weight_variance: float
    std: float


def critical_(
    module: nn.Module,
    *,
    activation: Source | None = None,
    gamma: float = 0.0,
    generator: torch.Generator | None = None,
) -> list[InitializedLayer]:
    """Initialize all linear and convolutional layers of a module in place at the critical point of its activations.

    A layer after an activation gets the variances $C_W$ / fan-in and $C_b$ of that activation. A layer that reads
    inputs (standardize them) or normalized features maps them to the critical kernel. Activations are found by
    tracing, functional ones included.

    Args:
        module: Module that `torch.fx` can trace; otherwise pass `activation`. Normalization layers, embeddings and
            frozen layers keep their weights.
        activation: Activation before every layer but the first, in place of tracing.
        gamma: Weight of an identity skip around every layer; variances are multiplied by $1 - \\gamma^2$.
        generator: Source of randomness of the weights.

    Returns:
        Changes of each layer, in the order of the forward pass.

    Raises:
        InputError: For an activation without a critical point, a layer after several different activations, a module
            without such layers, or one that can't be traced; for shared weights and weights of other kinds (recurrent,
            attention, transposed convolution); for a layer that reads softmax or gated values.

    Example:
        >>> net = nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 1))
        >>> [(done.layer, done.after, round(done.weight_variance, 4)) for done in critical_(net)]
        [('0', None, 3.3886), ('2', 'gelu', 1.9831)]
    """
    if not 0 <= gamma < 1:
        raise InputError(f"gamma, the weight of the skip, must lie in [0, 1), got {gamma}")
    before = layers_and_activations(module, activation)
    _refuse_other_weights(module, set(before))
    kinds = {id(act): act for act in before.values() if act is not None}
    points = {key: critical_point(act) for key, act in kinds.items()}
    first = next(iter(points.values()), None)
    done = []
    for name, act in before.items():
        layer = module.get_submodule(name)
        assert isinstance(layer, _LAYERS)
        if isinstance(layer.weight, nn.parameter.UninitializedParameter):
            raise InputError(f"layer {name} has no weights yet: run the module on one batch first")
        if "weight" not in layer._parameters:
            raise InputError(f"the weight of layer {name} is computed from others: initialize those")
        if not layer.weight.requires_grad:
            continue
        if act is not None:
            point = points[id(act)]
            bias, weight = point.bias_variance, point.weight_variance
        elif first is not None and first.kind == "half-stable":
            bias, weight = first.bias_variance, first.kernel - first.bias_variance
        else:
            bias, weight = 0.0, 1.0
        scale = 1 - gamma**2 if act is not None else 1.0
        std = (scale * weight / layer.weight[0].numel()) ** 0.5
        with torch.no_grad():
            layer.weight.normal_(0, std, generator=generator)
            if layer.bias is not None and layer.bias.requires_grad:
                layer.bias.normal_(0, (scale * bias) ** 0.5, generator=generator) if bias else layer.bias.zero_()
        done.append(InitializedLayer(name, act.name if act else None, scale * bias, scale * weight, std))
    return done


def _refuse_other_weights(module: nn.Module, layers: set[str]) -> None:
    """Refuse weights that would silently stay unchanged, or change under another name."""
    owners: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), []).append(name)
    for names in owners.values():
        if len(names) > 1 and any(name.rpartition(".")[0] in layers for name in names):
            raise InputError(
                f"{' and '.join(names)} are one weight, so initializing one layer would change the other: untie them, "
                "or use autoscale_(model, x)"
            )
    for name, part in module.named_modules():
        weights = [p for p in part.parameters(recurse=False) if p.ndim > 1 and p.requires_grad]
        if isinstance(part, nn.utils.parametrize.ParametrizationList):
            continue  # reported under the layer whose weight it computes
        if weights and name not in layers and not isinstance(part, (*_NORMS, *_EMBEDDINGS)):
            raise InputError(
                f"{name or 'the module'} ({type(part).__name__}) has weights for which no critical point is known: use "
                "autoscale_(model, x), or freeze them to keep them unchanged"
            )


def layers_and_activations(module: nn.Module, activation: Source | None) -> dict[str, Activation | None]:
    """Return `activations_before`, or the given activation before every layer but the first; never empty."""
    if activation is None:
        before = activations_before(module)
    else:
        layers = [name for name, layer in module.named_modules() if isinstance(layer, _LAYERS)]
        before = {name: as_activation(activation) if i else None for i, name in enumerate(layers)}
    if not before:
        raise InputError(f"{type(module).__name__} has no linear or convolutional layer")
    return before


def activations_before(module: nn.Module) -> dict[str, Activation | None]:
    """Return for every linear or convolutional layer the activation whose values it reads, or None.

    Args:
        module: Module that `torch.fx` can trace.

    Returns:
        Dictionary from names of layers to activations, in the order of the forward pass.

    Raises:
        InputError: For a module that can't be traced, or a layer that reads several different activations.

    Example:
        >>> activations_before(nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Dropout(), nn.Linear(3, 1)))
        {'0': None, '3': Activation('tanh')}
    """
    if not isinstance(module, nn.Module):
        given = f"the class {module.__name__}; call it" if isinstance(module, type) else type(module).__name__
        raise InputError(f"model must be an nn.Module, got {given}")
    try:
        graph = Tracer().trace(module)
    except Exception as error:
        raise InputError(
            f"{type(module).__name__} can't be traced ({type(error).__name__}): pass its activation with activation="
        ) from error
    out: dict[str, Activation | None] = {}
    known: dict[str, Activation] = {}
    for node in graph.nodes:
        if node.op == "call_module" and isinstance(module.get_submodule(str(node.target)), _LAYERS):
            found: list[Activation] = []
            for act in _upstream(_first(node), module, set(), known):
                if not any(_alike(act, other) for other in found):
                    found.append(act)
            name = str(node.target)
            before = out.get(name)  # found in an earlier call of the same layer
            if before is not None and not any(_alike(before, act) for act in found):
                found.append(before)
            if len(found) > 1:
                names = ", ".join(act.name for act in found)
                raise InputError(f"layer {name} reads several activations: {names}")
            out[name] = found[0] if found else None
    return out


def _alike(act: Activation, other: Activation) -> bool:
    return act is other or torch.equal(act(_POINTS), other(_POINTS))


def has_skips(module: nn.Module) -> bool:
    """Return whether a module combines several values anywhere; False for a module that can't be traced."""
    try:
        graph = Tracer().trace(module)
    except Exception:
        return False
    return any(node.op in ("call_function", "call_method") and len(node.all_input_nodes) > 1 for node in graph.nodes)


def _first(node: fx.Node) -> Any:
    return node.args[0] if node.args else node.kwargs.get("input", next(iter(node.all_input_nodes), None))


def is_pointwise(module: nn.Module) -> bool:
    """Return whether a module is a known elementwise activation."""
    standard = type(module).__module__ == "torch.nn.modules.activation" and not isinstance(module, _NOT_POINTWISE)
    return standard or isinstance(module, SELU | Normalized)


def _upstream(node: Any, module: nn.Module, seen: set[fx.Node], known: dict[str, Activation]) -> list[Activation]:
    """Return the activations that a value comes from, looking through all operations but layers and normalization."""
    if not isinstance(node, fx.Node) or node in seen:
        return []
    seen.add(node)
    act = activation_of(node, module, known)
    if act is not None:
        read, inner = _first(node), 1.0
        while isinstance(read, fx.Node) and (number := _factor(read)) is not None:
            read, inner = read.all_input_nodes[0], inner * number
        act = _scaled(act, 1.0, inner, known)
        return [act, *_upstream(read, module, seen, known)]  # of another: counts as both
    if node.op == "placeholder":
        return []
    factor = _factor(node)
    if factor is not None:
        return [_scaled(act, factor, 1.0, known) for act in _upstream(node.all_input_nodes[0], module, seen, known)]
    if node.op == "call_module":
        part = module.get_submodule(str(node.target))
        if isinstance(part, (*_LAYERS, *_NORMS, *_EMBEDDINGS)):
            return []
        if not isinstance(part, _MOVING):
            raise InputError(
                f"{node.target} ({type(part).__name__}) is not a known activation or layer: pass the activation before "
                "the layers with activation=, or use autoscale_(model, x)"
            )
    if _name(node) in _NORM_FUNCTIONS:
        return []
    factors = [n for n in node.all_input_nodes if n.op != "get_attr"]
    if _name(node) in ("mul", "mul_", "imul") and len(factors) > 1:
        raise InputError(f"{node.name} multiplies two values, so the layer after it reads no single activation")
    unknown = node.op in ("call_function", "call_method") and _name(node) not in _TRANSPARENT
    if unknown and len(node.all_input_nodes) == 1:
        raise InputError(
            f"{_name(node)} is not a known activation: pass the activation with activation=, or wrap it in Normalized"
        )
    return [act for other in node.all_input_nodes for act in _upstream(other, module, seen, known)]


def _factor(node: fx.Node) -> float | None:
    """Return the number by which a node multiplies a value, or None."""
    numbers = [a for a in node.args if isinstance(a, int | float)]
    if len(numbers) != 1 or len(node.args) != 2 or len(node.all_input_nodes) != 1 or node.kwargs:
        return None
    if _name(node) in ("mul", "mul_", "imul"):
        return float(numbers[0])
    divides = _name(node) in ("truediv", "div", "div_", "itruediv") and node.args[1] is numbers[0] and numbers[0]
    return 1 / float(numbers[0]) if divides else None


def _scaled(act: Activation, outer: float, inner: float, known: dict[str, Activation]) -> Activation:
    """Return the activation `outer * act(inner * z)`."""
    if outer == inner == 1:
        return act
    key = f"{outer!r}{act.name}{inner!r}"
    if key not in known:
        known[key] = Activation(lambda z: outer * act(inner * z))
        known[key].name = act.name
    return known[key]


def activation_of(node: fx.Node, module: nn.Module, known: dict[str, Activation]) -> Activation | None:
    """Return the activation that a node applies, or None; equal activations are built once."""
    if node.op == "call_module":
        layer = module.get_submodule(str(node.target))
        if not is_pointwise(layer):
            return None
        name, function = type(layer).__name__.lower(), layer
        key = str(node.target) if next(layer.parameters(), None) is not None else repr(layer)
    else:
        name = _name(node)
        if node.op not in ("call_function", "call_method") or name not in _POINTWISE:
            return None
        options = {key: value for key, value in node.kwargs.items() if key not in ("input", "inplace")}
        name, function, key = name.rstrip("_"), _bound(node, name, options), f"{name}{node.args[1:]}{options}"
    if key not in known:
        known[key] = Activation(function)
        known[key].name = name
    return known[key]


def _name(node: fx.Node) -> str:
    return str(node.target) if node.op == "call_method" else getattr(node.target, "__name__", "")


def _bound(node: fx.Node, name: str, options: dict[str, Any]) -> Any:
    rest, target = node.args[1:], node.target
    if isinstance(target, str):
        return lambda z: getattr(z.clone(), name)(*rest, **options)
    return lambda z: target(z.clone(), *rest, **options)


class Tracer(fx.Tracer):
    """Tracer that does not enter the activations of this library, nor layers."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, (SELU, Normalized, AlphaDropout, *_LAYERS)) or super().is_leaf_module(
            m, module_qualified_name
        )
