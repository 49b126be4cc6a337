"""Losses of sorted networks: over sub-networks drawn at random, over all, or over the ends and some between."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..._checks import one_of, whole
from ..._errors import InputError
from ._module import SortedModule


def sorted_loss(
    model: nn.Module,
    batch: Any,
    loss_fn: Callable[[Any, Any], Tensor],
    *,
    mode: Literal["sample", "sum", "sandwich"] = "sample",
    samples: int = 1,
    share_batch: bool = False,
    weights: Sequence[int | float] | None = None,
) -> Tensor:
    """Return the mean loss over sub-networks, the objective of a sorted network (SortedNet; Sorted LLaMA, Eq. 1).

    - `"sample"` draws `samples` budgets of the menu. Each takes its part of the batch, so that a step costs as much as
      one of plain training; with `share_batch`, each takes the whole batch. The mean over all draws is the loss of
      `"sum"`.
    - `"sum"` takes all budgets on the whole batch. Those that differ in depth only share one pass.
    - `"sandwich"` takes the largest budget, the smallest one and `samples - 2` others on the whole batch, as in
      universally slimmable networks.

    Args:
        model: Sorted network, as it is or wrapped by `DistributedDataParallel` or Lightning Fabric.
        batch: Batch for `loss_fn`. Tensors in it that have as many rows as the first one are split.
        loss_fn: Function from the model and a batch to a mean loss, such as
            `lambda net, batch: F.cross_entropy(net(batch[0]), batch[1])`.
        mode: Sub-networks to take.
        samples: Number of sub-networks of `"sample"` and `"sandwich"`.
        share_batch: Whether each sub-network of `"sample"` takes the whole batch.
        weights: Weight of each budget of the menu in the draw; equal by default.

    Returns:
        The mean loss, a scalar; its gradient is that of the shared parameters.

    Raises:
        InputError: The mode is unknown, the batch has fewer rows than parts, or a loss is not a scalar.
    """
    nested: Any = model
    while not isinstance(nested, SortedModule):
        nested = getattr(nested, "module", None)
        if nested is None:
            raise InputError(f"the first argument must be a SortedModule, got {type(model).__name__}")
    if not callable(loss_fn):
        raise InputError(
            f"loss_fn must be a function from the model and a batch to a loss, got {type(loss_fn).__name__}"
        )
    one_of("mode", mode, ("sample", "sum", "sandwich"))
    whole("samples", samples)
    if mode == "sum":
        budgets = sorted(nested.menu, key=lambda b: [float(v) for v in b.values()], reverse=True)
    elif mode == "sandwich":
        if samples < 2:
            raise InputError(
                f"the sandwich takes the largest and the smallest budget: samples must be 2 or more, got {samples}"
            )
        largest = next((b for b in nested.menu if all(other.within(b) for other in nested.menu)), None)
        smallest = next((b for b in nested.menu if all(b.within(other) for other in nested.menu)), None)
        if largest is None or smallest is None:
            raise InputError("a sandwich needs a largest and a smallest budget, which contain or are in all others")
        budgets = [largest, smallest, *(nested.draw(weights) for _ in range(samples - 2))]
    else:
        budgets = [nested.draw(weights) for _ in range(samples)]
    parts, shares = [batch] * len(budgets), [1 / len(budgets)] * len(budgets)
    if mode == "sample" and samples > 1 and not share_batch:
        parts, shares = _split(batch, samples)
    total: Tensor | None = None
    before = nested.current
    try:
        with nested.one_pass():
            for budget, part, share in zip(budgets, parts, shares, strict=True):
                nested.set_budget(budget)
                loss = loss_fn(model, part)
                if not isinstance(loss, Tensor) or loss.dim():
                    got = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
                    raise InputError(f"loss_fn must return a scalar tensor, got {got}")
                total = share * loss if total is None else total + share * loss
    finally:
        nested.current = before
    assert total is not None
    return total


def _split(batch: Any, parts: int) -> tuple[list[Any], list[float]]:
    """Return the parts of a batch and their shares of its rows."""
    rows = _first_rows(batch)
    if rows < parts:
        raise InputError(f"a batch for {parts} sub-networks needs {parts} rows, got {rows}; pass share_batch=True")
    indices = torch.arange(rows).tensor_split(parts)
    return [_part(batch, int(i[0]), int(i[-1]) + 1, rows) for i in indices], [len(i) / rows for i in indices]


def _first_rows(batch: Any) -> int:
    """Return the number of rows of the first tensor of a batch."""
    if isinstance(batch, Tensor):
        return len(batch) if batch.dim() else 0
    inner = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, tuple | list) else ()
    return next((found for part in inner if (found := _first_rows(part))), 0)


def _part(batch: Any, start: int, stop: int, rows: int) -> Any:
    """Return some rows of all tensors of a batch that have as many rows as the first one."""
    if isinstance(batch, Tensor):
        return batch[start:stop] if batch.dim() and len(batch) == rows else batch
    if isinstance(batch, Mapping):
        parts = {key: _part(value, start, stop, rows) for key, value in batch.items()}
        return type(batch)(parts)  # type: ignore[call-arg]
    if isinstance(batch, tuple | list):
        own = [_part(value, start, stop, rows) for value in batch]
        return type(batch)(*own) if hasattr(batch, "_fields") else type(batch)(own)
    return batch
