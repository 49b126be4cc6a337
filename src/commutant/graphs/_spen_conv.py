"""Layer of a subgraph permutation-equivariant network (SPEN)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .._checks import is_whole, one_of
from .._errors import InputError, require
from ..algebra import Blocks, Max, Monoid, PermutationEquivariantLinear
from ..algebra.arithmetic import promote_half
from ..laws import obeys
from ._law_cases import layer_on_graphs
from ._neighborhoods import Neighborhoods

Features = dict[int, Tensor]


@obeys("equivariance", lambda draw: layer_on_graphs(draw, SPENConv, k=1))
@obeys(
    "equivariance of rooted maps and sums",
    lambda draw: layer_on_graphs(draw, lambda a, b: SPENConv(a, b, rooted=True, reinsertion="sum"), k=2),
)
@obeys(
    "equivariance with weights by size and a monoid",
    lambda draw: layer_on_graphs(draw, lambda a, b: SPENConv(a, b, size_bins="log", reinsertion=Max()), k=1),
)
class SPENConv(nn.Module):
    r"""Graph layer that applies a permutation-equivariant linear map to the ego-net of each node.

    For each ego-net, the layer gathers the features of its pairs and nodes, applies `PermutationEquivariantLinear`, and
    writes the results back: a pair or a node receives the mean over all ego-nets that contain it. Memory grows with the
    ego-nets and not with n². With `reinsertion="mean"` or `"sum"` and shared weights, no ego-net is expanded: the layer
    sums over rows of ego-nets and over the ego-nets of a pair in place.

    Means with k = 1 cannot see 4-cycles in regular graphs without triangles, rooted or not. Sums can, and so can k = 2,
    or a GraphNorm of the pairs after the layer, whose statistics count the pairs.

    Args:
        in_features: Number of channels of each order of the input, such as `{2: 16, 1: 16}`. Order 2 holds features of
            the pairs of `pair_index`, order 1 features of nodes, order 0 features of ego-nets.
        out_features: Number of channels of each order of the output.
        rooted: Whether the maps know the root of each ego-net (52 instead of 15 maps from pairs to pairs).
        size_bins: Sizes of ego-nets that have weights of their own; every size uses the nearest one, in ratio. `"log"`
            stands for the powers of two up to 64. None means that all sizes share their weights. The weights of a bin
            are those of all sizes plus a difference that starts at zero, so a bin that training never sees falls back
            to what all sizes have learned.
        reinsertion: Combination of the ego-nets that share a pair or a node: `"mean"`, `"sum"`, a monoid on vectors
            such as `Max()`, or an aggregation of PyG such as `LCMAggregation`. Each order of the output gets a copy of
            its own.
        bias: Whether to add a bias to each equivariant part of the output.

    Shapes:
        Order 2 is `(pairs, channels)`, order 1 `(nodes, channels)`, order 0 `(nodes, channels)` with a row for the
        ego-net of each node.

    Raises:
        InputError: If an order, a number of channels, a bin or the reinsertion is not valid, or features do not fit.

    References:
        Mitton and Murray-Smith (2021), "Subgraph Permutation Equivariant Networks". The paper concatenates the maps
        from pairs and from nodes; here they are added, which keeps the width.

    Example:
        >>> from torch_geometric.data import Data
        >>> from commutant.graphs import EgoNets, Neighborhoods
        >>> path = EgoNets(k=1)(Data(edge_index=torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]), num_nodes=3))
        >>> conv = SPENConv({1: 4}, {2: 8, 1: 8})
        >>> out = conv({1: torch.randn(3, 4)}, Neighborhoods.from_data(path))
        >>> out[2].shape, out[1].shape
        (torch.Size([9, 8]), torch.Size([3, 8]))
    """

    def __init__(
        self,
        in_features: Mapping[int, int],
        out_features: Mapping[int, int],
        *,
        rooted: bool = False,
        size_bins: Sequence[int] | Literal["log"] | None = None,
        reinsertion: Literal["mean", "sum"] | Monoid | nn.Module = "mean",
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.size_bins = _bins(size_bins)
        options: dict[str, bool] = {"rooted": rooted, "bias": bias}
        self.layer = PermutationEquivariantLinear(in_features, out_features, **options)
        """Map of all sizes."""
        largest = max([*in_features, *out_features])
        if largest > 2:
            raise InputError(
                f"SPENConv has features of ego-nets, nodes and pairs (orders 0, 1 and 2), got order {largest}"
            )
        self.differences = nn.ModuleList(
            PermutationEquivariantLinear(in_features, out_features, **options) for _ in self.size_bins
        )
        """Differences of the weights of each bin from those of all sizes."""
        self.combine = nn.ModuleDict()
        """Monoid or aggregation of each order; empty for means and sums."""
        if not isinstance(reinsertion, nn.Module):
            one_of("reinsertion", reinsertion, ("mean", "sum"))
        elif isinstance(reinsertion, Monoid) or _is_aggregation(reinsertion):
            self.combine.update({str(k): copy.deepcopy(reinsertion) for k in out_features})
        else:
            given = type(reinsertion).__name__
            raise InputError(f"reinsertion must be 'mean', 'sum', a monoid or an aggregation of PyG, got {given}")
        self.reinsertion = reinsertion if isinstance(reinsertion, str) else None
        self._no_differences()

    def reset_parameters(self) -> None:
        """Reinitialize all parameters."""
        for module in (self.layer, *self.combine.values()):
            for part in module.modules():
                if part is not self and callable(reset := getattr(part, "reset_parameters", None)):
                    reset()
        self._no_differences()

    def _no_differences(self) -> None:
        for parameter in self.differences.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Mapping[int, Float[Tensor, "..."]], neighborhoods: Neighborhoods) -> Features:
        """Return the features of each order of the output.

        Args:
            x: Features of each order of the input.
            neighborhoods: Ego-nets of the graphs.
        """
        if not isinstance(neighborhoods, Neighborhoods):
            raise InputError(f"neighborhoods must be Neighborhoods.from_data(data), got {type(neighborhoods).__name__}")
        layer = self.layer
        layer.check(x)
        for k in layer.in_features:
            if x[k].dim() != 2 or len(x[k]) != neighborhoods.count(k):
                rows = f"{neighborhoods.count(k)} {('ego-nets', 'nodes', 'pairs')[k]}"
                raise InputError(f"x[{k}] must have a row for each of {rows}, got shape {tuple(x[k].shape)}")
            if x[k].device != neighborhoods.members.device:
                raise InputError(
                    f"x[{k}] is on {x[k].device}, the graphs are on {neighborhoods.members.device}; move one with .to"
                )
        if self.reinsertion is not None and not self.size_bins:
            return _without_expansion(layer, x, neighborhoods, self.reinsertion == "mean")
        return self._expanded(x, neighborhoods)

    def _expanded(self, x: Mapping[int, Tensor], n: Neighborhoods) -> Features:
        """Return the output by way of a tensor for each ego-net."""
        layer = self.layer
        if not self.size_bins:
            inside = layer({k: x[k].index_select(0, n.rows[k]) for k in layer.in_features}, n.blocks)
            return {k: self._reinsert(t, n.rows[k], k, n) for k, t in inside.items()}
        return self._by_bin(x, n)

    @torch.compiler.disable  # the number of ego-nets in a bin depends on the data
    def _by_bin(self, x: Mapping[int, Tensor], n: Neighborhoods) -> Features:
        layer, sizes = self.layer, n.blocks.sizes
        out: dict[int, list[Tensor]] = {k: [] for k in layer.out_features}
        index: dict[int, list[Tensor]] = {k: [] for k in layer.out_features}
        bins = torch.tensor(self.size_bins, device=sizes.device, dtype=torch.float64).log()
        chosen = (sizes.double().log()[:, None] - bins).abs().argmin(1)
        for b, difference in enumerate(self.differences):
            mine = chosen == b
            rows = {k: r[mine.repeat_interleave(sizes**k)] for k, r in n.rows.items()}
            own = dict(difference.named_parameters())
            weights = {name: p + own[name] for name, p in layer.named_parameters()}
            gathered = {k: x[k].index_select(0, rows[k]) for k in layer.in_features}
            for k, t in torch.func.functional_call(layer, weights, (gathered, Blocks(sizes[mine]))).items():
                out[k].append(t)
                index[k].append(rows[k])
        return {k: self._reinsert(torch.cat(out[k]), torch.cat(index[k]), k, n) for k in out}

    def _reinsert(self, x: Tensor, index: Tensor, order: int, n: Neighborhoods) -> Tensor:
        rows = n.count(order)
        if str(order) not in self.combine:
            total = promote_half(x).new_zeros(rows, x.shape[1]).index_add(0, index, promote_half(x))
            return (total / n.shares[order] if self.reinsertion == "mean" else total).to(x.dtype)
        combine = self.combine[str(order)]
        if isinstance(combine, Monoid):
            return combine.lower(combine.segment_reduce(combine.lift(x), index=index, num_sets=rows))
        index, sorting = index.sort(stable=True)  # some aggregations of PyG need it
        return combine(x.index_select(0, sorting), index, dim_size=rows)  # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        return f"size_bins={list(self.size_bins) or None}, reinsertion={self.reinsertion!r}"


def _bins(given: object) -> tuple[int, ...]:
    if given is None:
        return ()
    if isinstance(given, str) and given == "log":
        return (1, 2, 4, 8, 16, 32, 64)
    if not isinstance(given, list | tuple) or not given:
        raise InputError(f"size_bins must be None, 'log' or a list of sizes such as [2, 4, 8], got {given!r:.80}")
    if not all(is_whole(m) and m > 0 for m in given) or len(set(given)) < len(given):
        raise InputError(f"size_bins must be distinct positive whole numbers, got {given!r}")
    return tuple(sorted(given))


def _is_aggregation(module: object) -> bool:
    return isinstance(module, require("torch_geometric.nn.aggr", "graphs").Aggregation)


def _without_expansion(
    layer: PermutationEquivariantLinear, x: Mapping[int, Tensor], n: Neighborhoods, mean: bool
) -> Features:
    """Return the output of one map for all ego-nets, without a tensor for each ego-net.

    The parts of the input with one kept axis have a row for each member of an ego-net. A part of the output with one
    kept axis is written back by the adjoint of the reduction with the same letters.
    """
    known: dict[tuple[int, str], Tensor] = {}
    if 2 in layer.in_features:
        known |= _reduce_pairs(x[2], n, layer.rooted)
    if 1 in layer.in_features:
        nodes = x[1].index_select(0, n.members)
        known |= {(1, "i"): nodes, (1, "s"): n.mean_of_members(nodes), (1, "r"): x[1]}
    if 0 in layer.in_features:
        known[0, ""] = x[0]
    parts = {
        key: part
        for kept, sources in layer.sources.items()
        for key, part in layer.mix(kept, [known[source] for source in sources])
    }
    out: Features = {}
    for order in layer.out_features:
        mine = {pattern: part for (k, pattern), part in parts.items() if k == order}
        write = (lambda parts, *_: parts[""], _write_nodes, _write_pairs)[order]
        out[order] = write(mine, n, mean)
    return out


def _reduce_pairs(x: Tensor, n: Neighborhoods, rooted: bool) -> dict[tuple[int, str], Tensor]:
    """Return the parts of features of pairs with at most one kept axis, and the features themselves."""
    c = x.shape[1]
    both = torch.cat([x, x.index_select(0, n.swap)], 1)  # the pairs (i, j), then (j, i)
    widths = n.blocks.sizes[n.owner, None]
    means = (n.sum_over_pairs(both) / widths).to(x.dtype)
    loops = x.index_select(0, n.loops)
    diagonal = loops.index_select(0, n.members)
    parts = {"ij": x, "ii": diagonal, "is": means[:, :c], "si": means[:, c:]}
    parts |= {"ss": n.mean_of_members(diagonal), "st": n.mean_of_members(parts["is"])}
    if rooted:
        at_root = both.index_select(0, n.to_root)
        row_of_root = means.index_select(0, n.starts)
        parts |= {"ir": at_root[:, :c], "ri": at_root[:, c:], "rr": loops}
        parts |= {"rs": row_of_root[:, :c], "sr": row_of_root[:, c:]}
    return {(2, pattern): part for pattern, part in parts.items()}


def _write_nodes(parts: dict[str, Tensor], n: Neighborhoods, mean: bool) -> Tensor:
    """Return features of nodes, from parts with a row for each member or ego-net."""
    everywhere = _sum([parts.get("i"), _of_members(parts.get("a"), n)])
    total = (
        promote_half(everywhere)
        .new_zeros(n.count(1), everywhere.shape[1])
        .index_add(0, n.members, promote_half(everywhere))
    )
    total = _sum([total, parts.get("r")])
    return (total / n.shares[1] if mean else total).to(everywhere.dtype)


def _write_pairs(parts: dict[str, Tensor], n: Neighborhoods, mean: bool) -> Tensor:
    """Return features of pairs, from parts with a row for each pair, member or ego-net."""
    rows = _sum([parts.get("ia"), _of_members(parts["ab"], n)])
    c = rows.shape[1]
    columns = parts.get("ai", torch.zeros_like(rows))
    both = n.sum_over_ego_nets(torch.cat([rows, columns], 1))  # for the pairs (i, j), then for (j, i)
    diagonal = promote_half(_sum([parts.get("ii"), _of_members(parts["aa"], n)]))
    loops = _sum([both.new_zeros(n.count(1), c).index_add(0, n.members, diagonal), parts.get("rr")])
    both = both.index_add(0, n.loops, nn.functional.pad(loops, (0, c)))
    if "ar" in parts:
        to_root = _sum([parts.get("ir"), _of_members(parts["ar"], n)])
        from_root = _sum([parts.get("ri"), _of_members(parts["ra"], n)])
        both = both.index_add(0, n.to_root, promote_half(torch.cat([to_root, from_root], 1)))
    if mean:
        both = both / n.shares[2]
    if "ij" in parts:
        own = torch.cat([parts["ij"], parts["ji"]], 1)
        both = both + (own if mean else own * n.shares[2])
    return (both[:, :c] + both[:, c:].index_select(0, n.swap)).to(rows.dtype)


def _of_members(part: Tensor | None, n: Neighborhoods) -> Tensor | None:
    return None if part is None else part.index_select(0, n.owner)


def _sum(terms: list[Tensor | None]) -> Tensor:
    return sum(t for t in terms if t is not None)  # type: ignore[return-value]
