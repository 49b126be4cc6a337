"""Closed forms for infinitely wide ReLU networks trained on the k basis vectors, at every binary input."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float, Num
from torch import Tensor

from .._checks import is_real, is_whole, one_of, whole
from .._errors import InputError
from ..algebra import Activation

Regime = Literal["ntk", "nngp"]
Rule = Literal["sign", "midpoint", "topn"]
RULES: tuple[Rule, ...] = ("sign", "midpoint", "topn")
_ZERO = 1e-3  # threshold at training points, where zero bits have mean zero up to the residual of training


def binary_inputs(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Check that rows are binary and nonzero; return them as `(rows, k)` float64, and their weights `(rows,)`."""
    if not isinstance(x, Tensor) or x.is_complex():
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise InputError(f"inputs must be a tensor of real numbers, got {got}")
    if x.ndim != 2 or x.shape[1] != k:
        raise InputError(f"inputs must have shape (rows, {k}), got {tuple(x.shape)}")
    bad = ((x != 0) & (x != 1)).any(1)
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        value = float(x[row][(x[row] != 0) & (x[row] != 1)][0])
        raise InputError(f"inputs must hold 0 and 1 only, but input {row} is not binary: it holds {value:g}")
    weights = (x != 0).sum(1)
    if bool((weights == 0).any()):
        row = int((weights == 0).nonzero()[0])
        raise InputError(
            f"inputs must be nonzero, because a network without biases is zero there, but input {row} is zero"
        )
    return x.to(torch.float64), weights


def every_binary_input(k: int) -> Float[Tensor, "rows k"]:
    """Return all $2^k - 1$ nonzero binary rows in float64, in counting order with the first coordinate fastest.

    Args:
        k: Number of coordinates, at most 24.

    Raises:
        InputError: For k outside 1 to 24.

    Example:
        >>> every_binary_input(2).tolist()
        [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]
    """
    whole("k", k)
    if k > 24:
        raise InputError(f"k must be at most 24, because all 2^k - 1 rows are listed, got {k}")
    return (torch.arange(1, 2**k)[:, None] >> torch.arange(k) & 1).double()


