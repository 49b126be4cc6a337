"""The layers of a wide network as maps of kernels: they compose, and a network is one of their products."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..._checks import is_real, is_whole
from ..._errors import InputError
from ...algebra import Activation, geometric_mean
from ...laws import Draw, Equivariance, Invariance, Orthogonal, SetPermutation, obeys


@dataclass(frozen=True)
class KernelState:
    """What is known of one layer, between a set of row inputs and a set of column inputs, float64.

    Attributes:
        kernel: second moments of a neuron, `(rows, columns)`.
        left, right: its second moments at each row and at each column input.
        left_mean, right_mean: its mean over neurons, zero for preactivations.
        tangent: the frozen neural tangent kernel `(rows, columns)`, or None when it isn't asked for.
        gaussian: Whether the values are centered Gaussians over the weights, which an activation needs. Outputs of
            `Dense` are; inputs of the network and outputs of an activation are not.
        features: Width of the inputs of a network, or None when unknown.
    """

    kernel: Float[Tensor, "rows columns"]
    left: Float[Tensor, "rows"]
    right: Float[Tensor, "columns"]
    left_mean: Float[Tensor, "rows"]
    right_mean: Float[Tensor, "columns"]
    tangent: Float[Tensor, "rows columns"] | None
    gaussian: bool = True
    features: int | None = None

    @classmethod
    def of_inputs(
        cls, rows: Float[Tensor, "rows features"], columns: Float[Tensor, "columns features"], *, tangent: bool = True
    ) -> KernelState:
        """Return the state before the first layer: $x \\cdot x' / n_0$, row means, and a tangent kernel of zero.

        Raises:
            InputError: For inputs that are not real matrices, of different width, of no feature, or not finite.
        """
        for x in (rows, columns):
            need_inputs(x)
        if rows.shape[-1] != columns.shape[-1] or not rows.shape[-1]:
            raise InputError(
                f"inputs must have one width, at least 1, got {tuple(rows.shape)} and {tuple(columns.shape)}"
            )
        rows, columns = rows.to(torch.float64), columns.to(torch.float64)
        width = rows.shape[-1]
        kernel = rows @ columns.T / width
        left, right = rows.square().sum(-1) / width, columns.square().sum(-1) / width
        if rows.shape == columns.shape and torch.equal(rows, columns):
            kernel.diagonal().copy_(left)
        zero = torch.zeros_like(kernel) if tangent else None
        return cls(kernel, left, right, rows.mean(-1), columns.mean(-1), zero, gaussian=False, features=width)


def need_inputs(x: object) -> None:
    """Check that inputs are a finite real matrix `(rows, features)`."""
    if not isinstance(x, Tensor) or x.ndim != 2 or x.is_complex():
        got = f"{tuple(x.shape)}, {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
        raise InputError(f"inputs are real tensors (rows, features), got {got}")
    if not bool(torch.isfinite(x).all()):
        raise InputError("inputs must be finite, got NaN or infinity")


@runtime_checkable
class KernelMap(Protocol):
    """A layer, or several of them."""

    @property
    def homogeneous(self) -> bool:
        """Whether scaling an input by a positive number scales its kernels, and nothing else happens."""

    def __call__(self, state: KernelState) -> KernelState:
        """The state after the layer."""


def need_map(network: object) -> None:
    """Check that a network is a map of kernels."""
    if isinstance(network, type | Activation) or not isinstance(network, KernelMap):
        got = network.__name__ if isinstance(network, type) else type(network).__name__
        hint = "infinite_width(module)" if isinstance(network, nn.Module) else "plain_network(...) or Dense(...)"
        raise InputError(f"a network is a map of kernels, such as {hint}, got {got}")


def need_width(network: object, width: int | None) -> None:
    """Check that inputs have the width that a network was made for, where both are known."""
    made_for = getattr(network, "features", None)
    if None not in (made_for, width) and made_for != width:
        raise InputError(f"the network takes inputs of {made_for} features, got {width}")


@dataclass(frozen=True)
class Dense:
    """A linear layer of random weights: $K' = C_b + C_W K$, $\\Theta' = \\lambda_b + \\lambda_W K + C_W \\Theta$.

    The same for a convolution at one position. The learning-rate tensor is $\\lambda_b$ for biases and
    $\\lambda_W / n$ for weights of fan-in n; `lambda = C` is gradient descent in NTK parametrisation.

    Args:
        bias_variance: $C_b$.
        weight_variance: $C_W$, the variance of a weight times its fan-in.
        bias_rate: $\\lambda_b$, by default $C_b$.
        weight_rate: $\\lambda_W$, by default $C_W$.
    """

    bias_variance: float
    weight_variance: float
    bias_rate: float | None = None
    weight_rate: float | None = None

    @property
    def homogeneous(self) -> bool:
        """Whether scaling an input scales everything: without biases."""
        return self.bias_variance == 0 and not self.bias_rate

    def __post_init__(self) -> None:
        for name in ("bias_variance", "weight_variance", "bias_rate", "weight_rate"):
            value = getattr(self, name)
            if value is None and name.endswith("rate"):
                continue
            if not is_real(value):
                raise InputError(f"{name} must be a number, got {value!r}")
            if not 0 <= value < float("inf"):
                raise InputError(f"{name} must be finite and not negative, got {value}")

    def __call__(self, state: KernelState) -> KernelState:
        b, w = self.bias_variance, self.weight_variance
        tangent = state.tangent
        if tangent is not None:
            bias_rate = b if self.bias_rate is None else self.bias_rate
            weight_rate = w if self.weight_rate is None else self.weight_rate
            tangent = (weight_rate * state.kernel).add_(tangent, alpha=w).add_(bias_rate)
        return KernelState(
            kernel=(w * state.kernel).add_(b),
            left=b + w * state.left,
            right=b + w * state.right,
            left_mean=torch.zeros_like(state.left),
            right_mean=torch.zeros_like(state.right),
            tangent=tangent,
        )


@dataclass(frozen=True)
class Pointwise:
    """Activation of centered Gaussian values: $K' = E s(u) s(v)$, $\\Theta' = E s'(u) s'(v)\\, \\Theta$, elementwise.

    Raises:
        InputError: When called on a state that is not Gaussian, such as inputs or outputs of an activation.
    """

    activation: Activation
    fresh: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not isinstance(self.activation, Activation):
            raise InputError(
                f"activation is an Activation, as Activation('relu'), got {type(self.activation).__name__}"
            )

    @property
    def homogeneous(self) -> bool:
        """Whether scaling an input scales everything: piecewise linear with the kink at zero."""
        return self.activation.homogeneous

    def __call__(self, state: KernelState) -> KernelState:
        self._check(state)
        act, (u, v) = self.activation, (state.left[:, None], state.right[None])
        if state.tangent is None:
            kernel, tangent = act.dual(u, v, state.kernel), None
        else:
            kernel, slope = act.duals(u, v, state.kernel)
            tangent = slope * state.tangent
        left, right = _of_both(act.g, state)
        left_mean, right_mean = _of_both(act.mean, state)
        return KernelState(kernel, left, right, left_mean, right_mean, tangent, gaussian=False)

    def _check(self, state: KernelState) -> None:
        name = self.activation.name
        if not state.gaussian:
            raise InputError(
                f"{name} acts on inputs of the network or on outputs of an activation, which are not Gaussian over the "
                "weights: put a Dense before it"
            )
        sides = (state.left, state.right)
        if 0.0 in self.activation.kinks and any(q.requires_grad and bool((q == 0).any()) for q in sides):
            raise InputError(
                f"the kernel of {name} has no gradient at an input of variance zero: leave out or detach inputs that "
                "are zero"
            )


def _of_both(expectation: Callable[[Tensor], Tensor], state: KernelState) -> tuple[Tensor, Tensor]:
    """An expectation at every kernel of both sides, of which inputs of one norm have only one."""
    if state.left.requires_grad or state.right.requires_grad:
        return expectation(state.left), expectation(state.right)
    kernels = torch.cat([state.left, state.right])
    if kernels.numel() > 1 and bool((kernels == kernels[0]).all()):
        values = expectation(kernels[:1]).expand_as(kernels)
    else:
        values = expectation(kernels)
    return values[: len(state.left)], values[len(state.left) :]


@dataclass(frozen=True)
class Residual:
    """$\\gamma z + f(z)$ with a branch f that ends in a `Dense`: $K' = \\gamma^2 K + K_f$, $\\Theta$ likewise."""

    branch: KernelMap
    gamma: float = 1.0

    def __post_init__(self) -> None:
        need_map(self.branch)
        if not is_real(self.gamma) or not math.isfinite(self.gamma):
            raise InputError(f"gamma must be a finite number, got {self.gamma!r}")
        for layer in reversed(_flat(self.branch)):
            fresh = None if isinstance(layer, Residual | LayerNormalisation) else getattr(layer, "fresh", True)
            if fresh:
                return
            if fresh is False:
                break
        raise InputError(
            "the branch of a Residual must end in a Dense, which makes it independent of the skip, got "
            + (", ".join(type(layer).__name__ for layer in _flat(self.branch)) or "an empty Chain")
        )

    @property
    def homogeneous(self) -> bool:
        """Whether scaling an input scales everything."""
        return self.branch.homogeneous

    def __call__(self, state: KernelState) -> KernelState:
        inner, square = self.branch(state), self.gamma**2
        tangent = None
        if state.tangent is not None and inner.tangent is not None:
            tangent = square * state.tangent + inner.tangent
        return KernelState(
            kernel=square * state.kernel + inner.kernel,
            left=square * state.left + inner.left,
            right=square * state.right + inner.right,
            left_mean=self.gamma * state.left_mean + inner.left_mean,
            right_mean=self.gamma * state.right_mean + inner.right_mean,
            tangent=tangent,
            gaussian=state.gaussian and inner.gaussian,
        )


