"""Linear layers between tensors over blocks of nodes that commute with every permutation of the nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from .._checks import check_features, one_of, whole
from .._errors import InputError
from ._blocks import Blocks
from ._equivariant_maps import FREE, KEPT, SUMMED, check_order, patterns, reduced, spread


class PermutationEquivariantLinear(nn.Module):
    r"""Linear layer between tensors over the nodes of blocks that commutes with permutations of the nodes of each
    block.

    The layer is the most general one: it has a weight for each pair of channels and each map of `equivariant_basis`.
    From pairs to pairs,

    $$y_{ij} = W_1 x_{ij} + W_2 x_{ji} + u_i + v_j + \delta_{ij} e_i + g,$$

    where u, v and e are linear in the diagonal and in the averages of rows and columns, and g is linear in the averages
    of the diagonal and of all entries. Only two products touch the m² entries of a block, and no pair is copied for
    each map. Averages make weights comparable across sizes, so blocks of all sizes share them.

    Use it to build higher-order graph networks; `commutant.graphs.SPENConv` applies it to the neighborhoods of nodes.
    For nodes alone (`{1: c}` to `{1: d}`) it is the linear DeepSets layer.

    Args:
        in_features: Number of channels of each order of the input, such as `{2: 16, 1: 8}`. Order 0 holds a vector for
            a block, order 1 one for each node, order 2 one for each ordered pair of nodes, order 3 one for each triple.
        out_features: Number of channels of each order of the output.
        rooted: Whether the first node of each block is its root. The layer then commutes with the permutations that
            keep the root in its place, and has 52 instead of 15 maps from pairs to pairs.
        bias: Whether to add a bias to each equivariant part of the output, such as the diagonal of pairs.

    Shapes:
        Order k is `(blocks, m, ..., m, channels)` with k axes of nodes; or `(rows, channels)` with the layout of
        `Blocks` if `sizes` is given. The output has the layout of the input.

    Raises:
        InputError: If an order is above 3, a shape, dtype or number of channels does not fit, or a rooted block is
            empty.

    References:
        Maron et al. (2019), "Invariant and Equivariant Graph Networks"; Mitton and Murray-Smith (2021), "Subgraph
        Permutation Equivariant Networks".

    Example:
        >>> layer = PermutationEquivariantLinear({2: 4}, {2: 8, 1: 8})
        >>> out = layer({2: torch.randn(10, 5, 5, 4)})
        >>> out[2].shape, out[1].shape
        (torch.Size([10, 5, 5, 8]), torch.Size([10, 5, 8]))
    """

    def __init__(
        self,
        in_features: Mapping[int, int],
        out_features: Mapping[int, int],
        *,
        rooted: bool = False,
        bias: bool = True,
    ) -> None:
        super().__init__()
        for name, given in (("in_features", in_features), ("out_features", out_features)):
            if not isinstance(given, Mapping) or not given:
                raise InputError(
                    f"{name} must map orders to numbers of channels, such as {{2: 16, 1: 8}}, got {given!r}"
                )
            for order, channels in given.items():
                check_order(f"an order of {name}", order)
                whole(f"{name}[{order}]", channels)
        one_of("rooted", rooted, (False, True))
        one_of("bias", bias, (False, True))
        # sorted, so that the rows of the weights do not depend on the order of a dict
        self.in_features = {int(k): int(c) for k, c in sorted(in_features.items())}
        self.out_features = {int(k): int(c) for k, c in sorted(out_features.items())}
        self.rooted = rooted
        ranks = range(min(max(in_features), max(out_features)) + 1)
        self.sources = {r: self._parts(self.in_features, r, SUMMED) for r in ranks}
        """Order and pattern of all parts of the input, by the number of kept axes."""
        self.targets = {r: self._parts(self.out_features, r, FREE) for r in ranks}
        """Order and pattern of all parts of the output, by the number of kept axes."""
        rows = {r: sum(self.in_features[k] for k, _ in self.sources[r]) for r in ranks}
        columns = {r: sum(self.out_features[k] for k, _ in self.targets[r]) for r in ranks}
        self.fan_in = sum(rows.values())
        """Number of inputs of each output."""
        self.weight = nn.ParameterDict({str(r): nn.Parameter(torch.empty(rows[r], columns[r])) for r in ranks})
        """Matrix for each number of kept axes, from the parts of the input with as many axes to those of the output."""
        self.bias = nn.Parameter(torch.empty(columns[0])) if bias else None
        self.reset_parameters()

    def _parts(self, features: dict[int, int], kept: int, rest: str) -> list[tuple[int, str]]:
        """Return the order and the pattern of all parts with a given number of kept axes."""
        return [(k, p) for k in features for p in patterns(k, kept, rest, self.rooted, ordered=rest is FREE)]

    def reset_parameters(self) -> None:
        """Draw the weights with variance 1 / `fan_in`; set the bias to zero."""
        for weight in self.weight.values():
            nn.init.normal_(weight, std=self.fan_in**-0.5)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(
        self, x: Mapping[int, Float[Tensor, "..."]], sizes: Int[Tensor, " blocks"] | Blocks | None = None
    ) -> dict[int, Float[Tensor, "..."]]:
        """Return a tensor for each order of the output.

        Args:
            x: Tensor for each order of the input.
            sizes: Number of nodes of each block, or their layout; None if all blocks have the same size and x is dense.
        """
        self.check(x)
        if sizes is None:
            return self._on_dense(x)
        blocks = sizes if isinstance(sizes, Blocks) else Blocks(sizes)
        for k in self.in_features:
            if x[k].dim() != 2 or x[k].shape[0] != blocks.rows(k):
                raise InputError(
                    f"x[{k}] must have shape ({blocks.rows(k)}, channels), a row for each entry of order {k} of "
                    f"{len(blocks.sizes)} blocks, got {tuple(x[k].shape)}"
                )
        parts = {k: blocks.split(x[k], k) for k in self.in_features}
        runs = [self._on_dense({k: p[i] for k, p in parts.items()}, m) for i, (_, m) in enumerate(blocks.runs)]
        return {order: blocks.join([run[order] for run in runs], order) for order in self.out_features}

    def _on_dense(self, x: Mapping[int, Tensor], m: int | None = None) -> dict[int, Tensor]:
        """Return the output for blocks of m nodes each."""
        counts = {x[k].shape[0] for k in self.in_features}
        extents = {extent for k in self.in_features for extent in x[k].shape[1:-1]}
        if len(counts) > 1 or len(extents) > 1 or any(x[k].dim() != k + 2 for k in self.in_features):
            shapes = ", ".join(f"{k}: {tuple(x[k].shape)}" for k in self.in_features)
            raise InputError(
                f"x must hold tensors of shape (blocks, m, ..., m, channels) with m once for each order, got {shapes}; "
                "for blocks of different sizes pass a row for each entry, and sizes"
            )
        if m is None:
            if not extents and max(self.out_features):
                raise InputError("the number of nodes of a block cannot be inferred from order 0; pass sizes")
            m = extents.pop() if extents else 1
        if self.rooted and not m:
            raise InputError(
                "a rooted block needs at least one node, its root, but a block has none; drop empty blocks"
            )
        known = {k: {KEPT[:k]: x[k]} for k in self.in_features}
        out: dict[int, Tensor] = {}
        for r in reversed(self.sources):
            parts = [reduced(known[k], p).to(x[k].dtype) for k, p in self.sources[r]]
            for (order, pattern), part in self.mix(r, parts):
                if order not in out and pattern == KEPT[:order]:
                    out[order] = part.clone()
                    continue
                if order not in out:
                    out[order] = part.new_zeros(part.shape[0], *(m,) * order, part.shape[-1])
                spread(part, pattern, out[order])
        return out

    def mix(self, kept: int, parts: Sequence[Tensor]) -> list[tuple[tuple[int, str], Tensor]]:
        """Return the order, the pattern and the value of each part of the output that keeps a number of axes.

        Layers with another layout of their blocks reduce to the parts `sources` of the input, mix them, and spread the
        parts `targets` themselves.

        Args:
            kept: Number of kept axes.
            parts: Parts of the input in the order of `sources[kept]`, with channels last.
        """
        stacked = parts[0] if len(parts) == 1 else torch.cat(list(parts), -1)
        mixed = nn.functional.linear(stacked, self.weight[str(kept)].t(), self.bias if kept == 0 else None)
        widths = [self.out_features[order] for order, _ in self.targets[kept]]
        return list(zip(self.targets[kept], mixed.split(widths, -1), strict=True))

    def check(self, x: object) -> None:
        """Check that an input has the orders, the dtype and the numbers of channels of this layer."""
        if not isinstance(x, Mapping) or set(x) != set(self.in_features):
            given = f"orders {sorted(x, key=str)}" if isinstance(x, Mapping) else type(x).__name__
            raise InputError(f"x must be a dict with orders {sorted(self.in_features)}, got {given}")
        for k, channels in self.in_features.items():
            check_features(f"x[{k}]", x[k], self.weight["0"])
            if x[k].dim() < 2 or x[k].shape[-1] != channels:
                raise InputError(
                    f"x[{k}] must have {channels} channels on its last axis, got shape {tuple(x[k].shape)}"
                )

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, rooted={self.rooted}, bias={self.bias is not None}"
