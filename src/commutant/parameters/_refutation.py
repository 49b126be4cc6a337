"""Verification of groups: the network must compute the same when each is permuted at random."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import TypeVar

import torch
from jaxtyping import Int
from torch import Tensor, nn

from ._permutation import Permutation
from ._tied_axes import TiedAxes
from ._trace import Trace
from ._verify import difference, generic, outputs

Spec = TypeVar("Spec", bound=TiedAxes)
TOLERANCE = 1e-9  # relative, in float64


def verified(spec: Spec, model: nn.Module, traces: Sequence[Trace], generator: torch.Generator) -> Spec:
    """Return the spec without the groups that change what the graphs compute, in float64, at generic parameters."""
    given = {k: v for k, v in model.state_dict().items() if isinstance(v, Tensor)}
    states = [generic(given, generator) for _ in range(2)]
    try:
        before = [[outputs(t, state) for t in traces] for state in states]
    except Exception as failure:  # an operator has no float64
        first = next(iter(str(failure).splitlines()), "")[:200]
        warnings.warn(f"nothing was verified: {type(failure).__name__}: {first}", stacklevel=3)
        return spec
    results = [x for found in before for one in found for x in one]
    if not any(bool(x.isfinite().any()) for x in results):
        warnings.warn("nothing was verified: the model returns no finite number on the example", stacklevel=3)
        return spec

    def error(spec: Spec, groups: Sequence[str]) -> float:
        """Return the largest change over several draws. For any two groups, one draw moves only one of them."""
        worst = 0.0
        for draw in range(len(groups).bit_length() + 1):
            moving = [g for i, g in enumerate(groups, start=1) if draw == 0 or i >> (draw - 1) & 1]
            tables = {g: _cycles(spec.shape(g), 1 + draw % 2, generator) for g in moving}
            moved = Permutation(spec, tables).apply(states[draw % 2]) if moving else states[draw % 2]
            worst = max(
                worst,
                *(
                    difference(b, outputs(t, moved), other)
                    for b, other, t in zip(before[draw % 2], before[1 - draw % 2], traces, strict=True)
                ),
            )
        return worst

    worst = error(spec, list(spec.sizes))
    if worst >= TOLERANCE:
        if error(spec, []) >= TOLERANCE:
            warnings.warn("nothing was verified: two identical calls of the model give different outputs", stacklevel=3)
            return spec
        wrong = [g for g in spec.sizes if error(spec, [g]) >= TOLERANCE]
        wrong = wrong or list(spec.sizes)  # each holds alone, but not all together: trust none
        warnings.warn(f"the verification refuted the groups {', '.join(wrong)}; they are frozen", stacklevel=3)
        spec = spec.without(wrong, "refuted by the verification")
        worst = error(spec, list(spec.sizes))
        if worst >= TOLERANCE:
            spec = spec.without(list(spec.sizes), "refuted by the verification")
            worst = error(spec, [])
    return replace(spec, error=worst)


def _cycles(shape: tuple[int, ...], every: int, generator: torch.Generator) -> Int[Tensor, "..."]:
    """Draw a table without fixed points; with `every=2` every other index of the parents gets the identity."""
    tables = torch.arange(shape[-1]).repeat(prod(shape[:-1]), 1)
    for row in tables[::every]:
        order = torch.randperm(shape[-1], generator=generator)
        row[order] = order.roll(1)
    return tables.view(shape)
