"""Null spaces with a basis of small whole numbers."""

from __future__ import annotations

from fractions import Fraction
from math import lcm

import torch
from jaxtyping import Float
from torch import Tensor


def whole_null_space(matrix: Float[Tensor, "equations unknowns"]) -> list[list[int]]:
    """Return solutions of `matrix @ x = 0` in small whole numbers.

    The basis is brought to reduced echelon form; vectors in it that are not multiples of vectors of small whole numbers
    are left out.
    """
    count = matrix.shape[1]
    if not count:
        return []
    scale = matrix.abs().amax(0)
    _, values, v = torch.linalg.svd(matrix / scale, full_matrices=True)
    rank = int((values > 1e-9 * values[0]).sum()) if len(values) else 0
    basis = v[rank:] / scale
    row = 0
    for column in range(count):
        if row == len(basis):
            break
        pivot = row + int(basis[row:, column].abs().argmax())
        if float(basis[pivot, column].abs()) < 1e-6 * float(basis.abs().max()):
            continue
        basis[[row, pivot]] = basis[[pivot, row]]
        basis[row] /= basis[row, column].clone()
        for other in range(len(basis)):
            if other != row:
                basis[other] -= basis[other, column].clone() * basis[row]
        row += 1
    found = []
    for vector in basis.tolist():
        fractions = [Fraction(x).limit_denominator(4) for x in vector]
        if all(abs(float(f) - x) < 1e-5 for f, x in zip(fractions, vector, strict=True)) and any(fractions):
            common = lcm(*(f.denominator for f in fractions))
            found.append([int(f * common) for f in fractions])
    return found
