"""Checks of the arguments that the functions of this room share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from .._errors import InputError
from ..parameters import PermutationSpec

State = Mapping[str, Tensor]


def state_of(parameters: nn.Module | State, name: str = "network") -> State:
    """Return the state dict of a module, or the mapping itself.

    Raises:
        InputError: The argument is neither of the two, or has an entry that is not a tensor.
    """
    if isinstance(parameters, nn.Module):
        return {k: v for k, v in parameters.state_dict().items() if isinstance(v, Tensor)}
    if not isinstance(parameters, Mapping):
        raise InputError(f"the {name} must be a torch.nn.Module or a state dict, got {_shown(parameters)}")
    if isinstance(parameters, dict):  # checkpoints are read entry by entry
        for key, value in parameters.items():
            if not isinstance(value, Tensor):
                raise InputError(f"the {name} must hold tensors only, got {_shown(value)} at {key!r}")
    return parameters


def check_spec(spec: Any) -> None:
    """Check that the first argument is a spec.

    Raises:
        InputError: It is not; the message says how to derive one.
    """
    if not isinstance(spec, PermutationSpec):
        raise InputError(
            f"spec must be a PermutationSpec, got {_shown(spec)}: derive it with "
            "PermutationSpec.from_module(model, example_inputs) and pass it first"
        )


def check_module(model: Any, name: str) -> None:
    """Check that an argument is a module.

    Raises:
        InputError: It is not; the message names the argument.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"{name} must be a torch.nn.Module, got {_shown(model)}")


def list_of_networks(networks: Any, name: str = "networks") -> list[nn.Module | State]:
    """Return networks as a list.

    Raises:
        InputError: A single network is given where several are expected.
    """
    if isinstance(networks, nn.Module | Mapping | Tensor | str) or not isinstance(networks, Iterable):
        raise InputError(f"{name} must be a list of modules or state dicts, got {_shown(networks)}: pass [a, b]")
    return list(networks)


def shares_of(weights: Any, count: int) -> list[float]:
    """Return the weights of several networks in their mean; equal weights by default.

    Raises:
        InputError: The number of weights is wrong, one is not a number, or they do not sum to one.
    """
    if weights is None:
        return [1 / count] * count
    try:
        shares = [number(w, "a weight") for w in weights]
    except TypeError:
        raise InputError(f"weights must be {count} numbers that sum to one, got {_shown(weights)}") from None
    if len(shares) != count or not abs(math.fsum(shares) - 1) <= 1e-6:
        raise InputError(f"weights must be {count} numbers that sum to one, got {shares}")
    return shares


def number(value: Any, what: str) -> float:
    """Return a number from a Python or NumPy scalar, or from a tensor with one real element, on any device.

    Raises:
        InputError: The value is anything else; the message says `what` it is.
    """
    if isinstance(value, Tensor):
        if value.numel() != 1 or value.is_complex() or value.is_meta:
            raise InputError(f"{what} must be one real number, got {_shown(value)}")
        return float(value.detach())
    if isinstance(value, str | bytes | bool | complex):
        raise InputError(f"{what} must be one real number, got {value!r}")
    try:
        return float(value)
    except (TypeError, ValueError):
        raise InputError(f"{what} must be one real number, got {_shown(value)}") from None


def batches_of(batches: Any) -> Iterable[Any]:
    """Return batches of data.

    Raises:
        InputError: The argument is a single tensor or mapping, which is one batch, or is not iterable.
    """
    if isinstance(batches, Tensor | Mapping | str | nn.Module) or not isinstance(batches, Iterable):
        raise InputError(f"batches must be an iterable of batches, got {_shown(batches)}: pass a list such as [x]")
    return batches


def check_callable(function: Any, name: str, what: str) -> None:
    """Check that an argument is a function.

    Raises:
        InputError: It is not; the message names the argument and says `what` it must be.
    """
    if not callable(function) or isinstance(function, type):
        raise InputError(f"{name} must be {what}, got {_shown(function)}")


def _shown(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)} and type {value.dtype}"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return f"an object of type {type(value).__name__}"
