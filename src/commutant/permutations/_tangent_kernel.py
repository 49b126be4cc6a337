"""What wide networks trained on the k basis vectors do to every other binary input: closed forms and their law."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Num
from torch import Tensor

from .._errors import InputError
from ..algebra import Activation

Regime = Literal["ntk", "nngp"]
Rule = Literal["sign", "midpoint", "topn"]
RULES: tuple[Rule, ...] = ("sign", "midpoint", "topn")
_ZERO = 1e-3  # at training points, where zero bits have mean zero exactly and what training left over decides


def need_whole(name: str, value: object, least: int = 1) -> None:
    """Check that an argument is a whole number, at least so large."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise InputError(f"{name} is a whole number, at least {least}, got {value!r}")


def binary_inputs(x: Tensor, k: int, *, what: str = "input") -> tuple[Tensor, Tensor]:
    """Rows checked to be binary and nonzero, with their weights: `(rows, k)` float64 and `(rows,)` int64."""
    if not isinstance(x, Tensor) or x.is_complex():
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise InputError(f"{what}s are a tensor of real numbers, got {got}")
    if x.ndim != 2 or x.shape[1] != k:
        raise InputError(f"{what}s must have shape (rows, {k}), got {tuple(x.shape)}")
    bad = ((x != 0) & (x != 1)).any(1)
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        raise InputError(f"{what} {row} is not binary: it holds {float(x[row][(x[row] != 0) & (x[row] != 1)][0]):g}")
    weights = (x != 0).sum(1)
    if bool((weights == 0).any()):
        raise InputError(
            f"{what} {int((weights == 0).nonzero()[0])} is zero, on which a network without biases is zero"
        )
    return x.to(torch.float64), weights


def every_binary_input(k: int) -> Float[Tensor, "rows k"]:
    """All $2^k - 1$ nonzero binary rows, float64, in counting order, the first coordinate changing fastest.

    Example:
        >>> every_binary_input(2).tolist()
        [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]
    """
    need_whole("the number of coordinates", k)
    if not 1 <= k <= 24:
        raise InputError(f"all binary inputs are listed for 1 to 24 coordinates, got {k}")
    return (torch.arange(1, 2**k)[:, None] >> torch.arange(k) & 1).double()


