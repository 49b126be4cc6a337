"""Scores of additive attention, without a tensor of all queries, keys and channels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .._errors import InputError
from . import _native

_LARGEST = 20.0
"""Largest argument whose exponentials the kernel multiplies; above it float32 could overflow."""
_SHORT = (torch.bfloat16, torch.float16)
"""Dtypes whose sums run in float32."""
_PART = 1 << 20
"""Numbers in one part of the loop over queries, which fit into the cache."""


def additive_scores(queries: Tensor, keys: Tensor, weight: Tensor) -> Tensor:
    r"""Return $\sum_c w_c \tanh(q_{ic} + k_{jc})$ for all queries and keys, forward and backward in $O(mn)$ memory.

    On a CPU in float32 the sums run in C if there is a compiler. Otherwise they run over parts of the queries, and the
    backward pass computes them again.

    Args:
        queries: Projected queries, `(batch, m, channels)`.
        keys: Projected keys, `(batch, n, channels)`.
        weight: Weight of each channel, `(channels,)`.

    Returns:
        Scores, `(batch, m, n)`. In C their absolute error is about 1e-7 times the sum of the weights' sizes, so that
        arguments far below 1e-7 are lost.

    Raises:
        InputError: For shapes that do not fit together.
    """
    _check_shapes(queries, keys, weight)
    if not queries.numel() or not keys.numel():
        return (queries[:, :, None].sum(-1) + keys[:, None].sum(-1)) * weight.sum()
    if torch.autograd.forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active():  # type: ignore[attr-defined]
        return _scores(queries, keys, weight)
    return torch.ops.commutant.additive_scores(queries, keys, weight)


class AdditiveKeys:
    """Keys of additive attention, prepared once for many queries; without gradients.

    Args:
        keys: Projected keys, `(batch, n, channels)`.
        weight: Weight of each channel, `(channels,)`.
    """

    def __init__(self, keys: Tensor, weight: Tensor) -> None:
        self.keys, self.weight = keys, weight
        self._raised = (2 * keys).exp().contiguous() if _in_c(weight) and _small(keys) else None
        self._largest = float(keys.abs().amax()) if keys.numel() else 0.0
        self._twice, self._whole = (2 * weight).contiguous(), weight.double().sum()[None].to(weight.dtype)

    def scores(self, queries: Tensor, wanted: Tensor | None = None) -> Tensor:
        """Return the scores of queries, as `additive_scores` does.

        Args:
            queries: Projected queries, `(batch, m, channels)`.
            wanted: True for the pairs whose scores are needed, `(batch, m, n)`; the others are minus infinity.
        """
        _check_shapes(queries, self.keys, self.weight)
        batch, m, n = *queries.shape[:2], self.keys.shape[1]
        if wanted is not None and (wanted.dtype != torch.bool or tuple(wanted.shape) != (batch, m, n)):
            raise InputError(
                f"wanted must hold booleans (batch, m, n) = {(batch, m, n)}, got {wanted.dtype} {tuple(wanted.shape)}"
            )
        largest = float(queries.abs().amax()) if self._raised is not None and queries.numel() else torch.inf
        if self._raised is None or not _in_c(queries) or not largest <= _LARGEST:
            scores = additive_scores(queries, self.keys, self.weight)
            return scores if wanted is None else scores.masked_fill(~wanted, -torch.inf)
        if wanted is None or max(largest, self._largest) > _LARGEST / 2:
            scores = _run_forward(queries, self._raised, self.weight)
            return scores if wanted is None else scores.masked_fill(~wanted, -torch.inf)
        out, h = queries.new_empty(batch, m, n), queries.shape[2]
        raised = (2 * queries).exp().contiguous()
        tensors = (raised, self._raised, self._twice, self._whole, wanted.contiguous(), out)
        _native.run("selected", "forward", tensors, (m, n, h), batch * m, batch * m * n * h)
        return out


def lstm_step(
    table: Tensor, choice: Tensor, product: Tensor, old: Tensor, rows: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return hidden and cell state after one step of LSTMs whose input is one of few, without gradients.

    Args:
        table: Product of the LSTM with each possible input, its bias included, `(batch, choices, 4 channels)`.
        choice: Index of the input of each row, `(batch, rows)`.
        product: Product of the LSTM with the last hidden state, `(batch, rows, 4 channels)`.
        old: Last cell state, `(batch, rows, channels)`.
        rows: Last state that each row goes on from, `(batch, rows)`, if several rows share one. Then `product` is
            `(states, 4 channels)` and `old` is `(states, channels)`.

    Raises:
        InputError: For shapes that do not fit together, or indices beyond their tables.
    """
    channels = old.shape[-1]
    olds = old.shape[:-1] if rows is None else choice.shape
    states = tuple(old.shape[:-1])
    shapes = [tuple(t.shape) for t in (table, choice, product)]
    wanted = [(*olds[:1], *shapes[0][1:2], 4 * channels), tuple(olds), (*states, 4 * channels)]
    if len(olds) != 2 or shapes != wanted or (rows is not None and (rows.shape != choice.shape or len(states) != 1)):
        raise InputError(
            "table (batch, choices, 4 channels), choice (batch, rows), product (batch, rows, 4 channels) and rows "
            f"(batch, rows) must fit old {tuple(old.shape)}, got {shapes[0]}, {shapes[1]}, {shapes[2]} and "
            f"{None if rows is None else tuple(rows.shape)}"
        )
    for name, index, end in (("choice", choice, table.shape[1]), ("rows", rows, len(old))):
        if index is None:
            continue
        if index.dtype != torch.int64 or (index.numel() and not 0 <= int(index.min()) <= int(index.max()) < end):
            raise InputError(f"{name} must be int64 in 0..{end - 1}, got {index.dtype} or values beyond")
    batch, count = choice.shape
    if choice.numel() and old.numel() and _in_c(table, product, old):
        where = torch.arange(batch * count) if rows is None else rows.contiguous()
        h, c = (old.new_empty(batch, count, channels) for _ in range(2))
        tensors = (*(t.contiguous() for t in (table, choice, where, product, old)), h, c)
        _native.run("cell", "forward", tensors, (table.shape[1], channels, count), batch * count, 4 * h.numel())
        return h, c
    if rows is not None:
        product, old = product[rows], old[rows]
    gates = table.gather(1, choice[..., None].expand(-1, -1, table.shape[-1])) + product
    enter, keep, fresh, show = gates.chunk(4, -1)
    c = keep.sigmoid() * old + enter.sigmoid() * fresh.tanh()
    return show.sigmoid() * c.tanh(), c


