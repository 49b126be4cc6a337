"""Self-normalizing networks with their activations and dropout."""

from __future__ import annotations

import itertools
import math
from typing import Literal, cast

import torch
from torch import Tensor, nn

from ..._checks import is_real, is_whole, one_of, whole
from ..._errors import InputError
from ...algebra.arithmetic import clip, promote_half
from ..criticality._criticality import Source, as_activation
from ._moment_map import ALPHA, SCALE, FixedPoint, fixed_point_at, selu_moments, selu_parts


def selu_parameters(
    mean: float = 0.0, variance: float = 1.0, *, omega: float = 1.0, tau: float = 1.0
) -> tuple[float, float]:
    """Return $(\\alpha, \\lambda)$ of the SELU with a given fixed point of mean and variance.

    The two conditions are a quadratic equation in alpha.

    Args:
        mean: Mean at the fixed point.
        variance: Variance at the fixed point.
        omega: Sum of a unit's weights: 1 (the authors' convention) preserves the mean; 0 is for zero-mean weights.
        tau: Sum of a unit's squared weights.

    Raises:
        InputError: For a variance that is not positive, or a point that no SELU has as its fixed point.

    Example:
        >>> [round(p, 8) for p in selu_parameters(0.0, 2.0)]
        [1.97125575, 1.06070908]
    """
    for name, value in (("mean", mean), ("variance", variance), ("omega", omega), ("tau", tau)):
        if not is_real(value):
            raise InputError(f"{name} must be a number, got {value!r}")
    if not (variance > 0 and tau > 0 and math.isfinite(mean)):
        raise InputError(f"mean must be finite, variance and tau positive, got {mean}, {variance} and {tau}")
    m, v = (torch.tensor(x, dtype=torch.float64) for x in (mean * omega, variance * tau))
    line, bend, line2, bend2 = (float(part) for part in selu_parts(m, v))
    second = variance + mean**2
    # solve scale (line + alpha bend) = mean and scale^2 (line2 + alpha^2 bend2) = second
    a = mean**2 * bend2 - second * bend**2
    b = -2 * second * line * bend
    c = mean**2 * line2 - second * line**2
    root = b**2 - 4 * a * c
    if a == 0 or root < -1e-12 * b**2:
        raise InputError(f"no SELU has the fixed point mean {mean}, variance {variance}")
    alphas = [(-b + sign * math.sqrt(max(root, 0.0))) / (2 * a) for sign in (1, -1)]
    if mean == 0:
        alphas = [-line / bend]  # the double root, in closed form to avoid rounding errors
    fitting = []
    for alpha in alphas:
        scale = math.sqrt(second / (line2 + alpha**2 * bend2))
        if alpha > 0 and abs(scale * (line + alpha * bend) - mean) < 1e-9 * (1 + abs(mean)):
            fitting.append((alpha, scale))
    if not fitting:
        raise InputError(f"no SELU with a positive alpha has the fixed point mean {mean}, variance {variance}")
    return min(fitting, key=lambda pair: abs(pair[0] - ALPHA))


def _need_floats(x: Tensor) -> None:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = getattr(x, "dtype", type(x).__name__)
        raise InputError(f"x must be a tensor of real floating-point numbers, got {got}")


class SELU(nn.Module):
    """Scaled exponential linear unit with a chosen fixed point.

    The function is $\\lambda z$ above zero and $\\lambda \\alpha (e^z - 1)$ below. At (0, 1) it is `torch.nn.SELU`. Use
    it with `lecun_normal_` weights, zero biases, and inputs standardized to the mean and variance of the fixed point.
    Half-precision inputs are computed in float32.

    Args:
        mean: Mean of wide layers at the fixed point.
        variance: Variance of wide layers at the fixed point.
        omega: Sum of a unit's weights, as in `selu_parameters`; 0 if layers with zero-mean weights must keep the mean.

    Shapes:
        Input and output: any, the same.

    Example:
        >>> x = torch.randn(5)
        >>> torch.allclose(SELU()(x), nn.SELU()(x))
        True
    """

    def __init__(self, mean: float = 0.0, variance: float = 1.0, *, omega: float = 1.0) -> None:
        super().__init__()
        self.mean, self.variance = mean, variance
        standard = (mean, variance) == (0.0, 1.0)
        self.alpha, self.scale = (ALPHA, SCALE) if standard else selu_parameters(mean, variance, omega=omega)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation elementwise, in the dtype of x.

        Args:
            x: Floating-point tensor of any shape.
        """
        _need_floats(x)
        y = promote_half(x)
        return (self.scale * torch.where(y > 0, y, self.alpha * torch.expm1(clip(y, high=0.0)))).to(x.dtype)

    def moments(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and variance of the activation over a Gaussian in closed form.

        Args:
            mean: Mean of the Gaussian.
            variance: Variance of the Gaussian.
        """
        return selu_moments(mean, variance, self.alpha, self.scale)

    def extra_repr(self) -> str:
        return f"mean={self.mean:g}, variance={self.variance:g}, alpha={self.alpha:.6f}, scale={self.scale:.6f}"


