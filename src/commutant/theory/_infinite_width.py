"""The kernel map of a module: what its architecture is when every layer is infinitely wide."""

from __future__ import annotations

import operator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import fx, nn

from .._errors import InputError
from ..algebra import Activation
from ._initialise import Tracer, activation_of, is_pointwise
from ._kernel_maps import Dense, KernelState, LayerNormalisation, Pointwise
from ._selu import AlphaDropout

_SAME = (nn.Identity, nn.Flatten)
_DROPOUT = (nn.Dropout, AlphaDropout, nn.AlphaDropout)
_REFUSED = {
    "BatchNorm1d": "its kernel depends on the rest of the batch",
    "BatchNorm2d": "its kernel depends on the rest of the batch",
    "Conv1d": "kernels between positions are not followed",
    "Conv2d": "kernels between positions are not followed",
    "MultiheadAttention": "attention at infinite width is not a function of these kernels",
}


@dataclass(frozen=True)
class Scale:
    """Multiplication by a number."""

    factor: float
    homogeneous: ClassVar[bool] = True

    def __call__(self, state: KernelState) -> KernelState:
        square = self.factor**2
        return replace(
            state,
            kernel=square * state.kernel,
            left=square * state.left,
            right=square * state.right,
            left_mean=self.factor * state.left_mean,
            right_mean=self.factor * state.right_mean,
            tangent=None if state.tangent is None else square * state.tangent,
        )


_KINDS = (Dense, Pointwise, LayerNormalisation, Scale)


@dataclass(frozen=True)
class Traced:
    """A network as a graph of kernel maps; itself one, so that it composes.

    Attributes:
        steps: what to do for each value in the order of the pass: an operation and the numbers of the values it takes.
    """

    steps: tuple[tuple[Any, tuple[int, ...]], ...]

    def __call__(self, state: KernelState) -> KernelState:
        """The state at the output."""
        values: list[KernelState] = []
        for operation, taken in self.steps:
            values.append(operation(*(values[i] for i in taken)) if taken else state)
        return values[-1]

    @property
    def homogeneous(self) -> bool:
        """Whether scaling an input scales everything, as without biases and with ReLU."""
        return all(operation.homogeneous for operation, taken in self.steps if isinstance(operation, _KINDS))


def infinite_width(
    module: nn.Module,
    *,
    bias_variance: float | None = None,
    weight_variance: float | None = None,
    parametrisation: Literal["standard", "ntk"] = "standard",
) -> Traced:
    """The map of kernels of a module at infinite width, found by tracing; call it with a `KernelState`.

    Linear layers, elementwise activations (modules or functions), layer normalisation, sums with an independent
    branch, multiplication by a number, dropout in evaluation. Variances are those of the weights as they are. Use it
    with `tangent_kernel`, or to see what finite width changes.

    Args:
        module: that takes one tensor `(batch, features)`.
        bias_variance, weight_variance: $C_b$ and $C_W$ of all layers instead.
        parametrisation: `"standard"`: the tangent kernel of plain gradients, as `empirical_ntk` measures it; `"ntk"`:
            of weights scaled by $1/\\sqrt{\\text{fan-in}}$ in the pass.

    Raises:
        InputError: for a module that can't be traced, or that holds something without such a map (batch
            normalisation, convolution, attention), by name.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 512), nn.ReLU(), nn.Linear(512, 1))
        >>> spec = infinite_width(net, bias_variance=0.0, weight_variance=2.0, parametrisation="ntk")
        >>> x = torch.eye(4) * 2
        >>> spec(KernelState.of_inputs(x, x)).tangent.diagonal()
        tensor([4., 4., 4., 4.], dtype=torch.float64)
    """
    if parametrisation not in ("standard", "ntk"):
        raise InputError(f"parametrisation is 'standard' or 'ntk', got {parametrisation!r}")
    try:
        graph = Tracer().trace(module)
    except Exception as error:
        raise InputError(f"{type(module).__name__} can't be traced ({type(error).__name__})") from error
    numbers: dict[fx.Node, int] = {}
    steps: list[tuple[Any, tuple[int, ...]]] = []
    known: dict[str, Activation] = {}
    called: set[str] = set()
    variances = bias_variance, weight_variance
    for node in graph.nodes:
        if node.op == "output":
            if not isinstance(node.args[0], fx.Node):
                raise InputError(f"{type(module).__name__} gives several values; a kernel is of one")
            steps = steps[: numbers[node.args[0]] + 1]
            break
        if node.op == "call_module" and str(node.target) in called:
            raise InputError(f"{node.target} is called twice: its weights are not independent of themselves")
        called.add(str(node.target))
        if node.op == "placeholder":
            if steps:
                raise InputError(f"{type(module).__name__} takes more than one input; a kernel has one")
            operation: Any = None
        else:
            operation = _operation(node, module, known, variances, parametrisation)
        taken = tuple(numbers[other] for other in node.all_input_nodes)
        if len(taken) == 2 and not (_fresh(node.args[0], module) or _fresh(node.args[1], module)):
            raise InputError(f"{node.name} adds two values of which neither ends in a layer: they are not independent")
        numbers[node] = len(steps)
        steps.append((operation, taken))
    return Traced(tuple(steps))


