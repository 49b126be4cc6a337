"""State dicts as vectors: interpolation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .._errors import InputError
from ._given import State, state_of


def interpolate(
    networks: Sequence[nn.Module | State], weights: Sequence[float | int] | None = None
) -> dict[str, Tensor]:
    """The weighted mean of several networks' parameters and buffers, in the format and types of the first.

    With one weight of one and the others zero, the result is that network to the last bit. Entries that are no
    floating-point numbers (counters) come from the first network.

    Args:
        networks: modules or state dicts with the same entries.
        weights: that sum to one; equal by default. Negative ones extrapolate.

    Raises:
        InputError: entries, shapes or types that differ, named; weights of another number or sum.

    Example:
        >>> a, b = {"w": torch.tensor([0.0, 2.0])}, {"w": torch.tensor([1.0, 4.0])}
        >>> interpolate([a, b], [0.75, 0.25])
        {'w': tensor([0.2500, 2.5000])}
    """
    states = [state_of(network) for network in networks]
    if not states:
        raise InputError("at least one network is needed")
    shares = [1 / len(states)] * len(states) if weights is None else [float(w) for w in weights]
    if len(shares) != len(states) or not abs(sum(shares) - 1) <= 1e-6:
        raise InputError(f"{len(states)} weights that sum to one are needed, got {shares}")
    for i, state in enumerate(states[1:], start=1):
        same_entries(states[0], state, i)
    alone = [i for i, share in enumerate(shares) if share != 0]
    if len(alone) == 1 and shares[alone[0]] == 1:
        return {key: value.clone() for key, value in states[alone[0]].items()}
    result = {}
    for key, first in states[0].items():
        if not (first.is_floating_point() or first.is_complex()):
            result[key] = first.clone()
            continue
        wide = torch.complex128 if first.is_complex() else torch.float64
        total = torch.zeros(first.shape, dtype=wide, device=first.device)
        for share, state in zip(shares, states, strict=True):
            total += share * state[key].to(total)
        result[key] = total.to(first.dtype)
    return result


def same_entries(first: State, other: State, number: int) -> None:
    if missing := sorted(set(first) ^ set(other)):
        where = "the first" if missing[0] in first else f"network {number}"
        raise InputError(f"{missing[0]!r} is in {where} only ({len(missing)} entries differ)")
    for key, value in first.items():
        if value.shape != other[key].shape or value.dtype != other[key].dtype:
            raise InputError(
                f"{key!r} is {value.dtype} of shape {tuple(value.shape)} in the first network, {other[key].dtype} of "
                f"shape {tuple(other[key].shape)} in network {number}"
            )
