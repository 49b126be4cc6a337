"""Record of the outputs of a network's modules in one forward pass, attached to the graph for backward probes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
import torch.utils.checkpoint
from torch import Tensor, nn

from ..._errors import InputError

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm, nn.GroupNorm, nn.InstanceNorm2d, nn.RMSNorm)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, nn.InstanceNorm1d, nn.InstanceNorm2d)


@dataclass
class Call:
    """Call of a module in a forward pass.

    Attributes:
        name: Name of the module, with a number from the second call on (`"lstm#2"`).
        module: Module that was called.
        input: First real tensor among its inputs, or None (an embedding).
        output: First real tensor among its outputs, attached to the graph.
        block: Whether it is a part of a `Sequential` or `ModuleList` with modules inside, rather than a single layer.
        passed: Copy of the output that goes on through the network, or None.
    """

    name: str
    module: nn.Module
    input: Tensor | None
    output: Tensor
    block: bool
    passed: Tensor | None = None

    @property
    def normalizes(self) -> bool:
        """True if the module normalizes its inputs to unit variance."""
        return isinstance(self.module, NORMS)

    @property
    def weight(self) -> Tensor | None:
        """First own parameter of the module with at least two axes, or None."""
        return next((p for p in self.module.parameters(recurse=_whole(self.module)) if p.ndim >= 2), None)


@dataclass
class Record:
    """Record of one forward pass.

    Attributes:
        calls: Calls of modules in the order in which they ended.
        inputs: Real tensors among the arguments.
        output: First real tensor among the outputs, which probes start from.
        outputs: All real tensors among the outputs that depend on parameters or inputs.
        trainable: Parameters that require a gradient; all parameters if none does.
    """

    calls: list[Call]
    inputs: list[Tensor]
    output: Tensor
    outputs: list[Tensor]
    trainable: list[nn.Parameter]

    @property
    def layers(self) -> list[Call]:
        """Calls of single modules that have weights."""
        return [call for call in self.calls if not call.block and call.weight is not None]


@contextmanager
def recorded(model: nn.Module, x: Any) -> Iterator[Record]:
    """Run the model once on a tensor, a tuple of arguments or a mapping of keywords, and record its modules' outputs.

    Dropout is off; batch normalization keeps its mode. Buffers (running statistics), gradients, modes and the global
    random state are left unchanged.

    Raises:
        InputError: If the pass fails or gives no real tensor that depends on parameters or inputs.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"model must be an nn.Module, got {type(model).__name__}")
    if any(isinstance(p, nn.parameter.UninitializedParameter) for p in model.parameters()):
        raise InputError(f"{type(model).__name__} has layers without weights yet: run it on one batch first")
    args, kwargs = _arguments(x)
    calls: list[Call] = []
    entered: dict[int, Tensor] = {}  # inputs of blocks, before a block can change them
    seen: dict[str, int] = {}
    blocks = _blocks(model)
    buffers = {name: (value, value.clone()) for name, value in model.named_buffers()}
    # only normalization over the batch is measured in training mode; everything else in it is random
    quiet = [m for m in model.modules() if m.training and not isinstance(m, _BATCH_NORMS)]
    switched = [(p, p.requires_grad) for p in model.parameters()]
    handles = []

    def hook(name: str, block: bool):  # type: ignore[no-untyped-def]
        def keep(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any], output: Any) -> Any:
            value = real_tensor(output)
            if value is None:
                return None
            seen[name] = seen.get(name, 0) + 1
            label = name if seen[name] == 1 else f"{name}#{seen[name]}"
            entry = entered.pop(id(module), None) if block else real_tensor((*given, *named.values()))
            # later modules may work in place, so they get a copy
            passed = value.clone() if output is value else None
            calls.append(Call(label, module, entry, value, block, passed))
            return passed

        return keep

    for name, module in model.named_modules():
        whole = _whole(module) or _owns(module)
        inside = any(_whole(parent) for parent in _parents(model, name))
        if not inside and (whole or id(module) in blocks):
            label = name or type(module).__name__
            if not whole:
                handles.append(module.register_forward_pre_hook(_keep_input(entered), with_kwargs=True))
            handles.append(module.register_forward_hook(hook(label, not whole), with_kwargs=True))
    try:
        for m in quiet:
            m.training = False
        for p, _ in switched:
            p.requires_grad_(p.is_floating_point())
        with torch.enable_grad():
            try:
                with torch.random.fork_rng(devices=[]), without_checkpointing():
                    given = model(*[_copied(a) for a in args], **{key: _copied(v) for key, v in kwargs.items()})
                output = real_tensor(given, attached=True)
            except InputError:
                raise
            except Exception as error:
                raise InputError(f"{type(model).__name__} fails on this input ({_first_line(error)})") from error
            if output is None or not output.requires_grad:
                raise InputError(f"{type(model).__name__} gives no real numbers that depend on parameters or inputs")
            for handle in handles:  # a module called again in the backward pass is not another layer
                handle.remove()
            real = [p for p, _ in switched if p.requires_grad]
            trainable = [p for p, flag in switched if flag and p.requires_grad] or real
            outputs = [*{id(t): t for t in (output, *_attached(given))}.values()]
            yield Record(calls, [t for t in (*args, *kwargs.values()) if _real(t)], output, outputs, trainable)
    finally:
        for handle in handles:
            handle.remove()
        for m in quiet:
            m.training = True
        for p, flag in switched:
            p.requires_grad_(flag)
        for name, (value, before) in buffers.items():
            with torch.no_grad():
                value.copy_(before)
            owner, _, leaf = name.rpartition(".")
            model.get_submodule(owner)._buffers[leaf] = value


