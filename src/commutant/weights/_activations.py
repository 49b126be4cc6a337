"""Activation matching: units are paired by their activations on the same data, in one pass over it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .._checks import one_of
from .._errors import InputError
from ..parameters import Permutation, PermutationSpec
from ._constants import Constants, constants_of, kinds_of_rows
from ._given import State, batches_of, check_spec, state_of
from ._nested import Nest, nest_of, pair_by_scores
from ._pairing import gram
from ._slices import exposed


def activation_matching(
    spec: PermutationSpec,
    target: nn.Module | State,
    source: nn.Module | State,
    batches: Iterable[Any],
    *,
    score: Literal["second_moment", "correlation"] = "second_moment",
) -> Permutation:
    """Return the permutation of `source` that makes its activations most similar to those of `target`.

    For each group it is `argmax_P <P, sum_x z_a(x) z_b(x)^T>`. The sum runs over all activations of the group that
    layers read: after the nonlinearity, at every point of a residual stream, and at every position of an image or a
    sequence. The method is from Git Re-Basin (2023); correlations are used in REPAIR (2023). Channels within heads are
    paired for every pair of heads, then the heads.

    Args:
        spec: Spec from `PermutationSpec.from_module`.
        target: Module or state dict; not modified.
        source: Module or state dict; not modified.
        batches: Inputs of the shapes of the spec's example: tensors, tuples of arguments, or mappings of keywords.
        score: `"second_moment"` (not centered), or `"correlation"`, for which constant units score zero.

    Raises:
        InputError: The spec was written by hand, inputs have other shapes, there is no data, or activations are not
            finite.
    """
    one_of("score", score, ("second_moment", "correlation"))
    check_spec(spec)
    batches = batches_of(batches)
    states = state_of(target, "target"), state_of(source, "source")
    for state in states:
        spec.check(state)
    moments: dict[tuple[str, ...], _Moments] = {}
    seen = 0
    for batch in batches:
        found = [spec.activations(state, batch) for state in states]
        seen += 1
        for node, labels in spec.reads.items():
            x, y = (activations[node].detach().cpu() for activations in found)
            if not (x.is_floating_point() and x.isfinite().all() and y.isfinite().all()):
                if x.is_floating_point():
                    raise InputError(f"the activations at {node!r} hold NaN or infinities")
                continue
            for family in _families(spec, {g for label in labels for g in label.groups()}):
                a, b = (exposed(t, labels, family).flatten(0, len(family) - 1) for t in (x, y))
                moments.setdefault(family, _Moments(len(a))).add(a, b)
    if not seen:
        raise InputError("no batch was given")
    scores = {family[-1]: m.scores(score) for family, m in moments.items()}
    constants = constants_of(spec, *states)
    tables = spec.identity_tables()
    for group in spec.sizes:
        if not spec.parents[group]:
            nest = nest_of(spec, group)
            own = {g: scores.get(g, torch.zeros(2 * (nest.flat(g),), dtype=torch.float64)) for g in nest.sizes}
            tables |= pair_by_scores(nest, _with_constants(spec, nest, own, constants), tables[group])
    return Permutation(spec, tables)


def _with_constants(
    spec: PermutationSpec, nest: Nest, scores: Mapping[str, Tensor], constants: Constants
) -> dict[str, Tensor]:
    """Return scores in which agreeing constants outweigh all activations together."""
    worth = sum(2 * len(s) * float(s.max() - s.min()) for s in scores.values()) or 1.0
    result = {group: s.clone() for group, s in scores.items()}
    for key, (a, b) in constants.codes.items():
        labels = spec.axes[key]
        for family in _families(spec, {g for label in labels for g in label.groups()}):
            if family[-1] in nest.sizes:
                x, y = kinds_of_rows(*(exposed(t, labels, family).flatten(0, len(family) - 1) for t in (a, b)))
                result[family[-1]] += worth * (x.unsqueeze(-1) == y)
    return result


class _Moments:
    """Running sums of products, values and squares over the data, in float64."""

    def __init__(self, size: int) -> None:
        self.products = torch.zeros(size, size, dtype=torch.float64)
        self.sums, self.squares = (torch.zeros(2, size, dtype=torch.float64) for _ in range(2))
        self.count = 0

    def add(self, a: Float[Tensor, "n samples"], b: Float[Tensor, "n samples"]) -> None:
        self.products += gram(a, b)
        for i, values in enumerate((a.double(), b.double())):
            self.sums[i] += values.sum(1)
            self.squares[i] += values.square().sum(1)
        self.count += a.shape[1]

    def scores(self, kind: str) -> Float[Tensor, "n n"]:
        if kind == "second_moment":
            return self.products / self.count
        means = self.sums / self.count
        sizes = (self.squares / self.count).sqrt()
        spread = (self.squares / self.count - means.square()).clamp(min=0).sqrt()
        spread = torch.where(spread > 1e-6 * sizes, spread, 0.0)  # smaller spreads are rounding: the unit never varies
        covariance = self.products / self.count - means[0][:, None] * means[1]
        scale = spread[0][:, None] * spread[1]
        return torch.where(scale > 0, covariance / torch.where(scale > 0, scale, 1.0), 0.0)


def _families(spec: PermutationSpec, groups: set[str]) -> Iterable[tuple[str, ...]]:
    """Yield the innermost of some groups, each after the groups around it."""
    for group in groups:
        around = spec.parents[group]
        if set(around) <= groups and not any(group in spec.parents[other] for other in groups):
            yield (*around, group)
