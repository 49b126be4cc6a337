"""Matching with rotations: gains are folded away, then residual streams are rotated and other groups permuted."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .._checks import whole
from .._errors import InputError
from ..parameters import Permutation, PermutationSpec, act_linearly, part_rows
from ._given import State, check_module, check_spec, state_of
from ._matching import weight_matching
from ._pairing import TOLERANCE
from ._problem import Problem

M = TypeVar("M", bound=nn.Module)


def fold_gains(spec: PermutationSpec, model: M) -> M:
    """Return a copy of a module whose gains in front of linear layers, such as those of RMS norms, are one.

    A gain that only multiplies channels before other weights can be multiplied into those weights. `spec.kinds` lists
    such gains; gains of the form 1 + w, as in Gemma, are not among them. Afterwards an RMS norm treats all channels
    alike, so that its stream may be rotated. Derive the spec of the result again.

    Args:
        spec: Verified spec of a module of this architecture.
        model: Module to copy; not modified.

    Raises:
        InputError: A gain is zero, so that it can't be folded; the message names it.
    """
    check_spec(spec)
    check_module(model, "model")
    state = dict(state_of(model))
    spec.check(state)
    for group, kind in spec.kinds.items():
        for scale in kind.scales:
            for gain in kind.gains & set(scale):
                value = part_rows(spec, state[gain[0]], gain, group).mean(2)
                if bool((value == 0).any()):
                    raise InputError(f"{gain[0]!r} has a gain of zero, which can't be folded into the layers behind it")
                if bool((value < 0).any()) and frozenset(scale) not in kind.signs:
                    continue  # the symmetry has positive factors only
                maps = {p: value.reciprocal() if p == gain else value for p in scale}
                state = act_linearly(spec, state, group, maps)
                own = state[gain[0]]
                state[gain[0]] = torch.where((own - 1).abs() < 1e-6, torch.ones_like(own), own)  # no rounding errors
    folded = copy.deepcopy(model)
    folded.load_state_dict(state, strict=False)
    return folded


@dataclass(frozen=True)
class LinearMatching:
    """Permutation of some groups, with orthogonal matrices along others.

    Attributes:
        spec: Spec of the network.
        permutation: Permutation, applied first.
        rotations: Orthogonal matrix of each stream that may be rotated, `(1, n, n)`.
    """

    spec: PermutationSpec
    permutation: Permutation
    rotations: dict[str, Float[Tensor, "outer n n"]] = field(repr=False)

    def apply(self, model: M) -> M:
        """Return a permuted and rotated copy of a module, which computes the same function.

        Args:
            model: Module with the names and shapes of the spec; not modified.
        """
        moved = self.permutation.apply(model)
        moved.load_state_dict(self._turned(dict(state_of(moved))), strict=False)
        return moved

    def _turned(self, state: State) -> dict[str, Tensor]:
        for group, matrix in self.rotations.items():
            state = act_linearly(self.spec, state, group, dict.fromkeys(self.spec.kinds[group].rotations, matrix))
        return dict(state)


def procrustes_matching(
    spec: PermutationSpec, target: nn.Module, source: nn.Module, *, max_sweeps: int = 50
) -> LinearMatching:
    """Match weights with rotations of the streams that only RMS norms read, and permutations of other groups.

    Heads and the channels inside them are permuted. With all else fixed, the best orthogonal matrix is the polar factor
    of the inner products of the channels of both networks. Rotations and permutations alternate until neither gains
    (Theus et al., 2025, who derive the symmetries of transformers by hand).

    Args:
        spec: Spec of modules whose gains are one (`fold_gains`), so that some kinds are `"orthogonal"`.
        target: Module; not modified.
        source: Module; not modified.
        max_sweeps: Largest number of alternations.

    Returns:
        The matching that moves `source` towards `target`.

    Raises:
        InputError: Nothing can be rotated, or the parameters do not fit the spec.
    """
    check_spec(spec)
    whole("max_sweeps", max_sweeps, 1)
    check_module(target, "target")
    check_module(source, "source")
    streams = [group for group, kind in spec.kinds.items() if kind.rotations and not spec.parents[group]]
    if not streams:
        raise InputError(
            "no group of this spec may be rotated: only RMS norms with equal gains may read it (see fold_gains)"
        )
    a, b = dict(state_of(target)), dict(state_of(source))
    for name, state in (("target", a), ("source", b)):
        spec.check(state)
        gains = {key for group in streams for key in _left_out(spec, group)}
        if uneven := [k for k in sorted(gains) if not bool((state[k] == state[k].flatten()[0]).all())]:
            raise InputError(f"{uneven[0]!r} of the {name} differs between channels: fold it with fold_gains")
    others = spec.without(streams, "rotated")
    permutation = weight_matching(spec, a, b)
    rotations = {g: torch.nn.functional.one_hot(permutation.tables[g]).double()[None] for g in streams}
    permutation = Permutation(spec, {g: t for g, t in permutation.tables.items() if g not in streams})
    best, value = LinearMatching(spec, permutation, dict(rotations)), -float("inf")
    for _ in range(max_sweeps):
        moved = permutation.apply(b)
        for group in streams:
            fixed = {g: m for g, m in rotations.items() if g != group}
            turned = LinearMatching(spec, permutation, fixed)._turned(moved)
            scores = sum(part_rows(spec, a[p[0]], p, group) @ part_rows(spec, turned[p[0]], p, group).mT
                         for p in spec.kinds[group].rotations)  # fmt: skip
            u, _, v = torch.linalg.svd(scores)
            rotations[group] = u @ v
        turned = LinearMatching(spec, permutation, rotations)._turned(b)  # no stream is nested in another group
        start = Permutation(others, {g: permutation.tables[g] for g in others.sizes})
        permutation = Permutation(spec, weight_matching(others, a, turned, init=start).tables)
        found = LinearMatching(spec, permutation, dict(rotations))
        reached = Problem(spec, a, found._turned(permutation.apply(b))).value(spec.identity_tables())
        if reached <= value + TOLERANCE * abs(value):
            break
        best, value = found, reached
    return best


def _left_out(spec: PermutationSpec, group: str) -> set[str]:
    """Return the entries that carry a group but on which its rotations do not act: gains."""
    return {key for key, _ in spec.uses(group) if key not in spec.ties} - {p[0] for p in spec.kinds[group].rotations}
