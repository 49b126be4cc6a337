"""Sets as users of scikit-learn hold them: a list of arrays, an array, or rows that are sets of one element."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._errors import InputError
from .._estimators import matrix


def as_sets(x: Any, estimator: str) -> tuple[Tensor, Tensor]:
    """Return the elements of all sets in float64, `(elements, features)`, and the size of each set.

    Args:
        x: List of sets, each `(size, features)`; array `(sets, size, features)`; or array `(sets, features)`, whose
            rows are sets of one element.
        estimator: Name of the estimator, for messages.

    Raises:
        InputError: If a set is empty, holds NaN or an infinite value, or has other features than the first set.
    """
    listed = isinstance(x, list | tuple) and len(x) > 0 and all(_dimensions(part) == 2 for part in x)
    if not listed and getattr(x, "ndim", 0) != 3:
        rows = matrix(x, estimator)
        return rows, torch.ones(len(rows), dtype=torch.int64)
    parts = list(x)
    if not parts:
        raise InputError(f"{estimator} needs at least one set, got none")
    found: list[Tensor] = []
    for i, part in enumerate(parts):
        values = part.detach().cpu().double() if isinstance(part, Tensor) else _numbers(part, i)
        if not values.numel():
            raise InputError(f"set {i} is empty; drop it")
        if values.shape[1] != (found[0] if found else values).shape[1]:
            raise InputError(f"set {i} has {values.shape[1]} features, and set 0 has {found[0].shape[1]}")
        if not bool(values.isfinite().all()):
            raise InputError(f"set {i} holds NaN or an infinite value; drop or repair it")
        found.append(values)
    return torch.cat(found), torch.tensor([len(part) for part in found])


def _dimensions(part: Any) -> int:
    try:
        return int(part.ndim) if hasattr(part, "ndim") else np.asarray(part).ndim
    except ValueError:  # rows of different lengths
        return 0


def _numbers(part: Any, position: int) -> Tensor:
    try:
        return torch.from_numpy(np.asarray(part).astype(np.float64))
    except (TypeError, ValueError) as error:
        raise InputError(f"set {position} must hold numbers: {error}") from error


def means_of_sets(x: Tensor, sizes: Tensor) -> Tensor:
    """Return the mean of the elements of each set, `(sets, features)`."""
    owner = torch.repeat_interleave(sizes)
    return torch.zeros(len(sizes), x.shape[1], dtype=x.dtype).index_add(0, owner, x) / sizes[:, None]
