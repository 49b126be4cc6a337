"""Whether two networks are the same up to the order of their channels."""

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
    """The permutation that makes two networks most alike, and what still differs.

    Attributes:
        permutation: of the second network.
        residuals: for each entry of the state dict, the distance that is left, relative to the larger norm of the two;
            counters that the network does not compute with are left out.
        activations: for each activation that a layer reads, the same on data: |tau f_b - f_a| / |f_a|.
        tolerance: up to which a residual counts as rounding.
    """

    permutation: Permutation
    residuals: dict[str, float] = field(repr=False)
    activations: dict[str, float] = field(repr=False)
    tolerance: float

    @property
    def worst(self) -> float:
        """The largest residual of all."""
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
    """Whether a permutation of channels turns one network into another, layer by layer: a natural isomorphism between
    them, with permutations for its components (Chen, Zhou and Yan, ICLR 2024, Definition 3.1).

    The permutation is the one that weight matching finds. A yes is certain, to the tolerance; a no is not for networks
    of several groups, where matching may miss the best permutation, nor for networks that differ by the scale of their
    channels or by copies of them: merge those first.

    Args:
        spec: of the network that both are parameters of.
        a: module or state dict.
        b: module or state dict.
        tolerance: of residuals, relative.
        restarts: of the matching.
        batches: inputs of the example's shapes, on which activations are compared too.

    Returns:
        True in a condition if the two are equivalent.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
        >>> spec = PermutationSpec.from_module(model, torch.randn(3, 4))
        >>> bool(functionally_equivalent(spec, model, Permutation.random(spec).apply(model)))
        True
    """
    check_spec(spec)
    if not number(tolerance, "tolerance") >= 0:
        raise InputError(f"tolerance must be 0 or more, got {tolerance}")
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
    """Whether an entry holds integers that no example reads, as batch norm's number of batches."""
    if value.is_floating_point() or value.is_complex():
        return False
    if not spec.graphs:
        return value.dim() == 0
    return not any(spec.ties.get(key, key) in traced.used() for traced in spec.graphs)


def _relative(first: Tensor, second: Tensor) -> float:
    if first.shape != second.shape:
        raise InputError(f"shapes {tuple(first.shape)} and {tuple(second.shape)} can't be compared")
    x, y = (t.detach().cpu().to(torch.complex128 if t.is_complex() else torch.float64) for t in (first, second))
    differ = bool((x != y).any())  # NaN does from itself
    if not differ:
        return 0.0
    size = torch.maximum(x.abs().max(), y.abs().max())  # squares of large numbers overflow, of small ones vanish
    x, y = x / size, y / size
    return float((x - y).norm() / torch.maximum(x.norm(), y.norm()))