class PermutationNTK:
    """Distribution of the outputs of infinitely wide two-layer ReLU networks trained to convergence on $e_1 ... e_k$.

    A network is trained to map $e_i$ to $P e_i$, and evaluated at a binary input of weight n (n ones), normalized as
    $x / \\sqrt n$. Its outputs are independent Gaussians with a common variance. Their mean is $\\mu_1 > 0$ where
    $P x$ has a one, and $\\mu_0 \\leq 0$ where it has a zero.
    With $D = 2 \\pi$ and $g_n = \\sqrt{1 - 1/n} + (2 / \\sqrt n)(\\pi - \\arccos 1 / \\sqrt n)$,
    $\\mu_1 = [(g_n - 1)(k - n) + g_n (D - 1)] / [(D - 1)(D + k - 1)]$ and
    $\\mu_0 = -[n (g_n - 1) - (D - 1)] / [(D - 1)(D + k - 1)]$. Their difference does not depend on k.

    Args:
        k: Number of coordinates of the inputs.
        regime: `"ntk"` for gradient descent in NTK parametrization on both layers. `"nngp"` for standard
            parametrization at large width (as in the published experiment), where only the last layer learns; D is
            then $\\pi$.

    Raises:
        InputError: For k below 1 or an unknown regime.

    Example:
        >>> one, zero = PermutationNTK(10).mean(2)
        >>> round(one, 5), round(zero, 5)
        (0.56542, -0.00985)
    """

    def __init__(self, k: int, regime: Regime = "ntk") -> None:
        whole("k", k)
        one_of("regime", regime, ("ntk", "nngp"))
        self.k, self.regime = k, regime
        # diagonal of the training kernel, in units of 1 / (2 pi k)
        self._diagonal = 2 * math.pi if regime == "ntk" else math.pi

    def mean(self, n: int) -> tuple[float, float]:
        """Return $(\\mu_1, \\mu_0)$ at inputs of weight n; $\\mu_0$ is NaN if no bit is zero.

        Args:
            n: Weight of the input, from 1 to k.

        Raises:
            InputError: For a weight outside 1 to k.
        """
        self._check(n)
        d, k, g = self._diagonal, self.k, self._overlap(n, 2 if self.regime == "ntk" else 1)
        below = (d - 1) * (d + k - 1)
        one = ((g - 1) * (k - n) + g * (d - 1)) / below
        return one, -(n * (g - 1) - (d - 1)) / below if n < k else math.nan

    def variance(self, n: int) -> float:
        """Return the variance of every output of one network at inputs of weight n, which is zero at n = 1.

        Args:
            n: Weight of the input, from 1 to k.
        """
        one, zero = self.mean(n)
        zero = 0.0 if n == self.k else zero
        rest, total = self.k - n, n * one + (self.k - n) * zero
        kappa = self._overlap(n, 1)
        inner = math.pi + (math.pi - 1) * (n * one**2 + rest * zero**2) + total**2 - 2 * (n * kappa * one + rest * zero)
        return max(0.0, inner / (2 * math.pi * self.k)) if n > 1 else 0.0

    def weights(self, x: Num[Tensor, "rows k"]) -> Float[Tensor, "rows k"]:
        """Return $w(x) = \\Theta(X, X)^{-1} \\Theta(X, x)$; the mean output is $Y^T w$ for targets Y `(k, outputs)`.

        Args:
            x: Binary inputs `(rows, k)`.
        """
        rows, _ = binary_inputs(x, self.k)
        nngp, ntk = arccos_kernels(rows / rows.norm(dim=1, keepdim=True), torch.eye(self.k, dtype=torch.float64))
        own = arccos_kernels(torch.eye(self.k, dtype=torch.float64))
        learned = (ntk, own[1]) if self.regime == "ntk" else (nngp, own[0])
        return torch.linalg.solve(learned[1], learned[0].mT).mT

    def covariance(self, a: Num[Tensor, "rows k"], b: Num[Tensor, "columns k"]) -> Float[Tensor, "rows columns"]:
        """Return the covariance over networks of one output at two sets of binary inputs, after normalization.

        Args:
            a: Binary inputs `(rows, k)`.
            b: Binary inputs `(columns, k)`.
        """
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
        """Draw outputs of independent networks jointly over the inputs, from the infinite-width distribution.

        Args:
            x: Binary inputs `(rows, k)`.
            targets: Targets of the k basis vectors, `(k, outputs)`.
            models: Number of networks.
            generator: Source of randomness.

        Raises:
            InputError: For inputs that are not binary, targets of another shape, or fewer than one network.
        """
        whole("models", models)
        if not isinstance(targets, Tensor) or targets.ndim != 2 or len(targets) != self.k or targets.is_complex():
            got = tuple(targets.shape) if isinstance(targets, Tensor) else type(targets).__name__
            raise InputError(f"targets must be real, of shape ({self.k}, outputs), got {got}")
        if not bool(torch.isfinite(targets).all()):
            raise InputError("targets must be finite, got NaN or infinity")
        mean = self.weights(x) @ targets.to(torch.float64)
        values, vectors = torch.linalg.eigh(self.covariance(x, x))
        # symmetric, so that draws do not depend on the basis that a library picks for equal eigenvalues
        root = (vectors * values.clamp(min=0).sqrt()) @ vectors.mT
        noise = torch.randn(models, len(values), targets.shape[1], generator=generator, dtype=torch.float64)
        return mean + root @ noise

    def threshold(self, n: int, rule: Rule = "midpoint") -> float:
        """Return the threshold above which an averaged output at weight n counts as a one, for normalized inputs.

        It is zero for the sign rule of the paper. For `"midpoint"` it lies halfway between the two means, so that the
        margin does not shrink with k. It is minus infinity where every bit is one.

        Args:
            n: Weight of the input, from 1 to k.
            rule: Rounding rule, `"sign"` or `"midpoint"`.
        """
        one_of("rule", rule, RULES)
        one, zero = self.mean(n)
        if rule == "sign":
            return _ZERO if n == 1 else 0.0
        return -math.inf if n == self.k else (one + zero) / 2

    def failure(self, models: int, rule: Rule = "sign", n: int | None = None) -> float:
        """Return a bound on the probability that an ensemble answers any input wrongly, from Gaussian tails.

        Args:
            models: Number of networks in the ensemble.
            rule: Rounding rule, `"sign"`, `"midpoint"` or `"topn"`.
            n: Weight of one input to bound; None for all $2^k - 1$ inputs, grouped by weight.
        """
        one_of("rule", rule, RULES)
        whole("models", models)
        total = 0.0
        for weight in range(1, self.k + 1) if n is None else (n,):
            logs = self._log_failure(models, rule, weight)
            count = 0.0 if n is not None else _log_choose(self.k, weight)
            total += math.exp(min(0.0, logs + count)) if logs > -math.inf else 0.0
        return min(1.0, total)

    def ensemble_size(self, delta: float, rule: Rule = "sign", n: int | None = None) -> int:
        """Return the smallest number of networks whose failure bound is at most delta.

        Args:
            delta: Probability of failure, between 0 and 1.
            rule: Rounding rule, `"sign"`, `"midpoint"` or `"topn"`.
            n: Weight of one input to bound; None for all $2^k - 1$ inputs.

        Example:
            >>> law = PermutationNTK(10)
            >>> law.ensemble_size(0.05, "sign") > 40 * law.ensemble_size(0.05, "midpoint")
            True
        """
        check_delta(delta)
        high = 1
        while self.failure(high, rule, n) > delta:
            high *= 2
        low = high // 2
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.failure(middle, rule, n) <= delta else (middle, high)
        return high

    def _log_failure(self, models: int, rule: Rule, n: int) -> float:
        """Return the log of the union bound at one input of weight n."""
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
        """Return the kernel of an input and a basis vector in its support, relative to one outside its support."""
        angle = math.acos(1 / math.sqrt(n))
        return math.sqrt(1 - 1 / n) + factor / math.sqrt(n) * (math.pi - angle)

    def _check(self, n: int) -> None:
        if not is_whole(n) or not 1 <= n <= self.k:
            raise InputError(f"n must be a whole number between 1 and {self.k}, the weight of an input, got {n}")


