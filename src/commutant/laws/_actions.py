"""What a group action is, how actions combine, and whether one obeys the axioms of a group."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from .._errors import InputError
from ._inputs import Inputs, is_graph_data, named_tensors

GroupElement: TypeAlias = Any


class Action:
    """A group acting on inputs: draw an element, apply it, compose, invert.

    The convention is that of a left action: `act(compose(g, h), x) == act(g, act(h, x))`. Every shipped action is
    tested for the group axioms; `check_action` tests one of your own.
    """

    name = "action"

    def sample(self, x: Inputs, generator: torch.Generator) -> GroupElement:
        """Draw a group element that can act on x."""
        raise NotImplementedError

    def identity(self, x: Inputs) -> GroupElement:
        """The neutral element for inputs like x."""
        raise NotImplementedError

    def compose(self, g: GroupElement, h: GroupElement) -> GroupElement:
        """The element that acts like h and then g."""
        raise NotImplementedError

    def inverse(self, g: GroupElement) -> GroupElement:
        """The element that undoes g."""
        raise NotImplementedError

    def act(self, g: GroupElement, x: Inputs) -> Inputs:
        """Apply g to x."""
        raise NotImplementedError

    def fit(self, x: Inputs) -> None:
        """Raise InputError where the action can't move any part of inputs like x."""

    def shrink(self, g: GroupElement, x: Inputs) -> Iterator[tuple[GroupElement, Inputs]]:
        """Simpler elements, or the same on smaller inputs; the witness search keeps those that still break."""
        return iter(())

    def describe(self, g: GroupElement) -> str:
        """The element in words, where its figures do not speak for themselves."""
        return ""

    def variants(self) -> Sequence[Action]:
        """The same group acting on features inside a network, where the axes may have moved."""
        return (self,)

    def on_output(self, x: Inputs) -> Action:
        """The same action as it applies to the output for an input like x."""
        return self

    def reading(self, f: Callable[[Inputs], Any], x: Inputs) -> Action:
        """The action with its axes decided for inputs like x, where f tells which of two readings it takes."""
        return self

    def resized(self, x: Inputs) -> Inputs | None:
        """An input with other numbers of elements, by which to tell the axes of elements in an output; None without."""
        return None

    def settled(self, f: Callable[[Inputs], Any], x: Inputs, source: Action) -> Action:
        """The action with the axes of the output f(x) decided, where `source` moves the input."""
        return self

    def on(self, part: int | str) -> Action:
        """The same action on one part of a tuple, dict or PyG `Data`, the rest left alone."""
        return _OnPart(self, part)

    def __mul__(self, other: Action) -> Action:
        return ProductAction(self, other)

    def __repr__(self) -> str:
        return self.name


class Trivial(Action):
    """The action that leaves everything alone; equivariance towards it is invariance."""

    name = "trivial"

    def sample(self, x: Inputs, generator: torch.Generator) -> GroupElement:
        return None

    def identity(self, x: Inputs) -> GroupElement:
        return None

    def compose(self, g: GroupElement, h: GroupElement) -> GroupElement:
        return None

    def inverse(self, g: GroupElement) -> GroupElement:
        return None

    def act(self, g: GroupElement, x: Inputs) -> Inputs:
        return x


class ProductAction(Action):
    """Several actions that commute, applied together; an element is a tuple with one element of each."""

    def __init__(self, *actions: Action) -> None:
        for action in actions:
            if not isinstance(action, Action):
                raise InputError(f"a product is of actions, such as Translation(), got {action!r:.60}")
        self.actions = actions
        self.name = " x ".join(action.name for action in actions)

    def fit(self, x: Inputs) -> None:
        for action in self.actions:
            action.fit(x)

    def reading(self, f: Callable[[Inputs], Any], x: Inputs) -> Action:
        return ProductAction(*(action.reading(f, x) for action in self.actions))

    def settled(self, f: Callable[[Inputs], Any], x: Inputs, source: Action) -> Action:
        paired = isinstance(source, ProductAction) and len(source.actions) == len(self.actions)
        sources = source.actions if isinstance(source, ProductAction) and paired else [source] * len(self.actions)
        return ProductAction(*(a.settled(f, x, b) for a, b in zip(self.actions, sources, strict=True)))

    def on_output(self, x: Inputs) -> Action:
        return ProductAction(*(action.on_output(x) for action in self.actions))

    def sample(self, x: Inputs, generator: torch.Generator) -> tuple[GroupElement, ...]:
        return tuple(action.sample(x, generator) for action in self.actions)

    def identity(self, x: Inputs) -> tuple[GroupElement, ...]:
        return tuple(action.identity(x) for action in self.actions)

    def compose(self, g: Sequence[GroupElement], h: Sequence[GroupElement]) -> tuple[GroupElement, ...]:
        return tuple(a.compose(p, q) for a, p, q in zip(self.actions, g, h, strict=True))

    def inverse(self, g: Sequence[GroupElement]) -> tuple[GroupElement, ...]:
        return tuple(a.inverse(p) for a, p in zip(self.actions, g, strict=True))

    def act(self, g: Sequence[GroupElement], x: Inputs) -> Inputs:
        for action, part in zip(self.actions, g, strict=True):
            x = action.act(part, x)
        return x

    def shrink(self, g: Sequence[GroupElement], x: Inputs) -> Iterator[tuple[GroupElement, Inputs]]:
        still = self.identity(x)
        for i, action in enumerate(self.actions):
            yield (*still[:i], g[i], *still[i + 1 :]), x
            for smaller, same in action.shrink(g[i], x):
                if same is x:
                    yield (*g[:i], smaller, *g[i + 1 :]), x


