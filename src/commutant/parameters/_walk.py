"""One pass over a traced graph: each axis of each tensor gets a label, and each operation ties or freezes labels."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from ._axes import Axis, Invariant, freeze, unify, use


@dataclass(frozen=True)
class Labels:
    """Labels of the axes of a tensor.

    Attributes:
        axes: Label of each axis.
        points_to: Axis that the integers in the tensor are positions along, if known.
        constant: Values of the tensor, if it is constant.
    """

    axes: tuple[Axis, ...]
    points_to: Axis | None = None
    constant: torch.Tensor | None = None


@dataclass(frozen=True)
class Stacked:
    """Labels of a tensor whose axis `position` is only ever cut into the same parts, separate for each part."""

    position: int
    parts: tuple[tuple[Axis, ...], ...]

    @property
    def sizes(self) -> list[int]:
        """Size of each part along the axis that is cut."""
        return [axes[self.position].size for axes in self.parts]

    def part(self, start: int, size: int) -> tuple[Axis, ...] | None:
        """Return the labels of the part at a stretch, or None if the stretch is not a part."""
        sizes = self.sizes
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        where = [i for i, own in enumerate(starts) if own == start and sizes[i] == size]
        return self.parts[where[0]] if where else None


WEIGHTS = "commutant_weights"  # marks nodes that depend on parameters alone
PARAMETER = "commutant_parameter"  # value of a placeholder that is a parameter
OUTER = "commutant_outer"  # node that passes its value to a placeholder of a nested graph
Value = Labels | Stacked | None | tuple["Value", ...]


@dataclass
class Events:
    """Record of the operations of the walk, from which the dependence of groups on each other is derived.

    Attributes:
        tensors: Axes of every tensor.
        mixed: Axes along which an operation moves values, taken together, with the axes of its inputs.
        contracted: Axes that were summed over, each with the axes of a result.
        summed_next_to: Axes that were summed over, each with the axes that are present in the products.
        unknown: Operators without a rule, with the first node of each.
        read: Axes of the activations that are summed over, by node.
        summed: Axes of weights that are summed over.
        cuts: Axes that were cut, with their parts and the parts that are used.
    """

    tensors: list[tuple[Axis, ...]] = field(default_factory=list)
    mixed: list[tuple[tuple[Axis, ...], tuple[Axis, ...]]] = field(default_factory=list)
    contracted: list[tuple[Axis, tuple[Axis, ...]]] = field(default_factory=list)
    summed_next_to: list[tuple[Axis, tuple[Axis, ...]]] = field(default_factory=list)
    unknown: dict[str, str] = field(default_factory=dict)
    read: dict[str, tuple[Axis, ...]] = field(default_factory=dict)
    summed: list[Axis] = field(default_factory=list)
    cuts: list[tuple[Axis, tuple[Axis, ...], tuple[Axis, ...]]] = field(default_factory=list)


class Op:
    """Call of an ATen operator as its rule sees it: arguments by name, their labels, and the actions of a rule."""

    def __init__(self, node: fx.Node, arguments: dict[str, Any], lookup: Callable[[Any], Any], events: Events) -> None:
        self.node = node
        self.arguments = arguments
        self.events = events
        self._lookup = lookup
        self._pending: list[Axis] = []
        self.name = name_of(node.target)

    def __getitem__(self, argument: str) -> Any:
        return self.arguments.get(argument)

    def value(self, argument: str | fx.Node) -> Value:
        """Return the labels of a tensor argument, stacked ones included."""
        found = self.arguments.get(argument) if isinstance(argument, str) else argument
        return self._lookup(found) if isinstance(found, fx.Node) else None

    def axes(self, argument: str | fx.Node) -> list[Axis]:
        """Return the axes of a tensor argument whose values are used as numbers; empty for other arguments."""
        value = self.value(argument)
        if isinstance(value, Stacked):
            value = collapse(value, self.name)
        if not isinstance(value, Labels):
            return []
        if value.points_to is not None:
            self.freeze(value.points_to)
        return list(value.axes)

    def tensors(self, argument: str) -> list[list[Axis]]:
        """Return the axes of each tensor in a list argument."""
        return [self.axes(node) for node in self.arguments.get(argument) or () if isinstance(node, fx.Node)]

    def operands(self) -> list[list[Axis]]:
        """Return the axes of every tensor among the arguments."""
        found = [a for a in _flat(self.arguments.values()) if isinstance(a, fx.Node)]
        return [self.axes(node) for node in found if isinstance(self._lookup(node), Labels | Stacked)]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the first tensor that the call returns."""
        value = self.node.meta["val"]
        return tuple(int(n) for n in (value[0] if isinstance(value, tuple | list) else value).shape)

    @property
    def shapes(self) -> list[tuple[int, ...] | None]:
        """Shape of every tensor that the call returns, None for other values."""
        value = self.node.meta["val"]
        values = value if isinstance(value, tuple | list) else [value]
        return [tuple(int(n) for n in v.shape) if isinstance(v, torch.Tensor) else None for v in values]

    def tie(self, x: Axis, y: Axis) -> None:
        """Make two axes move together."""
        unify(x, y, self.name)

    def contract(self, x: Axis, y: Axis) -> None:
        """Tie two axes that are summed over together."""
        for argument in self.node.all_input_nodes:
            value = self._lookup(argument)
            if argument.meta.get(WEIGHTS) and isinstance(value, Labels):
                self.events.summed += [axis for axis in value.axes if axis is x or axis is y]
            elif argument.op == "call_function" and isinstance(value, Labels):
                self.events.read[argument.name] = value.axes
        self.tie(x, y)
        self._pending += [x, y]

    def freeze(self, axis: Axis, why: str | None = None) -> None:
        """Restrict an axis to the identity, because the operation reads positions along it."""
        freeze(axis, why or self.name)
        self.mix(axis)

    def pin(self, axis: Axis, size: int | None = None) -> Axis:
        """Freeze an axis, and return the axis of the result, of `size` entries if that differs."""
        self.freeze(axis)
        size = axis.size if size is None else size
        return fixed(size, self.name) if isinstance(axis, Invariant) or size != axis.size else axis

    def mix(self, *axes: Axis) -> None:
        """Record that the operation moves values between positions of these axes, taken together."""
        self.events.mixed.append((axes, tuple(a for own in self._own() for a in own)))

    def spread(self, operands: Sequence[Sequence[Axis]], shape: Sequence[int]) -> list[Axis]:
        """Tie the operands of an elementwise operation that broadcast to `shape`, and return the axes of the result."""
        result: list[Axis] = []
        for k, size in enumerate(reversed(shape), start=1):
            label: Axis = Invariant(size)
            for axes in operands:
                if len(axes) >= k and axes[-k].size == size and not isinstance(axes[-k], Invariant):
                    if isinstance(label, Invariant):
                        label = axes[-k]
                    else:
                        self.tie(label, axes[-k])
            result.append(label)
        return result[::-1]

    def _own(self) -> list[tuple[Axis, ...]]:
        found = [self._lookup(a) for a in _flat(self.arguments.values()) if isinstance(a, fx.Node)]
        return [v.axes for v in found if isinstance(v, Labels) and v.axes]

    def close(self, result: Value) -> None:
        """Record the result of the call."""
        for axes in _all_axes(result):
            self.events.tensors.append(axes)
            for axis in self._pending:
                self.events.contracted.append((axis, axes))


