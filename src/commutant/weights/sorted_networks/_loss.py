"""Losses of sorted networks: over sub-networks drawn at random, over all, or over the ends and some between."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

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
    one_of("mode", mode, ("sample", "sum", "sandwich"))
    whole("samples", samples)
    if mode == "sum":
        budgets = sorted(nested.menu, key=lambda b: [float(v) for v in b.values()], reverse=True)
    elif mode == "sandwich":
        if samples < 2:
            raise InputError(
                f"the sandwich takes the largest and the smallest budget: samples must be 2 or more, got {samples}"
            )
        budgets = [nested.menu[-1], nested.menu[0], *(nested.draw(weights) for _ in range(samples - 2))]
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
    leaves, tree = pytree.tree_flatten(dict(batch) if isinstance(batch, Mapping) else batch)
    tensors = [x for x in leaves if isinstance(x, Tensor) and x.dim()]
    rows = len(tensors[0]) if tensors else 0
    if rows < parts:
        raise InputError(f"a batch for {parts} sub-networks needs {parts} rows, got {rows}; pass share_batch=True")
    found, shares = [], []
    for index in torch.arange(rows).tensor_split(parts):
        own = slice(int(index[0]), int(index[-1]) + 1)
        cut = [x[own] if isinstance(x, Tensor) and x.dim() and len(x) == rows else x for x in leaves]
        found.append(pytree.tree_unflatten(cut, tree))
        shares.append(len(index) / rows)
    return found, shares
