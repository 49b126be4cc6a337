"""Check of permuted parameters on inputs that were not used to derive the symmetries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from .._errors import InputError
from ..parameters import Permutation, as_arguments, difference

_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}  # relative


def refuse_a_change(
    network: nn.Module,
    state: Mapping[str, Tensor],
    permutation: Permutation,
    examples: Sequence[Any],
    outputs: Callable[[Any], Any] | None,
    name: object,
) -> None:
    """Refuse a permutation that changes what a network computes on fresh inputs.

    Args:
        network: Network of the architecture; its parameters and dtype are overwritten.
        state: Parameters before the permutation.
        permutation: Permutation to test.
        examples: Inputs, as `PermutationSpec.from_module` takes them.
        outputs: Function that selects the part of the output to compare, or None for all of it.
        name: Name of the checkpoint, for the message.

    Raises:
        InputError: The outputs differ.
    """
    given = dict(state)
    moved = {key: permutation.apply_to(key, value) for key, value in given.items()}
    for dtype, tolerance in _TOLERANCE.items():
        try:
            before, again, after = (
                _computed(network.to(dtype), own, examples, outputs, dtype) for own in (given, given, moved)
            )
        except (RuntimeError, NotImplementedError):  # an operator without float64
            continue
        if max(map(difference, before, again)) < tolerance <= (worst := max(map(difference, before, after))):
            raise InputError(
                f"the permuted {name} computes a different function on fresh inputs (relative change {worst:.2g}), so "
                "nothing was written: the example misses paths of the model; give inputs that take them by --also"
            )
        return


def _computed(
    network: nn.Module,
    state: Mapping[str, Tensor],
    examples: Sequence[Any],
    outputs: Callable[[Any], Any] | None,
    dtype: torch.dtype,
) -> list[list[Tensor]]:
    network.load_state_dict(dict(state), strict=False)
    results = []
    for example in examples:
        args, kwargs = pytree.tree_map(
            lambda x: x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x, as_arguments(example)
        )
        with torch.no_grad():
            found = network(*args, **kwargs)
        found = outputs(found) if outputs else found
        leaves = pytree.tree_leaves(dict(found) if isinstance(found, Mapping) else found)
        results.append([x for x in leaves if isinstance(x, Tensor)])
    return results
