"""The law of causality: later inputs must not change earlier outputs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .._errors import InputError
from ._actions import axis_number
from ._explore import resample
from ._inputs import Inputs, call, map_tensors, named_leaves, named_tensors
from ._laws import Function, Law

_STEPS = 32  # largest number of steps tested in one trial


class Causality(Law):
    """Law that $f(x)_{\\le t}$ depends on $x_{\\le t}$ alone.

    The check replaces the inputs after a step t and compares the outputs up to t. Each trial tests up to 32 steps.
    Sequences of up to 32 steps per trial (512 steps with 16 trials) are therefore tested at every step, and longer ones
    at random steps. Outputs without a time axis, such as the state that `nn.GRU` returns, may depend on the whole
    sequence and are not compared. Token ids are replaced by other ids that occur in the example.

    Args:
        dim: Time axis of every input tensor and of the output.
    """

    name = "causality"
    formula = "f(x)[:t] = f(x with other values from t on)[:t]"

    def __init__(self, dim: int = 1) -> None:
        self.dim = axis_number("dim", dim)

    def _length(self, x: Inputs) -> int:
        lengths = {t.shape[self.dim] if t.dim() > self.dim else -1 for _, t in named_tensors(x)}
        if len(lengths) != 1 or -1 in lengths or 0 in lengths:
            shapes = ", ".join(str(tuple(t.shape)) for _, t in named_tensors(x))
            raise InputError(
                f"causality needs inputs that share a time axis dim={self.dim} of at least 1 step, got shapes {shapes}"
            )
        return lengths.pop()

    def draw(self, x: Inputs, generator: torch.Generator) -> Tensor:
        return self.draw_for(x, generator, 0, max(self._length(x) - 1, 1))

    def draw_for(self, x: Inputs, generator: torch.Generator, trial: int, trials: int) -> Tensor:
        last = self._length(x) - 1
        steps = torch.arange(1 + trial % max(min(trials, last), 1), last + 1, trials)
        if len(steps) > _STEPS:
            steps = steps[torch.randperm(len(steps), generator=generator)[:_STEPS]].sort().values
        return torch.cat([torch.randint(0, 2**31, (1,), generator=generator), steps])

    def sides(self, f: Function, x: Inputs, g: Tensor) -> tuple[Any, Any]:
        out = call(f, x)
        timed = self._timed(f, x, out)
        fresh = self._fresh(x, int(g[0]))
        others = [self._before(call(f, self._disturbed(x, fresh, step)), step, timed) for step in self._steps(g)]
        return [self._before(out, step, timed) for step in self._steps(g)], others

    def value(self, f: Function, x: Inputs, g: Tensor) -> Any:
        out = call(f, x)
        timed = self._timed(f, x, out)
        return [self._before(out, step, timed) for step in self._steps(g)]

    def _steps(self, g: Tensor) -> list[int]:
        return [int(step) for step in g[1:]]

    def _timed(self, f: Function, x: Inputs, out: Any) -> set[str]:
        """Return the names of the outputs that have a time axis."""
        length = self._length(x)
        sizes = {name: t.shape[self.dim] for name, t in named_tensors(out) if t.dim() > self.dim}
        timed = {name for name, size in sizes.items() if size == length}
        if not timed:
            shapes = ", ".join(str(tuple(t.shape)) for _, t in named_tensors(out))
            raise InputError(
                f"causality needs an output with the {length} steps of the input on axis {self.dim}, got {shapes}"
            )
        others = {s for _, t in named_tensors(x) for i, s in enumerate(t.shape) if i != self.dim}
        if length > 1 and len(sizes) > 1 and (length in others or length <= 8):
            # a state may have as many samples or layers as there are steps; only a time axis shrinks with the input
            try:
                shorter = dict(named_tensors(call(f, self._first(x, length - 1))))
            except Exception as error:
                raise InputError(
                    f"causality can't tell which outputs have a time axis: {length} is also the size of another axis, "
                    "and the function fails on a shorter input; use a different number of steps"
                ) from error
            timed = {n for n in timed if n in shorter and shorter[n].shape[self.dim : self.dim + 1] == (length - 1,)}
        return timed

    def _first(self, x: Inputs, steps: int) -> Inputs:
        return map_tensors(lambda _, t: t.narrow(self.dim, 0, steps), x)

    def _before(self, out: Any, step: int, timed: set[str]) -> dict[str, Tensor]:
        leaves = dict(named_leaves(out))
        return {n: leaves[n].narrow(self.dim, 0, step) for n in sorted(timed) if isinstance(leaves.get(n), Tensor)}

    def _fresh(self, x: Inputs, seed: int) -> dict[str, Tensor]:
        """Return other values for every tensor of x."""
        noise = torch.Generator().manual_seed(seed)
        fresh = dict(named_tensors(resample(x, noise, "flipped")))
        return {
            name: fresh[name] if t.is_floating_point() or t.is_complex() else _other_values(t, noise)
            for name, t in named_tensors(x)
        }

    def _disturbed(self, x: Inputs, fresh: dict[str, Tensor], step: int) -> Inputs:
        values = iter(fresh.values())  # in the order in which the tensors are mapped

        def change(_: str, t: Tensor) -> Tensor:
            past = torch.arange(t.shape[self.dim], device=t.device) < step
            return torch.where(past.view(-1, *[1] * (t.dim() - self.dim - 1)), t, next(values))

        return map_tensors(change, x)

    def moves(self, x: Inputs, g: Tensor) -> bool:
        if len(g) < 2:
            return False
        moved = self._disturbed(x, self._fresh(x, int(g[0])), int(g[1]))
        return any(not torch.equal(s, t) for (_, s), (_, t) in zip(named_tensors(x), named_tensors(moved), strict=True))

    def shrink(self, x: Inputs, g: Tensor) -> Iterator[tuple[Inputs, Tensor]]:
        if len(g) > 2:
            yield from ((x, torch.stack([g[0], step])) for step in g[1:])
            return
        step, length = int(g[1]), self._length(x)
        for steps in (step + 1, (step + 1 + length) // 2, length - 1):
            if step < steps < length:
                yield self._first(x, steps), g
        for drop in (step // 2, 1):
            if 0 < drop < step:
                yield map_tensors(partial(self._after, drop), x), torch.stack([g[0], g[1] - drop])

    def _after(self, drop: int, _: str, tensor: Tensor) -> Tensor:
        return tensor.narrow(self.dim, drop, tensor.shape[self.dim] - drop)

    def describe(self, g: Tensor) -> str:
        return "a seed and the first step that changed"


def _other_values(tensor: Tensor, generator: torch.Generator) -> Tensor:
    """Replace every entry by another value that occurs in the tensor."""
    values, which = tensor.unique(return_inverse=True)
    if values.numel() < 2:
        return tensor
    step = torch.randint(1, values.numel(), tensor.shape, generator=generator).to(tensor.device)
    return values[(which + step) % values.numel()]
