"""A network cut into sections: what modules read, what reaches the next one, and the derivatives in between."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .._errors import InputError
from ..parameters import evaluating
from ._statistics import call

OUTPUT = "output"
_CHANNELS_FIRST = (nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)
_FEATURES_LAST = (nn.Linear, nn.LayerNorm, nn.RMSNorm, nn.MultiheadAttention)
_MOST_NUMBERS = 1 << 24
"""Most numbers of a batch of gradients."""


@dataclass(eq=False)
class Trace:
    """Activations of one forward pass.

    Attributes:
        reads: What each place reads; where a pass is cut, a new start of the graph.
        arrivals: What arrived at each place, and the output of the model last.
        products: Output of each place that is a linear layer, else None.
        valid: Positions that count, `(batch, positions)`, or None for all.
    """

    reads: list[Tensor]
    arrivals: list[Tensor]
    products: list[Tensor | None]
    valid: Tensor | None


class Places:
    """Places of a network where activations are read: the inputs of modules, in the order in which they run.

    Args:
        model: Network.
        names: Names of the modules, or None if there are no places.
        outputs: Function that selects a tensor from the output of the model; by default the tensor, or its `logits`.
    """

    def __init__(
        self, model: nn.Module, names: Sequence[str] | None, outputs: Callable[[Any], Tensor] | None = None
    ) -> None:
        known = dict(model.named_modules())
        if names is None:
            names = ()
        elif isinstance(names, str) or not isinstance(names, Sequence) or not names:
            raise InputError(f"sections must be a list of names of modules, got {names!r:.60}")
        for name in names:
            if not isinstance(name, str) or name not in known or name in ("", OUTPUT):
                raise InputError(f"there is no module {name!r}; known are {', '.join(filter(None, known)):.300}")
        if len({id(known[name]) for name in names}) != len(names):
            raise InputError(f"sections must be different modules, got {list(names)}")
        self.model, self.names, self.outputs = model, tuple(names), outputs
        self.modules = [known[name] for name in names]
        kinds = ((_CHANNELS_FIRST, 1), (_FEATURES_LAST, -1))
        self.axes = [next((a for k, a in kinds if isinstance(m, k)), None) for m in self.modules]
        self.axes += self.axes[-1:] or [None]  # the output as what the last module reads

    @contextlib.contextmanager
    def reading(self, on_read: Callable[[int, Tensor], Tensor]) -> Iterator[list[int]]:
        """Let a function see, and replace, what each place reads in evaluation mode.

        Yields the places that the current forward pass of the model has seen.

        Args:
            on_read: Function from the number of a place and its activation to the activation that it shall read.
        """
        seen: list[int] = []
        running: list[bool] = []

        def begin(module: nn.Module, args: Any) -> None:
            seen.clear()
            running.append(True)

        def end(module: nn.Module, args: Any, output: Any) -> None:
            running.pop()

        def hook(place: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
            if not running:  # the module is called by itself
                return args, kwargs
            name = self.names[place]
            if place in seen:
                raise InputError(f"{name!r} is called twice in a forward pass, so the network can't be cut there")
            if place != len(seen):
                raise InputError(
                    f"sections must be in the order in which the model runs them, got {list(self.names)}; {name!r} "
                    f"runs before {self.names[len(seen)]!r}"
                )
            given: dict[Any, Any] = {**dict(enumerate(args)), **kwargs}
            floats = [k for k, v in given.items() if isinstance(v, Tensor) and v.is_floating_point()]
            if not floats:
                raise InputError(f"{name!r} reads no floating-point tensor, so there is no activation to take")
            main = floats[0]
            if mixed := [k for k in floats[1:] if given[k].requires_grad]:
                raise InputError(
                    f"{name!r} reads several activations (arguments {main!r} and {mixed[0]!r}), so the network can't "
                    "be cut there; choose a module that reads one"
                )
            seen.append(place)
            given[main] = on_read(place, given[main])
            return tuple(given[i] for i in range(len(args))), {k: given[k] for k in kwargs}

        def hook_of(place: int) -> Callable[..., Any]:
            return lambda module, args, kwargs: hook(place, args, kwargs)

        ends = [
            self.model.register_forward_pre_hook(begin, prepend=True),
            self.model.register_forward_hook(end, always_call=True),
        ]
        handles = [m.register_forward_pre_hook(hook_of(i), with_kwargs=True) for i, m in enumerate(self.modules)]
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)  # it runs a layer's weights without its modules
        try:
            with evaluating(self.model):
                yield seen
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)
            for handle in (*ends, *handles):
                handle.remove()

    def selected(self, output: Any) -> Tensor:
        """Return the tensor of the model's output."""
        found = self.outputs(output) if self.outputs is not None else output
        if not isinstance(found, Tensor):
            found = getattr(found, "logits", None)
        if not isinstance(found, Tensor) or not found.is_floating_point() or found.dim() < 2:
            raise InputError(
                "the model must return a floating-point tensor (batch, ..., features) or an output with logits; select "
                "one with outputs"
            )
        return found

    def trace(self, batch: Any, cut: bool = True) -> Trace:
        """Run the model, and return its activations with the graphs of the sections between them.

        Args:
            batch: Batch of data.
            cut: Whether each place starts a new graph, so that derivatives end at the place before.
        """
        reads: list[Tensor] = []
        arrivals: list[Tensor] = []
        products: list[Tensor | None] = [None] * len(self.names)

        def on_read(place: int, x: Tensor) -> Tensor:
            arrivals.append(x)
            start = x.detach().clone().requires_grad_() if cut or not x.requires_grad else x
            reads.append(start)
            return start

        def keep(place: int) -> Callable[..., None]:
            return lambda module, args, output: products.__setitem__(place, output)

        linear = [(i, m) for i, m in enumerate(self.modules) if type(m) is nn.Linear]
        handles = [m.register_forward_hook(keep(i)) for i, m in linear]
        frozen = [p for p in self.model.parameters() if p.requires_grad]
        try:
            for p in frozen:
                p.requires_grad_(False)
            with self.reading(on_read) as seen, torch.enable_grad():
                arrivals.append(self.selected(call(self.model, batch)))
        finally:
            for p in frozen:
                p.requires_grad_(True)
            for handle in handles:
                handle.remove()
        if len(seen) < len(self.names):
            raise InputError(f"{self.names[len(seen)]!r} is never called in a forward pass of the model")
        for name, x in zip((*self.names, OUTPUT), arrivals, strict=True):
            if not bool(x.isfinite().all()):
                raise InputError(f"the activations at {name!r} hold NaN or infinities")
        return Trace(reads, arrivals, products, _valid(batch, reads[0]))

    def bypassed(self, batch: Any, trace: Trace) -> bool:
        """Return whether what the second place reads depends on more than what the first one reads.

        What the first place reads is exchanged between the samples; what arrives at the second one must follow. Nothing
        is found for one sample, or where samples influence each other or have masks.

        Args:
            batch: Batch of data.
            trace: Its trace.
        """
        start, arrival = trace.reads[0], trace.arrivals[1]
        if len(start) < 2 or trace.valid is not None or influences_other_rows(arrival, start):
            return False
        found: list[Tensor] = []

        def on_read(place: int, x: Tensor) -> Tensor:
            if place == 1:
                found.append(x)
            return x if place else x.roll(1, 0)

        with self.reading(on_read), torch.no_grad():
            found.append(self.selected(call(self.model, batch)))
        before = arrival.detach()
        wanted = before.roll(1, 0)
        small = 1e-3 * float((wanted - before).abs().max())
        return bool(((found[0] - wanted).abs() > max(small, 1e-5 * float(wanted.abs().max()))).any())

    def rows(self, place: int, x: Tensor, together: bool = False) -> Tensor:
        """Return activations as `(batch, positions, features)`.

        Features are the second axis before convolutions and the last one before linear layers and layer norms. Before
        other modules they are the last one, or the second one of tensors with four axes or more. The output is as the
        last module's input.

        Args:
            place: Number of the place.
            x: Activations.
            together: Whether all rows of the batch are positions of one sample, since they influence each other.
        """
        axis = self.axis(place, x)
        flat = x.movedim(axis, -1)
        return flat.reshape(1 if together else len(flat), -1, flat.shape[-1])

    def axis(self, place: int, x: Tensor) -> int:
        """Return the axis of the features of an activation."""
        axis = self.axes[place]
        return (1 if x.dim() >= 4 else x.dim() - 1) if axis is None else axis % x.dim()

    def shaped(self, place: int, rows: Tensor, like: Tensor) -> Tensor:
        """Return `(..., batch, positions, features)` in the layout of an activation.

        Args:
            place: Number of the place.
            rows: Numbers, `(..., batch, positions, features)`.
            like: Activation.
        """
        axis, lead = self.axis(place, like), rows.dim() - 3
        moved = like.movedim(axis, -1).shape
        return rows.reshape(*rows.shape[:lead], *moved).movedim(-1, lead + axis)


