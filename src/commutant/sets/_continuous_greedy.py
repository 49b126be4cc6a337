"""Continuous greedy maximization of monotone submodular functions, with an upper bound on the optimum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .._checks import check_generator, is_whole, whole
from .._errors import InputError
from ._set_functions import SetFunction, gains_of, multilinear_gradient, values_of

_ROUNDINGS = 16
_SLACK = 1e-6  # rounding of values and gains, relative to the largest seen


@dataclass(frozen=True, eq=False)
class GreedyResult:
    """Subset found for a budget, and what is known about the optimum.

    Attributes:
        subset: Chosen elements: the best of the rounded subsets and the greedy one, `(n,)`.
        value: Its value.
        upper_bound: Value that no subset within the budget exceeds.
        rounded_value: Value of the best rounded subset.
        greedy_value: Value of the subset of the plain greedy algorithm.
        fractional: Point that continuous greedy reached, `(n,)`.
    """

    subset: Bool[Tensor, " n"]
    value: float
    upper_bound: float
    rounded_value: float
    greedy_value: float
    fractional: Float[Tensor, " n"]


def continuous_greedy(
    function: SetFunction,
    n: int,
    budget: Any,
    *,
    groups: Any = None,
    steps: int = 40,
    n_samples: int | None = None,
    generator: torch.Generator | None = None,
) -> GreedyResult:
    r"""Maximize a monotone submodular function of subsets of at most `budget` elements.

    The multilinear extension is followed from 0 in `steps` steps towards the best feasible direction, and the result is
    rounded by swaps, which keep its value in expectation. With exact derivatives and many steps the expected value is
    at least $1 - 1/e$ of the optimum, also with a budget for each group, where plain greedy has $1/2$.

    The upper bound needs no such constant: at each set S of the greedy path, no subset has more than f(S) plus the
    largest gains that fit the budget. It holds if the function is monotone and submodular. That cannot be checked in
    full: a violation on the greedy path, or a value above the bound, is an error, and others are not seen.

    Args:
        function: Set function, a callable from booleans `(..., n)` to values `(...)`; see `SetFunction` for methods
            that make it faster.
        n: Number of elements.
        budget: Largest number of chosen elements; with `groups`, a list with a number for each group, or one for all.
        groups: Group of each element, `(n,)`, numbered from 0.
        steps: Number of steps.
        n_samples: Number of sampled subsets for each derivative; by default derivatives are exact, as for
            `multilinear_extension`.
        generator: Source of randomness; by default torch's global generator.

    Raises:
        InputError: If an argument is not valid, or the function is seen not to be monotone and submodular.

    References:
        Calinescu et al. (2011), "Maximizing a Monotone Submodular Function Subject to a Matroid Constraint"; Chekuri et
        al. (2010) for the rounding; Minoux (1978) for the bound.

    Example:
        >>> from commutant.sets import FacilityLocation
        >>> found = continuous_greedy(FacilityLocation(torch.eye(4)), 4, 2)
        >>> found.value, found.upper_bound
        (2.0, 2.0)
    """
    whole("n", n)
    whole("steps", steps)
    check_generator(generator)
    if n_samples is not None:
        whole("n_samples", n_samples)
    owner, limits = _limits(n, budget, groups)
    greedy, greedy_value, bound = _greedy(function, owner, limits)
    point = torch.zeros(n, dtype=torch.float64, device=owner.device)
    bases = []
    for _ in range(steps):
        slopes = multilinear_gradient(function, point, n_samples, generator)
        bases.append(_largest(slopes, owner, limits))
        point = (point + bases[-1].double() / steps).clamp(max=1.0)
    rounded = torch.stack([_rounded(bases, owner, generator) for _ in range(_ROUNDINGS)]).unique(dim=0)
    values = values_of(function, rounded)
    best, rounded_value = rounded[values.argmax()], float(values.max())
    subset = best if rounded_value >= greedy_value else greedy
    value = max(rounded_value, greedy_value)
    if value > bound + _SLACK * max(abs(value), abs(bound)):
        raise InputError(
            f"the bound needs a monotone submodular function, and a subset has the value {value:.5g} above the bound "
            f"{bound:.5g}"
        )
    return GreedyResult(subset, value, max(bound, value), rounded_value, greedy_value, point)


def _limits(n: int, budget: Any, groups: Any) -> tuple[Tensor, list[int]]:
    """Return the group of each element, and the budget of each group."""
    if groups is None:
        if not is_whole(budget):
            raise InputError(f"budget must be a whole number without groups, got {budget!r}")
        owner = torch.zeros(n, dtype=torch.int64)
    else:
        owner = torch.as_tensor(groups)
        if owner.shape != (n,) or owner.is_floating_point() or owner.dtype == torch.bool:
            given = f"{owner.dtype} {tuple(owner.shape)}"
            raise InputError(f"groups must hold a whole number for each of {n} elements, got {given}")
        if not torch.equal(owner.unique().cpu(), torch.arange(len(owner.unique()))):
            raise InputError("groups must be numbered from 0 without a gap; use torch.unique(..., return_inverse=True)")
        owner = owner.long()
    sizes = torch.bincount(owner).tolist()
    limits: Any = budget.tolist() if isinstance(budget, Tensor | np.ndarray) else budget
    limits = [limits] * len(sizes) if is_whole(limits) else limits
    fits = isinstance(limits, list | tuple) and len(limits) == len(sizes)
    if not fits or not all(is_whole(b) and b >= 0 for b in limits):
        raise InputError(f"budget must be a whole number, or one for each of {len(sizes)} groups, got {budget!r:.60}")
    for group, (limit, size) in enumerate(zip(limits, sizes, strict=True)):
        if limit > size:
            where = f" of group {group}" if groups is not None else ""
            raise InputError(f"budget {limit} is larger than the number of elements{where}, {size}")
    return owner, [int(b) for b in limits]


def _largest(scores: Tensor, owner: Tensor, limits: list[int]) -> Tensor:
    """Return the elements with the largest scores within the budget of each group."""
    chosen = torch.zeros(len(owner), dtype=torch.bool, device=owner.device)
    for group, limit in enumerate(limits):
        members = (owner == group).nonzero()[:, 0]
        chosen[members[scores[members].topk(limit).indices]] = True
    return chosen


def _greedy(function: SetFunction, owner: Tensor, limits: list[int]) -> tuple[Tensor, float, float]:
    """Return the greedy subset, its value, and an upper bound on the optimum."""
    chosen = torch.zeros(len(owner), dtype=torch.bool, device=owner.device)
    left, bound, before, value, largest = list(limits), torch.inf, None, 0.0, 0.0
    while True:
        value = float(values_of(function, chosen[None])[0])
        gains = gains_of(function, chosen[None])[0].double()
        largest = max(largest, float(gains.abs().max()))
        _check_gains(gains, before, chosen, _SLACK * largest + 1e-14 * abs(value))
        outside = torch.where(chosen, 0.0, gains)
        bound = min(bound, value + float(outside[_largest(outside, owner, limits)].sum()))
        open_groups = torch.tensor([n > 0 for n in left], device=owner.device)[owner] & ~chosen
        if not bool(open_groups.any()):
            return chosen, value, bound
        before = outside
        pick = int(torch.where(open_groups, gains, -torch.inf).argmax())
        chosen[pick] = True
        left[int(owner[pick])] -= 1


def _check_gains(gains: Tensor, before: Tensor | None, chosen: Tensor, slack: float) -> None:
    """Check that no gain is negative, and that no gain has grown with the subset."""
    i = int(gains.argmin())
    if gains[i] < -slack:
        raise InputError(
            f"the bound needs a monotone function, and element {i} changes the value of a subset of "
            f"{int(chosen.sum())} elements by {float(gains[i]):.3g}"
        )
    if before is None:
        return
    growth = torch.where(chosen, -torch.inf, gains - before)
    i = int(growth.argmax())
    if growth[i] > slack:
        raise InputError(
            f"the bound needs a submodular function, and the gain of element {i} grows from {float(before[i]):.3g} to "
            f"{float(gains[i]):.3g} when another element is added"
        )


def _rounded(bases: list[Tensor], owner: Tensor, generator: torch.Generator | None) -> Tensor:
    """Merge subsets of equal weight into one, by swaps that keep the mean (swap rounding)."""
    merged = bases[0].clone()
    for weight, other in enumerate(bases[1:], 1):
        a, b = merged, other.clone()
        for group in owner[a ^ b].unique().tolist():
            members = owner == group
            leaving, entering = (t.nonzero()[:, 0].tolist() for t in (a & ~b & members, b & ~a & members))
            source = "cpu" if generator is None else generator.device
            draws = torch.rand(len(leaving), generator=generator, device=source).tolist()
            for i, j, draw in zip(leaving, entering, draws, strict=True):
                if draw * (weight + 1) < weight:
                    b[j], b[i] = False, True
                else:
                    a[i], a[j] = False, True
        merged = a
    return merged
