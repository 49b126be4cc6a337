"""Measured kernels and vertices of an ensemble of random networks, with standard errors."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..._checks import whole
from ..._errors import InputError
from ...algebra import Activation
from ._criticality import Source, as_activation, check_variances
from ._finite_width import need_widths

_AT_ONCE = 1 << 22  # weights of a layer that are multiplied in one batch


@dataclass(frozen=True)
class Estimate:
    """Averages over an ensemble and their standard errors, one for each layer.

    Attributes:
        value: Average in each layer, `(layers,)`.
        error: Standard error of each average, `(layers,)`.
    """

    value: Float[Tensor, "layers"]
    error: Float[Tensor, "layers"]


@dataclass(frozen=True)
class EnsembleMoments:
    """Measurements under the names of `FiniteWidth`; vertices are over pairs of different neurons, times the width.

    The entries of the tangent kernel are None unless it was measured (`tangent=True`).

    Attributes:
        networks: Number of networks.
        kernel: Kernel $E z_i^2$.
        four_point: Vertex V, $n\\, Cov(z_i^2, z_j^2)$.
        tangent: Mean tangent kernel $E H_{ii}$.
        tangent_signal: Vertex D, $n\\, Cov(z_i^2, H_{jj})$.
        tangent_cross: Vertex F, $n\\, E z_i z_j H_{ij}$.
        tangent_mixed: Vertex B, $n\\, E H_{ij}^2$.
        tangent_variance: Vertex A, $n\\, Cov(H_{ii}, H_{jj})$.
    """

    networks: int
    kernel: Estimate
    four_point: Estimate
    tangent: Estimate | None = None
    tangent_signal: Estimate | None = None
    tangent_cross: Estimate | None = None
    tangent_mixed: Estimate | None = None
    tangent_variance: Estimate | None = None


def measure_ensemble(
    activation: Source,
    widths: Sequence[int],
    networks: int,
    *,
    gram: float = 1.0,
    bias_variance: float = 0.0,
    weight_variance: float,
    bias_rate: float = 1.0,
    weight_rate: float = 1.0,
    tangent: bool = False,
    generator: torch.Generator | None = None,
) -> EnsembleMoments:
    """Draw plain networks at random and measure the kernels and vertices that `finite_width` predicts.

    Networks are batched in blocks that fit into memory. Weights are float32, averages float64. Standard errors are over
    blocks. They are too small if the depth exceeds a fifth of the width, because distributions have heavy tails there.

    Args:
        activation: Name, module, function or `Activation`.
        widths: Widths of all layers, including the outputs; at least 2 each.
        networks: Number of networks, at least 2.
        gram: Mean square $|x|^2 / n_0$ of the input.
        bias_variance: Variance $C_b$ of biases.
        weight_variance: Variance $C_W$ of a weight times its fan-in.
        bias_rate: Learning rate $\\lambda_b$ of biases, relative to the global one.
        weight_rate: Learning rate $\\lambda_W$ of weights times their fan-in, relative to the global one.
        tangent: Whether to measure the tangent kernel too.
        generator: Source of randomness of the weights.

    Raises:
        InputError: For widths below 2, fewer than 2 networks, or negative variances.

    Example:
        >>> found = measure_ensemble("linear", [64, 64], 4000, weight_variance=1.0)
        >>> abs(float(found.four_point.value[1]) - 2) < 0.3  # Cov(z_1^2, z_2^2) = 2 K^2 / n
        True
    """
    act = as_activation(activation)
    check_variances(bias_variance=bias_variance, weight_variance=weight_variance, gram=gram)
    check_variances(bias_rate=bias_rate, weight_rate=weight_rate)
    need_widths(widths, 2)
    whole("networks", networks, 2)
    if not widths:
        raise InputError("widths must hold at least one width, got none")
    if tangent and act.jumps:
        raise InputError(f"{act.name} jumps at {act.jumps[0]:g}, so it has no tangent kernel")
    block = max(1, min(networks // 8 or 1, _AT_ONCE // max(widths) ** 2))
    sizes = [block] * (networks // block) + ([networks % block] if networks % block else [])
    rows = torch.stack(
        [
            _block(
                act, widths, size, gram, (bias_variance, weight_variance, bias_rate, weight_rate), tangent, generator
            )
            for size in sizes
        ]
    )  # blocks, layers, averages
    weight = torch.tensor(sizes, dtype=torch.float64)
    weight = weight / weight.sum()
    mean = torch.einsum("b,blk->lk", weight, rows)
    fan_in = torch.tensor([0, *widths[:-1]], dtype=torch.float64)  # the first layer is Gaussian exactly

    def estimate(k: int, of: tuple[int, int] | None = None, *, times: bool = False) -> Estimate:
        value, parts = mean[:, k], rows[:, :, k]
        if of is not None:  # a covariance, by the delta method
            a, b = of
            value = value - mean[:, a] * mean[:, b]
            parts = parts - mean[:, a] * rows[:, :, b] - mean[:, b] * rows[:, :, a]
        spread = torch.einsum("b,bl->l", weight, (parts - torch.einsum("b,bl->l", weight, parts)).square())
        error = (spread / max(1, len(sizes) - 1)).sqrt()
        return Estimate(value * fan_in, error * fan_in) if times else Estimate(value, error)

    found = EnsembleMoments(networks, estimate(0), estimate(1, (0, 0), times=True))
    if not tangent:
        return found
    return EnsembleMoments(
        networks, found.kernel, found.four_point, estimate(2), estimate(3, (0, 2), times=True),
        estimate(5, times=True), estimate(6, times=True), estimate(4, (2, 2), times=True),
    )  # fmt: skip


def _block(
    act: Activation, widths: Sequence[int], networks: int, gram: float, parameters: tuple[float, ...], tangent: bool,
    generator: torch.Generator | None,
) -> Tensor:  # fmt: skip
    """Return the averages of every layer over one block of networks, `(layers, averages)`."""
    b, w, bias_rate, weight_rate = parameters
    z = torch.randn(networks, widths[0], generator=generator) * (b + w * gram) ** 0.5
    kernel = (bias_rate + weight_rate * gram) * torch.eye(widths[0]).expand(networks, -1, -1) if tangent else None
    out = [_averages(z, kernel)]
    for inputs, outputs in itertools.pairwise(widths):
        weights = torch.randn(networks, outputs, inputs, generator=generator) * (w / inputs) ** 0.5
        s = act(z)
        if kernel is not None:
            passed = weights * act.slope(z)[:, None]
            own = bias_rate + weight_rate * s.square().mean(1)
            kernel = own[:, None, None] * torch.eye(outputs) + torch.bmm(torch.bmm(passed, kernel), passed.mT)
        z = torch.bmm(weights, s[..., None])[..., 0]
        if b:
            z = z + torch.randn(networks, outputs, generator=generator) * b**0.5
        out.append(_averages(z, kernel))
    return torch.stack(out)


def _averages(z: Tensor, kernel: Tensor | None) -> Tensor:
    """Return averages over networks and pairs of different neurons."""
    q = z.double().square()
    pairs = q.shape[1] * (q.shape[1] - 1)

    def different(a: Tensor, b: Tensor) -> Tensor:
        return ((a.sum(1) * b.sum(1) - (a * b).sum(1)) / pairs).mean()

    if kernel is None:
        return torch.stack([q.mean(), different(q, q)])
    own = kernel.diagonal(dim1=1, dim2=2).double()
    off = (kernel - torch.diag_embed(kernel.diagonal(dim1=1, dim2=2))).double()
    crossed = torch.einsum("bi,bij,bj->b", z.double(), off, z.double()).mean() / pairs
    mixed = off.square().sum((1, 2)).mean() / pairs
    return torch.stack([q.mean(), different(q, q), own.mean(), different(q, own), different(own, own), crossed, mixed])