class PermutationNTK:
    """Law of the outputs of infinitely wide two-layer ReLU networks trained to convergence on $e_1 ... e_k$.

    Trained to map $e_i$ to $P e_i$, a network gives on the normalised input $x / \\sqrt n$ of weight n independent
    Gaussian outputs: mean $\\mu_1 > 0$ where $P x$ has a one, $\\mu_0 \\leq 0$ where it has a zero, of one variance.
    With $D = 2 \\pi$ and $g_n = \\sqrt{1 - 1/n} + (2 / \\sqrt n)(\\pi - \\arccos 1 / \\sqrt n)$
    $\\mu_1 = [(g_n - 1)(k - n) + g_n (D - 1)] / [(D - 1)(D + k - 1)]$ and
    $\\mu_0 = -[n (g_n - 1) - (D - 1)] / [(D - 1)(D + k - 1)]$, so that their difference does not depend on k.

    Args:
        k: length of the inputs.
        regime: `"ntk"`, gradient descent in NTK parametrisation on both layers; `"nngp"`, what standard parametrisation
            at large width does, where the last layer alone learns (the published experiment): D is $\\pi$ then.

    Raises:
        InputError: for k below 1.

    Example:
        >>> one, zero = PermutationNTK(10).mean(2)
        >>> round(one, 5), round(zero, 5)
        (0.56542, -0.00985)
    """

    def __init__(self, k: int, regime: Regime = "ntk") -> None:
        need_whole("the number of coordinates k", k)
        if regime not in ("ntk", "nngp"):
            raise InputError(f"regime is 'ntk' or 'nngp', got {regime!r}")
        self.k, self.regime = k, regime
        self._diagonal = 2 * math.pi if regime == "ntk" else math.pi  # of the training kernel, in units of 1 / (2 pi k)

    def mean(self, n: int) -> tuple[float, float]:
        """$(\\mu_1, \\mu_0)$ at inputs of weight n; $\\mu_0$ is NaN where no bit is zero.

        Raises:
            InputError: for a weight outside 1 to k.
        """
        self._check(n)
        d, k, g = self._diagonal, self.k, self._overlap(n, 2 if self.regime == "ntk" else 1)
        below = (d - 1) * (d + k - 1)
        one = ((g - 1) * (k - n) + g * (d - 1)) / below
        return one, -(n * (g - 1) - (d - 1)) / below if n < k else math.nan

    def variance(self, n: int) -> float:
        """Variance of every output of one network at inputs of weight n; zero at the training points."""
        one, zero = self.mean(n)
        zero = 0.0 if n == self.k else zero
        rest, total = self.k - n, n * one + (self.k - n) * zero
        kappa = self._overlap(n, 1)
        inner = math.pi + (math.pi - 1) * (n * one**2 + rest * zero**2) + total**2 - 2 * (n * kappa * one + rest * zero)
        return max(0.0, inner / (2 * math.pi * self.k)) if n > 1 else 0.0

    def weights(self, x: Num[Tensor, "rows k"]) -> Float[Tensor, "rows k"]:
        """$w(x) = \\Theta(X, X)^{-1} \\Theta(X, x)$: the mean output at x is $Y^T w$ for targets Y `(k, outputs)`."""
        rows, _ = binary_inputs(x, self.k)
        nngp, ntk = arccos_kernels(rows / rows.norm(dim=1, keepdim=True), torch.eye(self.k, dtype=torch.float64))
        own = arccos_kernels(torch.eye(self.k, dtype=torch.float64))
        learned = (ntk, own[1]) if self.regime == "ntk" else (nngp, own[0])
        return torch.linalg.solve(learned[1], learned[0].mT).mT

    def covariance(self, a: Num[Tensor, "rows k"], b: Num[Tensor, "columns k"]) -> Float[Tensor, "rows columns"]:
        """Covariance of one output over networks between normalised binary inputs; the outputs are independent."""
        (rows, _), (columns, _) = binary_inputs(a, self.k), binary_inputs(b, self.k)
        eye = torch.eye(self.k, dtype=torch.float64)
        x, y = (t / t.norm(dim=1, keepdim=True) for t in (rows, columns))
        left, right = self.weights(a), self.weights(b)
        train = arccos_kernels(eye)[0]
        cross = left @ arccos_kernels(eye, y)[0] + arccos_kernels(x, eye)[0] @ right.mT
        return arccos_kernels(x, y)[0] + left @ train @ right.mT - cross

    def sample(
        self, x: Num[Tensor, "rows k"], targets: Num[Tensor, "k outputs"], models: int,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "models rows outputs"]:  # fmt: skip
        """Draw outputs of independent networks jointly over the inputs, from the limit law.

        Raises:
            InputError: For inputs that are not binary, targets of another shape, or less than one network.
        """
        need_whole("models", models)
        if not isinstance(targets, Tensor) or targets.ndim != 2 or len(targets) != self.k or targets.is_complex():
            got = tuple(targets.shape) if isinstance(targets, Tensor) else type(targets).__name__
            raise InputError(f"targets are real, of shape ({self.k}, outputs), got {got}")
        if not bool(torch.isfinite(targets).all()):
            raise InputError("targets must be finite, got NaN or infinity")
        mean = self.weights(x) @ targets.to(torch.float64)
        values, vectors = torch.linalg.eigh(self.covariance(x, x))
        # Symmetric, so that a seed draws the same outputs in whatever basis a library gives for equal eigenvalues.
        root = (vectors * values.clamp(min=0).sqrt()) @ vectors.mT
        noise = torch.randn(models, len(values), targets.shape[1], generator=generator, dtype=torch.float64)
        return mean + root @ noise

    def threshold(self, n: int, rule: Rule = "midpoint") -> float:
        """Above which average of outputs at weight n a bit is one, for normalised inputs.

        Zero for the sign rule of the paper; halfway between the two means for `"midpoint"`, whose margin does not
        shrink with k; minus infinity where every bit is one.
        """
        _check_rule(rule)
        one, zero = self.mean(n)
        if rule == "sign":
            return _ZERO if n == 1 else 0.0
        return -math.inf if n == self.k else (one + zero) / 2

    def failure(self, models: int, rule: Rule = "sign", n: int | None = None) -> float:
        """Bound on the probability that an average of so many networks is wrong somewhere, by Gaussian tails.

        Args:
            models: size of the ensemble.
            rule: how averages are rounded.
            n: at one input of this weight; None for all $2^k - 1$ inputs at once, grouped by weight.
        """
        _check_rule(rule)
        need_whole("the number of networks", models)
        total = 0.0
        for weight in range(1, self.k + 1) if n is None else (n,):
            logs = self._log_failure(models, rule, weight)
            count = 0.0 if n is not None else _log_choose(self.k, weight)
            total += math.exp(min(0.0, logs + count)) if logs > -math.inf else 0.0
        return min(1.0, total)

    def ensemble_size(self, delta: float, rule: Rule = "sign", n: int | None = None) -> int:
        """The smallest ensemble whose failure bound is at most delta, at one input of weight n or at all inputs.

        Example:
            >>> law = PermutationNTK(10)
            >>> law.ensemble_size(0.05, "sign") > 40 * law.ensemble_size(0.05, "midpoint")
            True
        """
        if isinstance(delta, bool) or not isinstance(delta, int | float | np.floating) or not 0 < delta < 1:
            raise InputError(f"delta is a probability between 0 and 1, got {delta!r}")
        high = 1
        while self.failure(high, rule, n) > delta:
            high *= 2
        low = high // 2
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.failure(middle, rule, n) <= delta else (middle, high)
        return high

    def _log_failure(self, models: int, rule: Rule, n: int) -> float:
        """Log of the union bound at one input of weight n."""
        deviation = math.sqrt(self.variance(n) / models)
        if deviation == 0:
            return -math.inf
        one, zero = self.mean(n)
        zeros = self.k - n
        if rule == "topn":
            return (
                -math.inf if not zeros else math.log(n * zeros) + _log_tail((one - zero) / (deviation * math.sqrt(2)))
            )
        at = self.threshold(n, rule)
        logs = [math.log(n) + _log_tail((one - at) / deviation)]
        if zeros:
            logs.append(math.log(zeros) + _log_tail((at - zero) / deviation))
        top = max(logs)
        return top + math.log(sum(math.exp(x - top) for x in logs)) if top > -math.inf else top

    def _overlap(self, n: int, factor: int) -> float:
        """Kernel of an input with a basis vector in its support, in units of that with one outside."""
        angle = math.acos(1 / math.sqrt(n))
        return math.sqrt(1 - 1 / n) + factor / math.sqrt(n) * (math.pi - angle)

    def _check(self, n: int) -> None:
        if isinstance(n, bool) or not isinstance(n, int | np.integer) or not 1 <= n <= self.k:
            raise InputError(f"the weight of an input lies between 1 and {self.k}, got {n}")


