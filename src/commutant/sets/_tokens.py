"""Tokens of random-feature attention: checks, the constant feature, and the mean of the weights."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .._checks import check_features
from .._errors import InputError

Bias: TypeAlias = Literal["identity"] | Tensor | NDArray[np.floating[Any]] | None


def check_tokens(query: Any, keys: Any, mask: Any = None, weight: Tensor | None = None) -> None:
    """Check the queries `(sets, d_query)`, keys `(sets, n, d_key)` and mask `(sets, n)` of a batch of sets."""
    check_features("keys", keys, weight)
    check_features("query", query, keys)
    if keys.dim() != 3 or query.dim() != 2 or len(query) != len(keys):
        raise InputError(
            f"query must have shape (sets, features) and keys (sets, n, features), got {tuple(query.shape)} and "
            f"{tuple(keys.shape)}"
        )
    if mask is not None and (not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != keys.shape[:2]):
        given = f"{mask.dtype} {tuple(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
        raise InputError(f"mask must be boolean of shape {tuple(keys.shape[:2])}, got {given}")


def check_finite(query: Tensor, keys: Tensor, mask: Tensor | None) -> None:
    """Check that no query and no existing key holds NaN or an infinite value."""
    bad = ~_finite(keys) if mask is None else ~_finite(keys) & mask
    wrong = (bad.any(1) | ~_finite(query)).nonzero().flatten()
    if len(wrong):
        raise InputError(f"set {int(wrong[0])} holds NaN or an infinite value; drop or repair {len(wrong)} such sets")


def _finite(x: Tensor) -> Tensor:
    """Return whether all features of each token are finite, without a copy of the tokens as `isfinite` makes it."""
    if not x.shape[-1]:
        return torch.ones(x.shape[:-1], dtype=torch.bool, device=x.device)
    return x.amin(-1).isfinite() & x.amax(-1).isfinite()


def augmented(x: Tensor) -> Tensor:
    """Return tokens with a constant feature of one."""
    return nn.functional.pad(x, (0, 1), value=1.0)


def bias_matrix(bias: Bias, query_features: int, key_features: int) -> Tensor | None:
    """Return the mean of the weights, `(query_features + 1, key_features + 1)`, or None if it is zero."""
    if bias is None:
        return None
    if isinstance(bias, str):
        if bias != "identity":
            raise InputError(f"bias must be None, 'identity' or a matrix, got {bias!r}")
        if query_features != key_features:
            raise InputError(
                f"bias='identity' needs queries and keys with as many features, got {query_features} and "
                f"{key_features}; "
                "pass a matrix"
            )
        return torch.diag(torch.cat([torch.ones(query_features), torch.zeros(1)])).double()
    if isinstance(bias, np.ndarray):
        bias = torch.from_numpy(bias)
    if not isinstance(bias, Tensor) or bias.shape != (query_features + 1, key_features + 1):
        given = tuple(bias.shape) if isinstance(bias, Tensor) else type(bias).__name__
        raise InputError(
            f"bias must be None, 'identity' or a matrix of shape {(query_features + 1, key_features + 1)}, one more "
            f"than the features of queries and keys, got {given}"
        )
    if not bool(bias.isfinite().all()):
        raise InputError("bias must be finite, got NaN or infinity")
    return bias.detach().double()
