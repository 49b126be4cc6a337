"""Early exits: each sample takes as many blocks as it needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ..._errors import InputError
from .._given import number
from ._module import SortedModule
from ._passes import replayed


class Exits(NamedTuple):
    """Outputs of a network with early exits.

    Attributes:
        logits: Logits of each sample at its exit, `(batch, classes)`.
        exits: Number of the budget of the menu at which each sample left, `(batch,)`.
    """

    logits: Float[Tensor, "batch classes"]
    exits: Int[Tensor, " batch"]


class EarlyExit(nn.Module):
    """Classifier that runs its blocks in order and answers for each sample as soon as it is confident.

    After the blocks of each budget, the shared head gives probabilities. A sample whose largest one exceeds the
    threshold leaves, and the others go on (the instance-aware inference of Sorted LLaMA). No block is computed twice,
    and samples that left are not computed further.

    Args:
        nested: Sorted network whose budgets differ in depth only, with one list of blocks.
        thresholds: Largest probability above which a sample leaves: one number, or one for each budget but the last.

    Raises:
        InputError: Budgets differ in more than depth, or a threshold is not a probability.
    """

    def __init__(self, nested: SortedModule, thresholds: int | float | Sequence[int | float]) -> None:
        super().__init__()
        lists = [blocks for own in nested.dims.values() for blocks in own.blocks.values()]
        if len(lists) != 1 or any(
            len(sizes) > 1 for name, sizes in nested.menu.sizes.items() if not nested.dims[name].blocks
        ):
            raise InputError("early exits need budgets that differ in depth only, with one list of blocks")
        last = len(nested.menu) - 1
        given = list(thresholds) if isinstance(thresholds, Sequence) else [thresholds] * last
        self.thresholds = [number(t, "a threshold") for t in given]
        if len(self.thresholds) != last or not all(0 <= t <= 1 for t in self.thresholds):
            raise InputError(f"thresholds must be {last} probabilities, one for each budget but the last, got {given}")
        self.nested, self._blocks = nested, lists[0]

    def forward(self, *args: Any, **kwargs: Any) -> Exits:
        """Return the logits of each sample, and where it left.

        Args:
            args: Arguments of the network; tensors with as many rows as the first one hold one row for each sample.
            kwargs: Keyword arguments of the network.

        Raises:
            InputError: The network does not return logits `(batch, classes)`.
        """
        leaves = [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, Tensor) and x.dim()]
        rows = len(leaves[0])
        open_rows = torch.arange(rows, device=leaves[0].device)
        logits: Tensor | None = None
        exits = torch.empty(rows, dtype=torch.long, device=leaves[0].device)
        output: Any = None
        before: list[str] = []
        for number_, budget in enumerate(self.nested.menu):
            cut = self.nested._cut(budget)
            blocks = [name for name in self._blocks if name not in cut.gone]
            found: list[Any] = []
            keep = self.nested.module.get_submodule(blocks[-1]).register_forward_hook(
                lambda module, inputs, out, found=found: found.append(out)
            )
            own_args, own_kwargs = _rows((args, kwargs), open_rows, rows)
            try:
                with cut.applied(replaced=replayed(before, output) if before else None):
                    made = self.nested.module(*own_args, **own_kwargs)
            finally:
                keep.remove()
            made = made if isinstance(made, Tensor) else getattr(made, "logits", None)
            if not isinstance(made, Tensor) or made.dim() != 2 or len(made) != len(open_rows):
                raise InputError("early exits need logits (batch, classes)")
            logits = made.new_empty(rows, made.shape[1]) if logits is None else logits
            logits[open_rows], exits[open_rows] = made, number_
            if number_ == len(self.nested.menu) - 1:
                break
            goes_on = ~(made.detach().softmax(1).amax(1) > self.thresholds[number_])
            if not bool(goes_on.any()):
                break
            output = _rows(found[0] if found else output, goes_on.nonzero().flatten(), len(open_rows))
            open_rows, before = open_rows[goes_on], blocks
        assert logits is not None
        return Exits(logits, exits)


def _rows(tree: Any, index: Tensor, rows: int) -> Any:
    """Return some rows of all tensors that have one row for each sample."""
    return pytree.tree_map(lambda x: x[index] if isinstance(x, Tensor) and x.dim() and len(x) == rows else x, tree)
