"""Kernel of random-feature attention with infinitely many heads."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .._errors import InputError
from ..algebra import relu_pair_expectation
from ..kernels import can_sum_pairs, sum_over_pairs
from ..laws import Draw, Invariance, Law, SetPermutation, obeys
from ._tokens import Bias, augmented, bias_matrix, check_finite, check_tokens

_BLOCK = 1 << 16  # pairs of keys held at once by torch: their intermediate values stay in the cache
_CHUNK = 256  # sets prepared at once for the compiled sums


def _order_of_keys(draw: Draw) -> tuple[Law, Callable[..., Any], tuple[Tensor, Tensor]]:
    x = draw.normal(4, draw.width), draw.normal(4, draw.size + 2, draw.width)
    return Invariance(SetPermutation().on(1)), attention_kernel, x


@obeys("invariance to the order of keys", _order_of_keys)
def attention_kernel(
    query: Float[Tensor, "sets d_query"],
    keys: Float[Tensor, "sets n d_key"],
    query2: Float[Tensor, "others d_query"] | None = None,
    keys2: Float[Tensor, "others m d_key"] | None = None,
    *,
    mask: Bool[Tensor, "sets n"] | None = None,
    mask2: Bool[Tensor, "others m"] | None = None,
    bias: Bias = None,
) -> Float[Tensor, "sets others"]:
    r"""Return the kernel of random-feature attention with ReLU in the limit of infinitely many heads.

    With tokens augmented by one, $\tilde x = (x, 1)$, and weights $W \sim N(0, 1/4)$, it is the expectation of the
    inner product of the features of one head:

    $$K = \frac{1}{N N'} \sum_{ij} \frac{s_i s'_j}{2\pi} \left(\sqrt{1 - \rho_{ij}^2} + (\pi - \arccos \rho_{ij})\,
    \rho_{ij}\right) \langle \tilde x_i, \tilde x'_j \rangle,$$

    where $s_i = |\tilde x_0| |\tilde x_i| / 2$, and $\rho_{ij}$ is the cosine between the queries times the cosine
    between the keys. Kernel ridge regression with K, for instance by `commutant.theory.gp_predict`, is the model with
    infinitely many heads. The cost is n² N² d; without gradients the memory is little more than that of the result.
    With a bias, pre-activations have means, and the expectation is integrated, about a hundred times more slowly. No
    gradient flows to the bias.

    Args:
        query: Query of each set.
        keys: Keys of each set; all tokens should have a norm of about one.
        query2: Queries of the columns; by default those of the rows.
        keys2: Keys of the columns.
        mask: Whether a key exists; a set without keys has a kernel of zero.
        mask2: The same for the columns.
        bias: Mean of the weights, as for `RandomAttentionFeatures`.

    Raises:
        InputError: If shapes or dtypes do not fit, or a value is not finite.

    References:
        Fu et al. (2023), "What can a Single Attention Layer Learn? A Study Through the Random Features Lens".

    Example:
        >>> x = torch.tensor([[1.0, 0.0]])
        >>> round(float(attention_kernel(x, x[:, None])), 6)
        1.0
    """
    if (query2 is None) != (keys2 is None):
        raise InputError("give query2 and keys2 together, or neither for the kernel of the sets with themselves")
    if mask2 is not None and keys2 is None:
        raise InputError("mask2 belongs to keys2, which is not given")
    first = _Sets(query, keys, mask, bias)
    second = first if query2 is None or keys2 is None else _Sets(query2, keys2, mask2, bias)
    forms = [(sets.query.shape[-1], sets.keys.shape[-1], sets.keys.dtype) for sets in (first, second)]
    if forms[0] != forms[1]:
        raise InputError(
            f"rows and columns must have queries and keys of the same features and dtype, got {forms[0]} and {forms[1]}"
        )
    if bias is None and can_sum_pairs(*(t for sets in (first, second) for t in (sets.query, sets.keys))):
        return _in_c(first, second)
    return _in_torch(first.side(), second.side() if second is not first else None)


def _in_c(first: _Sets, second: _Sets) -> Tensor:
    """Return the kernel by compiled sums over pairs, a chunk of rows and columns at a time."""
    a, b = len(first.query), len(second.query)
    out = first.keys.new_empty(a, b)
    for top in range(0, a, _CHUNK):
        rows = first.side(top, top + _CHUNK)
        for left in range(top if second is first else 0, b, _CHUNK):
            same = second is first and left == top
            columns = rows if same else second.side(left, left + _CHUNK)
            part = out[top : top + _CHUNK, left : left + _CHUNK]
            torch.mm(rows.query, columns.query.t(), out=part)
            sum_over_pairs(rows.keys, columns.keys, rows.weight, columns.weight, part, same)
            if second is first and left > top:
                out[left : left + _CHUNK, top : top + _CHUNK] = part.t()  # the kernel is symmetric
    return out


def _in_torch(rows: _Side, others: _Side | None) -> Tensor:
    """Return the kernel of rows with other sets, or with themselves, in blocks of pairs that fit into the cache."""
    columns = rows if others is None else others
    step = [max(1, math.isqrt(_BLOCK) // max(1, side.keys.shape[1])) for side in (rows, columns)]
    parts = [side.split(size) for side, size in zip((rows, columns), step, strict=True)]
    if torch.is_grad_enabled() and (rows.weight.requires_grad or columns.weight.requires_grad):
        return torch.cat([torch.cat([_block(p, q) for q in parts[1]], 1) for p in parts[0]])
    out = rows.keys.new_empty(len(rows.weight), len(columns.weight))
    for i, p in enumerate(parts[0]):
        for j, q in enumerate(parts[1]):
            if others is None and j < i:
                continue
            top, left, block = i * step[0], j * step[1], _block(p, q)
            out[top : top + block.shape[0], left : left + block.shape[1]] = block
            if others is None and j > i:
                out[left : left + block.shape[1], top : top + block.shape[0]] = block.t()
    return out


@dataclass(frozen=True)
class _Side:
    """Sets of the rows or of the columns."""

    query: Tensor
    """Directions of the augmented queries, `(sets, d_query + 1)`."""
    keys: Tensor
    """Directions of the augmented keys, `(sets, n, d_key + 1)`."""
    weight: Tensor
    """Weight of each key, `(sets, n)`: s times its norm, divided by the number of keys; zero for missing keys."""
    mean: Tensor | None
    """Mean of the pre-activation of each key over its standard deviation s, `(sets, n)`."""

    def split(self, size: int) -> list[_Side]:
        means = [None] * len(self.query.split(size)) if self.mean is None else self.mean.split(size)
        parts = zip(self.query.split(size), self.keys.split(size), self.weight.split(size), means, strict=True)
        return [_Side(*part) for part in parts]


class _Sets:
    """Checked sets, of which parts are prepared on demand."""

    def __init__(self, query: Tensor, keys: Tensor, mask: Tensor | None, bias: Bias) -> None:
        check_tokens(query, keys, mask)
        check_finite(query, keys, mask)
        self.query, self.keys, self.mask = query, keys, mask
        self.matrix = bias_matrix(bias, query.shape[1], keys.shape[2])

    def side(self, start: int = 0, stop: int | None = None) -> _Side:
        """Return the sets of a range with their directions, weights and means."""
        query, keys = self.query[start:stop], self.keys[start:stop]
        everywhere = torch.ones(keys.shape[:2], dtype=torch.bool, device=keys.device)
        exists = everywhere if self.mask is None else self.mask[start:stop]
        q, k = augmented(query), augmented(keys.masked_fill(~exists[..., None], 0.0))
        q_norm, k_norm = q.norm(dim=-1), k.norm(dim=-1)
        spread = q_norm[:, None] * k_norm / 2
        weight = (spread * k_norm / exists.sum(1).clamp(min=1)[:, None]).masked_fill(~exists, 0.0)
        if not bool(weight.isfinite().all()):
            raise InputError(
                f"the squared norms of the tokens overflow {keys.dtype}; scale tokens to norms of about one"
            )
        mean = None
        if self.matrix is not None:
            mean = torch.einsum("sa,ab,snb->sn", q, self.matrix.to(k), k) / spread
        return _Side(q / q_norm[:, None], k / k_norm[..., None], weight, mean)


def _block(rows: _Side, columns: _Side) -> Tensor:
    """Return the kernel between some rows and some columns."""
    (a, n), (b, m) = rows.weight.shape, columns.weight.shape
    between = (
        rows.keys.reshape(a * n, rows.keys.shape[2]) @ columns.keys.reshape(b * m, rows.keys.shape[2]).t()
    ).reshape(a, n, b, m)
    cosine = between * (rows.query @ columns.query.t())[:, None, :, None]
    if rows.mean is None or columns.mean is None:
        heads = _ReluDual.apply(cosine)
    else:
        heads = relu_pair_expectation(rows.mean[:, :, None, None], columns.mean, cosine).to(between)
    heads = heads * between if heads.requires_grad else heads.mul_(between)
    return torch.einsum("anbm,an,bm->ab", heads, rows.weight, columns.weight)


class _ReluDual(torch.autograd.Function):
    """Expectation of the product of two rectified standard normal variables, by their correlation."""

    @staticmethod
    def forward(rho: Tensor) -> Tensor:
        rho = rho.clamp(-1, 1)
        out = rho.asin().add_(math.pi / 2).mul_(rho)
        return out.add_(rho.mul_(rho).neg_().add_(1).sqrt_()).mul_(1 / (2 * math.pi))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        (rho,) = ctx.saved_tensors
        return grad * (rho.clamp(-1, 1).asin() + math.pi / 2) / (2 * math.pi)