Rule = Callable[[Op], Any]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for operators by name; names without a namespace are ATen's."""

    def register(function: Rule) -> Rule:
        RULES.update({name if "." in name else f"aten.{name}": function for name in names})
        return function

    return register


def name_of(target: Any) -> str:
    """Return the name of an operator without its overload, such as `aten.add`."""
    if isinstance(target, torch._ops.OpOverload):
        name = str(target.overloadpacket)
        return name.removesuffix("_") if target._schema.is_mutable else name
    return getattr(target, "__name__", None) or str(target)


def walk(graph: fx.Graph, inputs: Sequence[Value], events: Events) -> Value:
    """Label every node of a graph, given the labels of its placeholders; return the labels of its output."""
    env: dict[fx.Node, Value] = {}
    given = iter(inputs)

    def lookup(node: fx.Node) -> Value:
        return env.get(node)

    for node in graph.nodes:
        if node.op in ("placeholder", "get_attr"):
            found = next(given) if node.op == "placeholder" else _constant(node)
            env[node] = found
            node.meta["constant"] = found.constant if isinstance(found, Labels) else None
        elif node.op == "output":
            outputs = [lookup(n) if isinstance(n, fx.Node) else None for n in _flat(node.args)]
            return tuple(outputs)
        elif node.target is operator.getitem:
            parent = lookup(node.args[0])
            env[node] = parent[node.args[1]] if isinstance(parent, tuple) else None
        elif isinstance(node.target, torch._ops.HigherOrderOperator):
            env[node] = _nested(node, lookup, events)
        else:
            env[node] = _call(node, lookup, events)
        if node.op != "placeholder":
            node.meta[WEIGHTS] = all(given.meta.get(WEIGHTS) for given in node.all_input_nodes)
    return None


def _call(node: fx.Node, lookup: Callable[[Any], Any], events: Events) -> Value:
    op = Op(node, arguments_of(node), lookup, events)
    apply = RULES.get(op.name)
    if node.meta.get("val") is None and (apply is None):
        if not op.name.removeprefix("aten.").startswith(("_assert", "sym_", "_local_scalar", "item")):
            _unknown(op)
        return None
    result = _ruled(op, apply)
    op.close(result)
    if op.name not in _MOVES:
        for node_in in node.all_input_nodes:
            for axes in _all_axes(lookup(node_in)):
                for axis in axes:
                    use(axis)
    return result


# These operators only return a stretch of an axis: entries that they leave out have not been read.
_MOVES = {"aten.slice", "aten.split", "aten.split_with_sizes", "aten.chunk", "aten.tensor_split", "aten.narrow"}


