"""Two-way analysis of variance of scores of programs over seeds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from .._errors import InputError


@dataclass(frozen=True)
class VarianceComponents:
    """Variances of scores by program, by seed, and the rest.

    Args:
        program: Variance between programs, after the covariate; negative where seeds explain more than all of it.
        seed: Variance between seeds.
        residual: Variance of the rest.
        f: F statistic of the programs; NaN if all scores are equal.
        p: Probability of a larger one if programs make no difference.
        seed_f: F statistic of the seeds.
        seed_p: Probability of a larger one if seeds make no difference.
    """

    program: float
    seed: float
    residual: float
    f: float
    p: float
    seed_f: float
    seed_p: float

    @property
    def share(self) -> float:
        """Share of the program in the variance of a single score (intraclass correlation)."""
        total = self.program + self.seed + self.residual
        return self.program / total if total else 0.0


def variance_components(
    scores: Float[Tensor, "programs seeds"], covariate: Float[Tensor, "programs *terms"] | None = None
) -> VarianceComponents:
    r"""Return how much programs and seeds contribute to the variance of scores, by the method of moments.

    The layout is a random two-way one without replication, $y_{ps} = \mu + a_p + b_s + e_{ps}$. A seed must mean the
    same for all programs, such as the same data and order of batches.

    Args:
        scores: Scores, `(programs, seeds)`, finite.
        covariate: What is known of each program, such as the size of its graph, `(programs,)`, or several such numbers,
            `(programs, terms)`. What they explain linearly is removed from the programs' part. One column for each size
            removes any effect of the size.

    Raises:
        InputError: For fewer than two seeds, two programs (three with a covariate), NaN, or covariates that leave
            nothing to explain.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> scores = torch.randn(20, 1, generator=generator) + 0.1 * torch.randn(20, 5, generator=generator)
        >>> variance_components(scores).share > 0.9
        True
    """
    least = 2 if covariate is None else 3
    if not isinstance(scores, Tensor) or scores.dim() != 2 or scores.shape[0] < least or scores.shape[1] < 2:
        given = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise InputError(f"scores must be (programs, seeds) with at least {least} programs and 2 seeds, got {given}")
    y = scores.detach().double().cpu()
    if not y.isfinite().all():
        raise InputError("scores must be finite, got NaN or infinities")
    programs, seeds = y.shape
    by_program, by_seed = y.mean(1) - y.mean(), y.mean(0) - y.mean()
    rest = y - y.mean() - by_program[:, None] - by_seed
    squares, freedom = seeds * by_program.square().sum(), programs - 1
    if covariate is not None:
        basis = _covariates(covariate, programs)
        squares, freedom = squares - seeds * (basis.T @ by_program).square().sum(), freedom - basis.shape[1]
        if freedom < 1:
            raise InputError(
                f"covariates must leave differences between {programs} programs, got {basis.shape[1]} of them"
            )
    error_freedom = (programs - 1) * (seeds - 1)
    mean_program, mean_rest = float(squares) / freedom, float(rest.square().sum()) / error_freedom
    mean_seed = float(programs * by_seed.square().sum()) / (seeds - 1)
    rounding = 1e-24 * float(y.square().max())
    f, seed_f = (
        m / mean_rest if mean_rest > rounding else math.inf if m > rounding else math.nan
        for m in (mean_program, mean_seed)
    )
    return VarianceComponents(
        program=(mean_program - mean_rest) / seeds,
        seed=(mean_seed - mean_rest) / programs,
        residual=mean_rest,
        f=f,
        p=_tail(f, freedom, error_freedom),
        seed_f=seed_f,
        seed_p=_tail(seed_f, seeds - 1, error_freedom),
    )


def _tail(f: float, freedom: int, error_freedom: int) -> float:
    return 1.0 if math.isnan(f) else float(stats.f.sf(f, freedom, error_freedom))


def _covariates(covariate: object, programs: int) -> Tensor:
    """Return an orthonormal basis of centered covariates, `(programs, rank)`."""
    try:
        z = torch.as_tensor(covariate).detach().double().cpu()
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"covariate must be numbers, got {covariate!r:.40}") from None
    if z.dim() not in (1, 2) or len(z) != programs or not z.isfinite().all():
        raise InputError(f"covariate must be finite, ({programs},) or ({programs}, terms), got {tuple(z.shape)}")
    z = z.reshape(programs, -1)
    size, z = z.abs().amax(0), z - z.mean(0)
    spread = z.abs().amax(0)
    varies = spread > 1e-14 * size  # below it, rounding of the mean alone
    left, values, _ = torch.linalg.svd(z[:, varies] / spread[varies], full_matrices=False)
    return left[:, values > 1e-10]
