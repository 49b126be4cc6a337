"""Index tensors of the ego-nets of a batch of graphs, and sums over them that expand no ego-net."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int, Integer
from torch import Tensor

from .._checks import one_of
from .._errors import InputError
from ..algebra import Blocks
from ..algebra.arithmetic import promote_half
from ._ego_nets import NAMES, is_graph


@dataclass(frozen=True, eq=False)
class Neighborhoods:
    """Ego-nets of a batch of graphs, with the index tensors that all layers of a network share.

    Features of order 2 have a row for each pair of `pair_index`, features of order 1 one for each node, and features of
    order 0 one for each ego-net, in the order of their roots. Create them by `from_data`.
    """

    pair_index: Int[Tensor, "2 pairs"]
    """Ordered pairs of nodes that share an ego-net, including each node with itself."""
    members: Int[Tensor, " members"]
    """Node of each member of each ego-net, the root first."""
    entries: Int[Tensor, " entries"]
    """Row of `pair_index` of each ordered pair of members of each ego-net."""
    blocks: Blocks
    """Sizes of the ego-nets, in the order of their roots."""
    rows: dict[int, Tensor]
    """Row of the features of each order that each entry of the blocks reads."""
    shares: dict[int, Tensor]
    """Number of ego-nets that share each row of the features of each order, `(rows, 1)`."""
    starts: Int[Tensor, " egos"]
    """Position of each root among the members."""
    owner: Int[Tensor, " members"]
    """Ego-net of each member."""
    swap: Int[Tensor, " pairs"]
    """Row of the pair (j, i) for each pair (i, j)."""
    loops: Int[Tensor, " nodes"]
    """Row of the pair (i, i) for each node i."""
    to_root: Int[Tensor, " members"]
    """Row of the pair of each member and its root."""
    _there: tuple[Tensor, Tensor]
    """Pairs that each member sums over, and where they begin."""
    _back: tuple[Tensor, Tensor]
    """Members that each pair sums over, and where they begin."""

    @classmethod
    def from_data(cls, data: Any) -> Neighborhoods:
        """Read the ego-nets of a graph or of a batch of graphs.

        Args:
            data: PyG `Data` or `Batch` to which `EgoNets` was applied.

        Raises:
            InputError: If the ego-nets are missing or do not fit the graph.
        """
        if not is_graph(data):
            raise InputError(f"expected a PyG Data or Batch, got {type(data).__name__}")
        missing = [name for name in NAMES if not isinstance(data.get(name), Tensor)]
        if missing:
            raise InputError(f"the graph has no {missing[0]}; apply commutant.graphs.EgoNets(k) to it before batching")
        with torch.inference_mode(False):  # tensors made in inference mode could not be used in training later
            return cls._from_tensors(data)

    @classmethod
    @torch.compiler.disable  # the numbers of rows depend on the data
    def _from_tensors(cls, data: Any) -> Neighborhoods:
        sizes, members, pair_index, entries, counts = (data[name].detach().long() for name in NAMES)
        n, blocks = int(data.num_nodes), Blocks(sizes)
        graph = data.get("batch")
        graph = torch.zeros_like(sizes) if graph is None else graph
        stale = InputError(
            f"the ego-nets of {len(sizes)} nodes do not fit this graph of {n} nodes; apply EgoNets last, after all "
            "transforms that change nodes or edges, and before batching"
        )
        found = (len(sizes), len(members), len(entries), int(counts.sum()), len(graph))
        if found != (n, blocks.rows(1), blocks.rows(2), pair_index.shape[1], n) or bool((sizes < 1).any()):
            raise stale
        if n and int(graph.max()) >= len(counts):
            raise stale
        # the rows of pairs are those of each graph alone: PyG does not know how far to shift them in a batch
        shift = (counts.cumsum(0) - counts)[graph]
        entries = entries + shift.repeat_interleave(sizes**2)
        pairs = pair_index.shape[1]
        if len(entries) and not 0 <= int(entries.min()) <= int(entries.max()) < pairs:
            raise stale
        starts, owner = sizes.cumsum(0) - sizes, torch.repeat_interleave(sizes)
        widths = sizes[owner]
        to_root = entries[widths.cumsum(0) - widths]
        fits = torch.equal(members[starts], torch.arange(n, device=members.device))
        if not fits or not torch.equal(pair_index[:, to_root], torch.stack([members, owner])):
            raise stale
        i, j = pair_index
        rows = {0: torch.arange(n, device=members.device), 1: members, 2: entries}
        shares = {k: torch.bincount(r, minlength=pairs if k == 2 else n)[:, None] for k, r in rows.items()}
        pad = torch.nn.functional.pad
        return cls(
            pair_index=pair_index,
            members=members,
            entries=entries,
            blocks=blocks,
            rows=rows,
            shares=shares,
            starts=starts,
            owner=owner,
            swap=torch.empty_like(i).index_copy(0, (i * n + j).argsort(), (j * n + i).argsort()),
            loops=torch.empty_like(sizes).index_copy(0, i[i == j], (i == j).nonzero().squeeze(1)),
            to_root=to_root,
            _there=(entries, pad(widths.cumsum(0), (1, 0))),
            _back=(
                torch.repeat_interleave(widths)[entries.argsort(stable=True)],
                pad(shares[2].squeeze(1).cumsum(0), (1, 0)),
            ),
        )

    def count(self, order: int) -> int:
        """Return the number of rows of the features of an order.

        Args:
            order: Order of the features: 0, 1 or 2.
        """
        one_of("order", order, (0, 1, 2))
        return self.pair_index.shape[1] if order == 2 else self.blocks.sizes.numel()

    def find(self, edge_index: Integer[Tensor, "2 edges"]) -> Int[Tensor, " edges"]:
        """Return the row of `pair_index` of each edge, or -1 if no ego-net contains it.

        Args:
            edge_index: Edges, as in PyG.
        """
        n, (i, j) = self.count(1), self.pair_index
        source, target = edge_index.long()
        keys, order = (i * n + j).sort()
        if not len(keys):
            return torch.full_like(source, -1)
        wanted = source * n + target
        place = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
        known = (keys[place] == wanted) & (source >= 0) & (source < n) & (target >= 0) & (target < n)
        return torch.where(known, order[place], -1)

    def sum_over_pairs(self, x: Float[Tensor, "pairs c"]) -> Float[Tensor, "members c"]:
        """Return for each member i of each ego-net the sum of the pairs (i, j) over the members j.

        Sums of half-precision features are in float32.

        Args:
            x: Features of pairs.
        """
        return _SumOfRows.apply(promote_half(x), *self._there, *self._back)  # type: ignore[no-any-return]

    def sum_over_ego_nets(self, x: Float[Tensor, "members c"]) -> Float[Tensor, "pairs c"]:
        """Return for each pair (i, j) the sum of the members i over the ego-nets that contain i and j.

        This is the adjoint of `sum_over_pairs`. Sums of half-precision features are in float32.

        Args:
            x: Features of members.
        """
        return _SumOfRows.apply(promote_half(x), *self._back, *self._there)  # type: ignore[no-any-return]

    def mean_of_members(self, x: Float[Tensor, "members c"]) -> Float[Tensor, "egos c"]:
        """Return the mean over the members of each ego-net.

        Args:
            x: Features of members.
        """
        total = promote_half(x).new_zeros(self.count(0), x.shape[1]).index_add(0, self.owner, promote_half(x))
        return (total / self.blocks.sizes[:, None]).to(x.dtype)


class _SumOfRows(torch.autograd.Function):
    """Sums of rows of a table, whose derivatives are sums of rows too; no row is copied."""

    @staticmethod
    def forward(table: Tensor, there: Tensor, starts: Tensor, back: Tensor, back_starts: Tensor) -> Tensor:
        if not there.numel():
            return table.new_zeros(starts.numel() - 1, table.shape[1])
        return torch.nn.functional.embedding_bag(
            there, table.contiguous(), starts, mode="sum", include_last_offset=True
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        there, starts, back, back_starts = ctx.saved_tensors
        return _SumOfRows.apply(grad, back, back_starts, there, starts), None, None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], table: Tensor, *index: Tensor) -> Any:
        if in_dims[0] is None or any(dim is not None for dim in in_dims[1:]):
            raise InputError("vmap takes many features on one set of ego-nets; batch graphs by PyG's Batch instead")
        rows = table.movedim(in_dims[0], 1)  # the copies become channels
        out = _SumOfRows.apply(rows.flatten(1), *index)
        return out.unflatten(1, rows.shape[1:]), 1
