"""Index tensors of the ego-nets of a batch of graphs, and sums over them that expand no ego-net."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .._errors import InputError
from ..algebra import Blocks

_NAMES = ("ego_index", "ego_size", "pair_index", "ego_pair")


@dataclass(frozen=True, eq=False)
class Neighborhoods:
    """Ego-nets of a batch of graphs, with the index tensors that all layers of a network share.

    Features of order 2 have a row for each pair of `pair_index`, features of order 1 one for each node, and features of
    order 0 one for each ego-net, in the order of their roots.
    """

    pair_index: Int[Tensor, "2 pairs"]
    """Ordered pairs of nodes that share an ego-net, including each node with itself."""
    members: Int[Tensor, " members"]
    """Node of each member of each ego-net, the root first."""
    entries: Int[Tensor, " entries"]
    """Row of `pair_index` of each ordered pair of members of each ego-net."""
    blocks: Blocks
    """Sizes of the ego-nets, in the order of their roots."""

    @classmethod
    def from_data(cls, data: Any) -> Neighborhoods:
        """Read the ego-nets of a graph or of a batch of graphs.

        Args:
            data: PyG `Data` or `Batch` to which `EgoNets` was applied.

        Raises:
            InputError: If the ego-nets are missing or do not fit the graph.
        """
        get = getattr(data, "get", lambda _: None)
        missing = [name for name in _NAMES if not isinstance(get(name), Tensor)]
        if missing:
            raise InputError(f"the graph has no {missing[0]}; apply commutant.graphs.EgoNets(k) to it before batching")
        out = cls(data.pair_index, data.ego_index, data.ego_pair, Blocks(data.ego_size))
        n, blocks = int(data.num_nodes), out.blocks
        found = (len(data.ego_size), len(data.ego_index), len(data.ego_pair))
        fits = found == (n, blocks.rows(1), blocks.rows(2)) and not bool((blocks.sizes < 1).any())
        if not fits or not torch.equal(out.members[out.starts], torch.arange(n, device=out.members.device)):
            raise InputError(
                f"the ego-nets of {len(data.ego_size)} nodes do not fit a graph with {n} nodes in this order; apply "
                "EgoNets after all transforms that add, drop or reorder nodes"
            )
        return out

    def count(self, order: int) -> int:
        """Return the number of rows of the features of an order.

        Args:
            order: Order of the features.
        """
        return self.pair_index.shape[1] if order == 2 else self.blocks.sizes.numel()

    @cached_property
    def rows(self) -> dict[int, Tensor]:
        """Row of the features of each order that each entry of the blocks reads."""
        return {0: torch.arange(self.count(0), device=self.members.device), 1: self.members, 2: self.entries}

    @cached_property
    def shares(self) -> dict[int, Tensor]:
        """Number of ego-nets that share each row of the features of each order, `(rows, 1)`."""
        return {k: torch.bincount(rows, minlength=self.count(k))[:, None] for k, rows in self.rows.items()}

    @cached_property
    def starts(self) -> Tensor:
        """Position of each root among the members."""
        return self.blocks.sizes.cumsum(0) - self.blocks.sizes

    @cached_property
    def owner(self) -> Tensor:
        """Ego-net of each member."""
        return torch.repeat_interleave(self.blocks.sizes)

    @cached_property
    def swap(self) -> Tensor:
        """Row of the pair (j, i) for each pair (i, j)."""
        n, (i, j) = self.count(1), self.pair_index
        return torch.empty_like(i).index_copy(0, (i * n + j).argsort(), (j * n + i).argsort())

    @cached_property
    def loops(self) -> Tensor:
        """Row of the pair (i, i) for each node i."""
        i, j = self.pair_index
        return torch.empty_like(self.blocks.sizes).index_copy(0, i[i == j], (i == j).nonzero().squeeze(1))

    def find(self, edge_index: Int[Tensor, "2 edges"]) -> Int[Tensor, " edges"]:
        """Return the row of `pair_index` of each edge, or -1 if no ego-net contains it.

        Args:
            edge_index: Edges, as in PyG.
        """
        n, (i, j), (source, target) = self.count(1), self.pair_index, edge_index
        keys, order = (i * n + j).sort()
        wanted = source * n + target
        place = torch.searchsorted(keys, wanted).clamp(max=max(len(keys) - 1, 0))
        return torch.where(keys[place] == wanted, order[place], -1) if len(keys) else torch.full_like(wanted, -1)

    @cached_property
    def to_root(self) -> Tensor:
        """Row of the pair of each member and its root."""
        return self.entries[self._widths.cumsum(0) - self._widths]

    @cached_property
    def _widths(self) -> Tensor:
        return self.blocks.sizes[self.owner]

    @cached_property
    def _gathers(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Rows of pairs that each member sums, rows of members that each pair sums, each with offsets."""
        first = torch.repeat_interleave(self._widths)
        pad = torch.nn.functional.pad
        shares = self.shares[2].squeeze(1)
        back = first[self.entries.argsort(stable=True)]
        return self.entries, pad(self._widths.cumsum(0), (1, 0)), back, pad(shares.cumsum(0), (1, 0))

    def sum_over_pairs(self, x: Float[Tensor, "pairs c"]) -> Float[Tensor, "members c"]:
        """Return for each member i of each ego-net the sum of the pairs (i, j) over the members j.

        Args:
            x: Features of pairs.
        """
        there, there_offsets, back, back_offsets = self._gathers
        return _sum_of_rows(x, there, there_offsets, back, back_offsets)

    def sum_over_ego_nets(self, x: Float[Tensor, "members c"]) -> Float[Tensor, "pairs c"]:
        """Return for each pair (i, j) the sum of the members i over the ego-nets that contain i and j.

        This is the adjoint of `sum_over_pairs`.

        Args:
            x: Features of members.
        """
        there, there_offsets, back, back_offsets = self._gathers
        return _sum_of_rows(x, back, back_offsets, there, there_offsets)

    def mean_of_members(self, x: Float[Tensor, "members c"]) -> Float[Tensor, "egos c"]:
        """Return the mean over the members of each ego-net.

        Args:
            x: Features of members.
        """
        total = x.new_zeros(self.count(0), x.shape[1]).index_add(0, self.owner, x)
        return total / self.blocks.sizes[:, None]


class _SumOfRows(torch.autograd.Function):
    """Sums of rows of a table, whose gradient is a sum of rows too; no row is copied."""

    @staticmethod
    def forward(table: Tensor, there: Tensor, there_offsets: Tensor, back: Tensor, back_offsets: Tensor) -> Tensor:
        wide = table.float() if table.dtype in (torch.float16, torch.bfloat16) else table
        total = torch.nn.functional.embedding_bag(
            there, wide.contiguous(), there_offsets, mode="sum", include_last_offset=True
        )
        return total.to(table.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        there, there_offsets, back, back_offsets = ctx.saved_tensors
        return _sum_of_rows(grad, back, back_offsets, there, there_offsets), None, None, None, None


def _sum_of_rows(table: Tensor, there: Tensor, there_offsets: Tensor, back: Tensor, back_offsets: Tensor) -> Tensor:
    if not there.numel():
        return table.new_zeros(there_offsets.numel() - 1, table.shape[1])
    return _SumOfRows.apply(table, there, there_offsets, back, back_offsets)  # type: ignore[no-any-return]
