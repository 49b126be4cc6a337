"""Ridge regression in float64: one eigendecomposition for a path of penalties, and sums for streams of data."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from .._checks import is_real
from .._errors import InputError

PENALTIES = tuple(10.0 ** (k / 2) for k in range(-24, 3))
"""Default penalties, relative to the largest eigenvalue: 1e-12 to 10."""


@dataclass(frozen=True)
class RidgeFit:
    """Solution of a ridge regression.

    Attributes:
        coefficients: Coefficients, `(features, outputs)`.
        intercept: Intercept, `(outputs,)`.
        penalty: Penalty that was chosen, relative to the largest eigenvalue of the centered Gram matrix.
        scores: Score of generalized cross-validation for each penalty, the lower the better.
    """

    coefficients: Float[Tensor, "features outputs"]
    intercept: Float[Tensor, " outputs"]
    penalty: float
    scores: tuple[float, ...]


class NormalEquations:
    """Sums of a linear regression, from which ridge solutions follow for any penalty.

    The sums grow with the number of features and not with that of the rows, so data can come in parts.

    Example:
        >>> x = torch.randn(100, 3, dtype=torch.float64)
        >>> sums = NormalEquations().add(x, x @ torch.ones(3, 1, dtype=torch.float64))
        >>> sums.solve([1e-12]).coefficients.flatten().round(decimals=6)
        tensor([1., 1., 1.], dtype=torch.float64)
    """

    def __init__(self) -> None:
        self.rows = 0
        self._mean_x = self._mean_y = self._xx = self._xy = torch.zeros(0, dtype=torch.float64)
        self._yy = 0.0

    def add(self, x: Float[Tensor, "rows features"], y: Float[Tensor, "rows outputs"]) -> NormalEquations:
        """Add rows, and return the sums; gradients do not flow through them.

        Args:
            x: Features.
            y: Targets.
        """
        x, y = checked_rows(x, y)
        n, (cx, mean_x), (cy, mean_y) = len(x), centered(x), centered(y)
        xx, xy, yy = cx.T @ cx, cx.T @ cy, float(cy.square().sum())
        if not self.rows:
            self._mean_x, self._mean_y, self._xx, self._xy, self._yy = mean_x, mean_y, xx, xy, yy
        elif self._xy.shape != xy.shape:
            raise InputError(
                f"rows must have {self._xy.shape[0]} features and {self._xy.shape[1]} outputs as before, got "
                f"{xy.shape[0]} and {xy.shape[1]}"
            )
        else:  # the sums are centered, so the means of both parts add a term (Chan et al. 1979)
            share = self.rows * n / (self.rows + n)
            dx, dy = mean_x - self._mean_x, mean_y - self._mean_y
            self._xx = self._xx + xx + share * torch.outer(dx, dx)
            self._xy = self._xy + xy + share * torch.outer(dx, dy)
            self._yy += yy + share * float(dy.square().sum())
            self._mean_x = self._mean_x + dx * (n / (self.rows + n))
            self._mean_y = self._mean_y + dy * (n / (self.rows + n))
        self.rows += n
        return self

    def solve(self, penalties: Sequence[float] | float = PENALTIES) -> RidgeFit:
        """Return the solution for the penalty that generalized cross-validation prefers.

        Args:
            penalties: Penalties to choose from, relative to the largest eigenvalue.
        """
        if not self.rows:
            raise InputError("a regression needs rows; call add first")
        penalties = checked_penalties(penalties)
        values, vectors, top = _spectrum(self._xx)
        seen = vectors.T @ self._xy
        scores = []
        for penalty in penalties:
            shrunk = values + penalty * top
            explained = (seen.square().sum(1) * (values + 2 * penalty * top) / shrunk.square()).sum()
            missed = max(self._yy - float(explained), 0.0)
            scores.append(_score(missed, float((values / shrunk).sum()), self.rows))
        best = _best(penalties, scores)
        coefficients = vectors @ (seen / (values + best * top)[:, None])
        return self._fit(coefficients, best, scores)

    def _fit(self, coefficients: Tensor, penalty: float, scores: list[float]) -> RidgeFit:
        return RidgeFit(coefficients, self._mean_y - self._mean_x @ coefficients, penalty, tuple(scores))


def ridge(
    x: Float[Tensor, "rows features"], y: Float[Tensor, "rows outputs"], penalties: Sequence[float] | float = PENALTIES
) -> RidgeFit:
    r"""Return the ridge regression with the penalty that generalized cross-validation prefers.

    The eigenvalues of the smaller of the two Gram matrices give the whole path. The score of a penalty is
    $n\,\mathrm{RSS} / (n - 1 - \mathrm{tr} H)^2$, an estimate of the error on unseen rows (Golub et al. 1979). The
    intercept is not penalized, and gradients do not flow through the solution.

    Args:
        x: Features.
        y: Targets.
        penalties: Penalties to choose from, or a single one, relative to the largest eigenvalue of the centered Gram
            matrix.

    Raises:
        InputError: If there are no rows, lengths differ, values are not finite, or penalties are not positive.

    Example:
        >>> x = torch.randn(20, 50, dtype=torch.float64)
        >>> ridge(x, x[:, :1]).coefficients.shape
        torch.Size([50, 1])
    """
    x, y = checked_rows(x, y)
    penalties = checked_penalties(penalties)
    if len(x) > x.shape[1]:
        return NormalEquations().add(x, y).solve(penalties)
    (cx, mean_x), (cy, mean_y) = centered(x), centered(y)
    values, vectors, top = _spectrum(cx @ cx.T)
    seen = vectors.T @ cy
    scores = []
    for penalty in penalties:
        kept = penalty * top / (values + penalty * top)
        missed = float((kept.square()[:, None] * seen.square()).sum())
        scores.append(_score(missed, float((1 - kept).sum()), len(x)))
    best = _best(penalties, scores)
    coefficients = cx.T @ (vectors @ (seen / (values + best * top)[:, None]))
    return RidgeFit(coefficients, mean_y - mean_x @ coefficients, best, tuple(scores))


def _score(missed: float, trace: float, rows: int) -> float:
    left = rows - 1 - trace
    return rows * missed / left**2 if left > 1e-9 * rows else float("inf")


def _best(penalties: Sequence[float], scores: list[float]) -> float:
    """Return the penalty with the lowest score; the largest one if no score is finite."""
    usable = [(score, penalty) for score, penalty in zip(scores, penalties, strict=True) if math.isfinite(score)]
    return min(usable)[1] if usable else max(penalties)


def _spectrum(gram: Tensor) -> tuple[Tensor, Tensor, float]:
    """Return eigenvalues, eigenvectors and the largest eigenvalue of a Gram matrix, one for a matrix of zeros."""
    if not bool(gram.isfinite().all()):
        raise InputError("products of features overflow; scale the features to about one")
    values, vectors = torch.linalg.eigh(gram)
    values = values.clamp(min=0)
    top = float(values[-1]) if len(values) else 0.0
    return values, vectors, top if top > 1e-290 else 1.0


def centered(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return columns minus their means, and the means; columns that vary by rounding alone become zero."""
    mean = x.mean(0)
    away = x - mean
    noise = away.abs().amax(0) <= 64 * torch.finfo(x.dtype).eps * x.abs().amax(0)
    return away.masked_fill(noise, 0.0), mean


def checked_penalties(given: object) -> tuple[float, ...]:
    """Return penalties, a number or several, after a check that they are positive and finite."""
    values: list[Any] = []
    with contextlib.suppress(TypeError):
        values = [given] if is_real(given) else list(given)  # type: ignore[call-overload]
    if not values or not all(is_real(p) and 0 < p < float("inf") for p in values):
        raise InputError(f"penalties must be positive numbers, got {given!r:.80}")
    return tuple(float(p) for p in values)


def checked_rows(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return features and targets in float64 after a check of their form."""
    if not isinstance(x, Tensor) or not isinstance(y, Tensor) or x.is_complex() or y.is_complex():
        raise InputError("x and y must be real tensors; convert arrays with torch.as_tensor")
    if x.dim() != 2 or y.dim() != 2 or len(x) != len(y) or not len(x):
        raise InputError(
            f"x and y must have shapes (rows, features) and (rows, outputs), got {tuple(x.shape)} and {tuple(y.shape)}"
        )
    x, y = x.detach().double(), y.detach().double()
    if not bool(x.isfinite().all() and y.isfinite().all()):
        raise InputError("x and y must be finite, got NaN or infinity")
    return x, y
