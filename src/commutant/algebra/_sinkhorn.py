"""Doubly stochastic matrices from scores by Sinkhorn iterations, with an implicit gradient."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from .._checks import positive, whole
from .._errors import InputError


def sinkhorn(
    scores: Float[Tensor, "*batch n n"],
    temperature: float = 1.0,
    *,
    tolerance: float = 1e-6,
    max_sweeps: int = 10_000,
) -> Float[Tensor, "*batch n n"]:
    """Return the doubly stochastic matrix S that maximizes `<scores, S> + temperature * entropy(S)`.

    `S = exp(scores / temperature + a + b)` with a constant a for each row and b for each column. The constants are
    found by alternating normalization of rows and columns in log space, until every row sum is one up to the tolerance.
    Column sums are exact. As the temperature falls, S tends to the best permutation, and its value is within
    `temperature * n log n` of the optimum. The number of sweeps grows like the inverse of the temperature. The gradient
    is implicit: it solves one linear system with n unknowns.

    Args:
        scores: Scores, `(*batch, n, n)`; half precision is computed in float32.
        temperature: Positive temperature.
        tolerance: Largest deviation of a row sum from one.
        max_sweeps: Largest number of sweeps; if it does not suffice, a warning reports the deviation of row sums.

    Raises:
        InputError: For NaN, or a temperature that is not positive.

    Example:
        >>> S = sinkhorn(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), 0.5)
        >>> bool(torch.allclose(S.sum(1), torch.ones(2)))
        True
    """
    positive("temperature", temperature)
    positive("tolerance", tolerance)
    whole("max_sweeps", max_sweeps)
    if not isinstance(scores, Tensor):
        raise InputError(f"scores must be a tensor of real square matrices, got {type(scores).__name__}")
    if scores.dim() < 2 or scores.shape[-1] != scores.shape[-2] or not scores.is_floating_point():
        raise InputError(f"scores must be real square matrices, got {scores.dtype} of shape {tuple(scores.shape)}")
    if scores.isnan().any() or (scores == torch.inf).any():
        raise InputError("scores hold NaN or plus infinity; expected finite numbers or minus infinity")
    if scores.numel() and bool((scores.amax(-1) == -torch.inf).any() | (scores.amax(-2) == -torch.inf).any()):
        raise InputError("a row or column of the scores is minus infinity throughout; allow at least one entry")
    logits = (scores if scores.dtype == torch.float64 else scores.float()) / temperature
    if bool((scores.isfinite() & ~logits.isfinite()).any()):
        raise InputError(f"scores divided by temperature={temperature} overflow {logits.dtype}; raise the temperature")
    return _Sinkhorn.apply(logits, tolerance, max_sweeps).to(scores.dtype)  # type: ignore[no-any-return]


class _Sinkhorn(torch.autograd.Function):
    @staticmethod
    def forward(logits: Tensor, tolerance: float, max_sweeps: int) -> Tensor:
        found = logits
        off = 0.0
        for _ in range(max_sweeps):
            found = found - found.logsumexp(-1, keepdim=True)
            found = found - found.logsumexp(-2, keepdim=True)
            off = float((found.exp().sum(-1) - 1).abs().max()) if found.numel() else 0.0
            if off <= tolerance:
                break
        else:
            warnings.warn(f"after {max_sweeps} sweeps the row sums still deviate from one by {off:.1e}", stacklevel=3)
        return found.exp()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """Project `S * gradient` onto the tangent space of matrices whose rows and columns sum to zero."""
        (s,) = ctx.saved_tensors
        weighted = (s * gradient).double()
        s = s.double()
        sums, rows, columns = s.sum(-1, keepdim=True), weighted.sum(-1), weighted.sum(-2)
        # for a block-diagonal S the system is singular along each block, where nothing is to be projected
        system = torch.diag_embed(s.sum(-2)) - s.mT @ (s / sums)
        inverse = torch.linalg.pinv(system, atol=1e-10, rtol=0.0, hermitian=True)
        goal = columns - (s.mT @ (rows.unsqueeze(-1) / sums)).squeeze(-1)
        y = (inverse @ goal.unsqueeze(-1)).squeeze(-1)
        x = (rows - (s @ y.unsqueeze(-1)).squeeze(-1)) / sums.squeeze(-1)
        return (weighted - s * (x.unsqueeze(-1) + y.unsqueeze(-2))).to(gradient.dtype), None, None