@dataclass(frozen=True)
class LayerNormalisation:
    """Layer normalisation of a wide layer: every input is centred and brought to unit variance over neurons."""

    eps: float = 1e-5
    homogeneous: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not is_real(self.eps) or not 0 <= self.eps < float("inf"):
            raise InputError(f"eps must be finite and not negative, got {self.eps}")

    def __call__(self, state: KernelState) -> KernelState:
        left = state.left - state.left_mean.square()
        right = state.right - state.right_mean.square()
        # The same to the last bit as the variance of an input, so that its angle with itself stays zero.
        size = geometric_mean(left[:, None] + self.eps, right[None] + self.eps)
        return replace(
            state,
            kernel=(state.kernel - state.left_mean[:, None] * state.right_mean[None]) / size,
            left=left / (left + self.eps),
            right=right / (right + self.eps),
            left_mean=torch.zeros_like(left),
            right_mean=torch.zeros_like(right),
            tangent=None if state.tangent is None else state.tangent / size,
        )


@dataclass(frozen=True)
class Chain:
    """Maps one after the other; chains concatenate, the empty chain does nothing: a monoid.

    Args:
        maps: the first one first.
    """

    maps: tuple[KernelMap, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.maps, tuple):
            raise InputError(f"the maps of a Chain are a tuple, got {type(self.maps).__name__}")
        for layer in self.maps:
            need_map(layer)

    @property
    def homogeneous(self) -> bool:
        """Whether scaling an input scales everything."""
        return all(layer.homogeneous for layer in self.maps)

    def __call__(self, state: KernelState) -> KernelState:
        if not isinstance(state, KernelState):
            raise InputError(f"a Chain maps a KernelState, as KernelState.of_inputs(x, x), got {type(state).__name__}")
        for layer in self.maps:
            state = layer(state)
        return state

    def __matmul__(self, earlier: Chain) -> Chain:
        """The composition: `(later @ earlier)(state) = later(earlier(state))`."""
        if not isinstance(earlier, Chain):
            raise InputError(f"a Chain is composed with another Chain, got {type(earlier).__name__}")
        return Chain((*earlier.maps, *self.maps))

    def __pow__(self, depth: int) -> Chain:
        """The chain, `depth` times over."""
        if not is_whole(depth) or depth < 0:
            raise InputError(f"the power of a Chain is a whole number, at least 0, got {depth!r}")
        return Chain(self.maps * depth)