class AlphaDropout(nn.Module):
    """Dropout that keeps mean and variance by setting dropped units to the saturation value of SELU.

    $y = a (x d + \\alpha' (1 - d)) + b$ with a Bernoulli mask d and $\\alpha' = -\\lambda \\alpha$. The numbers a and b
    keep mean and variance exactly for *any* distribution of inputs with the moments of the fixed point. In evaluation
    mode it is the identity.

    Args:
        p: Probability of dropping a unit.
        activation: `SELU` that sets fixed point and saturation, by default that of torch.
        featurewise: Whether to drop whole channels of `(batch, channel, ...)`.

    Raises:
        InputError: For p outside [0, 1].

    Example:
        >>> torch.manual_seed(0) and None
        >>> round(float(AlphaDropout(0.1)(torch.randn(100_000)).var()), 1)
        1.0
    """

    def __init__(self, p: float = 0.1, activation: SELU | nn.SELU | None = None, *, featurewise: bool = False) -> None:
        super().__init__()
        if not is_real(p) or not 0 <= p <= 1:
            raise InputError(f"p must be a probability, got {p!r}")
        act = SELU() if activation is None or isinstance(activation, nn.SELU) else activation
        if not isinstance(act, SELU):
            raise InputError(f"activation must be a SELU, got {type(act).__name__}")
        self.p, self.featurewise = p, featurewise
        self.mean, self.variance, self.saturation = act.mean, act.variance, -act.scale * act.alpha

    @property
    def a(self) -> float:
        """Factor a, zero if everything is dropped."""
        keep = 1 - self.p
        spread = keep * (self.p * (self.saturation - self.mean) ** 2 + self.variance)
        return math.sqrt(self.variance / spread) if keep else 0.0

    @property
    def b(self) -> float:
        """Shift b, the mean if everything is dropped."""
        return self.mean - self.a * ((1 - self.p) * self.mean + self.p * self.saturation)

    def forward(self, x: Tensor) -> Tensor:
        """Return the output in the shape and dtype of x.

        Args:
            x: Floating-point tensor; `(batch, channel, ...)` if featurewise.
        """
        _need_floats(x)
        if not self.training or self.p == 0:
            return x
        shape = (*x.shape[:2], *[1] * (x.ndim - 2)) if self.featurewise else x.shape
        keep = torch.rand(shape, device=x.device) >= self.p
        return torch.where(keep, x, torch.full_like(x, self.saturation)) * self.a + self.b

    def extra_repr(self) -> str:
        return f"p={self.p:g}, a={self.a:.6f}, b={self.b:.6f}"


