"""Matching of several networks in one frame, so that matching a to b to c equals matching a to c."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .._checks import check_generator, one_of, whole
from .._errors import InputError
from ..algebra import birkhoff_ascent
from ..parameters import Permutation, PermutationSpec
from ._given import State, check_spec, list_of_networks, state_of
from ._matching import weight_matching
from ._merging import interpolate
from ._problem import Problem
from ._soft import apply_softly, matrices_of
from ._straight_through import Loss, straight_through


def match_many(
    spec: PermutationSpec,
    networks: Sequence[nn.Module | State],
    *,
    method: Literal["mean", "universe", "ste"] = "mean",
    max_sweeps: int = 100,
    batches: Iterable[Any] | None = None,
    loss: Loss | None = None,
    generator: torch.Generator | None = None,
) -> list[Permutation]:
    """Return permutations of several networks that bring all of them close to each other.

    All networks are permuted into one common frame; matching pairs of networks does not give such a frame.

    Args:
        spec: Spec of all networks.
        networks: Two or more modules or state dicts.
        method: `"mean"` aligns each network in turn with the mean of the others until none improves (MergeMany of Git
            Re-Basin, 2023). This is coordinate ascent on the sum of the inner products of all pairs. `"universe"`
            continues with Frank-Wolfe steps of all networks and groups at once (C2M3, Crisostomi et al., 2024), and
            never ends lower. `"ste"` keeps the first network in place and lowers the loss of the mean of all networks
            on data. The weights of that mean are drawn anew for each batch (STE-MM, Ito et al., 2025).
        max_sweeps: Largest number of sweeps over the networks.
        batches: Batches of training data, for `"ste"`; one step for each.
        loss: Function from a module and a batch to a scalar, for `"ste"`. The first network must then be a module.
        generator: Random generator of the order in which networks are visited, and of the weights of the mean; None
            means a fixed seed.

    Returns:
        One permutation for each network, in the same order.

    Raises:
        InputError: There are fewer than two networks, or data and loss are missing or are given to a method that does
            not use them.
    """
    check_spec(spec)
    check_generator(generator)
    whole("max_sweeps", max_sweeps, 1)
    networks = list_of_networks(networks)
    generator = generator or torch.Generator().manual_seed(0)
    one_of("method", method, ("mean", "universe", "ste"))
    if len(networks) < 2:
        raise InputError(f"networks must hold at least two networks, got {len(networks)}")
    if any((given is None) == (method == "ste") for given in (batches, loss)):
        raise InputError('the method "ste" needs batches and a loss, and the others take none')
    if method == "ste":
        first, *others = networks
        if not isinstance(first, nn.Module):
            raise InputError(f'the method "ste" runs the first network: give a module, got {type(first).__name__}')
        assert batches is not None
        assert loss is not None
        found = straight_through(spec, first, others, batches, loss, mixed=True, generator=generator)
        return [Permutation(spec), *found]
    states = [state_of(network) for network in networks]
    start = [Permutation(spec), *(weight_matching(spec, states[0], state) for state in states[1:])]
    found = _towards_mean(spec, states, start, max_sweeps, generator)
    if method == "universe":
        moved = _towards_mean(spec, states, _frank_wolfe(spec, states, found), max_sweeps, generator)
        found = max(found, moved, key=lambda own: _agreement(spec, states, own))
    return found


def _towards_mean(
    spec: PermutationSpec,
    states: Sequence[State],
    found: Sequence[Permutation],
    max_sweeps: int,
    generator: torch.Generator | None,
) -> list[Permutation]:
    """Align each network in turn with the mean of the others until none gains."""
    found = list(found)
    moved = [p.apply(state) for p, state in zip(found, states, strict=True)]
    for _ in range(max_sweeps):
        progress = False
        for i in torch.randperm(len(states), generator=generator).tolist():
            center = interpolate([m for j, m in enumerate(moved) if j != i])
            problem = Problem(spec, center, states[i])
            better = weight_matching(spec, center, states[i], init=found[i])
            if problem.gain(better.tables, found[i].tables):
                found[i], moved[i], progress = better, better.apply(states[i]), True
        if not progress:
            break
    return found


def _agreement(spec: PermutationSpec, states: Sequence[State], found: Sequence[Permutation]) -> float:
    """Return the sum over all pairs of the inner products of their permuted weights."""
    total = 0.0
    for key in Problem(spec, states[0], states[0]).target:
        moved = [p.apply_to(key, s[spec.name_in(s, key)]).detach().double() for p, s in zip(found, states, strict=True)]
        total += float(sum(moved).square().sum() - sum(m.square().sum() for m in moved)) / 2  # type: ignore[union-attr]
    return total


def _frank_wolfe(spec: PermutationSpec, states: Sequence[State], start: Sequence[Permutation]) -> list[Permutation]:
    """Match all networks and groups at once, starting between `start` and the center of all permutations.

    Groups that depend on others, and groups that others depend on, stay as they are.
    """
    linked = {p for parents in spec.parents.values() for p in parents}
    free = [g for g in spec.sizes if not spec.parents[g] and g not in linked]
    keys = [key for key in Problem(spec, states[0], states[0]).target
            if any(g in free for label in spec.axes[key] for g in label.groups())]  # fmt: skip
    held = [Permutation(spec, {g: t for g, t in p.tables.items() if g not in free}) for p in start]
    weights = [
        {k: p.apply_to(k, s[spec.name_in(s, k)]).detach().cpu().double() for k in keys}
        for p, s in zip(held, states, strict=True)
    ]

    def value(*matrices: Tensor) -> Tensor:
        total = matrices[0].new_zeros(())
        for key in keys:
            moved = [
                apply_softly(spec, dict(zip(free, matrices[i * len(free) :], strict=False)), spec.axes[key], own[key])
                for i, own in enumerate(weights)
            ]
            total = total + (sum(moved).square().sum() - sum(m.square().sum() for m in moved)) / 2  # type: ignore[union-attr]
        return total

    middle = [(matrices_of(p)[g] + 1 / spec.sizes[g]) / 2 for p in start for g in free]
    tables, _ = birkhoff_ascent(value, middle) if free else ([], [])
    return [
        Permutation(spec, p.tables | dict(zip(free, tables[i * len(free) :], strict=False)))
        for i, p in enumerate(start)
    ]