def _valid(batch: Any, x: Tensor) -> Tensor | None:
    """Return which positions count, from the attention mask of a batch of tokens."""
    mask = batch.get("attention_mask") if isinstance(batch, Mapping) else None
    return mask.bool() if isinstance(mask, Tensor) and x.dim() == 3 and mask.shape == x.shape[:2] else None


def influences_other_rows(arrival: Tensor, start: Tensor) -> bool:
    """Return whether a row of an activation depends on other rows of the one before.

    Args:
        arrival: Activation.
        start: The one before.
    """
    if arrival.shape[0] != start.shape[0]:
        return True
    found = _derivative(arrival[0], start)
    return found is not None and bool(found[1:].any())


def depends(arrival: Tensor, start: Tensor) -> bool:
    """Return whether an activation depends on another one.

    Args:
        arrival: Activation.
        start: The one before.
    """
    return arrival.requires_grad and (found := _derivative(arrival, start)) is not None and bool(found.any())


def _derivative(arrival: Tensor, start: Tensor) -> Tensor | None:
    """Return the derivative of a random sum, since plain sums of normalized activations are constant."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(arrival.shape, generator=generator, dtype=torch.float64).to(arrival)
    return torch.autograd.grad((arrival * weights).sum(), start, retain_graph=True, allow_unused=True)[0]


def pulled_back(arrival: Tensor, starts: Sequence[Tensor], directions: Tensor) -> tuple[Tensor, ...]:
    """Return the derivatives of several weighted sums of an activation, `(sums, ...)` each; zero where there are none.

    Args:
        arrival: Activation.
        starts: Activations by which it is derived.
        directions: Weights of each sum, `(sums, ...)`.
    """
    options: dict[str, Any] = {"retain_graph": True, "allow_unused": True}
    try:
        found = torch.autograd.grad(arrival, starts, directions, is_grads_batched=True, **options)
    except RuntimeError:  # an operator of the model that PyTorch cannot batch
        each = [torch.autograd.grad(arrival, starts, d, **options) for d in directions]
        found = tuple(None if g[0] is None else torch.stack(g) for g in zip(*each, strict=True))  # type: ignore[misc]
    return tuple(
        directions.new_zeros(len(directions), *s.shape) if g is None else g for g, s in zip(found, starts, strict=True)
    )


def chunks(total: int, numbers: int) -> Iterator[range]:
    """Yield consecutive ranges, so that as many rows of `numbers` fit into memory.

    Args:
        total: Number of rows.
        numbers: Numbers of a row.
    """
    step = max(1, _MOST_NUMBERS // max(1, numbers))
    for first in range(0, total, step):
        yield range(first, min(total, first + step))