def _flat(layer: KernelMap) -> list[KernelMap]:
    """The maps of chains within chains, the first one first."""
    return [inner for part in layer.maps for inner in _flat(part)] if isinstance(layer, Chain) else [layer]


def turned(kernel: Callable[[Chain, Tensor, Tensor], Tensor]):  # type: ignore[no-untyped-def]
    """The law that a kernel of inputs with themselves stays as all of them are turned."""

    def stated(draw: Draw):  # type: ignore[no-untyped-def]
        net, width = _drawn_network(draw), 1 + draw.width
        return (
            Invariance(Orthogonal(width)),
            lambda x: kernel(net, x, x),
            lambda g: torch.randn(draw.size, width, generator=g).to(draw.dtype),
        )

    return stated


def reordered(kernel: Callable[[Chain, Tensor, Tensor], Tensor]):  # type: ignore[no-untyped-def]
    """The law that a kernel of some inputs with others that stay follows their order."""

    def stated(draw: Draw):  # type: ignore[no-untyped-def]
        net, others = _drawn_network(draw), draw.normal(3, draw.width)
        return (
            Equivariance(SetPermutation(0)),
            lambda x: kernel(net, x, others),
            lambda g: torch.randn(draw.size + 1, draw.width, generator=g).to(draw.dtype),
        )

    return stated


def _drawn_network(draw: Draw) -> Chain:
    return plain_network(Activation("relu", kinks=(0.0,)), 1 + draw.size % 4, Dense(0.1, 1.5))


def _tangent(net: KernelMap, rows: Tensor, columns: Tensor) -> Tensor:
    return cast(Tensor, net(KernelState.of_inputs(rows, columns)).tangent)


@obeys("turning the inputs", turned(_tangent))
@obeys("order of the inputs", reordered(_tangent))
def plain_network(activation: Activation | str, depth: int, dense: Dense) -> Chain:
    """Return the map of `depth` equal `Dense` layers with an activation between them."""
    activation = activation if isinstance(activation, Activation) else Activation(activation)
    if not isinstance(dense, Dense):
        raise InputError(f"dense is a Dense, such as Dense(0.0, 2.0), got {type(dense).__name__}")
    if not is_whole(depth):
        raise InputError(f"depth is a whole number of layers, got {depth!r}")
    if depth < 1:
        raise InputError(f"a network has at least one layer, got {depth}")
    return Chain((Pointwise(activation), dense)) ** (depth - 1) @ Chain((dense,))