def _scores(queries: Tensor, keys: Tensor, weight: Tensor) -> Tensor:
    """Return the scores in one piece, which any transform can differentiate."""
    return torch.tanh(queries[:, :, None] + keys[:, None]) @ weight


def _parts(queries: Tensor, keys: Tensor) -> range:
    """Return the first query of each part of the loop."""
    return range(0, queries.shape[1], max(1, _PART // (queries.shape[0] * keys.shape[1] * keys.shape[2])))


def _check_shapes(queries: Tensor, keys: Tensor, weight: Tensor) -> None:
    expected = (queries.shape[0], keys.shape[1], queries.shape[2]) if queries.dim() == keys.dim() == 3 else ()
    if tuple(keys.shape) != expected or tuple(weight.shape) != expected[2:]:
        raise InputError(
            "queries (batch, m, channels), keys (batch, n, channels) and weight (channels,) must fit together, got "
            f"{tuple(queries.shape)}, {tuple(keys.shape)} and {tuple(weight.shape)}"
        )


def _in_c(*tensors: Tensor) -> bool:
    """Return whether the kernels in C can take these tensors."""
    return all(t.device.type == "cpu" and t.dtype == torch.float32 for t in tensors) and _native.library() is not None


def _small(x: Tensor) -> bool:
    """Return whether the kernels in C can take these queries or keys: none is so large that a product overflows."""
    return bool(x.numel()) and _in_c(x) and bool(x.abs().amax() <= _LARGEST)


def _run_forward(queries: Tensor, raised: Tensor, weight: Tensor) -> Tensor:
    """Return the scores in C, from queries and the exponentials of keys."""
    (batch, m, channels), n = queries.shape, raised.shape[1]
    out = queries.new_empty(batch, m, n)
    tensors = ((2 * queries).exp().contiguous(), raised, weight.contiguous(), out)
    _native.run("pointing", "forward", tensors, (m, n, channels), batch * m, batch * m * n * channels)
    return out


@torch.library.custom_op(
    "commutant::additive_scores", mutates_args=(), schema="(Tensor queries, Tensor keys, Tensor weight) -> Tensor"
)
def _forward(queries: Tensor, keys: Tensor, weight: Tensor) -> Tensor:
    if queries.dtype in _SHORT:
        return _forward(queries.float(), keys.float(), weight.float()).to(queries.dtype)
    if _in_c(weight) and _small(queries) and _small(keys):
        return _run_forward(queries, (2 * keys).exp().contiguous(), weight)
    parts = _parts(queries, keys)
    return torch.cat([_scores(queries[:, i : i + parts.step], keys, weight) for i in parts], 1)


@_forward.register_fake
def _(queries: Tensor, keys: Tensor, weight: Tensor) -> Tensor:
    return queries.new_empty(queries.shape[0], queries.shape[1], keys.shape[1])


@torch.library.custom_op(
    "commutant::additive_scores_backward",
    mutates_args=(),
    schema="(Tensor gradient, Tensor queries, Tensor keys, Tensor weight) -> (Tensor, Tensor, Tensor)",
)
def _backward(gradient: Tensor, queries: Tensor, keys: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    if queries.dtype in _SHORT:
        found = _backward(gradient.float(), queries.float(), keys.float(), weight.float())
        return found[0].to(queries.dtype), found[1].to(keys.dtype), found[2].to(weight.dtype)
    batch, m, channels = queries.shape
    n = keys.shape[1]
    if _in_c(weight, gradient) and _small(queries) and _small(keys):
        d_queries, d_keys = queries.new_empty(batch, m, channels), keys.new_zeros(batch, n, channels)
        d_weight = queries.new_zeros(batch, channels)
        raised = ((2 * queries).exp().contiguous(), (2 * keys).exp().contiguous())
        tensors = (*raised, weight.contiguous(), gradient.contiguous(), d_queries, d_keys, d_weight)
        _native.run("pointing", "backward", tensors, (m, channels, n), batch, batch * m * n * channels)
        return d_queries, d_keys, d_weight.sum(0)
    parts, d_keys, d_weight = _parts(queries, keys), torch.zeros_like(keys), torch.zeros_like(weight)
    d_queries = torch.empty_like(queries)
    for i in parts:
        part = slice(i, i + parts.step)
        left, right, scale = _gradients(gradient[:, part], queries[:, part], keys, weight)
        d_queries[:, part] = left
        d_keys += right
        d_weight += scale
    return d_queries, d_keys, d_weight


@_backward.register_fake
def _(gradient: Tensor, queries: Tensor, keys: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(queries), torch.empty_like(keys), torch.empty_like(weight)


def _gradients(gradient: Tensor, queries: Tensor, keys: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of queries, keys and weight in one piece."""
    tanh = torch.tanh(queries[:, :, None] + keys[:, None])
    slope = (gradient[..., None] * weight) * (1 - tanh.square())
    return slope.sum(2), slope.sum(1), (gradient[..., None] * tanh).sum((0, 1, 2))


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    saved = ctx.saved_tensors
    if torch.is_grad_enabled():  # second derivatives
        return _gradients(gradient, *saved)
    return torch.ops.commutant.additive_scores_backward(gradient, *saved)


_forward.register_autograd(_differentiate, setup_context=_keep)
