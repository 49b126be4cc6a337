"""Affine maps under composition, the monoids behind linear recurrences and Newton's method on nonlinear ones."""

from __future__ import annotations

import torch
from torch import Tensor

from .._errors import InputError
from ._monoid import Monoid
from .elements import Element


class DiagonalAffine(Monoid):
    """Monoid of elementwise affine maps $x \\mapsto a x + b$ under composition, the earlier map first.

    $(a_1, b_1) \\circ (a_2, b_2) = (a_2 a_1,\\; a_2 b_1 + b_2)$. The second part of an inclusive scan of $(a_t, b_t)$
    solves $h_t = a_t h_{t-1} + b_t$ from $h_0 = 0$. The monoid is associative but not commutative.

    Shapes:
        element: pair of a and b, both `(..., channels)`.

    Example:
        >>> a, b = torch.tensor([0.5, 0.5, 0.5]), torch.ones(3)
        >>> DiagonalAffine().scan((a, b))[1]
        tensor([1.0000, 1.5000, 1.7500])
    """

    commutative = "no"
    parts = 2

    def op(self, a: Element, b: Element) -> Element:
        (slope1, shift1), (slope2, shift2) = a, b
        return slope2 * slope1, torch.addcmul(shift2, slope2, shift1)

    def identity(self, like: Element) -> Element:
        return torch.ones_like(like[0]), torch.zeros_like(like[1])


class MatrixAffine(Monoid):
    """Monoid of affine maps $x \\mapsto A x + b$ with square blocks A under composition, the earlier map first.

    $(A_1, b_1) \\circ (A_2, b_2) = (A_2 A_1,\\; A_2 b_1 + b_2)$. A dense map has one block of full width; a
    block-diagonal map has an additional axis of blocks. Blocks of width 2 are multiplied elementwise.

    Shapes:
        element: pair of A, `(..., width, width)`, and b, `(..., width)`.

    Example:
        >>> A, b = torch.eye(2).expand(3, 2, 2), torch.ones(3, 2)
        >>> MatrixAffine().reduce((A, b))[1]
        tensor([3., 3.])
    """

    commutative = "no"
    parts = 2

    def op(self, a: Element, b: Element) -> Element:
        (matrix1, shift1), (matrix2, shift2) = a, b
        square = (shift1.shape[-1],) * 2
        if matrix1.shape[-2:] != square or matrix2.shape[-2:] != square or shift2.shape[-1:] != square[:1]:
            raise InputError(
                "affine maps need square matrices and vectors of the same width, "
                f"got {[tuple(t.shape) for t in (matrix1, shift1, matrix2, shift2)]}"
            )
        if matrix1.shape[-1] == 2:
            return _matmul2(matrix2, matrix1), _matvec2(matrix2, shift1) + shift2
        return matrix2 @ matrix1, (matrix2 @ shift1[..., None])[..., 0] + shift2

    def identity(self, like: Element) -> Element:
        matrix, shift = like
        eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
        return eye.expand(matrix.shape), torch.zeros_like(shift)


def _matvec2(matrix: Tensor, vector: Tensor) -> Tensor:
    return torch.addcmul(matrix[..., 0] * vector[..., :1], matrix[..., 1], vector[..., 1:])


def _matmul2(a: Tensor, b: Tensor) -> Tensor:
    return torch.addcmul(a[..., :, :1] * b[..., :1, :], a[..., :, 1:], b[..., 1:, :])
