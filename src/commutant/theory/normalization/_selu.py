"""Self-normalising networks: activations with a fixed point of mean and variance, their dropout, their network."""

from __future__ import annotations

import itertools
import math
from typing import Literal, cast

import torch
from torch import Tensor, nn

from ..._checks import is_real, is_whole
from ..._errors import InputError
from ...algebra.arithmetic import clip
from ..criticality._criticality import Source, as_activation
from ._moment_map import ALPHA, SCALE, FixedPoint, fixed_point_at, selu_moments, selu_parts


def selu_parameters(
    mean: float = 0.0, variance: float = 1.0, *, omega: float = 1.0, tau: float = 1.0
) -> tuple[float, float]:
    """$(\\alpha, \\lambda)$ whose SELU keeps a mean and a variance: the two equations are a quadratic in alpha.

    Args:
        mean, variance: the fixed point.
        omega: sum of a unit's weights. 1, the authors' convention, lets the mean through; 0 is for zero-mean weights.
        tau: sum of their squares.

    Raises:
        InputError: for a variance that is not positive, or a point that no SELU has.

    Example:
        >>> [round(p, 8) for p in selu_parameters(0.0, 2.0)]
        [1.97125575, 1.06070908]
    """
    for name, value in (("mean", mean), ("variance", variance), ("omega", omega), ("tau", tau)):
        if not is_real(value):
            raise InputError(f"{name} must be a number, got {value!r}")
    if not (variance > 0 and tau > 0 and math.isfinite(mean)):
        raise InputError(
            f"a fixed point has a finite mean and a positive variance, got mean {mean}, variance {variance}"
        )
    m, v = (torch.tensor(x, dtype=torch.float64) for x in (mean * omega, variance * tau))
    line, bend, line2, bend2 = (float(part) for part in selu_parts(m, v))
    second = variance + mean**2
    # scale (line + alpha bend) = mean and scale^2 (line2 + alpha^2 bend2) = second.
    a = mean**2 * bend2 - second * bend**2
    b = -2 * second * line * bend
    c = mean**2 * line2 - second * line**2
    root = b**2 - 4 * a * c
    if a == 0 or root < -1e-12 * b**2:
        raise InputError(f"no SELU has the fixed point mean {mean}, variance {variance}")
    alphas = [(-b + sign * math.sqrt(max(root, 0.0))) / (2 * a) for sign in (1, -1)]
    if mean == 0:
        alphas = [-line / bend]  # the double root, without its square root of rounding
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
        raise InputError(f"x is a tensor of real floating-point numbers, got {getattr(x, 'dtype', type(x).__name__)}")


class SELU(nn.Module):
    """Scaled exponential linear unit with a chosen fixed point.

    $\\lambda z$ above zero, $\\lambda \\alpha (e^z - 1)$ below.

    At (0, 1) it is `torch.nn.SELU`. Use it with `lecun_normal_` weights, zero biases and standardised inputs; elsewhere
    than at (0, 1) standardise inputs to that mean and variance. Computed in float32 under lower precision.

    Args:
        mean, variance: the fixed point of wide layers.
        omega: as in `selu_parameters`; 0 when the mean shall be kept by layers with zero-mean weights.

    Shapes:
        any.

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
        """The activation, elementwise, in the dtype of x."""
        _need_floats(x)
        y = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        return (self.scale * torch.where(y > 0, y, self.alpha * torch.expm1(clip(y, high=0.0)))).to(x.dtype)

    def moments(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the activation over a Gaussian, in closed form."""
        return selu_moments(mean, variance, self.alpha, self.scale)

    def extra_repr(self) -> str:
        return f"mean={self.mean:g}, variance={self.variance:g}, alpha={self.alpha:.6f}, scale={self.scale:.6f}"


