"""Predictors of transformed representations that are group representations by construction."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .._checks import is_whole, whole
from .._errors import InputError
from ..laws import breaks, obeys
from ._arguments import check_pairs, floats_given
from ._law_cases import product_of_quaternions, sum_of_codes
from ._pose_codes import quaternion_product


@obeys("representation of rotations", lambda draw: product_of_quaternions(QuaternionPredictor, draw))
class QuaternionPredictor(nn.Module):
    """Predictor that treats each group of four features as a quaternion, and multiplies it by the code from the right.

    It is an exact orthogonal representation of rotations up to sign, without parameters: `p_g(p_h(z)) = p_{h g}(z)` and
    `|p_g(z)| = |z|`. The projector in front of it has to learn which features rotate. It replaces `HyperPredictor`
    for codes of `quaternion_code`.

    Args:
        features: Width of the representation, a multiple of four.

    Example:
        >>> QuaternionPredictor(8)(torch.ones(1, 8), torch.tensor([[0.0, 0.0, 0.0, 1.0]])).tolist()
        [[1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]]
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        if not is_whole(features) or features < 4 or features % 4:
            raise InputError(f"features must be a multiple of 4, got {features!r}")
        self.features = features

    def forward(
        self, z: Float[Tensor, "batch features"], g: Float[Tensor, "batch 4"]
    ) -> Float[Tensor, "batch features"]:
        """Predict z after the rotation.

        Args:
            z: Representations, `(batch, features)`.
            g: Quaternions (x, y, z, w) of any length, which are normalized, `(batch, 4)`.
        """
        check_pairs(z, g, self.features, 4)
        return quaternion_product(z.unflatten(-1, (-1, 4)), _unit(g)[..., None, :]).flatten(-2)

    def matrix(self, g: Float[Tensor, "batch 4"]) -> Float[Tensor, "batch features features"]:
        """Return the matrix of each prediction: copies of one 4 x 4 block along the diagonal.

        Args:
            g: Quaternions (x, y, z, w), `(batch, 4)`.
        """
        floats_given("g", g, 2)
        n = self.features
        rows = torch.eye(n, dtype=g.dtype, device=g.device).repeat(len(g), 1)
        return self(rows, g.repeat_interleave(n, 0)).unflatten(0, (-1, n)).mT

    def extra_repr(self) -> str:
        return str(self.features)


@obeys(
    "one-parameter groups",
    lambda draw: sum_of_codes(OrthogonalPredictor, draw, axes=1),
    tolerance={torch.float32: 1e-3},
)
@breaks("representation of all codes", lambda draw: sum_of_codes(OrthogonalPredictor, draw, axes=2))
class OrthogonalPredictor(nn.Module):
    """Predictor that rotates z by `W(g) = exp(sum_a g_a S_a)`, with learned skew-symmetric matrices `S_a`.

    It is an exact representation along multiples of one code: `W(s g) W(t g) = W((s + t) g)`. It keeps the length of
    z, and `W(-g)` undoes `W(g)`. The code zero gives the identity, so codes are rotation vectors
    (`rotation_vector_code`) or differences, not quaternions. Codes along different axes need not compose.

    Args:
        features: Width of the representation.
        code_features: Width of the code.
        block: Size of the blocks of z that rotate separately, a divisor of `features`; by default the largest power of
            two up to 16 that divides it. The exponential costs `block^3` operations per block and sample.

    Example:
        >>> turn = OrthogonalPredictor(32, 3)
        >>> z = torch.randn(5, 32)
        >>> bool((turn(z, torch.randn(5, 3)).norm(dim=1) - z.norm(dim=1)).abs().max() < 1e-4)
        True
    """

    def __init__(self, features: int, code_features: int, *, block: int | None = None) -> None:
        super().__init__()
        whole("features", features)
        whole("code_features", code_features)
        block = math.gcd(features, 16) if block is None else block
        whole("block", block)
        if features % block:
            raise InputError(f"block must divide features, got block {block} and features {features}")
        self.features, self.code_features, self.block = features, code_features, block
        self.weight = nn.Parameter(torch.randn(code_features, features // block, block, block) * (block**-0.5))

    def forward(
        self, z: Float[Tensor, "batch features"], g: Float[Tensor, "batch code"]
    ) -> Float[Tensor, "batch features"]:
        """Predict z after the transformation.

        Args:
            z: Representations, `(batch, features)`.
            g: Codes of the transformations, `(batch, code_features)`.
        """
        check_pairs(z, g, self.features, self.code_features)
        return (self._blocks(g).to(z.dtype) @ z.unflatten(-1, (-1, self.block))[..., None]).squeeze(-1).flatten(-2)

    def matrix(self, g: Float[Tensor, "batch code"]) -> Float[Tensor, "batch features features"]:
        """Return the block-diagonal matrix of each prediction.

        Args:
            g: Codes of the transformations, `(batch, code_features)`.
        """
        blocks = self._blocks(g).to(g.dtype)
        number = self.features // self.block
        matrix = blocks.new_zeros(len(g), number, self.block, number, self.block)
        each = torch.arange(number, device=g.device)
        matrix[:, each, :, each] = blocks.movedim(1, 0)
        return matrix.flatten(3, 4).flatten(1, 2)

    def _blocks(self, g: Tensor) -> Float[Tensor, "batch blocks block block"]:
        floats_given("g", g)
        if g.dim() != 2 or g.shape[1] != self.code_features:
            raise InputError(f"g must be (batch, {self.code_features}), got {tuple(g.shape)}")
        with torch.autocast(g.device.type, enabled=False):  # exponentials need the precision of float32
            wide = torch.promote_types(self.weight.dtype, torch.float32)
            skew = (self.weight - self.weight.mT).to(wide) / 2
            return torch.linalg.matrix_exp(torch.einsum("ba,aknm->bknm", g.to(wide), skew))

    def extra_repr(self) -> str:
        return f"{self.features}, code={self.code_features}, block={self.block}"


def _unit(q: Tensor) -> Tensor:
    """Return quaternions at unit length."""
    largest = q.detach().abs().amax(-1, keepdim=True)
    q = q / torch.where(largest > 0, largest, 1.0)  # squares neither overflow nor vanish
    return q / torch.where(largest > 0, q.norm(dim=-1, keepdim=True), 1.0)
