"""Utility of a subset of a ground set, and its marginal gains by updates of rank one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from .._checks import one_of, whole
from .._errors import InputError
from ..algebra import Blocks, Monoid, all_but_one, check_monoid
from ..algebra.elements import Element, map_leaves, rows
from ..laws import BatchIndependence, Invariance, SetPermutation, obeys
from ._law_cases import half_of_each_set
from ._layout import encoded, layout_of

Background: TypeAlias = Literal["complement", "concat", "none"]
Side: TypeAlias = Literal["inside", "outside", "whole"]
"""The subset, the rest of the ground set, or the ground set."""
_BRANCHES: dict[Background, tuple[tuple[Side, ...], ...]] = {
    "complement": (("inside",), ("outside",)),
    "concat": (("inside", "whole"),),
    "none": (("inside",),),
}


@dataclass(frozen=True, eq=False)
class GroundSets:
    """Ragged batch of ground sets, encoded once for many subsets.

    Attributes:
        features: Encoded elements, sorted by set, `(elements, features)`.
        blocks: Layout of the sets.
        owner: Index of the set of each element, `(elements,)`.
        order: Position of each sorted element in the input, or None if the input is sorted.
        pooled: Pooled ground sets, `(1, sets, features)`.
    """

    features: Tensor
    blocks: Blocks
    owner: Tensor
    order: Tensor | None
    pooled: Tensor

    def sort(self, values: Tensor) -> Tensor:
        """Return values of elements along the last axis, sorted by set."""
        return values if self.order is None else values[..., self.order]

    def unsort(self, values: Tensor) -> Tensor:
        """Return sorted values of elements in the order of the input."""
        return values if self.order is None else values[..., self.order.argsort()]


class Branch(nn.Module):
    """MLP with two hidden layers on pooled features; its first layer adds a linear map of each side that it reads.

    Args:
        features: Number of pooled features.
        hidden_features: Width of the hidden layers.
        sides: Pooled sets that it reads.
    """

    def __init__(self, features: int, hidden_features: int, sides: Sequence[Side]) -> None:
        super().__init__()
        self.first = nn.ModuleDict({s: nn.Linear(features, hidden_features, bias=s == sides[0]) for s in sides})
        self.rest = nn.Sequential(
            nn.ReLU(), nn.Linear(hidden_features, hidden_features), nn.ReLU(), nn.Linear(hidden_features, 1)
        )

    def forward(self, pooled: dict[Side, Tensor]) -> Tensor:
        """Return the value of each pooled set, `(...)`.

        Args:
            pooled: Features of each side that the branch reads, `(..., features)`.
        """
        return self.value(self.hidden(pooled))

    def hidden(self, pooled: dict[Side, Tensor]) -> Tensor:
        """Return the sum of the first layers, `(..., hidden_features)`.

        Args:
            pooled: Features of each side that the branch reads.
        """
        return sum(layer(pooled[side]) for side, layer in self.first.items())  # type: ignore[index, return-value]

    def step(self, features: Tensor) -> Tensor:
        """Return the change of `hidden` when an element joins the subset, if features are summed.

        Args:
            features: Features of the elements, `(elements, features)`.
        """
        signs = {"inside": 1, "outside": -1, "whole": 0}
        return features @ sum(signs[side] * layer.weight for side, layer in self.first.items()).T  # type: ignore

    def value(self, hidden: Tensor) -> Tensor:
        """Return the value at the sum of the first layers, `(...)`."""
        return self.rest(hidden).squeeze(-1)  # type: ignore[no-any-return]


@obeys("invariance to order", lambda draw: half_of_each_set(draw, SetUtility, Invariance(SetPermutation())))
@obeys("batch independence", lambda draw: half_of_each_set(draw, SetUtility, BatchIndependence()))
class SetUtility(nn.Module):
    r"""Learnable utility F(S; V) of a subset S of a ground set V.

    With $\varphi$ the encoder and $P_A$ the pooled $\varphi(x_i)$ over i in A,

    | background | utility |
    | --- | --- |
    | `"complement"` | $f(P_S) + g(P_{V \setminus S})$ |
    | `"concat"` | $f(P_S, P_V)$ |
    | `"none"` | $f(P_S)$: the utility of EquiVSet, which cannot see the ground set |

    where f and g are MLPs with two hidden layers. A term that depends on V alone would cancel in every marginal gain,
    which is why the background enters through the complement, or jointly.

    Args:
        encoder: Module from elements `(elements, ...)` to `(elements, features)`.
        features: Number of features that the encoder returns.
        hidden_features: Width of the hidden layers of f and g.
        background: How the ground set enters.
        pool: `"sum"`, `"mean"`, or a monoid that is exactly associative and commutative, such as `Max()`. Infinite
            features of an empty pool are replaced by zero.

    Gains are differences of utilities, so half precision leaves little of them in sets of hundreds of elements; use
    float32. The gradient of a pool by `Max` at equal elements depends on their order.

    Shapes:
        x `(elements, ...)` and subset `(..., elements)` to `(..., sets)`.

    Raises:
        InputError: If an argument is not valid, or shapes or dtypes do not fit.

    References:
        Xie et al. (2024), "Enhancing Neural Subset Selection"; Ou et al. (2022), "Learning Neural Set Functions Under
        the Optimal Subset Oracle". `"complement"` is the form of the published code of the former.

    Example:
        >>> utility = SetUtility(torch.nn.Linear(3, 16), 16, 32)
        >>> x, index = torch.randn(5, 3), torch.tensor([0, 0, 0, 1, 1])
        >>> subset = torch.tensor([True, False, False, True, True])
        >>> utility(x, subset, index).shape, utility.marginal_gains(x, subset, index).shape
        (torch.Size([2]), torch.Size([5]))
    """

    def __init__(
        self,
        encoder: nn.Module,
        features: int,
        hidden_features: int = 128,
        *,
        background: Background = "complement",
        pool: Literal["sum", "mean"] | Monoid = "sum",
    ) -> None:
        super().__init__()
        if not isinstance(encoder, nn.Module):
            raise InputError(f"encoder must be a module, got {type(encoder).__name__}")
        whole("features", features)
        whole("hidden_features", hidden_features)
        one_of("background", background, _BRANCHES)
        if isinstance(pool, str):
            one_of("pool", pool, ("sum", "mean"))
        else:
            check_monoid("pool", pool)
            if pool.associative != "exact" or pool.commutative != "exact":
                raise InputError(
                    f"pool must be exactly associative and commutative, and {type(pool).__name__} is not: gains would "
                    "depend on the order of elements; use Conjugated for a learnable one"
                )
        self.encoder, self.features, self.background, self.pool = encoder, features, background, pool
        width = features if isinstance(pool, str) else pool.out_channels(features)
        self.branches: Any = nn.ModuleList(Branch(width, hidden_features, sides) for sides in _BRANCHES[background])

    def forward(
        self,
        x: Float[Tensor, "elements *shape"],
        subset: Tensor,
        index: Int[Tensor, " elements"] | None = None,
        ptr: Int[Tensor, " boundaries"] | None = None,
        num_sets: int | None = None,
    ) -> Float[Tensor, "*batch sets"]:
        """Return the utility of one or more subsets of each ground set.

        Args:
            x: Elements of all ground sets, `(elements, ...)`.
            subset: Whether each element is chosen, `(..., elements)`: booleans, or weights in 0..1 for the pools
                `"sum"` and `"mean"`.
            index: Index of the set of each element, in any order, `(elements,)`.
            ptr: Start of each set among sorted elements, `(sets + 1,)`. Without `index` and `ptr`, all elements are one
                set.
            num_sets: Number of sets; by default inferred.
        """
        sets = self.prepare(x, index, ptr, num_sets)
        flat = self._read(subset, sets)
        return self.values(sets, flat).reshape(*subset.shape[:-1], len(sets.blocks.sizes))

    def marginal_gains(
        self,
        x: Float[Tensor, "elements *shape"],
        subset: Bool[Tensor, "*batch elements"],
        index: Int[Tensor, " elements"] | None = None,
        ptr: Int[Tensor, " boundaries"] | None = None,
        num_sets: int | None = None,
    ) -> Float[Tensor, "*batch elements"]:
        r"""Return the gain $F(S \cup \{i\}) - F(S \setminus \{i\})$ of each element, given one or more subsets.

        One of the two sets is S, and the pooled features of the other differ from those of S by one element. So the
        gains of n elements take n + 1 evaluations, and memory linear in n.

        Args:
            x: Elements of all ground sets, `(elements, ...)`.
            subset: Whether each element is chosen, `(..., elements)`.
            index: Index of the set of each element, in any order, `(elements,)`.
            ptr: Start of each set, `(sets + 1,)`.
            num_sets: Number of sets; by default inferred.
        """
        sets = self.prepare(x, index, ptr, num_sets)
        flat = self._read(subset, sets)
        if flat.dtype != torch.bool:
            raise InputError(f"gains need a boolean subset, got {subset.dtype}; draw or round the weights first")
        return sets.unsort(self.gains(sets, flat)).reshape(subset.shape)

    def prepare(
        self, x: Tensor, index: Tensor | None = None, ptr: Tensor | None = None, num_sets: int | None = None
    ) -> GroundSets:
        """Encode ground sets, for several calls of `values` and `gains`.

        Args:
            x: Elements of all ground sets, `(elements, ...)`.
            index: Index of the set of each element, in any order, `(elements,)`.
            ptr: Start of each set, `(sets + 1,)`.
            num_sets: Number of sets; by default inferred.
        """
        features = encoded(self.encoder, x, self.features, self.branches[0].rest[1].weight)
        plan = layout_of(x, index, ptr, num_sets)
        return self.grouped(features if plan.order is None else features[plan.order], plan.sizes, plan.order)

    def grouped(self, features: Tensor, sizes: Tensor, order: Tensor | None = None) -> GroundSets:
        """Return ground sets of encoded elements.

        Args:
            features: Encoded elements, sorted by set, `(elements, features)`.
            sizes: Number of elements of each set.
            order: Position of each sorted element in the input, or None if the input is sorted.
        """
        blocks, owner = Blocks(sizes), torch.repeat_interleave(sizes)
        everything = torch.ones(1, len(owner), dtype=torch.bool, device=owner.device)
        return GroundSets(features, blocks, owner, order, self._pooled(features, blocks, everything))

    def values(self, sets: GroundSets, subset: Tensor) -> Float[Tensor, "samples sets"]:
        """Return the utility of subsets of prepared ground sets.

        Args:
            sets: Ground sets.
            subset: Booleans or weights of the sorted elements, `(samples, elements)`.
        """
        return sum(branch(self._sides(sets, subset)) for branch in self.branches)  # type: ignore[index, return-value]

    def gains(self, sets: GroundSets, subset: Tensor, only: Tensor | None = None) -> Float[Tensor, "samples elements"]:
        """Return the marginal gains of elements of prepared ground sets.

        Args:
            sets: Ground sets.
            subset: Booleans of the sorted elements, `(samples, elements)`.
            only: Positions of the sorted elements whose gains are wanted; by default all.
        """
        owner, chosen, features = sets.owner, subset, sets.features
        if only is not None:
            owner, chosen, features = owner[only], subset[:, only], features[only]
        now = self._sides(sets, subset)
        toggled = None if self.pool == "sum" else self._toggled(sets, subset, only, now)
        sign = 1 - 2 * chosen.to(features.dtype)
        total = torch.zeros_like(sign)
        for branch in self.branches:
            if set(branch.first) == {"whole"}:
                continue  # a term of V alone has no gain, not even by rounding
            hidden = branch.hidden(now)
            if toggled is None:
                other = hidden[:, owner] + sign[..., None] * branch.step(features)
            else:
                other = branch.hidden(toggled)
            total = total + sign * (branch.value(other) - branch.value(hidden)[:, owner])
        return total

    def _read(self, subset: Tensor, sets: GroundSets) -> Tensor:
        """Return subsets as `(samples, elements)`, sorted by set."""
        count = len(sets.owner)
        if not isinstance(subset, Tensor) or subset.dim() < 1 or subset.shape[-1] != count:
            given = tuple(subset.shape) if isinstance(subset, Tensor) else type(subset).__name__
            raise InputError(f"subset must have shape (..., {count}), one entry for each element, got {given}")
        if subset.device != sets.owner.device:
            raise InputError(f"subset is on {subset.device} and x is on {sets.owner.device}; move them to one device")
        flat = sets.sort(subset.reshape(math.prod(subset.shape[:-1]), count))
        if flat.dtype == torch.bool:
            return flat
        if not flat.is_floating_point():
            raise InputError(f"subset must be boolean or weights in 0..1, got {subset.dtype}; convert it with .bool()")
        if not isinstance(self.pool, str):
            raise InputError("weights need the pool 'sum' or 'mean'; a monoid takes boolean subsets")
        if not bool(((flat >= 0) & (flat <= 1)).all()):
            raise InputError("weights of a subset must lie in 0..1")
        return flat

    def _sides(self, sets: GroundSets, subset: Tensor) -> dict[Side, Tensor]:
        """Return the pooled features of each side, `(samples, sets, features)`."""
        wanted = {side for branch in self.branches for side in branch.first}
        found: dict[Side, Tensor] = {}
        if "inside" in wanted:
            found["inside"] = self._pooled(sets.features, sets.blocks, subset)
        if "outside" in wanted:
            rest = ~subset if subset.dtype == torch.bool else 1 - subset
            found["outside"] = self._pooled(sets.features, sets.blocks, rest)
        if "whole" in wanted:
            found["whole"] = sets.pooled
        return found

    def _toggled(
        self, sets: GroundSets, subset: Tensor, only: Tensor | None, now: dict[Side, Tensor]
    ) -> dict[Side, Tensor]:
        """Return the pooled features after one element has changed sides, `(samples, elements, features)`."""
        found: dict[Side, Tensor] = {}
        for side, pooled in now.items():
            if side == "whole":
                found[side] = pooled[:, sets.owner if only is None else sets.owner[only]]
            else:
                found[side] = self._pooled_toggled(sets, subset if side == "inside" else ~subset, only, pooled)
        return found

    def _pooled(self, features: Tensor, blocks: Blocks, subset: Tensor) -> Tensor:
        """Return the pooled features of subsets, `(samples, sets, features)`; zeros for an empty subset."""
        if isinstance(self.pool, str):
            weight = subset.T.to(features.dtype)
            parts = zip(blocks.split(weight, 1), blocks.split(features, 1), strict=True)
            sums = [(w.transpose(1, 2) @ phi).flatten(1) for w, phi in parts]
            shape = len(blocks.sizes), len(subset), features.shape[1]
            pooled = blocks.join(sums, 0).reshape(shape).transpose(0, 1)
            if self.pool == "sum":
                return pooled
            size = _sizes(subset, blocks, features.dtype)
            return torch.where(size > 0, pooled / torch.where(size > 0, size, 1.0), 0.0)
        samples = len(subset)
        lifted = self.pool.lift(features.repeat(samples, 1)[subset.flatten()])
        index = torch.arange(samples * len(blocks.sizes), device=subset.device).reshape(samples, len(blocks.sizes))
        owner = index.repeat_interleave(blocks.sizes, 1)[subset]
        pooled = self._lowered(self.pool.segment_reduce(lifted, owner, num_sets=index.numel()))
        return pooled.reshape(samples, len(blocks.sizes), pooled.shape[-1])

    def _lowered(self, element: Element) -> Tensor:
        """Return the features of pooled elements; zero where they are those of the identity and infinite."""
        assert isinstance(self.pool, Monoid)
        found, identity = self.pool.lower(element), self.pool.lower(self.pool.identity(element))
        return torch.where((found == identity) & identity.isinf(), 0.0, found)

    def _pooled_toggled(self, sets: GroundSets, subset: Tensor, only: Tensor | None, pooled: Tensor) -> Tensor:
        """Return the pooled features of subsets of which one element has been added or removed."""
        pick = slice(None) if only is None else only
        owner, chosen, features = sets.owner[pick], subset[:, pick, None], sets.features[pick]
        if self.pool == "mean":
            sign = 1 - 2 * chosen.to(features.dtype)
            size = _sizes(subset, sets.blocks, features.dtype)[:, owner]
            return (pooled[:, owner] * size + sign * features) / (size + sign).clamp(min=1)
        assert isinstance(self.pool, Monoid)
        samples, elements = subset.shape
        lifted = self.pool.lift(sets.features.repeat(samples, 1))
        kept = _where(subset.flatten(), lifted, self.pool.identity(lifted))
        starts = nn.functional.pad(sets.blocks.sizes.repeat(samples).cumsum(0), (1, 0))
        rest = all_but_one(self.pool, kept, starts)
        if only is not None:
            wanted = (torch.arange(samples, device=only.device)[:, None] * elements + only).flatten()
            rest, lifted = rows(rest, wanted), rows(lifted, wanted)
        toggled = self._lowered(_where(chosen.flatten(), rest, self.pool.op(rest, lifted)))
        return toggled.reshape(samples, len(owner), toggled.shape[-1])


def _sizes(subset: Tensor, blocks: Blocks, dtype: torch.dtype) -> Tensor:
    """Return the sizes of subsets, `(samples, sets, 1)`."""
    owner = torch.repeat_interleave(blocks.sizes)
    zeros = torch.zeros(len(subset), len(blocks.sizes), dtype=dtype, device=subset.device)
    return zeros.index_add(1, owner, subset.to(dtype))[..., None]


def _where(mask: Tensor, a: Element, b: Element) -> Element:
    return map_leaves(lambda x, y: torch.where(mask.reshape(-1, *(1,) * (x.dim() - 1)), x, y), a, b)
