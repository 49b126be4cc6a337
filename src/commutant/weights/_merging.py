"""Interpolation of networks: weighted means of state dicts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .._errors import InputError
from ._given import State, list_of_networks, shares_of, state_of


def interpolate(
    networks: Sequence[nn.Module | State], weights: Sequence[float | int] | None = None
) -> dict[str, Tensor]:
    """Return the weighted mean of the parameters and buffers of several networks, in the dtypes of the first.

    With one weight of one and the others zero, the result is that network to the last bit. Entries that are equal in
    all networks are copied. Zero-dimensional integers (counters) come from the first network.

    Args:
        networks: Modules or state dicts with the same entries.
        weights: Weights of the networks, which sum to one; equal by default. Negative weights extrapolate.

    Raises:
        InputError: Entries, shapes or dtypes differ, integers or booleans differ, the mean is not finite, or the number
            or sum of the weights is wrong.

    Example:
        >>> a, b = {"w": torch.tensor([0.0, 2.0])}, {"w": torch.tensor([1.0, 4.0])}
        >>> interpolate([a, b], [0.75, 0.25])
        {'w': tensor([0.2500, 2.5000])}
    """
    states = [state_of(network) for network in list_of_networks(networks)]
    if not states:
        raise InputError("at least one network is needed")
    shares = shares_of(weights, len(states))
    for i, state in enumerate(states[1:], start=1):
        same_entries(states[0], state, i)
    counted = [(share, state) for share, state in zip(shares, states, strict=True) if share != 0]
    if len(counted) == 1 and counted[0][0] == 1:
        return {key: value.clone() for key, value in counted[0][1].items()}
    return {key: _mean_of(key, [(share, state[key]) for share, state in counted], states[0][key]) for key in states[0]}


def _mean_of(key: str, parts: Sequence[tuple[float, Tensor]], first: Tensor) -> Tensor:
    """Return the weighted mean of one entry of several networks."""
    if all(torch.equal(first, value) for _, value in parts):
        return first.clone()
    if not (first.is_floating_point() or first.is_complex()):
        if first.dim():
            raise InputError(
                f"{key!r} holds {first.dtype} and differs between the networks: it has no mean; make it the same in all"
            )
        return first.clone()
    wide = torch.complex128 if first.is_complex() else torch.float64
    total = torch.zeros(first.shape, dtype=wide, device=first.device)
    for share, value in parts:
        total += share * value.to(total)
    result = total.to(first.dtype)
    if not bool(result.isfinite().all()):
        given = all(bool(value.isfinite().all()) for _, value in parts)
        raise InputError(
            f"the mean of {key!r} exceeds the range of {first.dtype}"
            if given
            else f"{key!r} holds NaN or infinities in one of the networks: it has no mean"
        )
    return result


def same_entries(first: State, other: State, number: int) -> None:
    """Check that a network has the entries, shapes and dtypes of the first.

    Raises:
        InputError: An entry differs; the message names it.
    """
    if missing := sorted(set(first) ^ set(other)):
        where = "the first" if missing[0] in first else f"network {number}"
        raise InputError(f"{missing[0]!r} is in {where} only ({len(missing)} entries differ)")
    for key, value in first.items():
        if value.shape != other[key].shape or value.dtype != other[key].dtype:
            raise InputError(
                f"{key!r} is {value.dtype} of shape {tuple(value.shape)} in the first network, {other[key].dtype} of "
                f"shape {tuple(other[key].shape)} in network {number}"
            )
