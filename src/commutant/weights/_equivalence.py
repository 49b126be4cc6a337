"""Equivalence of two networks up to the order of their channels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf, isnan
from typing import Any

import torch
from torch import Tensor, nn

from .._errors import InputError
from ..parameters import Permutation, PermutationSpec
from ._given import check_spec, number
from ._matching import State, state_of, weight_matching


@dataclass(frozen=True)
class Equivalence:
    """Permutation that makes two networks most similar, and the differences that remain.

    Attributes:
        permutation: Permutation of the second network.
        residuals: Remaining distance for each entry of the state dict, relative to the larger of the two norms.
            Counters that the network does not use are left out.
        activations: Remaining distance for each activation that a layer reads, |tau f_b - f_a| with the permutation
            tau, relative to the larger of the two norms.
        tolerance: Largest residual that counts as rounding.
    """

    permutation: Permutation
    residuals: dict[str, float] = field(repr=False)
    activations: dict[str, float] = field(repr=False)
    tolerance: float

    @property
    def worst(self) -> float:
        """Largest of all residuals."""
        found = (*self.residuals.values(), *self.activations.values())
        return max((inf if isnan(x) else x for x in found), default=0.0)

    def __bool__(self) -> bool:
        return self.worst <= self.tolerance


def functionally_equivalent(
    spec: PermutationSpec,
    a: nn.Module | State,
    b: nn.Module | State,
    *,
    tolerance: float = 1e-4,
    restarts: int = 3,
    batches: Iterable[Any] = (),
) -> Equivalence:
    """Check whether a permutation of channels turns one network into another, layer by layer.

    This is a natural isomorphism between the networks whose components are permutations (Chen, Zhou and Yan, ICLR 2024,
    Definition 3.1). The permutation is found by weight matching. A positive answer is certain up to the tolerance. A
    negative answer is not, because matching may miss the best permutation of several groups. Networks that differ in
    the scale of their channels, or by copies of channels, are reported as different; merge their channels first.

    Args:
        spec: Spec of both networks.
        a: Module or state dict.
        b: Module or state dict.
        tolerance: Largest relative residual that counts as rounding.
        restarts: Number of further runs of weight matching from random permutations.
        batches: Inputs of the example's shapes on which activations are compared too.

    Returns:
        An `Equivalence`, which is truthy if the networks are equivalent.

    Raises:
        InputError: The tolerance is negative, or the parameters do not fit the spec.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
        >>> spec = PermutationSpec.from_module(model, torch.randn(3, 4))
        >>> bool(functionally_equivalent(spec, model, Permutation.random(spec).apply(model)))
        True
    """
    check_spec(spec)
    if not number(tolerance, "tolerance") >= 0:
        raise InputError(f"tolerance must be at least 0, got {tolerance}")
    states = state_of(a), state_of(b)
    permutation = weight_matching(spec, *states, restarts=restarts, generator=torch.Generator().manual_seed(0))
    residuals = {
        key: _relative(value, permutation.apply_to(key, states[1][spec.name_in(states[1], key)]))
        for key, value in states[0].items()
        if not _is_counter(spec, key, value)
    }
    activations: dict[str, float] = {}
    for batch in batches:
        first, second = (spec.activations(state, batch) for state in states)
        for node, labels in spec.reads.items():
            gap = _relative(first[node], permutation.apply_to_labels(labels, second[node]))
            activations[node] = max(gap, activations.get(node, 0.0))
    return Equivalence(permutation, residuals, activations, tolerance)


def _is_counter(spec: PermutationSpec, key: str, value: Tensor) -> bool:
    """Return whether an entry holds integers that no example reads, such as the number of batches in batch norm."""
    if value.is_floating_point() or value.is_complex():
        return False
    if not spec.graphs:
        return value.dim() == 0
    return not any(spec.ties.get(key, key) in traced.used() for traced in spec.graphs)


def _relative(first: Tensor, second: Tensor) -> float:
    """Return the distance of two tensors relative to the larger of their norms."""
    if first.shape != second.shape:
        raise InputError(f"shapes {tuple(first.shape)} and {tuple(second.shape)} can't be compared")
    x, y = (t.detach().cpu().to(torch.complex128 if t.is_complex() else torch.float64) for t in (first, second))
    differ = bool((x != y).any())  # NaN differs from itself
    if not differ:
        return 0.0
    size = torch.maximum(x.abs().max(), y.abs().max())  # squares could overflow or underflow
    x, y = x / size, y / size
    return float((x - y).norm() / torch.maximum(x.norm(), y.norm()))
