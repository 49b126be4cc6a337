"""Laws of this room, each with the networks and inputs on which it is tested."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..laws import Draw, Equivariance, Law, Scaling, SetPermutation, obeys
from ._ensemble import ReLUEnsemble
from ._tangent_kernel import PermutationNTK


def _scaled(draw: Draw) -> tuple[Law, Any, Callable[[torch.Generator], Tensor]]:
    """Return the case of an ensemble on scaled inputs."""
    width = 1 + draw.width
    ensemble = draw.module(lambda: ReLUEnsemble(width, width, width=8, models=2))
    return Equivariance(Scaling(width)), ensemble, lambda g: torch.randn(draw.size, width, generator=g).to(draw.dtype)


def _reordered(draw: Draw) -> tuple[Law, Any, Callable[[torch.Generator], Tensor]]:
    """Return the case of the weights of the training points, as a function of the input."""
    k = 1 + draw.width

    def inputs(g: torch.Generator) -> Tensor:
        x = (torch.rand(draw.size, k, generator=g) < 0.5).to(draw.dtype)
        x[:, 0] = 1  # never zero
        return x

    return Equivariance(SetPermutation(1)), PermutationNTK(k).weights, inputs


obeys("homogeneity", _scaled)(ReLUEnsemble)
obeys("order of the coordinates", _reordered)(PermutationNTK)
