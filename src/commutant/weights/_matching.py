"""Weight matching: the permutation of one network that brings its weights closest to another's.

`argmin_pi ||A - pi(B)||^2 = argmax_pi sum_k <A_k, pi(B)_k>` by coordinate descent: with all groups but one fixed, the
best permutation of that one solves a linear assignment (Ainsworth, Hayase and Srinivasa, "Git Re-Basin", 2023).
"""

from __future__ import annotations

import torch
from torch import nn

from .._checks import whole
from .._errors import InputError
from ..parameters import Permutation, PermutationSpec
from ._given import State as State
from ._given import check_generator, check_spec
from ._given import state_of as state_of
from ._problem import Problem


def weight_matching(
    spec: PermutationSpec,
    target: nn.Module | State,
    source: nn.Module | State,
    *,
    init: str | Permutation = "anchored",
    restarts: int = 0,
    max_sweeps: int = 100,
    generator: torch.Generator | None = None,
) -> Permutation:
    """The permutation of `source` with the largest inner product with `target` that coordinate descent finds.

    Exact where the network has one group. Groups whose permutation may differ by the index of another (channels within
    heads) are solved with it: for every pair of heads the best permutation of their channels, then the best pairing of
    heads. A group that stands on both sides of one weight (recurrent weights) is a quadratic assignment: it takes
    Frank-Wolfe steps. Ties go to the identity. The search ends when no group gains, or when a sweep brings the networks
    closer by less than 0.03 % of their squared distance.

    Running statistics do not count, but are permuted by the result. Other buffers, such as masks and frequencies, are
    constants of a network: units are paired only where their constants agree, as far as that is possible, so that the
    mean of two networks has the constants of both. Where they differ, buffers of real numbers also count as weights do.

    Args:
        spec: of the network that both are parameters of.
        target: module or state dict; stays as it is.
        source: module or state dict; stays as it is.
        init: `"anchored"` resolves groups one after the other, those first whose weights lead to axes that are known
            already (the input and output of the network are); `"identity"`; or a permutation to go on from.
        restarts: further runs from random permutations; the best result is returned.
        max_sweeps: Largest number of sweeps over the groups.
        generator: of the random starts.

    Raises:
        InputError: parameters that are not those of the spec, or that hold NaN or infinities; names the entry.
    """
    check_spec(spec)
    check_generator(generator)
    whole("restarts", restarts, 0)
    whole("max_sweeps", max_sweeps, 1)
    problem = Problem(spec, state_of(target, "target"), state_of(source, "source"))
    if isinstance(init, Permutation):
        Permutation(spec).compose(init)  # refuses one of another spec
        problem.tables = {k: v.clone() for k, v in init.tables.items()}
    elif init == "anchored":
        problem.anchor()
    elif init != "identity":
        raise InputError(f'init must be "anchored", "identity" or a Permutation, got {init!r}')
    best = problem.descend(max_sweeps)
    for _ in range(restarts):
        problem.tables = Permutation.random(spec, generator).tables
        tables = problem.descend(max_sweeps)
        if problem.gain(tables, best):
            best = tables
    return Permutation(spec, best)