def _operation(
    node: fx.Node, module: nn.Module, known: dict[str, Activation], variances: tuple[float | None, float | None],
    parametrisation: str,
) -> Any:  # fmt: skip
    if node.op == "call_module":
        layer = module.get_submodule(str(node.target))
        kind = type(layer).__name__
        if type(layer) is nn.Linear:
            return _dense(layer, variances, parametrisation)
        if type(layer) is nn.LayerNorm:
            affine = layer.elementwise_affine
            if affine and not (
                bool((layer.weight == 1).all()) and bool((layer.bias is None) or (layer.bias == 0).all())
            ):
                raise InputError(f"{node.target} (LayerNorm) has gains that are not one, or shifts")
            return LayerNormalisation(layer.eps)
        if isinstance(layer, _DROPOUT) and layer.training and layer.p > 0:
            raise InputError(f"{node.target} ({kind}) drops at random: call eval() first")
        if isinstance(layer, (*_SAME, *_DROPOUT)):
            return _same
        if not is_pointwise(layer):
            reason = _REFUSED.get(kind, "it has no map of kernels here")
            raise InputError(f"{node.target} ({kind}) can't be followed to infinite width: {reason}")
    if node.op in ("call_function", "call_method"):
        adds = node.target in (operator.add, torch.add, operator.iadd, "add", "add_")
        if adds and len(node.all_input_nodes) == 2 and not node.kwargs:
            return _sum
        factors = [a for a in node.args if isinstance(a, int | float)]
        if node.target in (operator.mul, torch.mul, "mul") and len(factors) == 1:
            return Scale(float(factors[0]))
        if node.target in (operator.truediv, torch.div, "div") and len(factors) == 1 and node.args[1] == factors[0]:
            return Scale(1 / float(factors[0]))
        if node.target in (torch.flatten, "flatten", "contiguous"):
            return _same
    act = activation_of(node, module, known)
    if act is None:
        raise InputError(f"{node.name} ({node.target}) can't be followed to infinite width")
    return Pointwise(act)


def _dense(layer: nn.Linear, variances: tuple[float | None, float | None], parametrisation: str) -> Dense:
    bias, weight = variances
    fan_in = layer.in_features
    if weight is None:
        weight = fan_in * float(layer.weight.detach().double().square().mean())
    if bias is None:
        bias = 0.0 if layer.bias is None else float(layer.bias.detach().double().square().mean())
    if parametrisation == "ntk":
        return Dense(bias, weight)
    return Dense(bias, weight, bias_rate=0.0 if layer.bias is None else 1.0, weight_rate=float(fan_in))


def _fresh(node: Any, module: nn.Module) -> bool:
    """Whether a value is a linear layer's own, used here alone: over its weights it is independent of all else."""
    scales = (operator.mul, torch.mul, "mul", operator.truediv, torch.div, "div")
    while (
        isinstance(node, fx.Node) and node.target in scales and len(node.all_input_nodes) == 1 and len(node.users) == 1
    ):
        node = node.all_input_nodes[0]
    return (
        isinstance(node, fx.Node)
        and node.op == "call_module"
        and type(module.get_submodule(str(node.target))) is nn.Linear
        and len(node.users) == 1
    )


def _same(state: KernelState) -> KernelState:
    return state


def _sum(a: KernelState, b: KernelState) -> KernelState:
    tangent = None if a.tangent is None or b.tangent is None else a.tangent + b.tangent
    return KernelState(
        a.kernel + b.kernel, a.left + b.left, a.right + b.right, a.left_mean + b.left_mean,
        a.right_mean + b.right_mean, tangent,
    )  # fmt: skip