def arccos_kernels(
    x: Num[Tensor, "rows k"], y: Num[Tensor, "columns k"] | None = None
) -> tuple[Float[Tensor, "rows columns"], Float[Tensor, "rows columns"]]:
    """Return the NNGP and NTK kernels of the ReLU network $W_2\\, relu(W_1 x / \\sqrt k) / \\sqrt h$, in float64.

    Args:
        x: Inputs `(rows, k)`.
        y: Inputs `(columns, k)`; x when absent.

    Example:
        >>> nngp, ntk = arccos_kernels(torch.eye(2))
        >>> round(float(nngp[0, 0]), 9), round(float(ntk[0, 0]), 9)
        (0.25, 0.5)
    """
    for inputs in (x, x if y is None else y):
        if not isinstance(inputs, Tensor) or inputs.ndim != 2 or inputs.is_complex() or inputs.shape[1] != x.shape[1]:
            got = f"{tuple(inputs.shape)}, {inputs.dtype}" if isinstance(inputs, Tensor) else type(inputs).__name__
            raise InputError(f"inputs must be real tensors (rows, k) with the same k, got {got}")
        if not x.shape[1]:
            raise InputError(f"inputs must have at least one coordinate, got shape {tuple(x.shape)}")
        if not bool(torch.isfinite(inputs).all()):
            raise InputError("inputs must be finite, got NaN or infinity")
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
    """Round averaged outputs at normalized inputs to bits `(rows, outputs)`, uint8.

    Args:
        average: Averaged outputs `(rows, outputs)`.
        weights: Weight (number of ones) of each input, `(rows,)`.
        law: Distribution of the outputs, which sets the thresholds.
        rule: `"sign"` or `"midpoint"` compare with a threshold. `"topn"` sets as many bits as the input has ones, at
            the largest outputs, because a permutation keeps the weight; ties go to the first.
    """
    one_of("rule", rule, RULES)
    if not isinstance(law, PermutationNTK):
        raise InputError(f"law must be a PermutationNTK, got {type(law).__name__}")
    if not isinstance(average, Tensor) or average.ndim != 2 or average.is_complex() or bool(average.isnan().any()):
        raise InputError(f"average must be real, without NaN, of shape (rows, outputs), got {_shown(average)}")
    integers = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
    if not isinstance(weights, Tensor) or weights.dtype not in integers or weights.shape != average.shape[:1]:
        raise InputError(f"weights must be one whole number for each row of average, got {_shown(weights)}")
    if bool(((weights < 1) | (weights > law.k)).any()):
        raise InputError(f"weights must lie between 1 and {law.k}, got {weights.tolist()}")
    if rule == "topn":
        order = average.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
        return (order < weights[:, None]).to(torch.uint8)
    by_weight = [law.threshold(n, rule) for n in range(1, law.k + 1)]
    at = torch.tensor(by_weight, dtype=torch.float64, device=average.device)[weights.long() - 1]
    return (average > at[:, None]).to(torch.uint8)


def check_delta(delta: object) -> None:
    """Check that a probability of failure lies strictly between 0 and 1."""
    if not is_real(delta) or not 0 < delta < 1:  # type: ignore[operator]
        raise InputError(f"delta must be a probability between 0 and 1, got {delta!r}")


def _shown(value: object) -> str:
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def _log_tail(z: float) -> float:
    """Return the log of the upper tail of a standard normal variable, accurate far out."""
    return float(torch.special.log_ndtr(torch.tensor(-z, dtype=torch.float64)))


def _log_choose(k: int, n: int) -> float:
    return math.lgamma(k + 1) - math.lgamma(n + 1) - math.lgamma(k - n + 1)
