"""Ensembles of two-layer networks in batched tensors, trained together in NTK parametrization."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .._checks import is_real, whole
from .._errors import InputError


class NTKLinear(nn.Linear):
    """Linear layer in NTK parametrization: standard normal weights, divided by $\\sqrt{\\text{fan-in}}$ when applied.

    Use it when one learning rate should work for every width.

    Args:
        in_features: Number of input features.
        out_features: Number of output features.
        bias: Whether to add a bias.

    Raises:
        InputError: For sizes that are not positive whole numbers.

    Example:
        >>> NTKLinear(8, 3)(torch.ones(2, 8)).shape
        torch.Size([2, 3])
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = False) -> None:
        whole("in_features", in_features)
        whole("out_features", out_features)
        super().__init__(in_features, out_features, bias=bias)

    def reset_parameters(self) -> None:
        """Initialize weights standard normal and biases zero."""
        nn.init.normal_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """Apply the layer and return `(..., out_features)`.

        Args:
            input: Input `(..., in_features)`.
        """
        return nn.functional.linear(input, self.weight * self.in_features**-0.5, self.bias)


class ReLUEnsemble(nn.Module):
    """Two-layer networks $W_2\\, relu(W_1 x / \\sqrt k) / \\sqrt h$, with one batched tensor per layer.

    Args:
        inputs: Number k of input features.
        outputs: Number of outputs of each network.
        width: Number h of hidden units; must be even if antithetic.
        models: Number of networks.
        antithetic: Whether to duplicate half of the hidden units with the sign of $W_2$ flipped. Each network is then
            zero at initialization, which removes the random part of the trained infinitely wide network.
        generator: Source of randomness for the weights.
        dtype: Data type of the weights.

    Raises:
        InputError: For sizes that are not positive whole numbers, or an odd width of antithetic networks.

    Shapes:
        input: `(rows, inputs)`. output: `(models, rows, outputs)`.

    Example:
        >>> ensemble = ReLUEnsemble(4, 4, width=64, models=3, antithetic=True)
        >>> float(ensemble(torch.eye(4)).detach().abs().max())
        0.0
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        width: int,
        models: int,
        antithetic: bool = False,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        for name, size in (("inputs", inputs), ("outputs", outputs), ("width", width), ("models", models)):
            whole(name, size)
        if antithetic and width % 2:
            raise InputError(f"width must be even, got {width}, because antithetic units come in pairs")
        self.antithetic = antithetic
        drawn = width // 2 if antithetic else width
        first = torch.randn(models, inputs, drawn, generator=generator, dtype=dtype)
        second = torch.randn(models, drawn, outputs, generator=generator, dtype=dtype)
        if antithetic:
            first, second = torch.cat([first, first], 2), torch.cat([second, -second], 1)
        self.first, self.second = nn.Parameter(first), nn.Parameter(second)

    def forward(self, x: Float[Tensor, "rows inputs"]) -> Float[Tensor, "models rows outputs"]:
        """Return the outputs of every network, `(models, rows, outputs)`.

        Args:
            x: Inputs `(rows, inputs)`.
        """
        if not isinstance(x, Tensor) or x.ndim != 2 or x.shape[1] != self.first.shape[1]:
            got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise InputError(f"x must be a tensor (rows, {self.first.shape[1]}), got {got}")
        hidden = torch.relu(self._preactivations(x))
        return self._second(hidden)

    def _preactivations(self, x: Tensor) -> Tensor:
        models, inputs, width = self.first.shape
        flat = self.first.permute(1, 0, 2).reshape(inputs, models * width)
        return (x @ flat).reshape(len(x), models, width).transpose(0, 1) * inputs**-0.5

    def _second(self, hidden: Tensor) -> Tensor:
        width = self.second.shape[1]
        if not self.antithetic:
            return hidden @ self.second * width**-0.5
        # half by half, so that the halves cancel exactly at initialization
        half = width // 2
        both = hidden[..., :half] @ self.second[:, :half], hidden[..., half:] @ self.second[:, half:]
        return (both[0] + both[1]) * width**-0.5

    @torch.no_grad()
    def fit(
        self, x: Float[Tensor, "rows inputs"], y: Float[Tensor, "rows outputs"], rate: float, *,
        first: float = 1.0, tolerance: float = 1e-6, steps: int = 1000,
    ) -> int:  # fmt: skip
        """Train by full-batch gradient descent on $\\frac12 \\sum |f(x) - y|^2$ until all residuals are small.

        Args:
            x: Training inputs `(rows, inputs)`.
            y: Training targets `(rows, outputs)`.
            rate: Learning rate of both layers in NTK parametrization, below 2 divided by the largest eigenvalue of the
                kernel.
            first: Factor on the rate of the first layer; inputs / width gives equal rates in standard parametrization.
            tolerance: Largest residual at which training stops.
            steps: Largest number of steps.

        Returns:
            The number of steps taken.

        Raises:
            InputError: For arguments that do not fit, if training diverges, or if the residual is above the tolerance
                after all steps.
        """
        for name, value in (("rate", rate), ("first", first), ("tolerance", tolerance)):
            if not is_real(value) or not 0 <= value < math.inf:
                raise InputError(f"{name} must be a finite number that is not negative, got {value!r}")
        whole("steps", steps)
        width, inputs, outputs = self.second.shape[1], self.first.shape[1], self.second.shape[2]
        if not isinstance(x, Tensor) or x.ndim != 2 or x.shape[1] != inputs or not len(x):
            got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise InputError(f"x must be a tensor (rows, {inputs}) with at least one row, got {got}")
        if not isinstance(y, Tensor) or y.shape != (len(x), outputs):
            got = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
            raise InputError(f"y must be a tensor ({len(x)}, {outputs}), got {got}")
        for step in range(steps):
            z = self._preactivations(x)
            hidden = torch.relu(z)
            error = self._second(hidden) - y
            left = float(error.abs().max())
            if left < tolerance:
                return step
            if not math.isfinite(left) or left > 1e6:
                raise InputError(
                    f"rate must be below 2 over the top eigenvalue of the kernel, but training diverges at {rate:g}"
                )
            back = (error @ self.second.mT) * (z > 0) * width**-0.5
            self.second.sub_(hidden.mT @ error, alpha=rate * width**-0.5)
            self.first.sub_(x.mT @ back, alpha=first * rate * inputs**-0.5)
        raise InputError(
            f"the residual must fall below {tolerance:g}, but is {left:.1e} after {steps} steps; allow more steps, or "
            f"lower the rate {rate:g}"
        )
