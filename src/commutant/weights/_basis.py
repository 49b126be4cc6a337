"""Coordinates of activations: as they are, their principal axes, and interaction bases."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ._activation_moments import Moments

_TIE = 1e-6
"""Relative gap below which strengths count as equal."""


@dataclass(frozen=True, eq=False)
class Basis:
    r"""Coordinates of the activations at one place, $\hat f = (f - \mu) C$ and $f \approx \mu + \hat f C^+$.

    Attributes:
        mean: Mean activation $\mu$, `(features,)`.
        directions: $C$, one column for each coordinate, `(features, coordinates)`.
        inverse: $C^+$, `(coordinates, features)`.
        strengths: Second moments of the coordinates, in falling order, `(coordinates,)`; those of an interaction basis
            are invariant under any invertible change of the activations.
        blocks: Ranges of coordinates of equal strength. Within a block the coordinates are arbitrary, and only what
            they span has a meaning.
    """

    mean: Tensor
    directions: Tensor
    inverse: Tensor
    strengths: Tensor

    @property
    def blocks(self) -> list[range]:
        """Ranges of coordinates of equal strength."""
        s = self.strengths
        ends = [i + 1 for i in range(len(s)) if i + 1 == len(s) or float(s[i] - s[i + 1]) > _TIE * float(s[i])]
        return [range(a, b) for a, b in zip([0, *ends], ends, strict=False)]


def neurons(own: Moments) -> Basis:
    """Return the coordinates of centered activations as they are.

    Args:
        own: Moments of the activations.
    """
    one = torch.eye(len(own.mean), dtype=torch.float64)
    return Basis(own.mean, one, one.clone(), own.covariance.diagonal().clone())


def _spectrum(matrix: Tensor, rtol: float) -> tuple[Tensor, Tensor]:
    """Return the eigenvalues above zero, in falling order, and the eigenvectors with their largest entry positive."""
    if not len(matrix):
        return matrix.new_zeros(0), matrix
    values, vectors = torch.linalg.eigh((matrix + matrix.mT) / 2)
    values, vectors = values.flip(0), vectors.flip(1)
    keep = values > rtol * values[0].clamp(min=0)
    vectors = vectors[:, keep]
    signs = vectors.gather(0, vectors.abs().argmax(0, keepdim=True)).sign() if vectors.numel() else 1
    return values[keep], vectors * signs


def principal(own: Moments, rtol: float) -> Basis:
    """Return the principal axes of activations.

    Args:
        own: Moments of the activations.
        rtol: Smallest part of the largest eigenvalue that counts as more than zero.
    """
    values, vectors = _spectrum(own.covariance, rtol)
    return Basis(own.mean, vectors, vectors.mT.clone(), values)


def interaction(own: Moments, matrix: Tensor, rtol: float) -> Basis:
    """Return the coordinates in which activations have covariance Lambda and derivatives have mean square one.

    Args:
        own: Moments of the activations.
        matrix: Mean of the squared derivatives, `(features, features)`.
        rtol: Smallest part of the largest eigenvalue that counts as more than zero.
    """
    spread, axes = _spectrum(own.covariance, rtol)
    whiten, color = axes / spread.sqrt(), (axes * spread.sqrt()).mT
    strengths, turn = _spectrum(color @ matrix.to(color) @ color.mT, rtol)
    directions, inverse = whiten @ turn * strengths.sqrt(), (turn / strengths.sqrt()).mT @ color
    signs = directions.gather(0, directions.abs().argmax(0, keepdim=True)).sign() if directions.numel() else 1.0
    return Basis(own.mean, directions * signs, inverse * (signs.mT if isinstance(signs, Tensor) else 1.0), strengths)
