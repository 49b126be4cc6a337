"""The solver as one operator, for graphs that `torch.export` and `torch.jit.trace` write."""

from __future__ import annotations

import torch
from torch import Tensor

from ._find import Options
from ._gated import GATED_CELLS
from ._solve import solve


def is_written() -> bool:
    """Whether a graph is being written: a loop over time in it would have one fixed length."""
    return torch.compiler.is_exporting() or torch.jit.is_tracing()


# the schema is written out: tests wrap the function, and the wrapper's annotations cannot be read
_SCHEMA = "(Tensor pre, Tensor weights, Tensor h0, str name, str solver) -> Tensor"


@torch.library.custom_op("commutant::solve_gated", mutates_args=(), schema=_SCHEMA)
def solve_operator(pre: Tensor, weights: Tensor, h0: Tensor, name: str, solver: str) -> Tensor:
    """Return the states `(time, *h0.shape)` of a gated recurrence; for inference."""
    with torch.no_grad():
        states, _ = solve(GATED_CELLS[name], (pre,), h0, (weights,), Options(solver))
    return states.clone()


@solve_operator.register_fake
def _(pre: Tensor, weights: Tensor, h0: Tensor, name: str, solver: str) -> Tensor:
    return h0.new_empty((pre.shape[0], *h0.shape))
