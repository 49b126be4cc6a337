"""Attention scores as a distribution over the positions of the input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from .._checks import check_features, one_of, positive, whole
from .._errors import InputError
from ..kernels import AdditiveKeys, additive_scores

Scoring: TypeAlias = Literal["additive", "dot", "bilinear"]


class PointerAttention(nn.Module):
    r"""Scores of keys for each query, whose softmax is a distribution over the keys.

    - `additive`: $v^\top \tanh(W_1 k_j + W_2 q_i)$, the pointer of the paper. It never holds the tensor of all queries,
      keys and channels, neither forward nor backward.
    - `dot`: $\langle W_2 q_i, W_1 k_j \rangle / \sqrt{h}$.
    - `bilinear`: $q_i^\top W k_j / \sqrt{d}$ with the width d of the queries.

    One set of weights serves any number of keys. For attention that returns mixed values instead of positions, use
    `torch.nn.MultiheadAttention`.

    Args:
        query_features: Width of the queries.
        key_features: Width of the keys; by default that of the queries.
        hidden_features: Width h of the projections; by default that of the queries.
        kind: Form of the scores.
        clip: Bound C of the scores, which become C tanh(score) (Bello et al. 2016), or None.

    Shapes:
        `(batch, m, query_features)`, `(batch, n, key_features)` -> `(batch, m, n)`

    Example:
        >>> pointer = PointerAttention(8)
        >>> pointer(torch.randn(2, 3, 8), torch.randn(2, 5, 8)).softmax(-1).shape
        torch.Size([2, 3, 5])

    Reference:
        Vinyals, Fortunato and Jaitly, "Pointer Networks", NeurIPS 2015, equation 3.
    """

    def __init__(
        self,
        query_features: int,
        key_features: int | None = None,
        hidden_features: int | None = None,
        kind: Scoring = "additive",
        clip: float | None = None,
    ) -> None:
        super().__init__()
        one_of("kind", kind, ("additive", "dot", "bilinear"))
        whole("query_features", query_features)
        keys = query_features if key_features is None else key_features
        hidden = query_features if hidden_features is None else hidden_features
        whole("key_features", keys)
        whole("hidden_features", hidden)
        if clip is not None:
            positive("clip", clip)
        self.kind, self.clip = kind, clip
        self.keys = nn.Linear(keys, query_features if kind == "bilinear" else hidden, bias=False)
        self.queries = None if kind == "bilinear" else nn.Linear(query_features, hidden, bias=False)
        self.weight = nn.Parameter(torch.empty(hidden).uniform_(-1, 1) / hidden**0.5) if kind == "additive" else None

    def forward(
        self,
        queries: Float[Tensor, "batch m query_features"],
        keys: Float[Tensor, "batch n key_features"],
        mask: Bool[Tensor, "batch n"] | Bool[Tensor, "batch m n"] | None = None,
    ) -> Float[Tensor, "batch m n"]:
        """Return the scores, minus infinity at keys that the mask excludes.

        Args:
            queries: Queries, `(batch, m, query_features)`.
            keys: Keys, `(batch, n, key_features)`.
            mask: Whether a query may point to a key (True), `(batch, n)` or `(batch, m, n)`.

        Raises:
            InputError: If a query may point to no key, whose softmax would be NaN.
        """
        for name, x, layer in (("queries", queries, self.queries), ("keys", keys, self.keys)):
            check_features(name, x, self.keys.weight)
            width = layer.in_features if layer is not None else self.keys.out_features
            if x.dim() != 3 or x.shape[-1] != width:
                raise InputError(f"{name} must have shape (batch, positions, {width}), got {tuple(x.shape)}")
        if len(queries) != len(keys):
            raise InputError(f"queries and keys must have one batch size, got {len(queries)} and {len(keys)}")
        return masked_scores(self.score(queries, self.project_keys(keys)), mask)

    def project_keys(self, keys: Float[Tensor, "batch n key_features"]) -> Float[Tensor, "batch n hidden"]:
        """Return the projected keys, which serve all steps of a decoder.

        Args:
            keys: Keys, `(batch, n, key_features)`.
        """
        return self.keys(keys)

    def score(
        self, queries: Float[Tensor, "batch m query_features"], projected: Float[Tensor, "batch n hidden"]
    ) -> Float[Tensor, "batch m n"]:
        """Return the scores without a mask.

        Args:
            queries: Queries, `(batch, m, query_features)`.
            projected: Keys from `project_keys`, `(batch, n, hidden)`.
        """
        left = queries if self.queries is None else self.queries(queries)
        if self.weight is not None:
            scores = additive_scores(left, projected.to(left.dtype), self.weight.to(left.dtype))
        else:
            scores = left @ projected.mT.to(left.dtype) / left.shape[-1] ** 0.5
        return self._clipped(scores)

    def scorer(self, projected: Float[Tensor, "batch n hidden"]) -> Callable[[Tensor, Tensor | None], Tensor]:
        """Return the function from queries to scores for keys that serve many steps, without gradients.

        Its second argument tells which pairs are needed, `(batch, m, n)`, or None for all.

        Args:
            projected: Keys from `project_keys`, `(batch, n, hidden)`.
        """
        if self.weight is None or self.queries is None:
            return lambda queries, _: self.score(queries, projected)
        keys, project = AdditiveKeys(projected, self.weight.detach().to(projected.dtype)), self.queries
        return lambda queries, wanted: self._clipped(keys.scores(project(queries), wanted))

    def _clipped(self, scores: Tensor) -> Tensor:
        return scores if self.clip is None else self.clip * torch.tanh(scores)

    def extra_repr(self) -> str:
        """Return the form of the scores."""
        return f"kind={self.kind!r}" + ("" if self.clip is None else f", clip={self.clip}")


def masked_scores(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Return scores with minus infinity at excluded keys.

    Args:
        scores: Scores, `(batch, m, n)`.
        mask: Whether a query may point to a key, `(batch, n)` or `(batch, m, n)`, or None.
    """
    if mask is None:
        if not scores.shape[-1] and scores.numel() != scores.shape[:-1].numel():
            raise InputError("keys must not be empty: a query needs a key to point to")
        return scores
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        given = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise InputError(f"mask must be a boolean tensor (True = may be pointed to), got {given}")
    full = mask[:, None] if mask.dim() == 2 else mask
    try:
        full = full.expand_as(scores)
    except RuntimeError:
        raise InputError(
            f"mask must have shape (batch, n) or (batch, m, n), here {tuple(scores.shape)}, got {tuple(mask.shape)}"
        ) from None
    if not torch.compiler.is_compiling() and not bool(full.any(-1).all()):
        row = int((~full.any(-1)).nonzero()[0, 0])
        raise InputError(f"the mask excludes all keys of row {row} of the batch; each query needs a key to point to")
    return scores.masked_fill(~full, -torch.inf)
