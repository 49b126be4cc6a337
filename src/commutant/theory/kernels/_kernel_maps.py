"""Layers of wide networks as maps of kernels, which compose to the map of a network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..._checks import finite, is_real, whole
from ..._errors import InputError
from ...algebra import Activation, geometric_mean


@dataclass(frozen=True)
class KernelState:
    """Kernels of one layer between a set of row inputs and a set of column inputs, in float64.

    Attributes:
        kernel: Second moments of a neuron, `(rows, columns)`.
        left: Mean square of a neuron at each row input, `(rows,)`.
        right: Mean square of a neuron at each column input, `(columns,)`.
        left_mean: Mean over neurons at each row input, `(rows,)`; zero for preactivations.
        right_mean: Mean over neurons at each column input, `(columns,)`; zero for preactivations.
        tangent: Neural tangent kernel at initialization, `(rows, columns)`, or None if it isn't needed.
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

        Args:
            rows: Row inputs, `(rows, features)`.
            columns: Column inputs, `(columns, features)`.
            tangent: Whether to follow the tangent kernel.

        Raises:
            InputError: For inputs that are not real matrices, differ in width, have no features, or are not finite.
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
        raise InputError(f"inputs must be real tensors (rows, features), got {got}")
    if not bool(torch.isfinite(x).all()):
        raise InputError("inputs must be finite, got NaN or infinity")


@runtime_checkable
class KernelMap(Protocol):
    """Map of kernels: a layer, or a network of layers."""

    @property
    def homogeneous(self) -> bool:
        """True if scaling an input by a positive number only scales its kernels."""

    def __call__(self, state: KernelState) -> KernelState:
        """Return the state after the layer."""


def need_map(network: object) -> None:
    """Check that a network is a map of kernels."""
    if isinstance(network, type | Activation) or not isinstance(network, KernelMap):
        got = network.__name__ if isinstance(network, type) else type(network).__name__
        hint = "infinite_width(module)" if isinstance(network, nn.Module) else "plain_network(...) or Dense(...)"
        raise InputError(f"network must be a map of kernels, such as {hint}, got {got}")


def need_width(network: object, width: int | None) -> None:
    """Check that inputs have the width that a network expects, if both are known."""
    made_for = getattr(network, "features", None)
    if None not in (made_for, width) and made_for != width:
        raise InputError(f"the network takes inputs of {made_for} features, got {width}")


@dataclass(frozen=True)
class Dense:
    """Linear layer of random weights: $K' = C_b + C_W K$, $\\Theta' = \\lambda_b + \\lambda_W K + C_W \\Theta$.

    A convolution at one position has the same map. Learning rates are $\\lambda_b$ for biases and $\\lambda_W / n$ for
    weights of fan-in n; $\\lambda = C$ is gradient descent in NTK parametrization.

    Args:
        bias_variance: Variance $C_b$ of biases.
        weight_variance: Variance $C_W$ of a weight times its fan-in.
        bias_rate: Learning rate $\\lambda_b$ of biases, by default $C_b$.
        weight_rate: Learning rate $\\lambda_W$ of weights times their fan-in, by default $C_W$.
    """

    bias_variance: float
    weight_variance: float
    bias_rate: float | None = None
    weight_rate: float | None = None

    @property
    def homogeneous(self) -> bool:
        """True if scaling an input scales its kernels, as without biases."""
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
    """Elementwise activation of centered Gaussian values: $K' = E s(u) s(v)$, $\\Theta' = E s'(u) s'(v)\\, \\Theta$.

    Args:
        activation: Activation s.

    Raises:
        InputError: If called on a state that is not Gaussian, such as inputs or outputs of an activation.
    """

    activation: Activation
    fresh: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not isinstance(self.activation, Activation):
            raise InputError(
                f"activation must be an Activation, such as Activation('relu'), got {type(self.activation).__name__}"
            )

    @property
    def homogeneous(self) -> bool:
        """True if scaling an input scales its kernels, as for piecewise linear activations with the kink at zero."""
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
                f"{name} reads inputs of the network or outputs of an activation, which are not Gaussian over the "
                "weights: put a Dense before it"
            )
        sides = (state.left, state.right)
        if 0.0 in self.activation.kinks and any(q.requires_grad and bool((q == 0).any()) for q in sides):
            raise InputError(
                f"the kernel of {name} has no gradient at an input of variance zero: omit or detach such inputs"
            )


