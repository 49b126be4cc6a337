"""Group actions, their combinations, and a check of the group axioms."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from .._checks import whole
from .._errors import InputError
from ._inputs import Inputs, is_graph_data, named_tensors, source_of

GroupElement: TypeAlias = Any


class Action:
    """Base class of group actions, which draw, apply, compose and invert group elements.

    Actions are left actions: `act(compose(g, h), x) == act(g, act(h, x))`. The group axioms are tested
    for every action of this library; use `check_action` to test your own.
    """

    name = "action"

    def sample(self, x: Inputs, generator: torch.Generator) -> GroupElement:
        """Draw a group element that fits x."""
        raise NotImplementedError

    def identity(self, x: Inputs) -> GroupElement:
        """Return the identity element for inputs like x."""
        raise NotImplementedError

    def compose(self, g: GroupElement, h: GroupElement) -> GroupElement:
        """Return the element that acts like h followed by g."""
        raise NotImplementedError

    def inverse(self, g: GroupElement) -> GroupElement:
        """Return the element that undoes g."""
        raise NotImplementedError

    def act(self, g: GroupElement, x: Inputs) -> Inputs:
        """Apply g to x."""
        raise NotImplementedError

    def fit(self, x: Inputs) -> None:
        """Raise InputError if the action can't move any part of inputs like x."""

    def shrink(self, g: GroupElement, x: Inputs) -> Iterator[tuple[GroupElement, Inputs]]:
        """Yield simpler elements, or the same element on smaller inputs, to minimize a counter-example."""
        return iter(())

    def describe(self, g: GroupElement) -> str:
        """Return a description of g in words, or an empty string if its value is self-explanatory."""
        return ""

    def variants(self) -> Sequence[Action]:
        """Return candidate actions of the group on hidden features, whose axes may differ from those of the input."""
        return (self,)

    def on_output(self, x: Inputs) -> Action:
        """Return the same action for the output on an input like x."""
        return self

    def reading(self, f: Callable[[Inputs], Any], x: Inputs) -> Action:
        """Return the action with its axes resolved for inputs like x; f is called if the shapes are ambiguous."""
        return self

    def resized(self, x: Inputs) -> Inputs | None:
        """Return x with a different number of elements, which reveals the element axes of an output, or None."""
        return None

    def settled(self, f: Callable[[Inputs], Any], x: Inputs, source: Action) -> Action:
        """Return the action with its axes resolved for the output f(x), where `source` acts on the input."""
        return self

    def on(self, part: int | str) -> Action:
        """Return the same action on one part of a tuple, dict or PyG `Data`; other parts stay unchanged.

        Args:
            part: Position in the tuple, or key of the dict or `Data`.
        """
        return _OnPart(self, part)

    def __mul__(self, other: Action) -> Action:
        return ProductAction(self, other)

    def __repr__(self) -> str:
        return self.name


class Trivial(Action):
    """Action that leaves its input unchanged; used on outputs, it turns equivariance into invariance."""

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
    """Product of commuting actions, whose elements are tuples with one element of each action.

    Args:
        actions: Actions to apply, the first one first.
    """

    def __init__(self, *actions: Action) -> None:
        for action in actions:
            if not isinstance(action, Action):
                raise InputError(f"a product takes actions such as Translation(), got {action!r:.60}")
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
                f"{self.base} acts on part {self.part!r}, but the input of type {type(x).__name__} has no such part"
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


def check_action(action: Action, x: Inputs, trials: int = 8, *, generator: torch.Generator | None = None) -> float:
    """Return the largest absolute violation of the group axioms by an action, on inputs like x.

    The axioms are $e x = x$, $(g h) x = g (h x)$ and $g^{-1} g x = x$. At least one drawn element must change x. NaN on
    one side, or different shapes on the two sides, count as an infinite difference.

    Args:
        action: Action to check.
        x: Input to act on.
        trials: Number of pairs of elements to draw.
        generator: Source of the drawn elements, on the CPU. None means a generator seeded with 0, which makes the
            result reproducible.

    Raises:
        InputError: If no drawn element moves x, since every law about the action would then hold vacuously.

    Example:
        >>> from commutant.laws import Rotation
        >>> check_action(Rotation(3), torch.randn(5, 3, dtype=torch.float64)) < 1e-12
        True
    """
    if not isinstance(action, Action):
        given = f"the class {action.__name__}" if isinstance(action, type) else type(action).__name__
        raise InputError(f"check_action takes (action, x), got {given} as the action; pass an Action instance")
    whole("trials", trials)
    action.fit(x)
    generator = source_of(generator)
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
    """Return an axis as a non-negative integer."""
    whole(name, dim, 0)
    return int(dim)


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