@contextmanager
def without_checkpointing() -> Iterator[None]:
    """Disable gradient checkpointing, because a module called again in the backward pass is not another layer."""

    class Plain:
        @staticmethod
        def apply(function: Any, _: bool, *args: Any) -> Any:
            return function(*args)

    def around(*_: Any, **__: Any) -> Iterator[None]:
        yield

    with ExitStack() as stack:
        for name, plain in (("CheckpointFunction", Plain), ("_checkpoint_without_reentrant_generator", around)):
            if hasattr(torch.utils.checkpoint, name):
                stack.enter_context(mock.patch.object(torch.utils.checkpoint, name, plain))
        yield


def _keep_input(entered: dict[int, Tensor]):  # type: ignore[no-untyped-def]
    def keep(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        value = real_tensor((*given, *named.values()))
        if value is None:
            return None
        entered[id(module)] = value
        return tuple(v.clone() if v is value else v for v in given), {
            key: v.clone() if v is value else v for key, v in named.items()
        }

    return keep


def real_tensor(value: Any, *, attached: bool = False) -> Tensor | None:
    """Return the first real tensor of an output, for Hugging Face models the logits or the last hidden state.

    With `attached`, tensors that depend on parameters or inputs come first.
    """
    if isinstance(value, Tensor):
        return value if value.is_floating_point() else None
    for key in ("logits", "last_hidden_state"):
        if isinstance(getattr(value, key, None), Tensor):
            return getattr(value, key)
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, tuple | list) else ()
    found = [t for item in items if (t := real_tensor(item, attached=attached)) is not None]
    depending = [t for t in found if t.requires_grad] if attached else []
    return next(iter([*depending, *found]), None)


def _attached(value: Any) -> list[Tensor]:
    """Return all real tensors of an output that depend on parameters or inputs."""
    if isinstance(value, Tensor):
        return [value] if value.is_floating_point() and value.requires_grad else []
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, tuple | list) else ()
    return [t for item in items for t in _attached(item)]


