"""Mean marginal gains of elements under independent inclusion probabilities: exact, sampled, and their gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import logsigmoid

from .._errors import InputError
from ..algebra import Blocks
from ._enumeration import contracted, tables
from ._set_utility import GroundSets, SetUtility


class ExactGains:
    """Exact mean gains, from tables of all subsets."""

    def __init__(self, utility: SetUtility, sets: GroundSets, sweep: bool) -> None:
        self.sets, self.sweep, self.tables = sets, sweep, tables(utility, sets)

    def __call__(self, logits: Tensor, only: Tensor | None = None) -> Tensor:
        parts = zip(self.tables, self.sets.blocks.split(logits[:, None], 1), strict=True)
        gains = [self._of_run(table, part[..., 0])[..., None] for table, part in parts]
        return self.sets.blocks.join(gains, 1)[:, 0]

    def _of_run(self, table: Tensor, logits: Tensor) -> Tensor:
        if not self.sweep:
            return contracted(table.to(logits.dtype), logits.sigmoid())[1]
        for i in range(logits.shape[1]):
            gain = contracted(table.to(logits.dtype), logits.detach().sigmoid())[1][:, i : i + 1]
            logits = torch.cat([logits[:, :i], gain, logits[:, i + 1 :]], 1)
        return logits


class SampledGains:
    """Mean gains over subsets that are drawn from uniform numbers, `(samples, elements)`.

    Args:
        utility: Utility.
        sets: Ground sets.
        uniforms: Function that returns the uniform numbers of a call.
        score: Whether gradients flow to the logits, by the score function.
    """

    def __init__(self, utility: SetUtility, sets: GroundSets, uniforms: Callable[[], Tensor], score: bool) -> None:
        self.utility, self.sets, self.uniforms, self.score = utility, sets, uniforms, score

    def __call__(self, logits: Tensor, only: Tensor | None = None) -> Tensor:
        subset = self.uniforms() < logits.detach().sigmoid()
        gains = self.utility.gains(self.sets, subset, only)
        if self.score and logits.requires_grad:
            gains = self._with_score(gains, subset, logits, only)
        mean = gains.mean(0).to(logits.dtype)
        return mean if only is None else torch.zeros_like(logits).index_copy(0, only, mean)

    def _with_score(self, gains: Tensor, subset: Tensor, logits: Tensor, only: Tensor | None) -> Tensor:
        """Return the gains with the gradient of their distribution: the score function, as a factor of one."""
        terms = torch.where(subset, logsigmoid(logits), logsigmoid(-logits))
        owner, own = self.sets.owner, terms
        total = terms.new_zeros(len(terms), len(self.sets.blocks.sizes)).index_add(1, owner, terms)
        if only is not None:
            owner, own = owner[only], terms[:, only]
        others = total[:, owner] - own  # the gain of an element does not depend on whether it is chosen
        fixed, samples = gains.detach(), len(gains)
        baseline = (fixed.sum(0) - fixed) / (samples - 1) if samples > 1 else torch.zeros_like(fixed)
        weight = (others - others.detach()).exp()
        return gains + (fixed - baseline) * (weight - 1)


class MixedGains:
    """Exact mean gains for small sets, sampled ones for the others."""

    def __init__(self, utility: SetUtility, sets: GroundSets, small: Tensor, sampled: SampledGains) -> None:
        rows = small[sets.owner].nonzero()[:, 0]
        part = utility.grouped(sets.features[rows], sets.blocks.sizes[small])
        self.rows, self.exact, self.sampled = rows, ExactGains(utility, part, False), sampled
        self.large = (~small)[sets.owner].nonzero()[:, 0]

    def __call__(self, logits: Tensor, only: Tensor | None = None) -> Tensor:
        large = self.large if only is None else only[torch.isin(only, self.large)]
        sampled = self.sampled(logits, large)
        return sampled.index_copy(0, self.rows, self.exact(logits[self.rows]))


class _AtFixedPoint(torch.autograd.Function):
    """Identity whose gradient is solved with (1 - J)^T, for each run of sets of equal size."""

    @staticmethod
    def forward(out: Tensor, blocks: Blocks, *jacobians: Tensor) -> Tensor:
        return out.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _, ctx.blocks, *ctx.jacobians = inputs

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        parts = []
        for jacobian, part in zip(ctx.jacobians, ctx.blocks.split(gradient[:, None].double(), 1), strict=True):
            eye = torch.eye(jacobian.shape[-1], dtype=part.dtype, device=part.device)
            try:
                parts.append(torch.linalg.solve(eye - jacobian.transpose(1, 2), part))
            except torch.linalg.LinAlgError as error:
                raise InputError(
                    "the fixed point is not isolated, so grad='implicit' has no gradient; use grad='unroll'"
                ) from error
        return ctx.blocks.join(parts, 1)[:, 0].to(gradient), None, *(None for _ in parts)


def at_fixed_point(update: Callable[..., Tensor], logits: Tensor, sets: GroundSets) -> Tensor:
    """Return one more update of a fixed point, whose gradient is that of the fixed point.

    With l = T(l), dl = (1 - J)^-1 dT, where J is the Jacobian of T by l. It can be differentiated once.
    """
    logits = logits.detach()
    out = update(logits)
    if not out.requires_grad:
        return out
    fixed = [table.detach().double() for table in update.tables]  # type: ignore[attr-defined]

    def gains(table: Tensor, at: Tensor) -> Tensor:
        return contracted(table[None], at.sigmoid()[None])[1][0]

    parts = [part[..., 0] for part in sets.blocks.split(logits[:, None].double(), 1)]
    jacobians = [torch.func.vmap(torch.func.jacrev(gains, 1))(t, p) for t, p in zip(fixed, parts, strict=True)]
    return _AtFixedPoint.apply(out, sets.blocks, *jacobians)  # type: ignore[no-any-return, no-untyped-call]
