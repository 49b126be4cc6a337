"""Calls of a module, with its own or other parameters, that do not change it."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .._errors import InputError


@contextlib.contextmanager
def unchanged(module: nn.Module) -> Iterator[None]:
    """Restore a module on exit, also after an exception.

    Parameters, buffers and their values, submodules, modes, hooks and other attributes are restored. The values of
    parameters are not copied, so writes into them in place remain. A lazy module keeps the weights that it creates.

    Args:
        module: Module to restore.

    Example:
        >>> norm = nn.BatchNorm1d(2)
        >>> with unchanged(norm):
        ...     _ = norm.eval()(torch.randn(4, 2)), norm.train()(torch.randn(4, 2))
        >>> int(norm.num_batches_tracked), norm.training
        (0, True)
    """
    parts = [part for part in module.modules() if not isinstance(part, torch.jit.ScriptModule) and not _lazy(part)]
    saved = [(part, type(part), dict(vars(part)), _containers(part)) for part in parts]
    buffers = {id(buffer): buffer for part in parts for buffer in part._buffers.values() if buffer is not None}
    values = [(buffer, buffer.detach().clone()) for buffer in buffers.values()]
    try:
        yield
    finally:
        for part, kind, attributes, containers in saved:
            part.__class__ = kind  # parametrization changes the class
            vars(part).clear()
            vars(part).update(attributes)
            for held, before in containers:
                held.clear()
                held.extend(before) if isinstance(held, list) else held.update(before)
        with torch.no_grad():
            for buffer, value in values:
                buffer.copy_(value)


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module in evaluation mode, and restore it on exit as `unchanged` does.

    Modes are set as flags, because `eval()` may merge adapters into weights.

    Args:
        module: Module to evaluate.

    Example:
        >>> dropout = nn.Dropout()
        >>> with evaluating(dropout):
        ...     dropout(torch.ones(3))
        tensor([1., 1., 1.])
        >>> dropout.training
        True
    """
    modes = [(part, part.training) for part in module.modules()]
    with unchanged(module):
        try:
            for part, _ in modes:
                part.training = False
            yield
        finally:
            for part, mode in modes:
                part.training = mode


def called_with(
    module: nn.Module, tensors: Mapping[str, Tensor], args: tuple[Any, ...], kwargs: dict[str, Any] | None = None
) -> Any:
    """Call a module with other parameters and buffers in place of its own.

    Args:
        module: Module to call; it keeps its own tensors.
        tensors: Replacements by name, as in `module.named_parameters()` or `named_buffers()`. A tensor that the module
            holds under several names (a module used twice, tied weights) is replaced under all of them.
        args: Positional arguments of the call.
        kwargs: Keyword arguments of the call.

    Returns:
        The output of the module.

    Raises:
        InputError: The module holds a compiled TorchScript module.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> twice = nn.Sequential(layer, layer)
        >>> called_with(twice, {"0.weight": torch.eye(2), "0.bias": torch.ones(2)}, (torch.zeros(2),))
        tensor([2., 2.])
        >>> twice[0].weight is layer.weight and isinstance(layer.weight, nn.Parameter)
        True
    """
    if any(isinstance(part, torch.jit.ScriptModule) for part in module.modules()):
        raise InputError(f"{type(module).__name__} holds a TorchScript module, whose parameters can't be replaced")
    # torch swaps name by name: a module with two names would be swapped twice, and restored to the first swap
    first: dict[int, str] = {}
    places: dict[str, Tensor] = {}
    for path, part in module.named_modules():
        for name, own in (*part._parameters.items(), *part._buffers.items()):
            if own is not None:
                place = f"{path}.{name}" if path else name
                original = first.setdefault(id(own), place)
                if original in tensors:
                    places[place] = tensors[original]
    return functional_call(module, places, args, kwargs, tie_weights=False)


def _lazy(part: nn.Module) -> bool:
    tensors = (*part._parameters.values(), *part._buffers.values())
    return any(isinstance(t, nn.parameter.UninitializedParameter | nn.parameter.UninitializedBuffer) for t in tensors)


def _containers(part: nn.Module) -> list[tuple[Any, Any]]:
    """Return the dictionaries, lists and sets that a module holds, parameters and hooks included, with copies."""
    return [(held, copy.copy(held)) for held in vars(part).values() if isinstance(held, dict | list | set)]
