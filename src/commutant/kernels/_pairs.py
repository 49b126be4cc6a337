"""Sums over pairs of keys in C, for the kernel of random-feature attention."""

from __future__ import annotations

import torch
from torch import Tensor

from . import _native

_NAMES = {torch.float32: "attention", torch.float64: "attention64"}


def can_sum_pairs(*tensors: Tensor) -> bool:
    """Return whether `sum_over_pairs` can take these tensors: on the CPU, in float32 or float64, without gradients."""
    plain = all(
        t.device.type == "cpu" and t.dtype in _NAMES and not (t.requires_grad and torch.is_grad_enabled())
        for t in tensors
    )
    inside = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
    return plain and not inside and _native.library() is not None


def sum_over_pairs(
    rows: Tensor, columns: Tensor, row_weight: Tensor, column_weight: Tensor, out: Tensor, same: bool
) -> None:
    r"""Replace the cosines q between queries by $\sum_{ij} w_i w'_j\, \kappa(q\, g_{ij})\, g_{ij}$ for all pairs of
    sets.

    Here g is the cosine between two keys, and $\kappa$ the dual of ReLU.

    Args:
        rows: Directions of the keys of the rows, `(sets, n, d)`.
        columns: Directions of the keys of the columns, `(others, m, d)`.
        row_weight: Weights of the keys of the rows, `(sets, n)`.
        column_weight: Weights of the keys of the columns, `(others, m)`.
        out: Cosines between the queries, with contiguous columns, `(sets, others)`; changed in place.
        same: Whether rows and columns are the same sets; half of the sums are then copied.
    """
    (a, n, d), (b, m, _) = rows.shape, columns.shape
    if not out.numel() or not n or not m:
        out.zero_()
        return
    tensors = (rows, columns.transpose(1, 2), row_weight, column_weight)
    contiguous = tuple(t.detach().contiguous() for t in tensors)
    sizes = (n, b, m, d, int(same), out.stride(0))
    _native.run(_NAMES[rows.dtype], "forward", (*contiguous, out), sizes, a, a * b * n * m)