def lecun_normal_(tensor: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """Fill a weight in place with $N(0, 1 / \\text{fan-in})$, as self-normalizing layers need, and return it.

    `nn.init.calculate_gain("selu")` gives 3/4 instead, with which activations shrink layer by layer.

    Args:
        tensor: Weight of at least two axes.
        generator: Source of randomness.

    Raises:
        InputError: For a tensor with fewer than two axes or without elements.
    """
    if not isinstance(tensor, Tensor):
        raise InputError(f"tensor must be a weight such as layer.weight, got {type(tensor).__name__}")
    if tensor.ndim < 2:
        raise InputError(f"fan-in needs a weight of at least two axes, got shape {tuple(tensor.shape)}")
    if not tensor.numel():
        raise InputError(f"a weight without elements has no fan-in, got shape {tuple(tensor.shape)}")
    with torch.no_grad():
        return tensor.normal_(0, tensor[0].numel() ** -0.5, generator=generator)


class SNN(nn.Sequential):
    """Self-normalizing network: linear layers with SELU and alpha dropout (Klambauer et al. 2017).

    Standardize its inputs. Squared gradients grow by $\\chi_\\perp = 1.0716$ in each layer; every nonlinear activation
    that keeps mean 0 and variance 1 lets them grow ($Var\\, s \\leq E s'^2$, Poincaré). In very deep networks, `gamma`
    limits the growth.

    Args:
        in_features: Number of input features.
        out_features: Number of output features.
        hidden: Width of the first hidden layer.
        depth: Number of hidden layers.
        form: `"rectangular"` for hidden layers of one width, `"conic"` for widths that shrink geometrically to the
            outputs.
        dropout: Probability of `AlphaDropout` after every hidden layer.
        gamma: Weight of an identity skip around the hidden layers after the first; `gamma_for_growth` chooses it.
        generator: Source of randomness of the weights.

    Shapes:
        Input `(..., in_features)`, output `(..., out_features)`.

    Example:
        >>> SNN(8, 3, hidden=32, depth=4)(torch.randn(5, 8)).shape
        torch.Size([5, 3])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        hidden: int = 256,
        depth: int = 8,
        form: Literal["rectangular", "conic"] = "rectangular",
        dropout: float = 0.05,
        gamma: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        sizes = {"in_features": in_features, "out_features": out_features, "hidden": hidden, "depth": depth}
        for name, size in sizes.items():
            whole(name, size)
        one_of("form", form, ("rectangular", "conic"))
        if not 0 <= gamma < 1:
            raise InputError(f"gamma, the weight of the skip, must lie in [0, 1), got {gamma}")
        if gamma and form == "conic":
            raise InputError("gamma needs hidden layers of one width: use form='rectangular'")
        shrink = out_features / hidden if form == "conic" else 1.0
        widths = [in_features, *(max(1, round(hidden * shrink ** (i / depth))) for i in range(depth))]
        layers: list[nn.Module] = [_linear(widths[0], widths[1], generator)]
        for wide, next_wide in itertools.pairwise(widths[1:]):
            block = [SELU(), AlphaDropout(dropout), _linear(wide, next_wide, generator)]
            layers += [_Skip(block, gamma)] if gamma else block
        super().__init__(*layers, SELU(), AlphaDropout(dropout), _linear(widths[-1], out_features, generator))


class _Skip(nn.Sequential):
    """Residual block $\\gamma z + \\sqrt{1 - \\gamma^2}\\, W s(z)$ on preactivations.

    The branch ends in random weights, so its mean is zero for every z. A skip around activations would accumulate their
    means, and some inputs would explode.
    """

    def __init__(self, block: list[nn.Module], gamma: float) -> None:
        super().__init__(*block)
        self.gamma = gamma

    def forward(self, x: Tensor) -> Tensor:
        return self.gamma * x + math.sqrt(1 - self.gamma**2) * cast(Tensor, super().forward(x))


def _linear(inputs: int, outputs: int, generator: torch.Generator | None) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    lecun_normal_(layer.weight, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


def gamma_for_growth(depth: int, growth: float = math.e, *, activation: Source = "selu") -> float:
    """Return the weight of the skip that limits the growth of squared gradients over all layers.

    A layer $\\gamma z + \\sqrt{1 - \\gamma^2}\\, W s(z)$ multiplies them by $1 + (1 - \\gamma^2)(\\chi_\\perp - 1)$.

    Args:
        depth: Number of layers.
        growth: Largest growth of squared gradients, above 1.
        activation: Name, module, function or `Activation`.

    Example:
        >>> gamma_for_growth(8), round(gamma_for_growth(200), 4)
        (0.0, 0.9643)
    """
    if not (is_whole(depth) and is_real(growth) and depth >= 1 and growth > 1):
        raise InputError(f"depth must be a whole number of at least 1 and growth above 1, got {depth!r} and {growth!r}")
    excess = float(as_activation(activation).chi(1.0).perpendicular) - 1
    free = (growth ** (1 / depth) - 1) / excess if excess > 0 else 1.0
    return math.sqrt(1 - min(1.0, free))


class Normalized(nn.Module):
    """Activation $a\\, s(z) + b$ with mean 0 and variance 1 over a standard normal variable, for any s.

    The pair (0, 1) is then a fixed point of mean and variance; `fixed_point` says whether it attracts. For ReLU it
    does not.

    Args:
        activation: Name, module, function or `Activation` of s.

    Attributes:
        scale: Factor a.
        shift: Offset b.
        fixed_point: Fixed point (0, 1) with its Jacobian.

    Raises:
        InputError: For a constant activation.

    Example:
        >>> Normalized("tanh").fixed_point.attracting, Normalized("relu").fixed_point.attracting
        (True, False)
    """

    def __init__(self, activation: Source) -> None:
        super().__init__()
        self._act = as_activation(activation)
        mean, variance = (float(x) for x in self._act.moments(0.0, 1.0))
        if variance <= 1e-12 * (1 + mean**2):
            raise InputError(f"{self._act.name} is constant, so no scale gives it variance one")
        self.scale = variance**-0.5
        self.shift = -mean * self.scale
        self.fixed_point: FixedPoint = fixed_point_at(self, 0.0, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation elementwise.

        Args:
            x: Floating-point tensor of any shape.
        """
        return self.scale * self._act(x) + self.shift

    def moments(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and variance of the activation over a Gaussian.

        Args:
            mean: Mean of the Gaussian.
            variance: Variance of the Gaussian.
        """
        first, second = self._act.moments(mean, variance)
        return self.scale * first + self.shift, self.scale**2 * second

    def extra_repr(self) -> str:
        return f"{self._act.name}, scale={self.scale:.6f}, shift={self.shift:.6f}"
