"""Self-supervised representations split into an invariant part and an equivariant part.

Garrido, Najman and LeCun, "Self-Supervised Learning of Split Invariant Equivariant Representations", ICML 2023 (SIE).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .._checks import is_real, is_whole, whole
from .._errors import InputError
from ..laws import Invariance, SetPermutation, breaks, obeys
from ..parameters import GeneratedLinear
from ._arguments import check_pairs, floats_given, module_given
from ._law_cases import batches_of_views, linear_in_code


class Split(NamedTuple):
    """Representation of a batch of views, and the projections of its two parts."""

    representation: Float[Tensor, "batch features"]
    """Output of the backbone."""
    invariant: Float[Tensor, "batch invariant"]
    """Projection of the invariant part."""
    equivariant: Float[Tensor, "batch equivariant"]
    """Projection of the equivariant part."""


class SplitRepresentation(nn.Module):
    """Backbone whose output is split into an invariant part, which comes first, and an equivariant part.

    Args:
        backbone: Module from inputs to `(batch, features)`.
        features: Width of the backbone's output.
        equivariant: Number of equivariant features; by default half of `features`.
        projector: Total layer widths of both projectors, divided between them in the same proportion.

    Example:
        >>> net = SplitRepresentation(nn.Linear(10, 8), 8, projector=(16, 16))
        >>> [tuple(part.shape) for part in net(torch.randn(5, 10))]
        [(5, 8), (5, 8), (5, 8)]
    """

    def __init__(
        self,
        backbone: nn.Module,
        features: int,
        equivariant: int | None = None,
        projector: tuple[int, ...] = (2048, 2048, 2048),
    ) -> None:
        super().__init__()
        whole("features", features, 2)
        equivariant = features // 2 if equivariant is None else equivariant
        if not is_whole(equivariant) or not 0 < equivariant < features:
            raise InputError(f"equivariant must lie in 1 to {features - 1}, got {equivariant}")
        if not isinstance(projector, Sequence) or not projector or not all(map(is_whole, projector)):
            raise InputError(f"projector must be a sequence of at least one width, got {projector!r}")
        self.backbone = module_given(backbone, "backbone")
        self.features, self.equivariant_features = features, equivariant
        widths = [round(width * equivariant / features) for width in projector]
        if not all(0 < a < w for a, w in zip(widths, projector, strict=True)):
            raise InputError(f"projector must leave a feature for each part, got {projector}, of which {widths}")
        self.invariant = _projector(features - equivariant, [w - v for w, v in zip(projector, widths, strict=True)])
        self.equivariant = _projector(equivariant, widths)

    def forward(self, x: Tensor) -> Split:
        """Return the representation and the projections of both parts.

        Args:
            x: Inputs of the backbone, `(batch, ...)`.
        """
        y = self.backbone(x)
        if y.dim() != 2 or y.shape[1] != self.features:
            raise InputError(f"the backbone must give (batch, {self.features}), got {tuple(y.shape)}")
        first, second = self.parts(y)
        return Split(y, self.invariant(first), self.equivariant(second))

    def parts(self, y: Float[Tensor, "batch features"]) -> tuple[Float[Tensor, "batch a"], Float[Tensor, "batch b"]]:
        """Return the invariant and the equivariant part of a representation.

        Args:
            y: Output of the backbone, `(batch, features)`.
        """
        invariant = self.features - self.equivariant_features
        return y[:, :invariant], y[:, invariant:]


def _projector(features: int, widths: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in widths[:-1]:
        layers += [nn.Linear(features, width), nn.BatchNorm1d(width), nn.ReLU()]
        features = width
    return nn.Sequential(*layers, nn.Linear(features, widths[-1], bias=False))


@obeys("linearity in the code", lambda draw: linear_in_code(HyperPredictor, draw, hyper_bias=False))
@breaks("linearity in the code with a bias", lambda draw: linear_in_code(HyperPredictor, draw, hyper_bias=True))
class HyperPredictor(nn.Module):
    """Predictor `p_g(z) = W(g) z` of a transformed representation, with a matrix that is linear in the code of g.

    Unlike a network on the concatenation `[z, g]`, it cannot ignore the code, unless the codes nearly lie in a plane
    that misses the origin. `collapse_floor` measures how close they are to such a plane; `center` shifts them.

    Args:
        features: Width of the representation.
        code_features: Width of the code.
        center: Code to subtract from g, such as the mean code, `(code_features,)`.
        hyper_bias: Whether to add a matrix that does not depend on the code; the predictor may then collapse.
        rank: Rank of the matrix of each component of the code; full by default.

    Example:
        >>> HyperPredictor(16, 4)(torch.randn(8, 16), torch.randn(8, 4)).shape
        torch.Size([8, 16])
    """

    def __init__(
        self,
        features: int,
        code_features: int,
        *,
        center: Float[Tensor, " code"] | None = None,
        hyper_bias: bool = False,
        rank: int | None = None,
    ) -> None:
        super().__init__()
        whole("features", features)
        whole("code_features", code_features)
        if rank is not None:
            whole("rank", rank)
        if center is not None:
            floats_given("center", center, 1)
            if len(center) != code_features:
                raise InputError(f"center must be a code of {code_features} numbers, got {len(center)}")
        self.features, self.code_features = features, code_features
        self.linear = GeneratedLinear(features, features, code_features, hyper_bias=hyper_bias, rank=rank)
        self.center: Tensor | None
        self.register_buffer("center", center)

    def forward(
        self, z: Float[Tensor, "batch features"], g: Float[Tensor, "batch code"]
    ) -> Float[Tensor, "batch features"]:
        """Predict z after the transformation.

        Args:
            z: Representations, `(batch, features)`.
            g: Codes of the transformations, `(batch, code_features)`.
        """
        check_pairs(z, g, self.features, self.code_features)
        return self.linear(z, g if self.center is None else g - self.center)  # type: ignore[no-any-return]

    def homomorphism_residual(
        self, first: Float[Tensor, "batch code"], second: Float[Tensor, "batch code"], both: Float[Tensor, "batch code"]
    ) -> float:
        """Return the distance of `W(second) W(first)` from `W(both)`, relative to the norm of `W(both)`.

        The objective does not ask for a small residual; a representation that encodes the pose has one.

        Args:
            first: Codes of the first transformations, `(batch, code_features)`.
            second: Codes of the second transformations, `(batch, code_features)`.
            both: Codes of the first transformation followed by the second, `(batch, code_features)`.
        """
        if self.center is not None:
            first, second, both = (g - self.center for g in (first, second, both))
        with torch.no_grad():
            product = self.linear.matrix(second) @ self.linear.matrix(first)
            direct = self.linear.matrix(both)
            return float((product - direct).norm() / direct.norm())


def collapse_floor(codes: Float[Tensor, "samples code"]) -> float:
    """Return the least relative squared error of a bias-free predictor on a representation that does not move.

    It is `1 - mu^T M^{-1} mu` with `mu = E g` and `M = E g g^T`. The larger it is, the more a collapse to invariance
    costs. Near zero, as for small transformations, the predictor can act as the identity and the guarantee is void.
    In this case, subtract the mean code.

    Args:
        codes: Codes of the transformations, `(samples, code)`.

    Example:
        >>> collapse_floor(torch.tensor([[1.0, 0.0], [1.0, 1.0]])) < 1e-9
        True
    """
    floats_given("codes", codes)
    if codes.dim() != 2 or not len(codes) or not bool(codes.isfinite().all()):
        raise InputError(f"codes must be finite, (samples, code) with at least one sample, got {tuple(codes.shape)}")
    g = codes.detach().double()
    mean, second = g.mean(0), g.mT @ g / len(g)
    solved = torch.linalg.lstsq(second, mean[:, None], driver="gelsd").solution[:, 0]
    return max(0.0, float(1 - mean @ solved))


# variances of a few samples lose digits in float32
@obeys(
    "invariance to the order of the batch",
    lambda draw: batches_of_views(
        draw,
        Invariance(SetPermutation(0)),
        lambda a, b, c, d, p: SIELoss()(Split(a, a, b), Split(c, c, d), p)["total"],
    ),
    tolerance={torch.float32: 1e-3},
)
class SIELoss(nn.Module):
    """Loss of split representations, with agreement, prediction, and VICReg's variance and covariance terms.

    Statistics are computed over the whole batch, across all processes of a `torch.distributed` group.

    Args:
        invariance: Weight of the distance between the invariant parts.
        equivariance: Weight of the error of the predicted equivariant part.
        variance: Weight of the term that keeps the standard deviation of every feature above one.
        covariance: Weight of the term that keeps features uncorrelated, over both parts together.
        predicted_variance: Whether the variance term also applies to the prediction.
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
        if not all(is_real(w) and w >= 0 for w in weights):
            raise InputError(f"the weights of the terms must be non-negative numbers, got {weights}")
        self.invariance, self.equivariance = invariance, equivariance
        self.variance, self.covariance = variance, covariance
        self.predicted_variance = predicted_variance

    def forward(self, first: Split, second: Split, predicted: Float[Tensor, "batch equivariant"]) -> dict[str, Tensor]:
        """Return the weighted total and the unweighted terms, by name.

        Args:
            first: Split representation of one view.
            second: Split representation of the other view.
            predicted: Prediction of the second view's equivariant part from the first's, `(batch, equivariant)`.
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


def vicreg_variance(z: Float[Tensor, "batch features"]) -> Float[Tensor, ""]:
    """Return VICReg's variance term `mean_j max(0, 1 - sqrt(var_j + 1e-4))`, computed in at least float32.

    It is zero where the standard deviation of every feature is at least one.

    Args:
        z: Features, `(batch, features)`.
    """
    wide = _batch(z)
    return (1 - (wide.var(0) + 1e-4).sqrt()).clamp(min=0).mean()


def vicreg_covariance(z: Float[Tensor, "batch features"]) -> Float[Tensor, ""]:
    """Return VICReg's covariance term `sum over i != j of cov_ij^2 / features`, computed in at least float32.

    It is zero for uncorrelated features.

    Args:
        z: Features, `(batch, features)`.
    """
    wide = _batch(z)
    wide = wide - wide.mean(0)
    covariance = wide.mT @ wide / (len(wide) - 1)
    return (covariance.square().sum() - covariance.diagonal().square().sum()) / z.shape[1]


def _batch(z: Tensor) -> Tensor:
    floats_given("features", z)
    if z.dim() != 2 or len(z) < 2 or not z.shape[1]:
        raise InputError(f"features must be (batch, features) with a batch size of at least 2, got {tuple(z.shape)}")
    return z if z.dtype == torch.float64 else z.float()


def gathered(z: Float[Tensor, "batch features"]) -> Float[Tensor, "whole features"]:
    """Return the rows of all processes, with gradients to each; z itself if there is one process."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1):
        return z
    from torch.distributed.nn.functional import all_gather

    return torch.cat(all_gather(z))