class AlphaDropout(nn.Module):
    """Dropout that keeps a mean and a variance: dropped units take the value of SELU's saturation.

    $y = a (x d + \\alpha' (1 - d)) + b$ with $\\alpha' = -\\lambda \\alpha$ and a, b such that mean and variance of
    *any* input law with the fixed point's moments stay exactly. The identity in evaluation.

    Args:
        p: probability to drop.
        activation: the `SELU` whose fixed point and saturation are meant, by default that of torch.
        featurewise: drop whole channels `(batch, channel, ...)`.

    Raises:
        InputError: for p outside [0, 1].

    Example:
        >>> torch.manual_seed(0) and None
        >>> round(float(AlphaDropout(0.1)(torch.randn(100_000)).var()), 1)
        1.0
    """

    def __init__(self, p: float = 0.1, activation: SELU | nn.SELU | None = None, *, featurewise: bool = False) -> None:
        super().__init__()
        if not is_real(p) or not 0 <= p <= 1:
            raise InputError(f"p is a probability, got {p!r}")
        act = SELU() if activation is None or isinstance(activation, nn.SELU) else activation
        if not isinstance(act, SELU):
            raise InputError(f"alpha dropout goes with a SELU, got {type(act).__name__}")
        self.p, self.featurewise = p, featurewise
        self.mean, self.variance, self.saturation = act.mean, act.variance, -act.scale * act.alpha

    @property
    def a(self) -> float:
        """The factor, zero where everything is dropped."""
        keep = 1 - self.p
        spread = keep * (self.p * (self.saturation - self.mean) ** 2 + self.variance)
        return math.sqrt(self.variance / spread) if keep else 0.0

    @property
    def b(self) -> float:
        """The shift, the mean where everything is dropped."""
        return self.mean - self.a * ((1 - self.p) * self.mean + self.p * self.saturation)

    def forward(self, x: Tensor) -> Tensor:
        """Of the same shape and dtype as x."""
        _need_floats(x)
        if not self.training or self.p == 0:
            return x
        shape = (*x.shape[:2], *[1] * (x.ndim - 2)) if self.featurewise else x.shape
        keep = torch.rand(shape, device=x.device) >= self.p
        return torch.where(keep, x, torch.full_like(x, self.saturation)) * self.a + self.b

    def extra_repr(self) -> str:
        return f"p={self.p:g}, a={self.a:.6f}, b={self.b:.6f}"


