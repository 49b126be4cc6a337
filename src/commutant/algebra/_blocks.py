"""Tensors over blocks of nodes of different sizes, stored one after the other without padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby

import torch
from jaxtyping import Int
from torch import Tensor

from .._checks import whole
from .._errors import InputError
from .plans import check_positions


@dataclass(frozen=True, eq=False)
class Blocks:
    """Layout of tensors over blocks of nodes of different sizes, without padding.

    A tensor of order k has `m ** k` rows for each block of m nodes, in row-major order, and the blocks follow one
    another: a row for each node at order 1, a row for each ordered pair of nodes of a block at order 2. Blocks of equal
    size that are neighbors are computed together, so sorted sizes are fastest. Create the layout once if several layers
    use it.

    Args:
        sizes: Number of nodes of each block, `(blocks,)`.

    Raises:
        InputError: If the sizes are not a vector of non-negative integers.

    Example:
        >>> blocks = Blocks(torch.tensor([2, 3]))
        >>> blocks.rows(1), blocks.rows(2)
        (5, 13)
    """

    sizes: Int[Tensor, " blocks"]
    _orders: dict[int, Tensor] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        check_positions("sizes", self.sizes)
        if self.sizes.numel() and int(self.sizes.min()) < 0:
            raise InputError(f"sizes must be non-negative, got {int(self.sizes.min())}")

    @cached_property
    def _values(self) -> list[int]:
        return self.sizes.tolist()  # type: ignore[no-any-return]

    @cached_property
    def _sorted(self) -> bool:
        """Return whether the blocks of each size are neighbors."""
        return len(list(groupby(self._values))) == len(set(self._values))

    @cached_property
    def runs(self) -> tuple[tuple[int, int], ...]:
        """Number of blocks and nodes per block, for each group of blocks of equal size; `((0, 1),)` without blocks."""
        values = self._values if self._sorted else sorted(self._values)
        if not values:
            return ((0, 1),)
        return tuple((len(list(group)), m) for m, group in groupby(values))

    def rows(self, order: int) -> int:
        """Return the number of rows of a tensor.

        Args:
            order: Order of the tensor.
        """
        whole("order", order, 0)
        return sum(count * m**order for count, m in self.runs)

    def split(self, x: Tensor, order: int) -> list[Tensor]:
        """Return a dense tensor for each run, `(blocks, m, ..., m, channels)`.

        Args:
            x: Tensor, `(rows, channels)`.
            order: Order of the tensor.
        """
        self._check("x", x, order)
        if not self._sorted:
            x = x[self.by_size(order)]
        parts = x.split([count * m**order for count, m in self.runs])
        return [p.reshape(count, *(m,) * order, x.shape[-1]) for p, (count, m) in zip(parts, self.runs, strict=True)]

    def join(self, parts: Sequence[Tensor], order: int) -> Tensor:
        """Return the tensor, `(rows, channels)`, of which `split` gives the parts.

        Args:
            parts: Dense tensor of each run.
            order: Order of the tensor.
        """
        rows = [p.reshape(p.shape[:-1].numel(), p.shape[-1]) for p in parts]
        if not rows:
            raise InputError(f"join needs a tensor for each of {len(self.runs)} runs, got none")
        x = rows[0] if len(rows) == 1 else torch.cat(rows)
        self._check("parts", x, order)
        if self._sorted:
            return x
        entries = self.by_size(order)
        return x[torch.empty_like(entries).index_copy(0, entries, torch.arange(len(entries), device=entries.device))]

    def _check(self, name: str, x: object, order: int) -> None:
        if not isinstance(x, Tensor) or x.dim() != 2 or len(x) != self.rows(order):
            given = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise InputError(
                f"{name} of order {order} must have {self.rows(order)} rows and a channel axis, got {given}"
            )

    def by_size(self, order: int) -> Tensor:
        """Return the rows of a tensor, block after block, with the blocks sorted by size, `(rows,)`.

        Args:
            order: Order of the tensor.
        """
        if order not in self._orders:
            with torch.inference_mode(False):  # a tensor made in inference mode could not be used in training later
                rows = self.sizes.long() ** order
                blocks = self.sizes.argsort(stable=True)
                counts = rows[blocks]
                shift = (rows.cumsum(0) - rows)[blocks] - (counts.cumsum(0) - counts)
                entries = torch.arange(int(counts.sum()), device=rows.device) + shift.repeat_interleave(counts)
            self._orders[order] = entries
        return self._orders[order]
