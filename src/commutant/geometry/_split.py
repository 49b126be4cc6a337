"""Self-supervised representations split in two: a half that a transformation leaves alone, a half that it moves.

Garrido, Najman and LeCun, "Self-Supervised Learning of Split Invariant Equivariant Representations", ICML 2023 (SIE).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .._errors import InputError
from ..laws import Draw, Homomorphism, Invariance, SetPermutation, breaks, obeys
from ..parameters import GeneratedLinear
from ._arguments import check_pairs, floats_given, module_given, whole_given


class Split(NamedTuple):
    """A representation and what the projectors make of its halves."""

    representation: Float[Tensor, "batch dim"]
    invariant: Float[Tensor, "batch invariant"]
    equivariant: Float[Tensor, "batch equivariant"]


class SplitRepresentation(nn.Module):
    """A backbone whose output is split into an invariant part, which comes first, and an equivariant one.

    Args:
        backbone: from inputs to `(batch, dim)`.
        dim: of its output.
        equivariant: of the dimensions, those that shall move with a transformation; half by default.
        projector: widths of the two projectors together, split in the same proportion.

    Example:
        >>> net = SplitRepresentation(nn.Linear(10, 8), 8, projector=(16, 16))
        >>> [tuple(part.shape) for part in net(torch.randn(5, 10))]
        [(5, 8), (5, 8), (5, 8)]
    """

    def __init__(
        self,
        backbone: nn.Module,
        dim: int,
        equivariant: int | None = None,
        projector: tuple[int, ...] = (2048, 2048, 2048),
    ) -> None:
        super().__init__()
        whole_given("dim", dim, 2)
        equivariant = dim // 2 if equivariant is None else equivariant
        if not isinstance(equivariant, int) or not 0 < equivariant < dim:
            raise InputError(f"equivariant must lie in 1 to {dim - 1}, got {equivariant}")
        if not isinstance(projector, Sequence) or not projector or not all(isinstance(w, int) for w in projector):
            raise InputError(f"projector must be at least one width, got {projector!r}")
        self.backbone, self.dim, self.equivariant_dim = module_given(backbone, "backbone"), dim, equivariant
        widths = [round(width * equivariant / dim) for width in projector]
        if not all(0 < a < w for a, w in zip(widths, projector, strict=True)):
            raise InputError(f"projector must leave both parts at least one feature, got {projector} of which {widths}")
        self.invariant = _projector(dim - equivariant, [w - v for w, v in zip(projector, widths, strict=True)])
        self.equivariant = _projector(equivariant, widths)

    def forward(self, x: Tensor) -> Split:
        """The representation, and both parts projected."""
        y = self.backbone(x)
        if y.dim() != 2 or y.shape[1] != self.dim:
            raise InputError(f"the backbone must give (batch, {self.dim}), got {tuple(y.shape)}")
        first, second = self.parts(y)
        return Split(y, self.invariant(first), self.equivariant(second))

    def parts(self, y: Float[Tensor, "batch dim"]) -> tuple[Float[Tensor, "batch a"], Float[Tensor, "batch b"]]:
        """The invariant and the equivariant part of a representation."""
        return y[:, : self.dim - self.equivariant_dim], y[:, self.dim - self.equivariant_dim :]


def _projector(dim: int, widths: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in widths[:-1]:
        layers += [nn.Linear(dim, width), nn.BatchNorm1d(width), nn.ReLU()]
        dim = width
    return nn.Sequential(*layers, nn.Linear(dim, widths[-1], bias=False))


def _of_codes(hyper_bias: bool):  # type: ignore[no-untyped-def]
    """What is predicted from one representation, as a function of the code."""

    def case(draw: Draw):  # type: ignore[no-untyped-def]
        predictor = draw.module(lambda: HyperPredictor(draw.width, 4, hyper_bias=hyper_bias))
        z = draw.normal(draw.size, draw.width)
        codes = lambda g: tuple(torch.randn(draw.size, 4, generator=g).to(draw.dtype) for _ in range(2))  # noqa: E731
        return Homomorphism(torch.add), lambda g: predictor(z, g), codes

    return case


@obeys("linearity in the code", _of_codes(False))
@breaks("linearity in the code with a bias", _of_codes(True))
class HyperPredictor(nn.Module):
    """Predicts how a representation moves: `p_g(z) = W(g) z`, with a matrix that is linear in the code of g.

    It can't ignore the code, as a network of `[z, g]` can, unless codes nearly lie in a plane off the origin: see
    `collapse_floor`, and `center` to move them.

    Args:
        dim: of the representation.
        code_dim: of the code.
        center: a code to subtract first, such as the mean of all.
        hyper_bias: add a matrix that does not depend on the code; the predictor may then collapse.
        rank: of the matrices.

    Example:
        >>> HyperPredictor(16, 4)(torch.randn(8, 16), torch.randn(8, 4)).shape
        torch.Size([8, 16])
    """

    def __init__(
        self,
        dim: int,
        code_dim: int,
        *,
        center: Float[Tensor, " code"] | None = None,
        hyper_bias: bool = False,
        rank: int | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("dim", dim), ("code_dim", code_dim), *([] if rank is None else [("rank", rank)])):
            whole_given(name, value)
        if center is not None:
            floats_given("center", center, 1)
            if len(center) != code_dim:
                raise InputError(f"center must be a code of {code_dim} numbers, got {len(center)}")
        self.dim, self.code_dim = dim, code_dim
        self.linear = GeneratedLinear(dim, dim, code_dim, hyper_bias=hyper_bias, rank=rank)
        self.center: Tensor | None
        self.register_buffer("center", center)

    def forward(self, z: Float[Tensor, "batch dim"], g: Float[Tensor, "batch code"]) -> Float[Tensor, "batch dim"]:
        """What z shall be after the transformation."""
        check_pairs(z, g, self.dim, self.code_dim)
        return self.linear(z, g if self.center is None else g - self.center)  # type: ignore[no-any-return]

    def homomorphism_residual(
        self, first: Float[Tensor, "batch code"], second: Float[Tensor, "batch code"], both: Float[Tensor, "batch code"]
    ) -> float:
        """How far `W(second) W(first)` is from `W(both)`, where `both` is the code of one after the other.

        Relative to the size of `W(both)`. The objective does not ask for it; one that holds the pose has it.
        """
        if self.center is not None:
            first, second, both = (g - self.center for g in (first, second, both))
        with torch.no_grad():
            product = self.linear.matrix(second) @ self.linear.matrix(first)
            whole = self.linear.matrix(both)
            return float((product - whole).norm() / whole.norm())


def collapse_floor(codes: Float[Tensor, "samples code"]) -> float:
    """The least relative squared error of a bias-free predictor on a representation that does not move at all.

    `1 - mu^T M^{-1} mu` with `mu = E g` and `M = E g g^T`: the larger, the more a collapse to invariance costs. Near
    zero, for small transformations, the predictor can act as the identity and the guarantee is void: subtract the mean
    code.

    Example:
        >>> collapse_floor(torch.tensor([[1.0, 0.0], [1.0, 1.0]])) < 1e-9
        True
    """
    floats_given("codes", codes)
    if codes.dim() != 2 or not len(codes) or not bool(codes.isfinite().all()):
        raise InputError(f"codes must be finite, (samples, code) with one sample or more, got {tuple(codes.shape)}")
    g = codes.detach().double()
    mean, second = g.mean(0), g.mT @ g / len(g)
    solved = torch.linalg.lstsq(second, mean[:, None], driver="gelsd").solution[:, 0]
    return max(0.0, float(1 - mean @ solved))


def _of_batches(draw: Draw):  # type: ignore[no-untyped-def]
    """The objective of two views and a prediction, as pairs in any order."""
    parts = tuple(draw.normal(draw.size + 2, draw.width + 1) for _ in range(5))
    loss = SIELoss()
    return (
        Invariance(SetPermutation(0)),
        lambda a, b, c, d, p: loss(Split(a, a, b), Split(c, c, d), p)["total"],
        parts,
    )


# variances of a few samples lose digits in float32
@obeys("invariance to the order of the batch", _of_batches, tolerance={torch.float32: 1e-3})
class SIELoss(nn.Module):
    """The objective of split representations: agreement, prediction, and VICReg's variance and covariance.

    Statistics are those of the whole batch, over all processes of a `torch.distributed` group.

    Args:
        invariance: weight of the agreement of the invariant parts.
        equivariance: weight of the error of the predicted equivariant part.
        variance: weight of keeping every dimension's deviation above one.
        covariance: weight of keeping dimensions uncorrelated, over both parts together.
        predicted_variance: whether the prediction's deviations are kept up too.
    """

    def __init__(
        self,
        invariance: float = 10.0,
        equivariance: float = 4.5,
        variance: float = 10.0,
        covariance: float = 1.0,
        predicted_variance: bool = True,
    ) -> None:
        super().__init__()
        weights = (invariance, equivariance, variance, covariance)
        if not all(isinstance(w, int | float) and w >= 0 for w in weights):
            raise InputError(f"the weights of the terms must be numbers that are not negative, got {weights}")
        self.invariance, self.equivariance = invariance, equivariance
        self.variance, self.covariance = variance, covariance
        self.predicted_variance = predicted_variance

    def forward(self, first: Split, second: Split, predicted: Float[Tensor, "batch equivariant"]) -> dict[str, Tensor]:
        """The total and its terms, unweighted.

        Args:
            first: of one view.
            second: of the other.
            predicted: the equivariant part of the second, from that of the first.
        """
        for name, part in (("first", first), ("second", second)):
            if not isinstance(part, Split):
                raise InputError(f"{name} must be the Split of a view, got {type(part).__name__}")
        shapes = [tuple(t.shape) for t in (first.invariant, second.invariant, first.equivariant, second.equivariant)]
        if shapes[0] != shapes[1] or shapes[2] != shapes[3] or tuple(predicted.shape) != shapes[3]:
            raise InputError(
                f"both views and the prediction must have the same shapes, got {shapes} and {tuple(predicted.shape)}"
            )
        agreement = (first.invariant - second.invariant).square().mean()
        error = (predicted - second.equivariant).square().mean()
        one, two, third = (
            gathered(torch.cat(parts, -1))
            for parts in ((first.invariant, first.equivariant), (second.invariant, second.equivariant), (predicted,))
        )
        variance = (vicreg_variance(one) + vicreg_variance(two)) / 2
        if self.predicted_variance:
            variance = variance + vicreg_variance(third) / 2
        covariance = vicreg_covariance(one) + vicreg_covariance(two)
        total = (
            self.invariance * agreement
            + self.equivariance * error
            + self.variance * variance
            + self.covariance * covariance
        )
        return {
            "total": total,
            "invariance": agreement,
            "equivariance": error,
            "variance": variance,
            "covariance": covariance,
        }


def vicreg_variance(z: Float[Tensor, "batch dim"]) -> Float[Tensor, ""]:
    """`mean_j max(0, 1 - sqrt(var_j + 1e-4))`, in float32 or better; zero where every deviation is at least one."""
    wide = _batch(z)
    return (1 - (wide.var(0) + 1e-4).sqrt()).clamp(min=0).mean()


def vicreg_covariance(z: Float[Tensor, "batch dim"]) -> Float[Tensor, ""]:
    """`sum over i != j of cov_ij^2 / dim`, in float32 or better; zero for whitened features."""
    wide = _batch(z)
    wide = wide - wide.mean(0)
    covariance = wide.mT @ wide / (len(wide) - 1)
    return (covariance.square().sum() - covariance.diagonal().square().sum()) / z.shape[1]


def _batch(z: Tensor) -> Tensor:
    floats_given("features", z)
    if z.dim() != 2 or len(z) < 2 or not z.shape[1]:
        raise InputError(f"statistics need two samples of one feature or more, (batch, dim), got {tuple(z.shape)}")
    return z if z.dtype == torch.float64 else z.float()


def gathered(z: Float[Tensor, "batch dim"]) -> Float[Tensor, "whole dim"]:
    """The rows of all processes, with gradients back to each; z itself where there is one process."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1):
        return z
    from torch.distributed.nn.functional import all_gather

    return torch.cat(all_gather(z))