def _of_both(expectation: Callable[[Tensor], Tensor], state: KernelState) -> tuple[Tensor, Tensor]:
    """Return an expectation at every kernel of both sides, computed once if all inputs have one norm."""
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
    """Residual block $\\gamma z + f(z)$: $K' = \\gamma^2 K + K_f$, and the same for $\\Theta$.

    Args:
        branch: Map of the branch f, which ends in a `Dense`.
        gamma: Weight $\\gamma$ of the skip.
    """

    branch: KernelMap
    gamma: float = 1.0

    def __post_init__(self) -> None:
        need_map(self.branch)
        finite("gamma", self.gamma)
        for layer in reversed(_flat(self.branch)):
            fresh = None if isinstance(layer, Residual | LayerNormalization) else getattr(layer, "fresh", True)
            if fresh:
                return
            if fresh is False:
                break
        raise InputError(
            "the branch of a Residual must end in a Dense, so that it is independent of the skip, got "
            + (", ".join(type(layer).__name__ for layer in _flat(self.branch)) or "an empty Chain")
        )

    @property
    def homogeneous(self) -> bool:
        """True if scaling an input scales its kernels."""
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
class LayerNormalization:
    """Layer normalization of a wide layer to mean zero and unit variance over neurons.

    Args:
        eps: Number added to the variance.
    """

    eps: float = 1e-5
    homogeneous: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not is_real(self.eps) or not 0 <= self.eps < float("inf"):
            raise InputError(f"eps must be finite and not negative, got {self.eps}")

    def __call__(self, state: KernelState) -> KernelState:
        left = state.left - state.left_mean.square()
        right = state.right - state.right_mean.square()
        # bitwise equal to the variance of an input, so that the angle of an input with itself stays zero
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
    """Composition of maps of kernels; chains form a monoid with the empty chain as identity.

    Args:
        maps: Maps in the order in which they are applied.
    """

    maps: tuple[KernelMap, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.maps, tuple):
            raise InputError(f"the maps of a Chain must be a tuple, got {type(self.maps).__name__}")
        for layer in self.maps:
            need_map(layer)

    @property
    def homogeneous(self) -> bool:
        """True if scaling an input scales its kernels."""
        return all(layer.homogeneous for layer in self.maps)

    def __call__(self, state: KernelState) -> KernelState:
        if not isinstance(state, KernelState):
            raise InputError(f"a Chain maps a KernelState, as KernelState.of_inputs(x, x), got {type(state).__name__}")
        for layer in self.maps:
            state = layer(state)
        return state

    def __matmul__(self, earlier: Chain) -> Chain:
        """Return the composition: `(later @ earlier)(state) = later(earlier(state))`."""
        if not isinstance(earlier, Chain):
            raise InputError(f"a Chain can be composed only with another Chain, got {type(earlier).__name__}")
        return Chain((*earlier.maps, *self.maps))

    def __pow__(self, depth: int) -> Chain:
        """Return the chain repeated `depth` times."""
        whole("the power of a Chain", depth, 0)
        return Chain(self.maps * depth)


def _flat(layer: KernelMap) -> list[KernelMap]:
    """Return the maps of nested chains in the order in which they are applied."""
    return [inner for part in layer.maps for inner in _flat(part)] if isinstance(layer, Chain) else [layer]


def plain_network(activation: Activation | str, depth: int, dense: Dense) -> Chain:
    """Return the map of `depth` equal `Dense` layers with an activation between them.

    Args:
        activation: Activation or its name.
        depth: Number of layers of weights.
        dense: Map of each layer.
    """
    activation = activation if isinstance(activation, Activation) else Activation(activation)
    if not isinstance(dense, Dense):
        raise InputError(f"dense must be a Dense, such as Dense(0.0, 2.0), got {type(dense).__name__}")
    whole("depth", depth)
    return Chain((Pointwise(activation), dense)) ** (depth - 1) @ Chain((dense,))
