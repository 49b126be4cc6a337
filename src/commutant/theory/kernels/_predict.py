"""Predictions of wide networks after training, by Gaussian processes and by gradient descent on a kernel."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..._checks import is_real, is_whole, positive
from ..._errors import InputError

_JITTERS = (0.0, 1e-12, 1e-10, 1e-8, 1e-6)  # relative to the mean diagonal
_ENTRY = 1.2e-7  # precision of a kernel's entries relative to the largest, as they may come from float32
_ASYMMETRY = 1e-3


@dataclass(frozen=True)
class Prediction:
    """Predicted means at the test inputs with their covariance.

    Attributes:
        mean: Predicted outputs, `(test, outputs)`.
        covariance: Covariance of one output over initializations, `(test, test)`, or None if no prior kernel was given.
            It is symmetric, and variances are never negative; variances within rounding error are zero.
        jitter: Number added to the diagonal of the training kernel, relative to its mean; positive for repeated inputs.
    """

    mean: Float[Tensor, "test outputs"]
    covariance: Float[Tensor, "test test"] | None
    jitter: float


def gp_predict(
    kernel: Float[Tensor, "train train"],
    targets: Float[Tensor, "train outputs"],
    cross: Float[Tensor, "test train"],
    prior: Float[Tensor, "test test"] | None = None,
    *,
    noise: float = 0.0,
) -> Prediction:
    """Return the posterior of the Gaussian process of a wide network, $K_{tD} (K_{DD} + \\sigma^2)^{-1} y$.

    Args:
        kernel: Kernel $K_{DD}$ between training inputs, `(train, train)`.
        targets: Targets y, `(train, outputs)`.
        cross: Kernel $K_{tD}$ between test and training inputs, `(test, train)`.
        prior: Kernel $K_{tt}$ between test inputs, `(test, test)`, needed for the covariance only.
        noise: Variance $\\sigma^2$ of the noise of the targets.

    Raises:
        InputError: For shapes that don't match, values that are not finite, or kernels that are not symmetric, not
            positive definite, or do not come from one kernel function.

    Example:
        >>> k = torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
        >>> gp_predict(k, torch.tensor([[3.0], [1.0]]), k).mean.T.round(decimals=6)
        tensor([[3., 1.]], dtype=torch.float64)
    """
    kernel, targets, cross = _checked(kernel, targets, cross)
    if not is_real(noise) or not 0 <= noise < math.inf:
        raise InputError(f"noise must be a finite variance that is not negative, got {noise!r}")
    factor, jitter = _factor(kernel, noise)
    weights = torch.cholesky_solve(cross.T, factor).T
    covariance = None
    if prior is not None:
        prior = _symmetric(_fitting(prior, "prior", (len(cross),) * 2), "prior")
        half = torch.linalg.solve_triangular(factor, cross.T, upper=False)
        covariance = _covariance(prior - half.T @ half, weights, _scale(kernel, cross, prior))
    return Prediction(weights @ targets, covariance, jitter)


def ntk_predict(
    tangent: Float[Tensor, "train train"],
    targets: Float[Tensor, "train outputs"],
    cross: Float[Tensor, "test train"],
    kernels: tuple[Tensor, Tensor, Tensor] | None = None,
    *,
    time: float = math.inf,
    steps: int | None = None,
    rate: float = 1.0,
    start: tuple[Tensor, Tensor] | None = None,
    ridge: float = 0.0,
) -> Prediction:
    """Predict the outputs of a wide network after gradient descent on $\\frac12 \\sum |f(x) - y|^2$.

    Gradient flow over a time T gives
    $f_t = f_t(0) + \\Theta_{tD} \\Theta_{DD}^{-1} (1 - e^{-\\Theta_{DD} T}) (y - f_D(0))$; T steps of gradient descent
    replace the exponential by $(1 - \\eta \\Theta_{DD})^T$.

    Args:
        tangent: Tangent kernel $\\Theta_{DD}$ between training inputs, `(train, train)`.
        targets: Targets y, `(train, outputs)`.
        cross: Tangent kernel $\\Theta_{tD}$ between test and training inputs, `(test, train)`.
        kernels: Kernels $(K_{DD}, K_{tD}, K_{tt})$ of the outputs at initialization, needed for the covariance only.
        time: Time of gradient flow; infinity trains to convergence.
        steps: Number of steps of gradient descent, in place of `time`.
        rate: Learning rate $\\eta$ of the steps, below two over the largest eigenvalue.
        start: Outputs $(f_D(0), f_t(0))$ of one network before training, by default zero, the mean over networks.
        ridge: Number added to the diagonal of the tangent kernel, which acts like early stopping.

    Raises:
        InputError: As `gp_predict`, and for a negative time or a rate at which descent diverges.

    Example:
        >>> k = torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
        >>> y = torch.tensor([[3.0], [1.0]])
        >>> ntk_predict(k, y, k, time=0.0).mean.T, ntk_predict(k, y, k).mean.T.round(decimals=6)
        (tensor([[0., 0.]], dtype=torch.float64), tensor([[3., 1.]], dtype=torch.float64))
    """
    tangent, targets, cross = _checked(tangent, targets, cross)
    numbers: dict[str, object] = {"time": time, "rate": rate, "ridge": ridge, "steps": 0 if steps is None else steps}
    for name, value in numbers.items():
        if not (is_whole if name == "steps" else is_real)(value):
            raise InputError(f"{name} must be a {'whole ' if name == 'steps' else ''}number, got {value!r}")
    if steps is not None:
        positive("rate", rate)
    if steps is not None and not math.isinf(time):
        raise InputError(f"only one of time and steps can be given, got {time} and {steps}")
    if not time >= 0 or (steps is not None and steps < 0) or not 0 <= ridge < math.inf:
        raise InputError(f"time, steps and ridge must not be negative, got {time}, {steps} and {ridge}")
    jitter = 0.0
    if math.isinf(time) and steps is None:
        factor, jitter = _factor(tangent, ridge)
        weights = torch.cholesky_solve(cross.T, factor).T
    else:
        tangent = tangent + ridge * torch.eye(len(tangent), dtype=torch.float64, device=tangent.device)
        values, vectors = torch.linalg.eigh(tangent)
        if float(values.min()) < -max(1e-6, len(tangent) * _ENTRY) * float(values.abs().max()):
            raise InputError(f"the training kernel has a negative eigenvalue, {float(values.min()):.3g}")
        weights = cross @ vectors * _learnt(values.clamp(min=0), time, steps, rate) @ vectors.T
    mean = weights @ targets
    if start is not None:
        if not isinstance(start, tuple | list) or len(start) != 2:
            raise InputError("start must be a pair of outputs of one network, (at training inputs, at test inputs)")
        outputs = targets.shape[1]
        first = _fitting(start[0], "start", (len(tangent), outputs))
        offset = _fitting(start[1], "start", (len(cross), outputs))
        mean = offset + weights @ (targets - first)
    covariance = None
    if kernels is not None:
        if not isinstance(kernels, tuple | list) or len(kernels) != 3:
            raise InputError("kernels holds three kernels: (train, train), (test, train) and (test, test)")
        n, m = len(tangent), len(cross)
        shapes = ((n, n), (m, n), (m, m))
        k, k_cross, k_test = (_fitting(t, "kernels", shape) for t, shape in zip(kernels, shapes, strict=True))
        both = weights @ k_cross.T
        k, k_test = _symmetric(k, "kernels"), _symmetric(k_test, "kernels")
        covariance = _covariance(k_test - both - both.T + weights @ k @ weights.T, weights, _scale(k, k_cross, k_test))
    return Prediction(mean, covariance, jitter)


def _learnt(values: Tensor, time: float, steps: int | None, rate: float) -> Tensor:
    """Return $(1 - e^{-\\lambda t}) / \\lambda$, with its limit t at zero, or its counterpart for steps of descent."""
    safe = torch.where(values > 0, values, 1.0)
    if steps is None:
        return torch.where(values > 0, -torch.expm1(-values * time) / safe, time)
    top = float(values.max())
    if top == 0:
        return torch.full_like(values, rate * steps)
    if not 0 < rate * top < 2:
        raise InputError(f"descent diverges at rate {rate:g}: it must be below 2 / {top:.4g} = {2 / top:.4g}")
    small = values * rate < 0.5
    slow = -torch.expm1(steps * torch.log1p(-torch.where(small, values * rate, 0.0)))
    learnt = torch.where(small, slow, 1 - (1 - rate * values) ** steps)
    return torch.where(values > 0, learnt / safe, rate * steps)


def _factor(kernel: Tensor, ridge: float) -> tuple[Tensor, float]:
    """Return the Cholesky factor with the smallest relative jitter that suffices, and the jitter."""
    diagonal = kernel.diagonal()
    scale = float(diagonal.mean())
    for jitter in _JITTERS:
        shifted = kernel.clone()
        shifted.diagonal().add_(ridge + jitter * scale)
        factor, failed = torch.linalg.cholesky_ex(shifted)
        # if rounding dominates the smallest pivot, it would dominate the prediction
        if not int(failed) and float(factor.diagonal().square().min()) > 1e-14 * scale * len(kernel):
            return factor, jitter
    raise InputError("the training kernel is not positive definite, even with 1e-6 of its mean diagonal added to it")


def _covariance(found: Tensor, weights: Tensor, scale: float) -> Tensor:
    """Return a covariance corrected for rounding: symmetric, with variances of at least zero.

    A variance is a quadratic form of a joint kernel with `[weights, -1]`. Its error is therefore the error of an entry
    times the square of the sum of absolute weights.
    """
    found = (found + found.T) / 2
    variance = found.diagonal()
    error = 8 * _ENTRY * scale * (1 + weights.abs().sum(1)).square()
    if bool((variance < -error).any()):
        row = int((variance + error).argmin())
        raise InputError(
            f"test input {row} has the variance {float(variance[row]):.3g}: the kernels of training and test inputs "
            "must come from one kernel function"
        )
    deviation = variance.clamp(min=0).sqrt()
    bound = deviation[:, None] * deviation
    covariance = torch.minimum(torch.maximum(found, -bound), bound)
    covariance.diagonal().copy_(variance.clamp(min=0))
    return covariance


def _scale(*kernels: Tensor) -> float:
    return max((float(k.abs().max()) for k in kernels if k.numel()), default=0.0)


def _symmetric(kernel: Tensor, name: str) -> Tensor:
    if float((kernel - kernel.T).abs().max() if kernel.numel() else 0) > _ASYMMETRY * _scale(kernel):
        raise InputError(f"{name} must be symmetric, got a kernel that is not")
    return kernel


def _need_real(t: object, name: str) -> None:
    if not isinstance(t, Tensor) or t.is_complex():
        got = t.dtype if isinstance(t, Tensor) else type(t).__name__
        raise InputError(f"{name} must be a tensor of real numbers, got {got}")


def _fitting(t: Tensor, name: str, shape: tuple[int, ...]) -> Tensor:
    _need_real(t, name)
    if t.shape != shape or not bool(torch.isfinite(t).all()):
        raise InputError(f"{name} must be finite, of shape {shape}, got {tuple(t.shape)}")
    return t.to(torch.float64)


def _checked(kernel: Tensor, targets: Tensor, cross: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    for t, name in ((kernel, "the training kernel"), (targets, "targets"), (cross, "the kernel of test inputs")):
        _need_real(t, name)
    n = len(kernel) if kernel.ndim else 0
    if kernel.shape != (n, n) or not n or targets.ndim != 2 or len(targets) != n or cross.shape[1:] != (n,):
        raise InputError(
            f"expected a kernel (train, train), targets (train, outputs) and a kernel (test, train), got "
            f"{tuple(kernel.shape)}, {tuple(targets.shape)} and {tuple(cross.shape)}"
        )
    for t in (kernel, targets, cross):
        if not bool(torch.isfinite(t).all()):
            raise InputError("kernels and targets must be finite, got NaN or infinity")
    _symmetric(kernel, "the training kernel")
    return kernel.to(torch.float64), targets.to(torch.float64), cross.to(torch.float64)