class _OnPart(Action):
    def __init__(self, base: Action, part: int | str) -> None:
        self.base, self.part = base, part
        self.name = f"{base.name} on {part!r}"

    def _get(self, x: Inputs) -> Inputs:
        if isinstance(x, Tensor):
            return x
        try:
            return x[self.part]
        except (KeyError, IndexError, TypeError):
            raise InputError(
                f"the input, a {type(x).__name__}, has no part {self.part!r} for {self.base} to act on"
            ) from None

    def fit(self, x: Inputs) -> None:
        self.base.fit(self._get(x))

    def sample(self, x: Inputs, generator: torch.Generator) -> GroupElement:
        return self.base.sample(self._get(x), generator)

    def identity(self, x: Inputs) -> GroupElement:
        return self.base.identity(self._get(x))

    def compose(self, g: GroupElement, h: GroupElement) -> GroupElement:
        return self.base.compose(g, h)

    def inverse(self, g: GroupElement) -> GroupElement:
        return self.base.inverse(g)

    def act(self, g: GroupElement, x: Inputs) -> Inputs:
        if isinstance(x, Tensor):
            return self.base.act(g, x)
        return self._put(x, self.base.act(g, self._get(x)))

    def _put(self, x: Inputs, value: Inputs) -> Inputs:
        if is_graph_data(x):
            out = x.clone()
            out[self.part] = value
            return out
        if isinstance(x, dict):
            return {**x, self.part: value}
        parts = list(x)
        parts[int(self.part)] = value
        return type(x)(*parts) if hasattr(x, "_fields") else type(x)(parts)

    def shrink(self, g: GroupElement, x: Inputs) -> Iterator[tuple[GroupElement, Inputs]]:
        if isinstance(x, Tensor):
            yield from self.base.shrink(g, x)
        else:
            part = self._get(x)
            for smaller, same in self.base.shrink(g, part):
                if same is part:
                    yield smaller, x


def check_action(action: Action, x: Inputs, trials: int = 8, seed: int = 0) -> float:
    """Return how far an action is from the group axioms on inputs like x: the worst absolute difference found.

    Checks $e x = x$, $(g h) x = g (h x)$, $g^{-1} g x = x$ and that some drawn element moves x. A side that is not a
    number, or that has other parts or shapes than the other, counts as an infinite difference.

    Raises:
        InputError: when no drawn element moves x, so that every law about the action would hold vacuously.

    Example:
        >>> from commutant.laws import Rotation
        >>> check_action(Rotation(3), torch.randn(5, 3, dtype=torch.float64)) < 1e-12
        True
    """
    if not isinstance(action, Action):
        given = f"the class {action.__name__}" if isinstance(action, type) else type(action).__name__
        raise InputError(f"check_action takes (action, x), got {given} for an action; make an instance of one")
    if trials < 1:
        raise InputError(f"trials must be at least 1, got {trials}")
    action.fit(x)
    generator = torch.Generator().manual_seed(seed)
    worst, moved = 0.0, 0.0
    for _ in range(trials):
        g, h = action.sample(x, generator), action.sample(x, generator)
        for left, right in (
            (action.act(action.identity(x), x), x),
            (action.act(action.compose(g, h), x), action.act(g, action.act(h, x))),
            (action.act(action.inverse(g), action.act(g, x)), x),
            (action.act(action.compose(g, action.identity(x)), x), action.act(g, x)),
        ):
            worst = max(worst, _distance(left, right))
        moved = max(moved, _distance(action.act(g, x), x))
    if moved == 0.0 and not isinstance(action, Trivial):
        raise InputError(f"no drawn element of {action} moves this input")
    return worst


def axis_number(name: str, dim: Any) -> int:
    """An axis given by the user, counted from the front."""
    if isinstance(dim, bool) or not isinstance(dim, int) or dim < 0:
        raise InputError(f"{name} must be the number of an axis, 0 or more, got {dim!r}")
    return dim


def _distance(a: Inputs, b: Inputs) -> float:
    left, right = dict(named_tensors(a)), dict(named_tensors(b))
    if {name: t.shape for name, t in left.items()} != {name: t.shape for name, t in right.items()}:
        return float("inf")
    worst = 0.0
    for name, s in left.items():
        wide = torch.complex128 if s.is_complex() or right[name].is_complex() else torch.float64
        p, q = s.to(wide), right[name].to(wide)
        gap = torch.where(p == q, 0.0, (p - q).abs()).nan_to_num(nan=float("inf"), posinf=float("inf"))
        worst = max(worst, float(gap.max())) if gap.numel() else worst
    return worst
