"""Many two-layer networks as one batched tensor, trained together by kernel gradient descent."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from .._errors import InputError


class NTKLinear(nn.Linear):
    """Linear layer in NTK parametrisation: standard normal weights, scaled by $1 / \\sqrt{\\text{fan-in}}$ in the pass.

    Use it where one learning rate shall do for every width. Without a bias by default.

    Example:
        >>> NTKLinear(8, 3)(torch.ones(2, 8)).shape
        torch.Size([2, 3])
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = False) -> None:
        for name, size in (("in_features", in_features), ("out_features", out_features)):
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                raise InputError(f"{name} must be a whole number, at least 1, got {size!r}")
        super().__init__(in_features, out_features, bias=bias)

    def reset_parameters(self) -> None:
        """Standard normal weights, biases zero."""
        nn.init.normal_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """`(..., in_features)` to `(..., out_features)`."""
        return nn.functional.linear(input, self.weight * self.in_features**-0.5, self.bias)


class ReLUEnsemble(nn.Module):
    """Independent two-layer networks $W_2\\, relu(W_1 x / \\sqrt k) / \\sqrt h$, one batched tensor a layer.

    Args:
        inputs: k.
        outputs: of each network.
        width: h, hidden units; even if antithetic.
        models: how many networks.
        antithetic: duplicate half of the hidden units with the sign of $W_2$ turned: the network is zero at the start,
            and the random part of what an infinitely wide one learns is gone.
        generator: of the weights.
        dtype: of the weights.

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
        if any(not isinstance(n, int | np.integer) or n < 1 for n in (inputs, outputs, width, models)):
            raise InputError(
                f"sizes are whole numbers, at least 1, got {inputs}, {outputs}, width {width}, {models} models"
            )
        if antithetic and width % 2:
            raise InputError(f"antithetic units come in pairs: the width must be even, got {width}")
        self.antithetic = antithetic
        drawn = width // 2 if antithetic else width
        first = torch.randn(models, inputs, drawn, generator=generator, dtype=dtype)
        second = torch.randn(models, drawn, outputs, generator=generator, dtype=dtype)
        if antithetic:
            first, second = torch.cat([first, first], 2), torch.cat([second, -second], 1)
        self.first, self.second = nn.Parameter(first), nn.Parameter(second)

    def forward(self, x: Float[Tensor, "rows inputs"]) -> Float[Tensor, "models rows outputs"]:
        """What every network gives."""
        if not isinstance(x, Tensor) or x.ndim != 2 or x.shape[1] != self.first.shape[1]:
            got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise InputError(f"inputs are a tensor (rows, {self.first.shape[1]}), got {got}")
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
        # Half by half, so that what cancels at the start cancels to the last bit.
        half = width // 2
        both = hidden[..., :half] @ self.second[:, :half], hidden[..., half:] @ self.second[:, half:]
        return (both[0] + both[1]) * width**-0.5

    @torch.no_grad()
    def fit(
        self, x: Float[Tensor, "rows inputs"], y: Float[Tensor, "rows outputs"], rate: float, *,
        first: float = 1.0, tolerance: float = 1e-6, steps: int = 1000,
    ) -> int:  # fmt: skip
        """Full-batch gradient descent on $\\frac12 \\sum |f(x) - y|^2$ until every residual is below the tolerance.

        Args:
            x, y: all of the training set.
            rate: of both layers, in NTK parametrisation; below 2 over the top eigenvalue of the kernel.
            first: factor on the rate of the first layer; inputs / width is one rate in standard parametrisation.
            tolerance: of the largest residual.
            steps: at most.

        Returns:
            the steps taken.

        Raises:
            InputError: if it diverges, or the residual is above the tolerance after all steps.
        """
        for name, value in (("rate", rate), ("first", first), ("tolerance", tolerance)):
            if not isinstance(value, int | float | np.number) or not 0 <= value < math.inf:
                raise InputError(f"{name} is a number, finite and not negative, got {value!r}")
        if not isinstance(x, Tensor) or not isinstance(y, Tensor):
            raise InputError(f"fit takes tensors, got {type(x).__name__} and {type(y).__name__}")
        width, inputs, outputs = self.second.shape[1], self.first.shape[1], self.second.shape[2]
        if x.ndim != 2 or x.shape[1] != inputs or y.shape != (len(x), outputs) or not len(x) or steps < 1:
            raise InputError(
                f"fit takes rows ({inputs} inputs) and their targets ({outputs} outputs) and at least one step, got "
                f"{tuple(x.shape)}, {tuple(y.shape)} and {steps}"
            )
        for step in range(steps):
            z = self._preactivations(x)
            hidden = torch.relu(z)
            error = self._second(hidden) - y
            left = float(error.abs().max())
            if left < tolerance:
                return step
            if not math.isfinite(left) or left > 1e6:
                raise InputError(
                    f"gradient descent diverges at rate {rate:g}; it must be below 2 over the top eigenvalue"
                )
            back = (error @ self.second.mT) * (z > 0) * width**-0.5
            self.second.sub_(hidden.mT @ error, alpha=rate * width**-0.5)
            self.first.sub_(x.mT @ back, alpha=first * rate * inputs**-0.5)
        raise InputError(
            f"the residual is {left:.1e} after {steps} steps, above {tolerance:g}: allow more, or a rate below {rate:g}"
        )