def arccos_kernels(
    x: Num[Tensor, "rows k"], y: Num[Tensor, "columns k"] | None = None
) -> tuple[Float[Tensor, "rows columns"], Float[Tensor, "rows columns"]]:
    """(NNGP, NTK) of the two-layer ReLU network $W_2\\, relu(W_1 x / \\sqrt k) / \\sqrt h$, without biases, float64.

    Example:
        >>> nngp, ntk = arccos_kernels(torch.eye(2))
        >>> round(float(nngp[0, 0]), 9), round(float(ntk[0, 0]), 9)
        (0.25, 0.5)
    """
    for inputs in (x, x if y is None else y):
        if not isinstance(inputs, Tensor) or inputs.ndim != 2 or inputs.is_complex() or inputs.shape[1] != x.shape[1]:
            got = f"{tuple(inputs.shape)}, {inputs.dtype}" if isinstance(inputs, Tensor) else type(inputs).__name__
            raise InputError(f"inputs are real tensors (rows, k) of one width, got {got}")
        if not bool(torch.isfinite(inputs).all()) or not x.shape[1]:
            raise InputError("inputs must be finite, with at least one coordinate")
    rows = x.to(torch.float64)
    columns = rows if y is None else y.to(torch.float64)
    width = rows.shape[1]
    gram = rows @ columns.mT / width
    left, right = rows.square().sum(1) / width, columns.square().sum(1) / width
    if y is None:
        gram.diagonal().copy_(left)
    relu = Activation("relu", kinks=(0.0,))
    nngp = relu.dual(left[:, None], right[None], gram)
    return nngp, nngp + gram * relu.dual_dot(left[:, None], right[None], gram)


def round_outputs(
    average: Float[Tensor, "rows outputs"], weights: Tensor, law: PermutationNTK, rule: Rule = "topn"
) -> Tensor:
    """Averaged outputs at normalised inputs to bits `(rows, outputs)`, uint8.

    `"topn"` sets as many bits as the input has, the largest: a permutation keeps the weight. Ties go to the first.
    """
    _check_rule(rule)
    if not isinstance(law, PermutationNTK):
        raise InputError(f"law is a PermutationNTK, got {type(law).__name__}")
    fits = isinstance(average, Tensor) and isinstance(weights, Tensor) and average.ndim == 2
    whole = fits and weights.dtype in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
    if not whole or weights.shape != average.shape[:1] or average.is_complex():
        raise InputError("averages are real, of shape (rows, outputs), with a whole weight for each row")
    if bool(average.isnan().any()) or bool(((weights < 1) | (weights > law.k)).any()):
        raise InputError(f"averages must not be NaN, and weights lie between 1 and {law.k}")
    if rule == "topn":
        order = average.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
        return (order < weights[:, None]).to(torch.uint8)
    by_weight = [law.threshold(n, rule) for n in range(1, law.k + 1)]
    at = torch.tensor(by_weight, dtype=torch.float64, device=average.device)[weights.long() - 1]
    return (average > at[:, None]).to(torch.uint8)


def _check_rule(rule: str) -> None:
    if rule not in RULES:
        raise InputError(f"rule is one of {', '.join(RULES)}, got {rule!r}")


def _log_tail(z: float) -> float:
    """Log of the upper tail of a standard normal variable, far out as well."""
    return float(torch.special.log_ndtr(torch.tensor(-z, dtype=torch.float64)))


def _log_choose(k: int, n: int) -> float:
    return math.lgamma(k + 1) - math.lgamma(n + 1) - math.lgamma(k - n + 1)
