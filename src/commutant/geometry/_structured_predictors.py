"""Predictors of how a representation moves that are representations of a group by construction."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .._errors import InputError
from ..laws import Draw, Homomorphism, breaks, obeys
from ._arguments import check_pairs, floats_given, whole_given
from ._pose_codes import quaternion_product


def _turns(draw: Draw):  # type: ignore[no-untyped-def]
    """The matrix, as a function of the quaternion; what comes second stands to the left."""
    predictor = QuaternionPredictor(4 * draw.width)
    codes = lambda g: tuple(_unit(torch.randn(draw.size, 4, generator=g).to(draw.dtype)) for _ in range(2))  # noqa: E731
    return Homomorphism(quaternion_product, lambda a, b: b @ a), predictor.matrix, codes


def _along(axes: int):  # type: ignore[no-untyped-def]
    """The matrix, as a function of codes: multiples of one, or any two."""

    def case(draw: Draw):  # type: ignore[no-untyped-def]
        predictor = draw.module(lambda: OrthogonalPredictor(4 * draw.width, 3, block=4))

        def codes(g: torch.Generator) -> tuple[Tensor, ...]:
            drawn = torch.randn(axes, 3, generator=g).to(draw.dtype)
            sizes = torch.randn(2, draw.size, 1, generator=g).to(draw.dtype)
            return tuple(sizes[i] * drawn[i % axes] for i in range(2))

        return Homomorphism(torch.add, torch.matmul), predictor.matrix, codes

    return case


def _unit(q: Tensor) -> Tensor:
    largest = q.detach().abs().amax(-1, keepdim=True)
    q = q / torch.where(largest > 0, largest, 1.0)  # squares neither overflow nor vanish
    return q / torch.where(largest > 0, q.norm(dim=-1, keepdim=True), 1.0)


@obeys("representation of rotations", _turns)
class QuaternionPredictor(nn.Module):
    """Multiplies each four coordinates of z, as a quaternion, by the code from the right.

    An exact representation of rotations up to sign, orthogonal, without parameters: `p_g(p_h(z)) = p_{h g}(z)`,
    `|p_g(z)| = |z|`. A projector in front of it has to learn which coordinates turn. To be put in place of
    `HyperPredictor` where codes are those of `quaternion_code`.

    Args:
        dim: of the representation, a multiple of four.

    Example:
        >>> QuaternionPredictor(8)(torch.ones(1, 8), torch.tensor([[0.0, 0.0, 0.0, 1.0]])).tolist()
        [[1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]]
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        if not isinstance(dim, int) or dim < 4 or dim % 4:
            raise InputError(f"dim must be a multiple of 4, got {dim}")
        self.dim = dim

    def forward(self, z: Float[Tensor, "batch dim"], g: Float[Tensor, "batch 4"]) -> Float[Tensor, "batch dim"]:
        """What z shall be after the turn; g is taken to unit length."""
        check_pairs(z, g, self.dim, 4)
        return quaternion_product(z.unflatten(-1, (-1, 4)), _unit(g)[..., None, :]).flatten(-2)

    def matrix(self, g: Float[Tensor, "batch 4"]) -> Float[Tensor, "batch dim dim"]:
        """The matrix itself: one 4 x 4 block again and again."""
        floats_given("g", g, 2)
        whole = torch.eye(self.dim, dtype=g.dtype, device=g.device)
        return self(whole.repeat(len(g), 1), g.repeat_interleave(self.dim, 0)).unflatten(0, (-1, self.dim)).mT

    def extra_repr(self) -> str:
        return str(self.dim)


@obeys("one-parameter groups", _along(1), tolerance={torch.float32: 1e-3})
@breaks("representation of all codes", _along(2))
class OrthogonalPredictor(nn.Module):
    """Turns z by `W(g) = exp(sum_a g_a S_a)`, with skew-symmetric matrices `S_a` that are learned.

    Along multiples of one code an exact representation, `W(s g) W(t g) = W((s + t) g)`; never changes the length of z,
    and `W(-g)` undoes `W(g)`. The identity belongs to the code zero, so codes are rotation vectors
    (`rotation_vector_code`) or differences, not quaternions. For codes along different axes nothing is promised:
    `homomorphism_residual` tells.

    Args:
        dim: of the representation.
        code_dim: of the code.
        block: z is cut into blocks of so many coordinates that turn by themselves; a divisor of dim, by default the
            largest power of two up to 16. An exponential costs `block^3` for each block and sample.

    Example:
        >>> turn = OrthogonalPredictor(32, 3)
        >>> z = torch.randn(5, 32)
        >>> bool((turn(z, torch.randn(5, 3)).norm(dim=1) - z.norm(dim=1)).abs().max() < 1e-4)
        True
    """

    def __init__(self, dim: int, code_dim: int, *, block: int | None = None) -> None:
        super().__init__()
        whole_given("dim", dim)
        whole_given("code_dim", code_dim)
        block = math.gcd(dim, 16) if block is None else block
        whole_given("block", block)
        if dim % block:
            raise InputError(f"block must divide dim, got {block} and dim {dim}")
        self.dim, self.code_dim, self.block = dim, code_dim, block
        self.weight = nn.Parameter(torch.randn(code_dim, dim // block, block, block) * (block**-0.5))

    def forward(self, z: Float[Tensor, "batch dim"], g: Float[Tensor, "batch code"]) -> Float[Tensor, "batch dim"]:
        """What z shall be after the transformation."""
        check_pairs(z, g, self.dim, self.code_dim)
        return (self._blocks(g).to(z.dtype) @ z.unflatten(-1, (-1, self.block))[..., None]).squeeze(-1).flatten(-2)

    def matrix(self, g: Float[Tensor, "batch code"]) -> Float[Tensor, "batch dim dim"]:
        """The matrix itself, block-diagonal."""
        blocks = self._blocks(g).to(g.dtype)
        whole = blocks.new_zeros(len(g), self.dim // self.block, self.block, self.dim // self.block, self.block)
        each = torch.arange(self.dim // self.block, device=g.device)
        whole[:, each, :, each] = blocks.movedim(1, 0)
        return whole.flatten(3, 4).flatten(1, 2)

    def _blocks(self, g: Tensor) -> Float[Tensor, "batch blocks block block"]:
        floats_given("g", g)
        if g.dim() != 2 or g.shape[1] != self.code_dim:
            raise InputError(f"g must be (batch, {self.code_dim}), got {tuple(g.shape)}")
        with torch.autocast(g.device.type, enabled=False):  # exponentials need the digits of float32
            wide = torch.promote_types(self.weight.dtype, torch.float32)
            skew = (self.weight - self.weight.mT).to(wide) / 2
            return torch.linalg.matrix_exp(torch.einsum("ba,aknm->bknm", g.to(wide), skew))

    def extra_repr(self) -> str:
        return f"{self.dim}, code={self.code_dim}, block={self.block}"
