"""Activation matching: units are paired by what they answer to the same data, in one pass and without iteration."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .._errors import InputError
from ..parameters import Permutation, PermutationSpec
from ._matching import State, exposed, state_of
from ._pairing import assign, gram, pair_by_scores


def activation_matching(
    spec: PermutationSpec,
    target: nn.Module | State,
    source: nn.Module | State,
    batches: Iterable[Any],
    *,
    score: Literal["second_moment", "correlation"] = "second_moment",
) -> Permutation:
    """The permutation of `source` under which its activations are most like those of `target`.

    For each group, `argmax_P <P, sum_x z_a(x) z_b(x)^T>` over everything that layers read with its units: after the
    nonlinearity, every point of a residual stream, every position of an image or a sequence (Git Re-Basin, 2023; with
    correlations, REPAIR, 2023). Channels within heads are paired for every pair of heads, then the heads.

    Args:
        spec: derived by `PermutationSpec.from_module`.
        target: module or state dict; stays as it is.
        source: module or state dict; stays as it is.
        batches: inputs of the shapes of the spec's example: tensors, tuples of arguments, or mappings of keywords.
        score: `"second_moment"` without centring, or `"correlation"`, in which units that never vary count as zero.

    Raises:
        InputError: a spec by hand, inputs of other shapes, no data, or activations that are not finite.
    """
    if score not in ("second_moment", "correlation"):
        raise InputError(f'score must be "second_moment" or "correlation", got {score!r}')
    states = state_of(target), state_of(source)
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
    scores = {family: m.scores(score) for family, m in moments.items()}
    tables = spec.identity_tables()
    for group, size in spec.sizes.items():
        inner = [f for f in scores if len(f) == 2 and f[0] == group]
        if inner:
            blocks = {f[1]: scores[f].unflatten(0, (size, -1)).unflatten(2, (size, -1)) for f in inner}
            tables[group], own = pair_by_scores(blocks, torch.zeros(size, size).double(), tables[group])
            tables |= own
        elif (group,) in scores:
            tables[group] = assign(scores[group,], tables[group])
    return Permutation(spec, tables)


class _Moments:
    """Sums over data of products, values and squares, in float64."""

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
        spread = (self.squares / self.count - means.square()).clamp(min=0).sqrt()
        covariance = self.products / self.count - means[0][:, None] * means[1]
        scale = spread[0][:, None] * spread[1]
        return torch.where(scale > 1e-12, covariance / (scale + 1e-12), torch.zeros(()).double())


def _families(spec: PermutationSpec, groups: set[str]) -> Iterable[tuple[str, ...]]:
    """Each outer group by itself, and each group that depends on exactly one with that one."""
    for group in groups:
        parents = spec.parents[group]
        if not parents:
            yield (group,)
        elif len(parents) == 1 and parents[0] in groups:
            yield (*parents, group)