def sent_back(output: Tensor, to: list[Tensor], probe: Tensor) -> list[Tensor | None]:
    """Return $J^T v$ for every tensor, or None where the output does not depend on it."""
    attached = [t for t in to if t.requires_grad]
    if not output.requires_grad or not attached:
        return [None] * len(to)
    found = iter(torch.autograd.grad(output, attached, probe.to(output), retain_graph=True, allow_unused=True))
    return [next(found) if t.requires_grad else None for t in to]


def probe_like(output: Tensor, generator: torch.Generator) -> Tensor:
    """Return a random vector of unit mean square norm for the output of each input."""
    size = output[0].numel() if output.ndim else 1
    return torch.randn(output.shape, generator=generator) * size**-0.5


def parameter_shares(
    record: Record, parameters: list[nn.Parameter], probes: int, generator: torch.Generator
) -> list[float]:
    """Return $E |\\partial (v \\cdot f) / \\partial \\theta|^2$ of one input for each parameter, over random unit v."""
    shares, batch = [0.0] * len(parameters), max(1, len(record.output)) if record.output.ndim else 1
    for _ in range(probes):
        back = sent_back(record.output, list(parameters), probe_like(record.output, generator))
        for i, grad in enumerate(back):
            shares[i] += 0.0 if grad is None else float(grad.double().square().sum()) / batch / probes
    return shares


def gain_into(call: Call, before: list[Tensor], probes: int, generator: torch.Generator) -> tuple[float, Tensor] | None:
    """Return $\\chi_\\perp$ of a layer with the tensor it refers to: the output of the nearest layer or normalization.

    That is the last of `before` on which the layer depends (queries, keys and values do not depend on each other). If
    pooling, attention or concatenation lie between, it is the layer's own input.
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
    """Return $E |J^T v|^2 / |v|^2$ of the Jacobian between two tensors, and its mean diagonal (0 if shapes differ).

    The first is the mean square growth $\\chi_\\perp$ of gradients, the second the weight of a skip. Return None if the
    output does not depend on the other tensor.
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
        raise InputError(f"x must be a tensor, a tuple of arguments or a mapping of keywords, got {type(x).__name__}")
    for t in tensors:
        if t.ndim and not len(t):
            raise InputError(f"x must be a batch of at least one input, got shape {tuple(t.shape)}")
        if t.is_floating_point() and not bool(torch.isfinite(t).all()):
            raise InputError("x must be finite, got NaN or infinity")
    return tuple(_watched(a) for a in args), {key: _watched(value) for key, value in kwargs.items()}


def _watched(value: Any) -> Any:
    return value.detach().clone().requires_grad_() if _real(value) else value


def _copied(value: Any) -> Any:
    """Return a copy of a tensor, as the first operation of a model may work in place."""
    return value.clone() if _real(value) else value


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error) or 'no message').splitlines()[0]}"


def _real(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _blocks(model: nn.Module) -> set[int]:
    """Return the parts of containers that have modules inside, but no such parts of their own."""
    containers = [m for m in model.modules() if isinstance(m, nn.Sequential | nn.ModuleList)]
    parts = {id(child): child for c in containers for child in c.children() if next(child.children(), None)}
    return {key for key, part in parts.items() if not any(id(m) in parts for m in part.modules() if m is not part)}


def _whole(module: nn.Module) -> bool:
    """Check whether the submodules of a module are not called as modules, or must not be measured separately."""
    return isinstance(module, nn.MultiheadAttention | nn.RNNBase) or hasattr(module, "parametrizations")


def _owns(module: nn.Module) -> bool:
    """Return whether a module is one layer: without submodules, or with weights only of its own."""
    inside = [p for child in module.children() for p in child.parameters()]
    return not next(module.children(), None) or (not inside and next(module.parameters(), None) is not None)


def _parents(model: nn.Module, name: str) -> list[nn.Module]:
    parts = name.split(".")
    return [model.get_submodule(".".join(parts[:i])) for i in range(1, len(parts))]
