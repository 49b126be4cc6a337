"""What the modules of a network put out in one pass, kept attached to the graph so that probes can be sent back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .._errors import InputError

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm, nn.GroupNorm, nn.InstanceNorm2d, nn.RMSNorm)
_DROPOUT = ("Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout", "FeatureAlphaDropout")


@dataclass
class Call:
    """One call of a module.

    Attributes:
        name: of the module, with the number of the call after the first one (`"lstm#2"`).
        module: itself.
        input: its first tensor of real numbers, or None (an embedding).
        output: likewise; attached to the graph.
        block: whether it is a part of a `Sequential` or `ModuleList` with modules inside, rather than a single layer.
    """

    name: str
    module: nn.Module
    input: Tensor | None
    output: Tensor
    block: bool

    @property
    def normalises(self) -> bool:
        """Whether it brings what it reads to unit variance."""
        return isinstance(self.module, NORMS)

    @property
    def weight(self) -> Tensor | None:
        """Its first own parameter of at least two axes."""
        return next((p for p in self.module.parameters(recurse=_whole(self.module)) if p.ndim >= 2), None)


@dataclass
class Record:
    """A pass: calls in the order in which they ended, and what the network gave."""

    calls: list[Call]
    inputs: list[Tensor]
    output: Tensor

    @property
    def layers(self) -> list[Call]:
        """The calls of single modules that have weights."""
        return [call for call in self.calls if not call.block and call.weight is not None]


@contextmanager
def recorded(model: nn.Module, x: Any) -> Iterator[Record]:
    """Run the model once on a tensor, a tuple of arguments or a mapping of keywords, and keep what its modules gave.

    Dropout is off; everything else runs in the mode that the model is in. Buffers (running statistics) and gradients
    are left as they were.

    Raises:
        InputError: if the pass fails or gives no tensor of real numbers that depends on parameters or inputs.
    """
    args, kwargs = _arguments(x)
    calls: list[Call] = []
    seen: dict[str, int] = {}
    blocks = _blocks(model)
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    dropouts = [m for m in model.modules() if type(m).__name__ in _DROPOUT and m.training]
    switched = [(p, p.requires_grad) for p in model.parameters()]
    handles = []

    def hook(name: str, block: bool):  # type: ignore[no-untyped-def]
        def keep(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any], output: Any) -> Any:
            value = real_tensor(output)
            if value is None:
                return None
            seen[name] = seen.get(name, 0) + 1
            label = name if seen[name] == 1 else f"{name}#{seen[name]}"
            calls.append(Call(label, module, real_tensor((*given, *named.values())), value, block))
            # What comes after may work in place: it gets a copy.
            return value.clone() if output is value else None

        return keep

    for name, module in model.named_modules():
        whole = _whole(module) or not next(module.children(), None)
        inside = any(_whole(parent) for parent in _parents(model, name))
        if not inside and (whole or id(module) in blocks):
            label = name or type(module).__name__
            handles.append(module.register_forward_hook(hook(label, not whole), with_kwargs=True))
    try:
        for m in dropouts:
            m.training = False
        for p, _ in switched:
            p.requires_grad_(p.is_floating_point())
        with torch.enable_grad():
            try:
                output = real_tensor(model(*args, **kwargs))
            except InputError:
                raise
            except Exception as error:
                raise InputError(
                    f"{type(model).__name__} fails on this input ({type(error).__name__}: {str(error).splitlines()[0]})"
                ) from error
            if output is None or not output.requires_grad:
                raise InputError(f"{type(model).__name__} gives no real numbers that depend on parameters or inputs")
            yield Record(calls, [t for t in (*args, *kwargs.values()) if _real(t)], output)
    finally:
        for handle in handles:
            handle.remove()
        for m in dropouts:
            m.training = True
        for p, flag in switched:
            p.requires_grad_(flag)
        with torch.no_grad():
            for name, value in model.named_buffers():
                value.copy_(buffers[name])


def real_tensor(value: Any) -> Tensor | None:
    """The first tensor of real numbers in an output: of a model of Hugging Face, its logits or last hidden state."""
    if isinstance(value, Tensor):
        return value if value.is_floating_point() else None
    for key in ("logits", "last_hidden_state"):
        if isinstance(getattr(value, key, None), Tensor):
            return getattr(value, key)
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, tuple | list) else ()
    return next((found for item in items if (found := real_tensor(item)) is not None), None)


def sent_back(output: Tensor, to: list[Tensor], probe: Tensor) -> list[Tensor | None]:
    """$J^T v$ for every tensor that the output may depend on; None where it does not."""
    if not output.requires_grad or not to:
        return [None] * len(to)
    return list(torch.autograd.grad(output, to, probe.to(output), retain_graph=True, allow_unused=True))


def probe_like(output: Tensor, generator: torch.Generator) -> Tensor:
    """A random vector of unit mean square norm for each input's output."""
    size = output[0].numel() if output.ndim else 1
    return torch.randn(output.shape, generator=generator) * size**-0.5


