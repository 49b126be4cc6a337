"""Linear layer with the weight sharing of a permutation group."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .._checks import check_features, whole
from .._errors import InputError
from ._tie_machine import TiePattern


class TiedLinear(nn.Module):
    r"""Linear layer on points that commutes with the permutations of a pattern.

    $y_i = \sum_j W_{c(i,j)} x_j + b_{c(i)}$ with one matrix for each class of weights and one bias for each class of
    points. These are all linear maps that commute with the group, with channels that it leaves alone.

    Args:
        pattern: Weight sharing.
        in_channels: Number of input channels of a point.
        out_channels: Number of output channels of a point.
        bias: Whether there are biases.

    Shapes: `(*batch, n, in_channels)` to `(*batch, n, out_channels)`.

    Example:
        >>> from commutant.programs import TieMachine, TiedLinear
        >>> machine = TieMachine(8)
        >>> pattern = machine.output(machine.run("(rotate (tie identity))"))
        >>> TiedLinear(pattern, 3, 5)(torch.randn(2, 8, 3)).shape
        torch.Size([2, 8, 5])
    """

    labels: Tensor
    point_labels: Tensor

    def __init__(self, pattern: TiePattern, in_channels: int, out_channels: int, bias: bool = True) -> None:
        super().__init__()
        if not isinstance(pattern, TiePattern):
            raise InputError(f"pattern must be a TiePattern, got {type(pattern).__name__}")
        whole("in_channels", in_channels)
        whole("out_channels", out_channels)
        self.pattern, self.in_channels, self.out_channels = pattern, in_channels, out_channels
        self.register_buffer("labels", pattern.labels)
        self.register_buffer("point_labels", pattern.point_labels)
        points = int(pattern.point_labels.max()) + 1
        self.weight = nn.Parameter(torch.empty(pattern.classes, out_channels, in_channels))
        self.bias = nn.Parameter(torch.empty(points, out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weights and biases uniformly in +-1 / sqrt(fan-in), as `nn.Linear` does; the fan-in is n channels."""
        bound = 1 / math.sqrt(self.pattern.n * self.in_channels)
        for part in self.parameters():
            nn.init.uniform_(part, -bound, bound)

    def forward(self, x: Float[Tensor, "*batch n i"]) -> Float[Tensor, "*batch n o"]:
        """Return the image of the points.

        Args:
            x: Points, `(*batch, n, in_channels)`.

        Raises:
            InputError: For another number of points or channels, or another dtype than that of the weights.
        """
        check_features("x", x, self.weight)
        n = self.pattern.n
        if x.shape[-2:] != (n, self.in_channels):
            raise InputError(f"x must be (*batch, {n}, {self.in_channels}), got {tuple(x.shape)}")
        full = self.weight[self.labels].transpose(1, 2).reshape(n * self.out_channels, n * self.in_channels)
        bias = None if self.bias is None else self.bias[self.point_labels].reshape(-1)
        return nn.functional.linear(x.flatten(-2), full, bias).unflatten(-1, (n, self.out_channels))

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *arguments: Any) -> None:
        """Refuse the checkpoint of another pattern, whose labels would replace those of this one."""
        labels = state_dict.get(f"{prefix}labels")
        if labels is not None and not torch.equal(labels.cpu(), self.pattern.labels):
            arguments[-1].append(f"{prefix}labels: the checkpoint is of another pattern than {self.pattern}")
            return
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def extra_repr(self) -> str:
        """Return the pattern and the channels."""
        return f"{self.pattern}, {self.in_channels} -> {self.out_channels}, bias={self.bias is not None}"