def lecun_normal_(tensor: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """Fill a weight in place with $N(0, 1 / \\text{fan-in})$, what self-normalising layers need, and return it.

    `nn.init.calculate_gain("selu")` gives 3/4 instead, with which activations shrink layer by layer.

    Raises:
        InputError: for a tensor of less than two axes, or without elements.
    """
    if not isinstance(tensor, Tensor):
        raise InputError(f"a weight is a tensor, got {type(tensor).__name__}; pass layer.weight of each layer")
    if tensor.ndim < 2:
        raise InputError(f"fan-in needs a weight of at least two axes, got shape {tuple(tensor.shape)}")
    if not tensor.numel():
        raise InputError(f"a weight without elements has no fan-in, got shape {tuple(tensor.shape)}")
    with torch.no_grad():
        return tensor.normal_(0, tensor[0].numel() ** -0.5, generator=generator)


class SNN(nn.Sequential):
    """Plain deep network that normalises itself: linear layers, SELU and alpha dropout (Klambauer et al. 2017).

    Standardise its inputs. Gradients grow by $\\chi_\\perp = 1.0716$ a layer whatever one does (no nonlinear activation
    keeps mean 0 and variance 1 with less: $Var\\, s \\leq E s'^2$, Poincaré); `gamma` tames that in very deep networks.

    Args:
        in_features, out_features: of inputs and outputs.
        hidden: width of the first hidden layer.
        depth: hidden layers.
        form: `"rectangular"`, all of one width, or `"conic"`, shrinking geometrically to the outputs.
        dropout: of `AlphaDropout` after every hidden layer.
        gamma: weight of an identity skip around the hidden layers after the first; `gamma_for_growth` chooses it.
        generator: of the weights.

    Shapes:
        input: `(..., in_features)`. output: `(..., out_features)`.

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
        if min(in_features, out_features, hidden, depth) < 1:
            raise InputError(f"sizes are at least 1, got {in_features}, {out_features}, {hidden}, depth {depth}")
        if form not in ("rectangular", "conic"):
            raise InputError(f"form is 'rectangular' or 'conic', got {form!r}")
        if not 0 <= gamma < 1:
            raise InputError(f"gamma, the weight of the skip, lies in [0, 1), got {gamma}")
        if gamma and form == "conic":
            raise InputError("an identity skip needs layers of one width: gamma goes with form='rectangular'")
        shrink = out_features / hidden if form == "conic" else 1.0
        widths = [in_features, *(max(1, round(hidden * shrink ** (i / depth))) for i in range(depth))]
        layers: list[nn.Module] = [_linear(widths[0], widths[1], generator)]
        for wide, next_wide in itertools.pairwise(widths[1:]):
            block = [SELU(), AlphaDropout(dropout), _linear(wide, next_wide, generator)]
            layers += [_Skip(block, gamma)] if gamma else block
        super().__init__(*layers, SELU(), AlphaDropout(dropout), _linear(widths[-1], out_features, generator))


class _Skip(nn.Sequential):
    """$\\gamma z + \\sqrt{1 - \\gamma^2}\\, W s(z)$ on preactivations.

    The branch ends in random weights, so that its mean is zero whatever z: a skip around activations instead would add
    up their means, and some inputs would explode.
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
    """The weight of the skip with which squared gradients grow at most so much over all layers.

    A layer $\\gamma z + \\sqrt{1 - \\gamma^2}\\, W s(z)$ multiplies them by $1 + (1 - \\gamma^2)(\\chi_\\perp - 1)$.

    Example:
        >>> gamma_for_growth(8), round(gamma_for_growth(200), 4)
        (0.0, 0.9643)
    """
    if not (is_whole(depth) and is_real(growth) and depth >= 1 and growth > 1):
        raise InputError(f"depth is a whole number, at least 1, and growth above 1, got {depth!r} and {growth!r}")
    excess = float(as_activation(activation).chi(1.0).perpendicular) - 1
    free = (growth ** (1 / depth) - 1) / excess if excess > 0 else 1.0
    return math.sqrt(1 - min(1.0, free))


class Normalized(nn.Module):
    """$a\\, s(z) + b$ with mean 0 and variance 1 over a standard normal variable, for any activation s.

    That makes (0, 1) a fixed point of mean and variance; `fixed_point` says whether it attracts (ReLU's does not).

    Args:
        activation: a name, a module, a function or an `Activation`.

    Attributes:
        scale, shift: a and b.
        fixed_point: at (0, 1), with its Jacobian.

    Raises:
        InputError: for an activation that is constant.

    Example:
        >>> Normalized("tanh").fixed_point.attracting, Normalized("relu").fixed_point.attracting
        (True, False)
    """

    def __init__(self, activation: Source) -> None:
        super().__init__()
        self._act = as_activation(activation)
        mean, variance = (float(x) for x in self._act.moments(0.0, 1.0))
        if variance <= 1e-12 * (1 + mean**2):
            raise InputError(f"{self._act.name} is constant: no scale gives it a variance of one")
        self.scale = variance**-0.5
        self.shift = -mean * self.scale
        self.fixed_point: FixedPoint = fixed_point_at(self, 0.0, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        """The activation, elementwise."""
        return self.scale * self._act(x) + self.shift

    def moments(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance over a Gaussian."""
        first, second = self._act.moments(mean, variance)
        return self.scale * first + self.shift, self.scale**2 * second

    def extra_repr(self) -> str:
        return f"{self._act.name}, scale={self.scale:.6f}, shift={self.shift:.6f}"