def parameter_shares(
    record: Record, parameters: list[nn.Parameter], probes: int, generator: torch.Generator
) -> list[float]:
    """$E |\\partial (v \\cdot f) / \\partial \\theta|^2$ of one input for each parameter, over random unit v."""
    shares, batch = [0.0] * len(parameters), max(1, len(record.output)) if record.output.ndim else 1
    for _ in range(probes):
        back = sent_back(record.output, list(parameters), probe_like(record.output, generator))
        for i, grad in enumerate(back):
            shares[i] += 0.0 if grad is None else float(grad.double().square().sum()) / batch / probes
    return shares


def gain_into(call: Call, before: list[Tensor], probes: int, generator: torch.Generator) -> tuple[float, Tensor] | None:
    """$\\chi_\\perp$ of a layer and what it is taken from: the nearest layer or normalisation that it reads.

    That is the last of `before` on which it depends (of queries, keys and values none is before the other); or its own
    input, where something else than elementwise functions lies between: pooling, attention, concatenation.
    """
    for earlier in reversed(before):
        found = square_gain(call.output, earlier, probes, generator)
        if found is None:
            continue
        if call.input is not None and call.input is not earlier and call.input.numel() != earlier.numel():
            found = square_gain(call.output, call.input, probes, generator) or found
            return found[0], call.input
        return found[0], earlier
    return None


def square_gain(output: Tensor, to: Tensor, probes: int, generator: torch.Generator) -> tuple[float, float] | None:
    """$E |J^T v|^2 / |v|^2$ of the partial Jacobian between two tensors, and its mean diagonal (0 if shapes differ).

    The first is the mean square by which gradients grow, $\\chi_\\perp$; the second the weight of a skip. None when the
    one doesn't depend on the other.
    """
    gains, diagonal = [], []
    for _ in range(probes):
        v = torch.randn(output.shape, generator=generator).to(output)
        (back,) = sent_back(output, [to], v)
        if back is None:
            return None
        gains.append(float(back.double().square().sum() / v.double().square().sum()))
        same = back.shape == v.shape
        diagonal.append(float((back.double() * v.double()).sum() / v.double().square().sum()) if same else 0.0)
    return sum(gains) / probes, sum(diagonal) / probes


def _arguments(x: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    args: tuple[Any, ...] = x if isinstance(x, tuple) else ()
    kwargs: dict[str, Any] = dict(x) if isinstance(x, Mapping) else {}
    if isinstance(x, Tensor):
        args = (x,)
    tensors = [t for t in (*args, *kwargs.values()) if isinstance(t, Tensor)]
    if not tensors:
        raise InputError(f"x is a tensor, a tuple of arguments or a mapping of keywords, got {type(x).__name__}")
    for t in tensors:
        if t.ndim and not len(t):
            raise InputError(f"x is a batch of at least one input, got shape {tuple(t.shape)}")
        if t.is_floating_point() and not bool(torch.isfinite(t).all()):
            raise InputError("x must be finite, got NaN or infinity")
    return tuple(_watched(a) for a in args), {key: _watched(value) for key, value in kwargs.items()}


def _watched(value: Any) -> Any:
    return value.detach().clone().requires_grad_() if _real(value) else value


def _real(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _blocks(model: nn.Module) -> set[int]:
    """Parts of containers that have modules inside, but no such parts of their own."""
    containers = [m for m in model.modules() if isinstance(m, nn.Sequential | nn.ModuleList)]
    parts = {id(child): child for c in containers for child in c.children() if next(child.children(), None)}
    return {key for key, part in parts.items() if not any(id(m) in parts for m in part.modules() if m is not part)}


def _whole(module: nn.Module) -> bool:
    """Modules whose insides are not called as modules, or must not be looked at one by one."""
    return isinstance(module, nn.MultiheadAttention | nn.RNNBase)


def _parents(model: nn.Module, name: str) -> list[nn.Module]:
    parts = name.split(".")
    return [model.get_submodule(".".join(parts[:i])) for i in range(1, len(parts))]
