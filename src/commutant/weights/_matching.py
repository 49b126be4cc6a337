"""Weight matching: the permutation of one network that brings its weights closest to those of another.

`argmin_pi ||A - pi(B)||^2 = argmax_pi sum_k <A_k, pi(B)_k>` by coordinate descent: with all groups but one fixed, the
best permutation of that one solves a linear assignment (Ainsworth, Hayase and Srinivasa, "Git Re-Basin", 2023).
"""

from __future__ import annotations

import torch
from torch import nn

from .._checks import check_generator, whole
from .._errors import InputError
from ..parameters import Permutation, PermutationSpec
from ._given import State as State
from ._given import check_spec
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
    """Return the permutation of `source` with the largest inner product with `target`, by coordinate descent.

    The result is optimal if the network has one group. Groups whose permutation may depend on another group (channels
    within heads) are solved together with it. First the best permutation of the channels is found for every pair of
    heads, then the best pairing of heads. A group on both sides of one weight (recurrent weights) is a quadratic
    assignment, solved by Frank-Wolfe steps. Ties go to the identity. The search ends when no group improves, or when a
    sweep reduces the squared distance of the networks by less than 0.03 %.

    Running statistics do not count, but the result permutes them. Other buffers, such as masks and frequencies, are
    constants of a network. Units are paired only if their constants agree, as far as possible, so that the mean of two
    networks has the constants of both. Real-valued buffers that differ between the networks also count as weights.

    Args:
        spec: Spec of both networks.
        target: Module or state dict; not modified.
        source: Module or state dict; not modified.
        init: Start of the search. `"anchored"` matches groups one after the other, first those whose weights connect
            them to axes that are already matched (inputs and outputs are from the start). `"identity"` starts from the
            identity, and a permutation from that permutation.
        restarts: Number of further runs from random permutations; the best result is returned.
        max_sweeps: Largest number of sweeps over the groups.
        generator: Random generator of the restarts; the default generator of torch if None.

    Raises:
        InputError: The parameters do not fit the spec, or hold NaN or infinities; the message names the entry.
    """
    check_spec(spec)
    check_generator(generator)
    whole("restarts", restarts, 0)
    whole("max_sweeps", max_sweeps, 1)
    problem = Problem(spec, state_of(target, "target"), state_of(source, "source"))
    if isinstance(init, Permutation):
        Permutation(spec).compose(init)  # raises if it belongs to another spec
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