def _ruled(op: Op, apply: Rule | None) -> Value:
    """Apply the rule; freeze all axes if it fails or returns wrong shapes."""
    if apply is None:
        return as_value(_unknown(op))
    try:
        result = as_value(apply(op))
    except (NotImplementedError, ArithmeticError, LookupError, ValueError, TypeError, StopIteration, AssertionError):
        return as_value(_unknown(op))
    given = result if isinstance(result, tuple) else (result,)
    for value, shape in zip(given, op.shapes, strict=False):
        if isinstance(value, Labels) and shape is not None and tuple(a.size for a in value.axes) != shape:
            return as_value(_unknown(op))
    return result


def as_value(result: Any) -> Value:
    """Return the labels that a rule stands for: a list of axes for one tensor, a tuple for several."""
    if isinstance(result, tuple):
        return tuple(as_value(r) for r in result)
    return Labels(tuple(result)) if isinstance(result, list) else result


def _unknown(op: Op) -> Any:
    """Freeze every axis of the inputs and outputs of an operator without a rule."""
    for axes in op.operands():
        for axis in axes:
            op.freeze(axis)
    if op.node.meta.get("val") is None:
        return None
    if op.operands():
        op.events.unknown.setdefault(op.name, op.node.name)
    values = tuple(None if s is None else Labels(tuple(fixed(n, op.name) for n in s)) for s in op.shapes)
    return values if isinstance(op.node.meta["val"], tuple | list) else values[0]


def fixed(size: int, why: str) -> Axis:
    """Return an axis that can't move."""
    return Axis(size, why) if size != 1 else Invariant(1)


def collapse(value: Stacked, why: str) -> Labels:
    """Return the labels of a stacked tensor as a whole: its parts move together, and the axis that is cut is fixed."""
    first, *others = value.parts
    for other in others:
        for i, (x, y) in enumerate(zip(first, other, strict=True)):
            if i != value.position:
                unify(x, y, why)
    axes = list(first)
    axes[value.position] = fixed(sum(value.sizes), why)
    return Labels(tuple(axes))


CALLED_ONCE = ("wrap_with_set_grad_enabled", "wrap_with_autocast")


def _nested(node: fx.Node, lookup: Callable[[Any], Any], events: Events) -> Value:
    """Walk the subgraph of a higher-order operator that calls it once, such as a switch of autograd or autocast."""
    own = node.graph.owning_module
    for i, argument in enumerate(node.args):
        called = getattr(own, str(argument.target), None) if isinstance(argument, fx.Node) else None
        if isinstance(called, fx.GraphModule) and str(node.target) in CALLED_ONCE:
            inner = [n for n in called.graph.nodes if n.op == "placeholder"]
            for own_input, outer in zip(inner, node.args[i + 1 :], strict=False):
                own_input.meta[WEIGHTS] = isinstance(outer, fx.Node) and outer.meta.get(WEIGHTS, False)
                own_input.meta[OUTER] = outer
            return walk(called.graph, [lookup(a) for a in node.args[i + 1 :]], events)
    op = Op(node, {str(i): a for i, a in enumerate(node.args)}, lookup, events)
    return _unknown(op)  # type: ignore[no-any-return]


def _constant(node: fx.Node) -> Value:
    owner: Any = node.graph.owning_module
    for part in str(node.target).split("."):
        owner = getattr(owner, part)
    return constant(owner) if isinstance(owner, torch.Tensor) else None


def constant(value: torch.Tensor, written: bool = False) -> Labels:
    """Return the labels of a constant of the graph, which has no fixed values if the graph writes into it."""
    known = value if value.numel() <= 64 and type(value) is torch.Tensor and not value.is_meta else None
    axes = tuple(
        Invariant(n) if not written and n > 1 and _same_along(value, i) else fixed(n, "a constant of the graph")
        for i, n in enumerate(value.shape)
    )
    return Labels(axes, constant=known)


def _same_along(value: torch.Tensor, axis: int) -> bool:
    """Return whether all entries along an axis are equal."""
    if type(value) is not torch.Tensor or value.is_meta or value.numel() == 0:
        return False
    return bool((value == value.narrow(axis, 0, 1)).all())


def arguments_of(node: fx.Node) -> dict[str, Any]:
    """Return the arguments of a call by name, defaults included."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return {str(i): a for i, a in enumerate(node.args)} | dict(node.kwargs)
    schema = node.target._schema.arguments
    found = {a.name: a.default_value for a in schema if a.has_default_value()}
    found |= {a.name: value for a, value in zip(schema, node.args, strict=False)}
    return found | dict(node.kwargs)


def _flat(values: Iterable[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if isinstance(value, dict):
            found += _flat(value.values())
        else:
            found += _flat(value) if isinstance(value, list | tuple) else [value]
    return found


def _all_axes(value: Value) -> list[tuple[Axis, ...]]:
    if isinstance(value, Labels):
        return [value.axes]
    if isinstance(value, Stacked):
        return list(value.parts)
    return [axes for v in value or () for axes in _all_axes(v)]
