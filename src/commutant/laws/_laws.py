"""Laws: identities of functions, each with two sides that must agree."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, TypeAlias

import torch
from torch import Tensor

from .._errors import InputError
from ._actions import Action, GroupElement, Trivial
from ._inputs import Inputs, Sets, batch_size, call, is_graph_data, map_tensors, named_tensors, take_samples

Function: TypeAlias = Callable[..., Any]


class Law:
    """Base class of laws: identities between two ways to compute the same value.

    A law must hold for all inputs and all draws, such as group elements or choices of samples.
    """

    name = "law"
    formula = ""
    about_constants = False
    """Whether the law is informative for outputs that do not depend on the input."""

    def draw(self, x: Inputs, generator: torch.Generator) -> GroupElement:
        """Draw a group element, a choice of samples, or whatever else the law quantifies over."""
        return None

    def draw_for(self, x: Inputs, generator: torch.Generator, trial: int, trials: int) -> GroupElement:
        """Draw for one trial; the trials of a check may divide the possible draws among them."""
        return self.draw(x, generator)

    def sides(self, f: Function, x: Inputs, g: GroupElement) -> tuple[Any, Any]:
        """Return the two values that must agree."""
        raise NotImplementedError

    def value(self, f: Function, x: Inputs, g: GroupElement) -> Any:
        """Return the first of the two values, without the second if possible."""
        return self.sides(f, x, g)[0]

    def plain(self, f: Function, x: Inputs) -> Any:
        """Call the function on the input alone; if this fails, the input is invalid and the law is not broken."""
        return call(f, x)

    def settle(self, f: Function, x: Inputs) -> Law:
        """Return the law with the axes of inputs and outputs resolved, for which f may be called."""
        return self

    def moves(self, x: Inputs, g: GroupElement) -> bool:
        """Return whether the two sides are different computations for this draw."""
        return True

    def shrink(self, x: Inputs, g: GroupElement) -> Iterator[tuple[Inputs, GroupElement]]:
        """Yield simpler inputs and draws, to minimize a counter-example."""
        return iter(())

    def describe(self, g: GroupElement) -> str:
        """Return a description of the draw in words."""
        return ""

    def witness_of(self, layer_output: Any, x: Inputs, g: GroupElement) -> list[Any]:
        """Return the outputs that a submodule obeying the law may have on one side, given its output on the other."""
        return [layer_output]

    def layer_inputs(self, x: Inputs, g: GroupElement) -> tuple[Inputs, Inputs] | None:
        """Return the two inputs on which to compare submodules, or None if the law allows no comparison."""
        return None

    def __repr__(self) -> str:
        return self.name


class Equivariance(Law):
    """Law $f(g x) = g f(x)$ for every g of a group.

    Args:
        action: Action of the group on the input.
        output: Action of the same elements on the output; by default the action on the input.
    """

    name = "equivariance"
    formula = "f(g x) = g f(x)"

    def __init__(self, action: Action, output: Action | None = None) -> None:
        self.action = _instance("action", action)
        self.output = self.action if output is None else _instance("output", output)

    def settle(self, f: Function, x: Inputs) -> Law:
        self.action.fit(x)
        action = self.action.reading(lambda y: call(f, y), x)
        output = action if self.output is self.action else self.output
        settled = output.on_output(x).settled(lambda y: call(f, y), x, action)
        if settled is self.output and action is self.action:
            return self
        law = copy.copy(self)
        law.action, law.output = action, settled
        return law

    def draw(self, x: Inputs, generator: torch.Generator) -> GroupElement:
        self.action.fit(x)
        return self.action.sample(x, generator)

    def sides(self, f: Function, x: Inputs, g: GroupElement) -> tuple[Any, Any]:
        return call(f, self.action.act(g, x)), self.output.on_output(x).act(g, call(f, x))

    def value(self, f: Function, x: Inputs, g: GroupElement) -> Any:
        return call(f, self.action.act(g, x))

    def moves(self, x: Inputs, g: GroupElement) -> bool:
        return not equal(self.action.act(g, x), x)

    def shrink(self, x: Inputs, g: GroupElement) -> Iterator[tuple[Inputs, GroupElement]]:
        for smaller, y in self.action.shrink(g, x):
            yield y, smaller
        yield from ((y, g) for y in single_samples(x))

    def witness_of(self, layer_output: Any, x: Inputs, g: GroupElement) -> list[Any]:
        out = [layer_output]
        for action in (*self.action.variants(), self.output):
            try:
                out.append(action.act(g, layer_output))
            except Exception:  # hidden features may lack the axes that the action moves
                continue
        return out

    def layer_inputs(self, x: Inputs, g: GroupElement) -> tuple[Inputs, Inputs]:
        return x, self.action.act(g, x)

    def describe(self, g: GroupElement) -> str:
        return self.action.describe(g)

    def __repr__(self) -> str:
        return f"{self.name} under {self.action}"


class Invariance(Equivariance):
    """Law $f(g x) = f(x)$ for every g of a group.

    Args:
        action: Action of the group on the input.
    """

    name = "invariance"
    formula = "f(g x) = f(x)"

    def __init__(self, action: Action) -> None:
        super().__init__(action, Trivial())


class GradientEquivariance(Equivariance):
    """Law $\\nabla_x \\langle w, g^{-1} f(g x)\\rangle = \\nabla_x \\langle w, f(x)\\rangle$.

    For an invariant energy this says that forces rotate with the molecule. The law finds functions with a symmetric
    forward pass and a hand-written backward pass that is not symmetric.

    Args:
        action: Action of the group on the input.
        output: Action of the same elements on the output; by default `Trivial()` (invariance).
    """

    about_constants = True  # the gradient of a linear function is constant
    name = "gradient equivariance"
    formula = "∇⟨w, g⁻¹ f(g x)⟩ = ∇⟨w, f(x)⟩"

    def __init__(self, action: Action, output: Action | None = None) -> None:
        super().__init__(action, Trivial() if output is None else output)

    def sides(self, f: Function, x: Inputs, g: GroupElement) -> tuple[Any, Any]:
        def gradient(function: Callable[[Inputs], Any]) -> dict[str, Tensor]:
            with torch.enable_grad():
                held: dict[str, Tensor] = {}

                def track(name: str, tensor: Tensor) -> Tensor:
                    if not (tensor.is_floating_point() or tensor.is_complex()):
                        return tensor
                    tracked = held[f"{len(held)} {name}"] = tensor.detach().clone().requires_grad_()
                    return tracked

                total = sum(
                    (part.double() * _weights(part)).sum()
                    for _, t in named_tensors(function(map_tensors(track, x)))
                    if t.is_floating_point() or t.is_complex()
                    for part in [torch.view_as_real(t.resolve_conj()) if t.is_complex() else t]
                )
                if not held or not isinstance(total, Tensor) or not total.requires_grad:
                    return {name: torch.zeros_like(t) for name, t in held.items()}
                gradients = torch.autograd.grad(total, list(held.values()), allow_unused=True)
            return {
                name: torch.zeros_like(t) if d is None else d
                for (name, t), d in zip(held.items(), gradients, strict=True)
            }

        moved = gradient(lambda y: self.output.act(self.output.inverse(g), call(f, self.action.act(g, y))))
        return moved, gradient(lambda y: call(f, y))

    def value(self, f: Function, x: Inputs, g: GroupElement) -> Any:
        return self.sides(f, x, g)[0]

    def layer_inputs(self, x: Inputs, g: GroupElement) -> None:  # type: ignore[override]
        return None


class BatchIndependence(Law):
    """Law $f(\\text{batch})_i = f(\\text{batch}_i)$: the result of a sample does not depend on the rest of the batch.

    The batch is the leading axis of every input tensor, the sets of `Sets`, or the graphs of a PyG `Batch`. In the
    output it is the leading axis, or the axis that grows with the batch, as in the state returned by `nn.GRU`.
    """

    name = "batch independence"
    formula = "f(batch)[i] = f(batch[i])"
    _axes: Mapping[str, int] = MappingProxyType({})

    def settle(self, f: Function, x: Inputs) -> Law:
        if isinstance(x, Sets) or is_graph_data(x) or not (count := batch_size(x)):
            return self
        shapes = {name: t.shape for name, t in named_tensors(call(f, x))}
        if all(shape.count(count) == 1 and shape[0] == count for shape in shapes.values() if shape):
            return self
        try:  # appends the first sample again
            more = {n: t.shape for n, t in named_tensors(call(f, take_samples(x, torch.arange(count + 1) % count)))}
        except Exception:  # f takes only this batch size
            return self
        grown = {
            name: [i for i, (a, b) in enumerate(zip(shape, more.get(name, ()), strict=False)) if b == a + 1]
            for name, shape in shapes.items()
        }
        law = copy.copy(self)
        law._axes = {name: axes[0] for name, axes in grown.items() if len(axes) == 1}
        return law

    def draw(self, x: Inputs, generator: torch.Generator) -> Tensor:
        count = batch_size(x)
        if count == 0:
            raise InputError("batch independence needs at least one sample in the input")
        # an aggregation can't see empty sets after the last element, so only sets with elements are compared
        choice = x.index.unique().cpu() if isinstance(x, Sets) else torch.arange(count)
        size = int(torch.randint(1, max(2, len(choice)), (), generator=generator))
        return choice[torch.randperm(len(choice), generator=generator)[:size]].sort().values

    def sides(self, f: Function, x: Inputs, g: Tensor) -> tuple[Any, Any]:
        return self._take(call(f, x), g, batch_size(x)), call(f, take_samples(x, g))

    def value(self, f: Function, x: Inputs, g: Tensor) -> Any:
        return self._take(call(f, x), g, batch_size(x))

    def _take(self, out: Any, g: Tensor, count: int) -> Any:
        names = iter([name for name, _ in named_tensors(out)])  # in the order in which the tensors are mapped

        def take(_: str, tensor: Tensor) -> Tensor:
            name = next(names)
            axis = self._axes.get(name, 0)
            if tensor.dim() <= axis or tensor.shape[axis] != count:
                raise InputError(
                    f"output {name} must have one row for each of the {count} samples, got shape {tuple(tensor.shape)}"
                )
            return tensor.index_select(axis, g.to(tensor.device))

        return map_tensors(take, out)

    def moves(self, x: Inputs, g: Tensor) -> bool:
        return g.numel() < batch_size(x)

    def shrink(self, x: Inputs, g: Tensor) -> Iterator[tuple[Inputs, Tensor]]:
        count = batch_size(x)
        others = [j for j in range(count) if j not in g.tolist()]
        if count > 2:
            for i in g.tolist()[:4]:
                for j in others[:4]:
                    pair = torch.tensor(sorted((i, j)))
                    yield take_samples(x, pair), torch.tensor([sorted((i, j)).index(i)])
        if isinstance(x, Sets):
            for drop in range(min(x.x.shape[0], 24)):
                keep = torch.ones(x.x.shape[0], dtype=torch.bool)
                keep[drop] = False
                if x.index[keep].unique().numel() == count:
                    yield Sets(x.x[keep], x.index[keep]), g

    def describe(self, g: Tensor) -> str:
        return "the samples compared"

    def witness_of(self, layer_output: Any, x: Inputs, g: Tensor) -> list[Any]:
        try:
            return [self._take(layer_output, g, batch_size(x))]
        except InputError:
            return []

    def layer_inputs(self, x: Inputs, g: Tensor) -> tuple[Inputs, Inputs] | None:
        return None if isinstance(x, Sets) or is_graph_data(x) else (x, take_samples(x, g))


class FunctionPreservation(Law):
    """Law $T(f) = f$ as functions: a transformation, for example of the weights, preserves the outputs.

    Args:
        transform: Map from the model to the transformed model; must not change the model in place.
    """

    name = "function preservation"
    formula = "T(f)(x) = f(x)"

    def __init__(self, transform: Callable[[Any], Function]) -> None:
        self.transform = as_function("transform", transform)

    def sides(self, f: Function, x: Inputs, g: GroupElement) -> tuple[Any, Any]:
        freeze = getattr(f, "freeze", lambda g: g)  # the checker passes a wrapper of the model
        return call(freeze(self.transform(getattr(f, "__wrapped__", f))), x), call(f, x)

    def shrink(self, x: Inputs, g: GroupElement) -> Iterator[tuple[Inputs, GroupElement]]:
        yield from ((y, g) for y in single_samples(x))


def _instance(name: str, action: Any) -> Action:
    """Return an action given by the user, after a check of its type."""
    if isinstance(action, type) and issubclass(action, Action):
        raise InputError(f"{name} is the class {action.__name__}; pass an instance, such as {action.__name__}()")
    if not isinstance(action, Action):
        raise InputError(f"{name} must be an Action, such as SetPermutation(), got {action!r:.60}")
    return action


def as_function(name: str, function: Any) -> Function:
    """Return a function given by the user, after a check that it can be called."""
    if not callable(function) or isinstance(function, Tensor):
        raise InputError(f"{name} must be a function, got {function!r:.60}")
    return function  # type: ignore[no-any-return]


def _weights(like: Tensor) -> Tensor:
    """Return fixed weights that no symmetry of the output leaves unchanged."""
    position = torch.arange(like.numel(), device=like.device, dtype=torch.float64)
    return torch.sin(position * 12.9898 + 1.0).reshape(like.shape)


def single_samples(x: Inputs) -> Iterator[Inputs]:
    """Yield the input cut down to one row of the leading axis, if all tensors share that axis."""
    tensors = [t for _, t in named_tensors(x)]
    if isinstance(x, Sets) or is_graph_data(x) or any(t.dim() < 2 for t in tensors):
        return
    if len({t.shape[0] for t in tensors}) == 1 and tensors[0].shape[0] > 1:
        for i in range(min(tensors[0].shape[0], 8)):
            yield map_tensors(partial(_row, i), x)


def _row(i: int, _: str, tensor: Tensor) -> Tensor:
    return tensor[i : i + 1]


def equal(a: Inputs, b: Inputs) -> bool:
    """Return whether two trees hold equal tensors."""
    pairs = list(zip(named_tensors(a), named_tensors(b), strict=True))
    return all(s.shape == t.shape and torch.equal(s, t) for (_, s), (_, t) in pairs)
