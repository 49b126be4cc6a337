"""First-order corrections in 1/width: four-point vertices and fluctuations of the tangent kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Float
from torch import Tensor

from ..._checks import is_real, positive, whole
from ..._errors import InputError
from ...algebra import Activation, gaussian_nodes
from ._criticality import Source, as_activation, check_variances

_NEXT_TO_ZERO = 1e-100  # stands for a kernel of zero where the activation has a kink at zero


@dataclass(frozen=True)
class FiniteWidth:
    """Kernels and first-order corrections of each layer of a plain network for m inputs.

    Let $n$ be the width of the layer below and $i \\neq j$ two neurons. The vertices of inputs 1 to 4 are defined by
    $Cov(z_i^2, z_j^2) = V / n$, $Cov(z_i^2, H_{jj}) = D / n$, $E z_i z_j H_{ij} = F / n$,
    $Cov(H_{ii}, H_{jj}) = A / n$ and $E H_{ij}^2 = B / n$.

    Attributes:
        kernel: Kernel K at infinite width, `(layers, m, m)`.
        tangent: Tangent kernel $\\Theta$ at infinite width, `(layers, m, m)`.
        four_point: Vertex $V_{(12)(34)}$, `(layers, m, m, m, m)`.
        tangent_signal: Vertex $D_{1234}$, `(layers, m, m, m, m)`.
        tangent_cross: Vertex $F_{1234}$ in the order signal, tangent, signal, tangent, `(layers, m, m, m, m)`.
        tangent_mixed: Vertex $B_{1234}$, `(layers, m, m, m, m)`.
        tangent_variance: Vertex $A_{(12)(34)}$, `(layers, m, m, m, m)`.
        kernel_shift: Shift $G_1$; the mean kernel is $K + G_1 / n$, `(layers, m, m)`.
        tangent_shift: Shift $H_1$; the mean tangent kernel is $\\Theta + H_1 / n$, `(layers, m, m)`.
        differential: $(P, Q)$ of the differential of the tangent kernel for one input, `(layers, 2)`, else None.
        widths: Widths of the hidden layers.
    """

    kernel: Float[Tensor, "layers m m"]
    tangent: Float[Tensor, "layers m m"]
    four_point: Float[Tensor, "layers m m m m"]
    tangent_signal: Float[Tensor, "layers m m m m"]
    tangent_cross: Float[Tensor, "layers m m m m"]
    tangent_mixed: Float[Tensor, "layers m m m m"]
    tangent_variance: Float[Tensor, "layers m m m m"]
    kernel_shift: Float[Tensor, "layers m m"]
    tangent_shift: Float[Tensor, "layers m m"]
    differential: Float[Tensor, "layers 2"] | None
    widths: tuple[int, ...]


@dataclass(frozen=True)
class _Vertices:
    """Kernels and vertices of one layer, by the letters of Roberts, Yaida and Hanin."""

    K: Tensor
    T: Tensor
    V: Tensor
    D: Tensor
    F: Tensor
    B: Tensor
    A: Tensor
    G1: Tensor
    H1: Tensor
    P: Tensor
    Q: Tensor


def finite_width(
    activation: Source,
    widths: Sequence[int],
    gram: Float[Tensor, "m m"] | float = 1.0,
    *,
    bias_variance: float = 0.0,
    weight_variance: float,
    bias_rate: float = 1.0,
    weight_rate: float = 1.0,
) -> FiniteWidth:
    """Compute first-order corrections in 1/width to the statistics of random plain networks.

    The recursions are those of Roberts, Yaida and Hanin, ch. 4 and 8, for one to four inputs. Derivatives of
    expectations are computed with Hermite polynomials of the variables (Stein's lemma). Activations with kinks
    therefore need no second derivative, and repeated or collinear inputs need no matrix inverse.

    Args:
        activation: Name, module, function or `Activation`.
        widths: Widths of the hidden layers, L - 1 of them for a network of L layers of weights.
        gram: Scalar products $x_a \\cdot x_b / n_0$ of the inputs, `(m, m)`, or a number for one input. A single zero
            input is treated as the limit of small ones; a zero input among others uses the slope of autograd at a kink.
        bias_variance: Variance $C_b$ of biases.
        weight_variance: Variance $C_W$ of a weight times its fan-in.
        bias_rate: Learning rate $\\lambda_b$ of biases, relative to the global one.
        weight_rate: Learning rate $\\lambda_W$ of weights times their fan-in, relative to the global one.

    Returns:
        Corrections of all layers, including the first one, which is exactly Gaussian.

    Raises:
        InputError: For weights without variance, a width below 1, more than four independent inputs, three or more
            independent inputs with an activation that has kinks, or an activation with a jump.

    Example:
        >>> found = finite_width("relu", [64] * 9, weight_variance=2.0)
        >>> round(float(found.four_point[-1].squeeze()), 6)  # (L - 1) (3 A_4 / A_2^2 - 1) K^2
        180.0
    """
    act = as_activation(activation)
    if act.jumps:
        raise InputError(f"{act.name} jumps at {act.jumps[0]:g}, so its tangent kernel is infinite")
    need_widths(widths, 1)
    positive("weight_variance", weight_variance)
    check_variances(bias_variance=bias_variance, bias_rate=bias_rate, weight_rate=weight_rate)
    metric = _scalar_products(gram)
    m = len(metric)
    rates = _Rates(bias_variance, weight_variance, bias_rate, weight_rate)
    two, four = torch.zeros(m, m, dtype=torch.float64), torch.zeros(m, m, m, m, dtype=torch.float64)
    none = torch.zeros((), dtype=torch.float64)
    first = bias_variance + weight_variance * metric, bias_rate + weight_rate * metric
    states = [_Vertices(*first, four, four, four, four, four, two, two, none, none)]
    for i in range(len(widths)):
        ratio = widths[i] / widths[i - 1] if i else 1.0
        states.append(_next(act, states[-1], ratio, rates))
    stacked = {field.name: torch.stack([getattr(s, field.name) for s in states]) for field in fields(_Vertices)}
    return FiniteWidth(
        kernel=stacked["K"],
        tangent=stacked["T"],
        four_point=stacked["V"],
        tangent_signal=stacked["D"],
        tangent_cross=stacked["F"],
        tangent_mixed=stacked["B"],
        tangent_variance=stacked["A"],
        kernel_shift=stacked["G1"],
        tangent_shift=stacked["H1"],
        differential=torch.stack([stacked["P"], stacked["Q"]], -1) if m == 1 else None,
        widths=tuple(widths),
    )


def need_widths(widths: Sequence[int], least: int) -> None:
    """Check that widths are a sequence of whole numbers of at least `least`."""
    if isinstance(widths, str) or not isinstance(widths, Sequence):
        raise InputError(f"widths must be a sequence of whole numbers, got {type(widths).__name__}")
    for width in widths:
        whole("widths", width, least)


def _scalar_products(gram: Tensor | float) -> Tensor:
    """Return the scalar products of inputs as a square matrix, if any inputs have them."""
    if not is_real(gram) and (not isinstance(gram, Tensor) or gram.is_complex()):
        raise InputError(f"gram must be a number or a real tensor (m, m), got {type(gram).__name__}")
    metric = torch.as_tensor(gram, dtype=torch.float64)
    if not bool(torch.isfinite(metric).all()):
        raise InputError("gram must be finite, got NaN or infinity")
    metric = metric.reshape(1, 1) if metric.ndim == 0 else metric
    if metric.ndim != 2 or metric.shape[0] != metric.shape[1] or not len(metric):
        raise InputError(f"gram must be a square matrix of at least one input, got shape {tuple(metric.shape)}")
    if float((metric - metric.T).abs().max()) > 1e-6 * float(metric.abs().max()):
        raise InputError("gram must be symmetric, got a matrix that is not")
    if float(torch.linalg.eigvalsh(metric).min()) < -1e-6 * float(metric.abs().max()):
        raise InputError("gram has a negative eigenvalue: no inputs have such scalar products")
    return metric


@dataclass(frozen=True)
class _Rates:
    b: float
    w: float
    lb: float
    lw: float


def _next(act: Activation, x: _Vertices, rho: float, rates: _Rates) -> _Vertices:
    """Return the vertices of the next layer; pairs of inputs are flattened, so a vertex is a matrix `(m m, m m)`."""
    cw, lw, m = rates.w, rates.lw, len(x.K)
    if 0.0 in act.kinks:  # at a zero input, use the mean of the one-sided slopes
        x = replace(x, K=x.K + torch.diag((x.K.diagonal() == 0) * torch.full_like(x.K.diagonal(), _NEXT_TO_ZERO)))
    average = _Average(x.K, act)
    s, t = average.s, average.t
    ss, tt, st = (torch.einsum("oa,ob->oab", *pair).flatten(1) for pair in ((s, s), (t, t), (s, t)))
    omega = lw * ss + cw * x.T.flatten() * tt
    mean_ss, mean_tt, mean_omega = average(ss), average(tt), average(omega)
    bend_ss, bend_omega, bend_tt = average.bend(ss), average.bend(omega), average.bend(tt)
    slope_st = average.slope(st).reshape(m, m, m)
    V, D, B, A = (vertex.reshape(m * m, m * m) for vertex in (x.V, x.D, x.B, x.A))

    four_point = average.covariance(ss, ss) + rho * bend_ss @ V @ bend_ss.mT
    signal = cw * average.covariance(ss, omega) + rho * (
        cw * bend_ss @ V @ bend_omega.mT + cw**2 * (bend_ss @ D) * mean_tt
    )
    cross = average.product(st, st).reshape(m, m, m, m) * x.T[None, :, None, :]
    cross = cross + rho * torch.einsum("abe,ebfd,cdf->abcd", slope_st, x.F, slope_st)
    mixed = average.product(tt, tt).reshape(m, m, m, m) * x.T[:, None, :, None] * x.T[None, :, None, :]
    mixed = mixed + rho * (torch.outer(mean_tt, mean_tt) * B).reshape(m, m, m, m)
    joint = (bend_omega @ D) * mean_tt
    variance = average.covariance(omega, omega) + rho * (
        bend_omega @ V @ bend_omega.mT + cw**2 * torch.outer(mean_tt, mean_tt) * A + cw * (joint + joint.mT)
    )
    shift = bend_ss @ x.G1.flatten() + average.fourth(ss, x.V) / 8
    # sum over b, c of (D_bc12 / 2 + F_b1c2) times the second derivatives of E s' s', which are twice `bend_tt`
    loop = (D / 2 + x.F.permute(0, 2, 1, 3).reshape(m * m, m * m)).mT
    tangent_shift = cw * mean_tt * x.H1.flatten() + bend_omega @ x.G1.flatten() + average.fourth(omega, x.V) / 8
    tangent_shift = tangent_shift + 2 * cw * (loop * bend_tt).sum(-1)
    P, Q = _differential(average, x, rho, rates) if m == 1 else (x.P, x.Q)
    return _Vertices(
        K=(rates.b + cw * mean_ss).reshape(m, m),
        T=(rates.lb + mean_omega).reshape(m, m),
        V=cw**2 * four_point.reshape(m, m, m, m),
        D=signal.reshape(m, m, m, m),
        F=cw**2 * cross,
        B=cw**2 * mixed,
        A=variance.reshape(m, m, m, m),
        G1=rho * cw * shift.reshape(m, m),
        H1=rho * tangent_shift.reshape(m, m),
        P=P,
        Q=Q,
    )


def _differential(average: _Average, x: _Vertices, rho: float, rates: _Rates) -> tuple[Tensor, Tensor]:
    """Return P and Q of one input; second derivatives of s are removed by partial integration."""
    cw, lw, k, theta = rates.w, rates.lw, x.K.squeeze(), x.T.squeeze()
    s, t, z = average.s, average.t, average.z

    def of(f: Tensor) -> Tensor:
        return average(f).squeeze()

    cube = (of(z * s * t**3) / k - of(t**4)) / 3  # E s s'^2 s''
    second = of(z * s * t) / k - of(t**2)  # E s s''
    twist = (of(z**2 * t**2) / k - of(t**2)) / (2 * k)  # E z s' s'' / K
    parallel, perpendicular = cw * of(z * s * t) / k, cw * of(t**2)
    F, B = x.F.squeeze(), x.B.squeeze()
    P = cw**2 * cube * theta**2 + rho * (cw**2 * second * of(t**2) * B + parallel * perpendicular * x.P)
    Q = cw**2 * cube * theta**2 + lw * cw * of(s**2 * t**2) * theta
    Q = Q + rho * ((lw / cw * parallel**2 + cw * theta * parallel * twist) * F + parallel * perpendicular * x.Q)
    return P, Q


class _Average:
    """Expectations over the preactivations of a layer, and their derivatives with respect to the kernel.

    With $z = R y$, derivatives with respect to z are Hermite polynomials of y times the pseudo-inverse of R.
    """

    def __init__(self, kernel: Tensor, act: Activation) -> None:
        y, self.weights, root = gaussian_nodes(kernel, act.kinks)
        if y.shape[1] > 2 and act.kinks:
            raise InputError(f"{act.name} has kinks: at most two independent inputs are supported, got {y.shape[1]}")
        self.z = y @ root.mT
        self.s, self.t = act(self.z), act.slope(self.z)
        self.y, self.back = y, torch.linalg.pinv(root)
        self.first = y @ self.back
        squares = y[:, :, None] * y[:, None] - torch.eye(y.shape[1], dtype=torch.float64)
        self.second = squares.flatten(1) @ torch.kron(self.back, self.back)

    def __call__(self, f: Tensor) -> Tensor:
        return self.weights @ f

    def product(self, f: Tensor, g: Tensor) -> Tensor:
        return (f * self.weights[:, None]).mT @ g

    def covariance(self, f: Tensor, g: Tensor) -> Tensor:
        return self.product(f - self(f), g - self(g))

    def slope(self, f: Tensor) -> Tensor:
        """Return $E \\partial_c f$."""
        return self.product(f, self.first)

    def bend(self, f: Tensor) -> Tensor:
        """Return $E \\partial_c \\partial_d f / 2$, the derivative of $E f$ with respect to $K_{cd}$."""
        return self.product(f, self.second) / 2

    def fourth(self, f: Tensor, vertex: Tensor) -> Tensor:
        """Return $V_{bcde}\\, E \\partial_b \\partial_c \\partial_d \\partial_e f$ with the vertex symmetrized."""
        v = torch.einsum("abcd,ia,jb,kc,ld->ijkl", vertex, *[self.back] * 4)
        v = (v + v.permute(0, 2, 1, 3) + v.permute(0, 3, 1, 2)) / 3
        quartic = torch.einsum("oi,oj,ok,ol,ijkl->o", *[self.y] * 4, v)
        quadratic = torch.einsum("oi,oj,ijkk->o", self.y, self.y, v)
        return self((quartic - 6 * quadratic + 3 * torch.einsum("iikk->", v))[:, None] * f)
