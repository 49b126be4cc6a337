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
from ._module import SortedModule, check_nested
from ._passes import recording, replaying


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
        check_nested(nested)
        widths = [sizes for name, sizes in nested.menu.sizes.items() if not nested.dims[name].blocks]
        if nested.blocks is None or any(len(sizes) > 1 for sizes in widths):
            raise InputError(
                "early exits need budgets that differ in depth only, with one list of blocks that run one after another"
            )
        if nested.statistics.norms:
            raise InputError(
                f"early exits need equal blocks at every depth, but batch norm {nested.statistics.norms[0]!r} has "
                "statistics of its own for each; use layer norms or group norms"
            )
        last = len(nested.menu) - 1
        given = list(thresholds) if isinstance(thresholds, Sequence) else [thresholds] * last
        self.thresholds = [number(t, "a threshold") for t in given]
        if len(self.thresholds) != last or not all(0 <= t <= 1 for t in self.thresholds):
            raise InputError(f"thresholds must be {last} probabilities, one for each budget but the last, got {given}")
        self.nested, self._blocks = nested, nested.blocks

    def forward(self, *args: Any, **kwargs: Any) -> Exits:
        """Return the logits of each sample, and where it left.

        Args:
            args: Arguments of the network; tensors with as many rows as the first one hold one row for each sample.
            kwargs: Keyword arguments of the network.

        Raises:
            InputError: No tensor is given, or the network does not return logits `(batch, classes)`.
        """
        leaves = [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, Tensor) and x.dim()]
        if not leaves:
            raise InputError("early exits need a tensor with one row for each sample, got none")
        rows = len(leaves[0])
        left = torch.arange(rows, device=leaves[0].device)  # samples that have not left
        exits = torch.full((rows,), len(self.thresholds), device=left.device)
        logits: Tensor | None = None
        outputs: dict[str, Any] = {}
        for place, budget in enumerate(self.nested.menu):
            own_args, own_kwargs = _rows((args, kwargs), left, rows)
            with self.nested.applied(budget) as module:
                names = [n for n in self._blocks if n not in self.nested.left_by(budget)[1] and n not in outputs]
                with replaying(module, outputs), recording(module, names) as found:
                    made = module(*own_args, **own_kwargs)
            made = made if isinstance(made, Tensor) else getattr(made, "logits", None)
            if not isinstance(made, Tensor) or made.dim() != 2 or len(made) != len(left):
                raise InputError("early exits need logits (batch, classes)")
            logits = made if logits is None else logits.index_put((left,), made)
            if place == len(self.thresholds):
                break
            goes_on = ~(made.detach().softmax(1).amax(1) > self.thresholds[place])
            exits[left[~goes_on]] = place
            if not bool(goes_on.any()):
                break
            outputs = _rows({**outputs, **found}, goes_on.nonzero().flatten(), len(left))
            left = left[goes_on]
        assert logits is not None
        return Exits(logits, exits)


def _rows(tree: Any, index: Tensor, rows: int) -> Any:
    """Return some rows of all tensors that have one row for each sample."""
    return pytree.tree_map(lambda x: x[index] if isinstance(x, Tensor) and x.dim() and len(x) == rows else x, tree)
