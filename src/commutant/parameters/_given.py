"""Checks of arguments that the modules of this room share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from .._errors import InputError


def kind_of(value: object) -> str:
    """Describe an argument in an error: a class by its name, a string as it is, anything else by its type."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return repr(value[:60]) if isinstance(value, str) else f"a {type(value).__name__}"


def check_module(model: object) -> None:
    """Check that an argument is a module; the error says how to get one."""
    if isinstance(model, nn.Module):
        return
    hint = "; create an instance of it" if isinstance(model, type) else ""
    hint = "; load the model first, for example with from_pretrained" if isinstance(model, str) else hint
    raise InputError(f"model must be a torch.nn.Module, got {kind_of(model)}{hint}")


def check_example(example: object, name: str) -> None:
    """Check that an example holds tensors and no NumPy arrays."""
    leaves = pytree.tree_leaves(dict(example) if isinstance(example, Mapping) else example)
    if any(isinstance(x, np.ndarray) for x in leaves):
        raise InputError(f"{name} must hold tensors, got a NumPy array; convert it with torch.from_numpy")
    if not any(isinstance(x, Tensor) for x in leaves):
        raise InputError(
            f"{name} must be a tensor, a tuple of arguments or a mapping of keywords, got {kind_of(example)}"
        )


def check_examples(also: object) -> None:
    """Check that further examples are a list, not a single one."""
    if isinstance(also, Tensor | Mapping | str) or not isinstance(also, Sequence):
        raise InputError(f"also must be a list of examples, got {kind_of(also)}; write also=[example]")
    for example in also:
        check_example(example, "each example of also")


def check_state(state: Any, name: str = "the parameters") -> None:
    """Check that an argument is a mapping, as a state dict is."""
    if not isinstance(state, Mapping):
        hint = "; pass its state_dict()" if isinstance(state, nn.Module) else ""
        raise InputError(f"{name} must be a mapping from names to tensors, got {kind_of(state)}{hint}")


def check_tensors(state: Mapping[str, Any]) -> None:
    """Check that all entries of a state dict are tensors."""
    for key, value in state.items():
        if not isinstance(value, Tensor):
            raise InputError(f"{key!r} must be a tensor, got {kind_of(value)}")
