"""Sets as users of scikit-learn hold them: a list of arrays, an array, or rows that are sets of one element."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._errors import InputError
from .._estimators import column_names, matrix


def as_sets(x: Any, estimator: str) -> tuple[Tensor, Tensor]:
    """Return the elements of all sets in float64, `(elements, features)`, and the size of each set.

    Args:
        x: List of sets, each `(size, features)`; array `(sets, size, features)`; or array `(sets, features)`, whose
            rows are sets of one element.
        estimator: Name of the estimator, for messages.

    Raises:
        InputError: If a set is empty, holds NaN or an infinite value, or has other features than the first set.
    """
    parts = _parts(x)
    if parts is None:
        rows = matrix(x, estimator)
        return rows, torch.ones(len(rows), dtype=torch.int64)
    if not parts:
        raise InputError(f"{estimator} needs at least one set, got none")
    found: list[Tensor] = []
    for i, part in enumerate(parts):
        values = _numbers(part, i)
        if values.shape[1] != (found[0] if found else values).shape[1]:
            raise InputError(f"set {i} has {values.shape[1]} features, and set 0 has {found[0].shape[1]}")
        if not np.array_equal(_names(part), _names(parts[0])):
            raise InputError(f"the columns of set {i} are not those of set 0, in the same order")
        found.append(values)
    return torch.cat(found), torch.tensor([len(part) for part in found])


def names_of_features(x: Any) -> np.ndarray | None:
    """Return the names of the columns of a data frame, or of the first of a list of data frames."""
    parts = _parts(x)
    return column_names(x) if parts is None else column_names(parts[0]) if parts else None


def _names(part: Any) -> list[Any]:
    names = column_names(part)
    return [] if names is None else list(names)


def _parts(x: Any) -> list[Any] | None:
    """Return the sets of a list, of an array with three axes or of an array of objects; None for a table of rows."""
    if getattr(x, "ndim", 0) == 3:
        return list(x)
    objects = getattr(x, "ndim", 0) == 1 and getattr(x, "dtype", None) == np.dtype(
        object
    )  # arrays of objects, and series
    if objects or isinstance(x, list | tuple):
        parts = list(x)
        if not parts and isinstance(x, list | tuple):
            return []
        if parts and any(_dimensions(part) != 1 for part in parts) and not all(_dimensions(p) == 0 for p in parts):
            return parts
    return None


def _dimensions(part: Any) -> int:
    """Return the number of axes of a set; -1 for rows of different lengths."""
    try:
        return int(part.ndim) if hasattr(part, "ndim") else np.asarray(part).ndim
    except ValueError:
        return -1


def _numbers(part: Any, position: int) -> Tensor:
    """Return a set as a matrix in float64."""
    if isinstance(part, Tensor):
        values = part.detach().cpu()
        if values.is_complex() or values.layout != torch.strided:
            raise InputError(
                f"set {position} must be a dense array of real numbers, got {values.dtype} {values.layout}"
            )
        values = values.double()
    else:
        try:
            array = np.asarray(part)
            if array.dtype.kind == "c":
                raise InputError(f"set {position} must hold real numbers, got {array.dtype}")
            values = torch.from_numpy(array.astype(np.float64))
        except (TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"set {position} must hold numbers: {error}".splitlines()[0]) from error
    if values.dim() != 2:
        raise InputError(f"set {position} must have shape (size, features), got {tuple(values.shape)}")
    if not values.shape[1]:
        raise InputError(f"set {position} has no features, shape {tuple(values.shape)}")
    if not len(values):
        raise InputError(f"set {position} is empty; drop it")
    if not bool(values.isfinite().all()):
        raise InputError(f"set {position} holds NaN or an infinite value; drop or repair it")
    return values


def means_of_sets(x: Tensor, sizes: Tensor) -> Tensor:
    """Return the mean of the elements of each set, `(sets, features)`."""
    owner = torch.repeat_interleave(sizes)
    return torch.zeros(len(sizes), x.shape[1], dtype=x.dtype).index_add(0, owner, x) / sizes[:, None]
