"""The solver as a custom operator, for graphs written by `torch.export` and `torch.jit.trace`."""

from __future__ import annotations

import torch
from torch import Tensor

from ._find import Options
from ._gated import GATED_CELLS
from ._solve import solve


def is_exporting() -> bool:
    """Return whether a graph is being exported or traced, which would unroll a loop over time to a fixed length."""
    return torch.compiler.is_exporting() or torch.jit.is_tracing()


# explicit, because tests wrap the function and torch cannot infer a schema from the wrapper
_SCHEMA = "(Tensor pre, Tensor weights, Tensor h_0, str name, str method) -> Tensor"


@torch.library.custom_op("commutant::solve_gated", mutates_args=(), schema=_SCHEMA)
def solve_operator(pre: Tensor, weights: Tensor, h_0: Tensor, name: str, method: str) -> Tensor:
    """Return the states `(time, *h_0.shape)` of a gated recurrence, without gradients."""
    with torch.no_grad():
        states, _ = solve(GATED_CELLS[name], (pre,), h_0, (weights,), Options(method))
    return states.clone()


@solve_operator.register_fake
def _(pre: Tensor, weights: Tensor, h_0: Tensor, name: str, method: str) -> Tensor:
    return h_0.new_empty((pre.shape[0], *h_0.shape))
