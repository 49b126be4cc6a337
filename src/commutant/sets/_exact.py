"""Learnable operators that are exactly associative and commutative, by conjugating a monoid with an invertible map."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .._checks import check_features, first_weight, whole
from .._errors import InputError
from ..algebra import Element, Monoid, ReductionPlan, Sum, check_monoid
from ..laws import Associativity, Commutativity, obeys
from ._law_cases import operands


class CouplingFlow(nn.Module):
    """Invertible map of R^channels with a closed-form inverse, made of affine couplings between two halves.

    $y_1 = x_1,\\; y_2 = x_2 \\odot e^{s(x_1)} + t(x_1)$ with $|s| \\le 1$, so that the inverse stays well-conditioned.

    Args:
        channels: Number of channels, at least 2.
        layers: Number of couplings, which alternate between the two halves.
        hidden_channels: Width of the networks s and t.

    Shapes:
        `(..., channels)` to `(..., channels)`, both ways.

    Example:
        >>> flow = CouplingFlow(6).double()
        >>> x = torch.randn(4, 6, dtype=torch.float64)
        >>> torch.allclose(flow.inverse(flow(x)), x)
        True
    """

    def __init__(self, channels: int, layers: int = 4, hidden_channels: int = 64) -> None:
        super().__init__()
        whole("channels", channels, 2)
        whole("layers", layers)
        whole("hidden_channels", hidden_channels)
        self.channels, self.split = channels, channels // 2
        widths = [
            (self.split, channels - self.split) if i % 2 == 0 else (channels - self.split, self.split)
            for i in range(layers)
        ]
        self.couplings = nn.ModuleList(
            nn.Sequential(nn.Linear(kept, hidden_channels), nn.GELU(), nn.Linear(hidden_channels, 2 * moved))
            for kept, moved in widths
        )

    def _check(self, name: str, x: Tensor) -> None:
        check_features(name, x, first_weight(self))
        if x.shape[-1:] != (self.channels,):
            raise InputError(f"{name} must have {self.channels} channels, got shape {tuple(x.shape)}")

    def _coupling(self, layer: int, kept: Tensor) -> tuple[Tensor, Tensor]:
        log_scale, shift = self.couplings[layer](kept).chunk(2, -1)
        return torch.tanh(log_scale), shift

    def forward(self, x: Float[Tensor, "*batch channels"]) -> Float[Tensor, "*batch channels"]:
        """Return the image of x.

        Args:
            x: Elements, `(..., channels)`.
        """
        self._check("x", x)
        one, two = x[..., : self.split], x[..., self.split :]
        for layer in range(len(self.couplings)):
            if layer % 2 == 0:
                log_scale, shift = self._coupling(layer, one)
                two = two * log_scale.exp() + shift
            else:
                log_scale, shift = self._coupling(layer, two)
                one = one * log_scale.exp() + shift
        return torch.cat([one, two], -1)

    def inverse(self, y: Float[Tensor, "*batch channels"]) -> Float[Tensor, "*batch channels"]:
        """Return the exact inverse image of y.

        Args:
            y: Images, `(..., channels)`.
        """
        self._check("y", y)
        one, two = y[..., : self.split], y[..., self.split :]
        for layer in reversed(range(len(self.couplings))):
            if layer % 2 == 0:
                log_scale, shift = self._coupling(layer, one)
                two = (two - shift) * (-log_scale).exp()
            else:
                log_scale, shift = self._coupling(layer, two)
                one = (one - shift) * (-log_scale).exp()
        return torch.cat([one, two], -1)


@obeys(
    "associativity",
    lambda draw: (Associativity(), *operands(draw, lambda: Conjugated.of_sum(draw.width + 1), 3, draw.width + 1)),
)
@obeys(
    "commutativity",
    lambda draw: (Commutativity(), *operands(draw, lambda: Conjugated.of_sum(draw.width + 1), 2, draw.width + 1)),
)
class Conjugated(Monoid):
    """Learnable monoid that is exact up to rounding: $a \\circ b = \\varphi^{-1}(\\varphi(a) * \\varphi(b))$.

    An exact monoid * conjugated by an invertible map stays associative and commutative, whatever the map has learned.
    The base `Sum` gives Abelian groups on R^channels, and `Max` gives idempotent monoids. Use it when results must not
    depend on bracketing or order at all. `BinaryGRU` is more expressive and only approximately associative. It is not
    part of Ong and Velickovic (2022).

    A reduction applies the map once to each element and its inverse once to each result. Rounding errors grow with the
    condition number of the map, so keep its weights moderate.

    Args:
        base: Monoid to conjugate, elementwise on R^channels.
        flow: Invertible module with an `inverse` method.

    Shapes:
        `op`: `(..., channels)` and `(..., channels)` to `(..., channels)`.

    Example:
        >>> op = Conjugated.of_sum(4)
        >>> op.reduce(torch.randn(7, 4)).shape
        torch.Size([4])
    """

    widen = False  # the flow works in the dtype of its parameters, and the base widens on its own

    def __init__(self, base: Monoid, flow: nn.Module) -> None:
        super().__init__()
        check_monoid("base", base)
        if not callable(getattr(flow, "inverse", None)):
            raise InputError(f"flow must have an inverse method, but {type(flow).__name__} has none")
        self.base, self.flow = base, flow
        self.associative, self.commutative = base.associative, base.commutative

    @classmethod
    def of_sum(cls, channels: int, layers: int = 4) -> Conjugated:
        """Return the sum conjugated by a coupling flow: a learnable Abelian group on R^channels.

        Args:
            channels: Number of channels, at least 2.
            layers: Number of couplings of the flow.
        """
        return cls(Sum(), CouplingFlow(channels, layers))

    def op(self, a: Tensor, b: Tensor) -> Tensor:
        return self._back(self.base.op(self._forth(a), self._forth(b)))

    def identity(self, like: Tensor) -> Tensor:
        return self._back(self.base.identity(like))

    def _forth(self, value: Tensor) -> Tensor:
        finite = (value.abs() != torch.inf).all(-1, keepdim=True)
        return torch.where(finite, self.flow(torch.where(finite, value, 0.0)), value)

    def _back(self, value: Tensor) -> Tensor:
        finite = (value.abs() != torch.inf).all(-1, keepdim=True)  # an infinite identity is its own image
        return torch.where(finite, self.flow.inverse(torch.where(finite, value, 0.0)), value)  # type: ignore[operator]

    def check_numbers(self, x: Element) -> None:
        if not isinstance(x, Tensor):
            raise InputError(f"elements of Conjugated must be tensors of channels, got {type(x).__name__}")
        self.base.check_numbers(x)

    def _check_axis(self, x: Element, dim: int) -> int:
        dim = super()._check_axis(x, dim)
        if dim == x.dim() - 1:
            raise InputError(f"dim={dim} is the channel axis; elements must lie along another axis")
        return dim

    def _reduce_plan(self, x: Tensor, plan: ReductionPlan) -> Tensor:
        return self._back(self.base.segment_reduce(self._forth(x), plan=plan))

    def reduce(self, x: Tensor, dim: int = 0, mask: Tensor | None = None) -> Tensor:
        dim = self._check_axis(x, dim)
        return self._back(self.base.reduce(self._forth(x), dim, mask))
