"""Search for the permutation symmetry of data or of a function, over programs that generate groups."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import one_hot

from .._checks import check_features, is_real, whole
from .._errors import InputError
from ._grammar import Grammar
from ._state_search import Found, search_states
from ._tie_machine import TieMachine, TiePattern

TieScore: TypeAlias = Callable[[TiePattern], Sequence[float]]
"""Errors of a pattern, one for each fold of the data, lower is better."""


@dataclass(frozen=True)
class TieHypothesis:
    """Symmetry that a search considered.

    Args:
        pattern: Weight sharing.
        found: Program and its cost.
        errors: Errors, one for each fold.
    """

    pattern: TiePattern
    found: Found[TiePattern]
    errors: tuple[float, ...]

    @property
    def error(self) -> float:
        """Mean error over the folds."""
        return sum(self.errors) / len(self.errors)


@dataclass(frozen=True)
class TieSearch:
    """Result of `search_ties`.

    Args:
        hypotheses: All symmetries that were considered, in the order of their programs' costs.
        chosen: The largest symmetry whose error is not above the least one, within errors of estimation.
    """

    hypotheses: tuple[TieHypothesis, ...]
    chosen: TieHypothesis

    def table(self, rows: int = 8) -> str:
        """Return the best hypotheses as text, the chosen one marked.

        Args:
            rows: Number of hypotheses.
        """
        whole("rows", rows)
        best = sorted(self.hypotheses, key=lambda h: (h.error, h.pattern.classes))[:rows]
        if self.chosen not in best:
            best = [*best[: rows - 1], self.chosen]
        lines = [f"{'':1} {'error':>10} {'free weights':>12}  program"]
        for h in best:
            mark = "*" if h is self.chosen else ""
            lines.append(f"{mark:1} {h.error:10.4g} {h.pattern.classes:12}  {h.found.program}")
        return "\n".join(lines)


def search_ties(
    score: TieScore,
    n: int,
    *,
    max_cost: int | float = 8,
    grammar: Grammar | None = None,
    max_applications: int | None = None,
    tolerance: int | float = 1e-9,
) -> TieSearch:
    """Search for the largest permutation group whose weight sharing fits, among those that short programs generate.

    Every pattern that a program within the limits generates is scored once. Errors of two patterns are compared fold by
    fold. Patterns whose error exceeds the least one by at most two standard errors of the difference count as equal to
    it, since the least of many errors is too small by chance. Of these the one with the fewest free weights is chosen,
    then the one with the cheapest program. With noise this can be too large a group: look at the `table` of the result.

    Args:
        score: Function from a pattern to errors, one for each fold: `LinearTieScore(x, y)`,
            `EquivarianceScore(function, x)`, or your own, such as validation errors of networks of `TiedLinear` layers.
        n: Number of points.
        max_cost: Largest number of primitives of a program, or largest minus log probability with a grammar.
        grammar: Grammar of the programs; see `search_states`.
        max_applications: Largest number of steps of the search.
        tolerance: Mean errors that differ by at most this count as equal.

    Raises:
        InputError: If a score is no sequence of finite numbers of equal length.

    Example:
        >>> x = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
        >>> y = x - 0.5 * x.roll(1, dims=1) + 2 * x.roll(2, dims=1)
        >>> print(search_ties(LinearTieScore(x, y), 6, max_cost=5).chosen.found.program)
        (rotate (tie identity))
    """
    machine = TieMachine(n)
    if not callable(score):
        raise InputError(f"score must be a function from a TiePattern to errors, got {score!r:.60}")
    if not (is_real(tolerance) and tolerance >= 0):
        raise InputError(f"tolerance must be a non-negative number, got {tolerance!r}")
    hypotheses: list[TieHypothesis] = []
    for found in search_states(machine, grammar, max_cost=max_cost, max_applications=max_applications):
        given = score(found.output)
        if not isinstance(given, Sequence) or isinstance(given, str) or not all(map(is_real, given)):
            raise InputError(f"score must return a sequence of real errors, one for each fold, got {given!r:.40}")
        errors = tuple(float(e) for e in given)
        known = len(hypotheses[0].errors) if hypotheses else max(1, len(errors))
        if len(errors) != known or not all(map(math.isfinite, errors)):
            raise InputError(
                f"score must return finite errors, one for each of {known} folds, got {errors!r:.80} for "
                f"{found.program}"
            )
        hypotheses.append(TieHypothesis(found.output, found, errors))
    if not hypotheses:
        raise InputError(f"no program is within the limits; raise max_cost={max_cost} or max_applications")
    table = torch.tensor([h.errors for h in hypotheses], dtype=torch.float64)
    excess = table - table[table.mean(1).argmin()]
    folds = table.shape[1]
    spread = excess.std(1, correction=1) / folds**0.5 if folds > 1 else torch.zeros(len(table), dtype=torch.float64)
    fits = (excess.mean(1) <= 2 * spread + tolerance).nonzero().flatten().tolist()
    chosen = min(fits, key=lambda i: (hypotheses[i].pattern.classes, hypotheses[i].found.cost))
    return TieSearch(tuple(hypotheses), hypotheses[chosen])


class LinearTieScore:
    """Held-out error of tied linear maps from x to y, by exact least squares.

    The folds' second moments are computed once, so that the cost of a pattern does not depend on the number of samples.
    Biases are shared by points that the group exchanges. Errors are mean squares, divided by the variance of y, channel
    by channel; channels of y that do not vary are left out.

    Args:
        x: Inputs, `(samples, n)` or `(samples, n, in_channels)`.
        y: Outputs, `(samples, n)` or `(samples, n, out_channels)`.
        folds: Number of folds, at least four; every `folds`-th sample is held out together. Shuffle ordered samples
            before.

    Raises:
        InputError: For other shapes, NaN, fewer samples than folds, or a constant y.
    """

    def __init__(self, x: Float[Tensor, "samples n *i"], y: Float[Tensor, "samples n *o"], folds: int = 8) -> None:
        check_features("x", x)
        check_features("y", y)
        if x.dim() not in (2, 3) or y.dim() not in (2, 3) or x.shape[:2] != y.shape[:2]:
            raise InputError(f"x and y must be (samples, n) or (samples, n, channels), got {_shapes(x, y)}")
        whole("folds", folds, 4)
        if len(x) < folds:
            raise InputError(f"there must be at least one sample for each of {folds} folds, got {len(x)}")
        if not (x.isfinite().all() and y.isfinite().all()):
            raise InputError("x and y must be finite, got NaN or infinities")
        if not x.numel() or not y.numel():
            raise InputError(f"x and y must have points and channels, got {_shapes(x, y)}")
        x, y = (t.detach().double().reshape(*t.shape[:2], -1) for t in (x, y))
        # a shift of all points by one number changes only the biases, and a factor of a channel only its weights
        x, _ = _standardized(x)
        if bool((x == x[:1, :1]).all()):
            raise InputError("x must vary, got a constant")
        y, varies = _standardized(y)
        if not bool(varies.any()):
            raise InputError("y must vary, got a constant")
        y = y[..., varies]
        constant = x.new_zeros(len(x), 1, x.shape[2])
        constant[..., 0] = 1
        x = torch.cat([x, constant], 1)  # one more point, whose weights are the biases
        moments = [_Moments.of(x[k::folds], y[k::folds]) for k in range(folds)]
        whole_ = [sum(part) for part in zip(*moments, strict=True)]
        self.held = moments
        self.fitted = [_Moments(*(a - b for a, b in zip(whole_, m, strict=True))) for m in moments]  # type: ignore[arg-type]

    def __call__(self, pattern: TiePattern) -> list[float]:
        """Return the error of each fold with a map that was fitted to the others.

        Args:
            pattern: Weight sharing.
        """
        labels = torch.cat([pattern.labels, pattern.classes + pattern.point_labels[:, None]], 1)
        if len(labels) + 1 != self.held[0].xx.shape[0]:
            raise InputError(f"the pattern has {len(labels)} points, the data {self.held[0].xx.shape[0] - 1}")
        chosen = one_hot(labels).double()  # (n, n + 1, classes)
        errors = []
        for fit, test in zip(self.fitted, self.held, strict=True):
            left, right = _reduced(chosen, fit)
            weight = torch.linalg.lstsq(left.flatten(2).flatten(0, 1), right.flatten(0, 1), driver="gelsd").solution
            left, right = _reduced(chosen, test)
            square = (weight * (left.flatten(2).flatten(0, 1) @ weight - 2 * right.flatten(0, 1))).sum() + test.yy
            errors.append(max(0.0, float(square / test.count)))
        return errors


class _Moments:
    """Sums over samples of products of inputs and outputs."""

    def __init__(self, xx: Tensor, xy: Tensor, yy: Tensor, count: Tensor) -> None:
        self.xx, self.xy, self.yy, self.count = xx, xy, yy, count

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter((self.xx, self.xy, self.yy, self.count))

    @classmethod
    def of(cls, x: Tensor, y: Tensor) -> _Moments:
        xx, xy = torch.einsum("sic,sjd->icjd", x, x), torch.einsum("sic,sjd->icjd", x, y)
        return cls(xx, xy, y.square().sum(), torch.tensor(float(y.numel())))


def _reduced(chosen: Tensor, moments: _Moments) -> tuple[Tensor, Tensor]:
    """Return the normal equations of the tied weights, `(k, c, k, c)` and `(k, c, o)`."""
    half = torch.einsum("ijk,jcld->ikcld", chosen, moments.xx)
    return torch.einsum("ikcld,ilm->kcmd", half, chosen), torch.einsum("ijk,jcio->kco", chosen, moments.xy)


class EquivarianceScore:
    """Violation of the equivariance of a function under the generators of a pattern.

    The error is the mean square of f(g x) - g f(x) over all samples, divided by the variance of f(x), channel by
    channel, for the generator that violates it most. It has no folds, so that a search finds what f commutes with up to
    the search's `tolerance`. For a trained network, whose symmetry is not exact, pass a tolerance such as 0.01.

    Groups with the same ties count as one, the largest of them. A nonlinear function can commute with a smaller group
    of the same ties, such as the even permutations of all; the search then reports another subgroup.

    Args:
        function: Deterministic function from `(samples, n, ...)` to `(samples, n, ...)`; it gets copies of x.
        x: Inputs, `(samples, n, ...)`.

    Raises:
        InputError: If the output has not as many points, is not floating point, is NaN, or differs when f is called
            again, or if f is a network in training mode with dropout or batch normalization.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], x: Float[Tensor, "samples n *features"]) -> None:
        check_features("x", x)
        if x.dim() < 2 or not x.numel():
            raise InputError(f"x must be (samples, n, ...) and not empty, got {tuple(x.shape)}")
        if isinstance(function, nn.Module) and any(m.training and isinstance(m, _MOODY) for m in function.modules()):
            raise InputError("the network is in training mode, where dropout and batch statistics act; call .eval()")
        self.function, self.x = function, x.detach().clone()
        self.y = self._values(self.x)
        if not torch.equal(self.y, self._values(self.x)):
            raise InputError("the function must be deterministic, got two results for one input; remove its randomness")
        if bool((self.y == self.y[:1, :1]).all()):
            raise InputError(
                "the function returns one constant for all inputs, which tells nothing of its symmetry; give others"
            )
        _, self._varies = _standardized(self.y)
        self._variance = self.y.var((0, 1), correction=0).clamp(min=torch.finfo(torch.float64).tiny)
        self._known: dict[tuple[int, ...], float] = {}

    def _values(self, x: Tensor) -> Tensor:
        """Return the outputs of a copy of the inputs, `(samples, n, channels)`, in float64."""
        with torch.no_grad():
            y = self.function(x.clone())
        if not isinstance(y, Tensor) or y.shape[:2] != x.shape[:2]:
            given = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
            raise InputError(f"the function must return (samples, n, ...) = {tuple(x.shape[:2])}, got {given}")
        if y.is_complex():
            y = torch.view_as_real(y)
        if not y.is_floating_point() or not bool(y.isfinite().all()):
            raise InputError(
                f"the function must return finite floating-point values, got {y.dtype} or NaN or infinities"
            )
        return y.double().reshape(*y.shape[:2], -1)

    def __call__(self, pattern: TiePattern) -> list[float]:
        """Return the violation.

        Args:
            pattern: Weight sharing, whose generators are tested.
        """
        if pattern.n != self.x.shape[1]:
            raise InputError(f"the pattern has {pattern.n} points, the inputs {self.x.shape[1]}")
        for g in pattern.generators:
            if g not in self._known:
                if g != tuple(range(pattern.n)) and torch.equal(self.x[:, list(g)], self.x):
                    raise InputError(
                        f"the inputs do not change under {g}, so they can't tell whether the function commutes with "
                        "it; give inputs without symmetry, such as random ones"
                    )
                gap = self._values(self.x[:, list(g)]) - self.y[:, list(g)]
                share = gap.square().mean((0, 1)) / self._variance
                moved = torch.where(self._varies, share, (gap.abs().amax((0, 1)) > 1e-6 * self.y.abs().amax()).double())
                self._known[g] = float(moved.max())
        return [max((self._known[g] for g in pattern.generators), default=0.0)]


_MOODY = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm)
"""Modules whose output depends on chance or on the batch in training mode."""


def _standardized(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return values with mean zero and standard deviation one in each channel, and which channels vary."""
    size = x.abs().amax((0, 1))
    x = x / size.clamp(min=torch.finfo(torch.float64).tiny)
    x = x - x.mean((0, 1))
    spread = x.square().mean((0, 1)).sqrt()
    varies = spread > 1e-13
    return x / torch.where(varies, spread, 1.0), varies


def _shapes(x: Tensor, y: Tensor) -> str:
    return f"{tuple(x.shape)} and {tuple(y.shape)}"
