"""Aggregations for PyTorch Geometric whose result for a set does not depend on the rest of the batch."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from .._checks import check_features, check_generator, first_weight, is_real, is_whole, whole
from .._errors import InputError
from ..algebra import Bracketing, Monoid, check_monoid
from ..algebra.plans import lazy_plan
from ..laws import breaks, obeys
from ._associativity import associativity_loss
from ._binary_gru import BinaryGRU
from ._law_cases import order_of_three, sets_of_a_batch
from ._layout import check_layout

try:
    from torch_geometric.nn.aggr import Aggregation as _Base
except ImportError:  # only PyG's MessagePassing needs the base class
    _Base = nn.Module


class SetAggregation(_Base):  # type: ignore[misc, valid-type]
    """Base class of aggregations, which validates `index` and `ptr`.

    A subclass implements `aggregate(x, index, ptr, num_sets)` for x of shape `(elements, *rest, channels)`.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # PyG's own reads x and index before `forward` can check them
        return nn.Module.__call__(self, *args, **kwargs)

    def forward(
        self,
        x: Float[Tensor, "..."],
        index: Int[Tensor, " elements"] | None = None,
        ptr: Int[Tensor, " boundaries"] | None = None,
        dim_size: int | None = None,
        dim: int = -2,
    ) -> Float[Tensor, "..."]:
        """Aggregate the elements of each set.

        Args:
            x: Features, with elements along `dim`, `(..., elements, channels)`.
            index: Index of the set of each element, sorted or not, `(elements,)`.
            ptr: Start of each set among sorted elements, `(sets + 1,)`. Without `index` and `ptr`, all elements are
                one set.
            dim_size: Number of sets; by default inferred from `index` or `ptr`.
            dim: Axis of the elements.

        Returns:
            Result of each set, `(..., sets, out_channels)`; an empty set gives the identity.
        """
        check_features("x", x, first_weight(self))
        if not is_whole(dim) or x.dim() < 2 or not -x.dim() <= dim < x.dim():
            raise InputError(f"x must have an element axis (dim={dim}) and a channel axis, got shape {tuple(x.shape)}")
        check_layout(x, index, ptr)
        dim %= x.dim()
        if dim == x.dim() - 1:
            raise InputError(f"dim={dim} is the channel axis; elements must lie along another axis")
        x = x.movedim(dim, 0)
        if index is None and ptr is None:
            index = torch.zeros(x.shape[0], dtype=torch.int64, device=x.device)
            dim_size = 1 if dim_size is None else dim_size
        elif ptr is not None:
            index = None  # PyG gives both; ptr says the same and needs no sort
        return self.aggregate(x, index, ptr, dim_size).movedim(0, dim)

    def aggregate(self, x: Tensor, index: Tensor | None, ptr: Tensor | None, num_sets: int | None) -> Tensor:
        """Aggregate elements along the leading axis; implemented by subclasses.

        Args:
            x: Features, `(elements, *rest, channels)`.
            index: Index of the set of each element, `(elements,)`, or None.
            ptr: Start of each set, `(sets + 1,)`, or None.
            num_sets: Number of sets, or None to take it from `index` or `ptr`.
        """
        raise NotImplementedError


def scattered_order(sizes: Tensor, generator: torch.Generator | None, random: bool) -> Tensor:
    """Return an order of sorted elements that mixes each set and keeps the sets apart.

    An operator that is sensitive to order is trained on random orders, but edges and points often come sorted. Without
    shuffling, evaluation would see orders that training never did. If not `random`, each set is shuffled by a fixed
    hash of the position within the set, which depends on nothing else.

    Args:
        sizes: Number of elements of each set, `(sets,)`.
        generator: Source of randomness; by default torch's global generator.
        random: Whether to draw the order, instead of using the fixed hash.
    """
    owner = torch.repeat_interleave(sizes)
    if random:
        device = sizes.device if generator is None else generator.device
        keys = torch.rand(owner.numel(), generator=generator, device=device, dtype=torch.float64).to(sizes.device)
    else:
        position = torch.arange(owner.numel(), device=sizes.device) - (sizes.cumsum(0) - sizes)[owner]
        mixed = (position + 1) * 0x9E3779B1 % 2**32
        mixed = (mixed ^ (mixed >> 15)) * 0x2C1B3C6D % 2**32
        keys = (mixed ^ (mixed >> 12)).double() / 2**32
    return (keys + owner).argsort()


@obeys(
    "batch independence",
    lambda draw: sets_of_a_batch(draw, lambda: MonoidAggregation(BinaryGRU(draw.width)), draw.width),
)
class MonoidAggregation(SetAggregation):
    """Reduction of each set by a monoid, a drop-in replacement for any PyG aggregation.

    The result is exact for exact monoids. If the operator is only approximately associative, training shuffles the
    elements of each set in every step, so that the task loss penalizes dependence on order. Evaluation shuffles them in
    a fixed way, so that sorted elements do not differ from those in training.

    Args:
        monoid: Operator, for example `BinaryGRU(64)`, `Max()` or `Product(Sum(), Max())`.
        random_bracketing: Whether to draw a random bracketing in every training step instead of the balanced tree, so
            that the task loss also penalizes dependence on bracketing. At small training budgets this costs a little
            in-distribution accuracy and gains none on larger sets (see the claims).
        associativity_weight: Weight of the associativity loss of Ong and Velickovic (2022); add `aux_loss(model)` to
            the task loss. The paper's best value is 1; at small training budgets it costs accuracy (see the claims).
        generator: Source of randomness for shuffling and bracketing; by default torch's global generator.

    Shapes:
        x `(elements, channels)` to `(sets, out_channels)`.

    Raises:
        InputError: If an index is out of range, lengths do not match, features are integers, or their number is wrong.

    Example:
        >>> from commutant.algebra import Max
        >>> agg = MonoidAggregation(Max())
        >>> agg(torch.tensor([[1.], [4.], [2.]]), torch.tensor([1, 0, 1])).flatten()
        tensor([4., 2.])
    """

    def __init__(
        self,
        monoid: Monoid,
        *,
        random_bracketing: bool = False,
        associativity_weight: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_monoid("monoid", monoid)
        check_generator(generator)
        if not is_real(associativity_weight) or not 0 <= associativity_weight < math.inf:
            raise InputError(f"associativity_weight must be finite and non-negative, got {associativity_weight!r}")
        self.monoid = monoid
        self.random_bracketing = random_bracketing
        self.associativity_weight = associativity_weight
        self.generator = generator
        self.aux_term: Tensor | None = None
        """Weighted associativity loss of the last forward pass in training."""

    def aggregate(self, x: Tensor, index: Tensor | None, ptr: Tensor | None, num_sets: int | None) -> Tensor:
        monoid, self.aux_term = self.monoid, None
        bracketing: Bracketing = "balanced"
        order = None
        if monoid.associative != "exact" and monoid.commutative != "no":
            elements = lazy_plan(num_elements=x.shape[0], index=index, ptr=ptr, num_sets=num_sets)
            order = scattered_order(elements.sizes, self.generator, random=self.training)
            order = order if elements.order is None else elements.order[order]
            index, ptr, num_sets = None, nn.functional.pad(elements.sizes.cumsum(0), (1, 0)), None
            bracketing = "random" if self.training and self.random_bracketing else "balanced"
        plan = lazy_plan(
            num_elements=x.shape[0],
            index=index,
            ptr=ptr,
            num_sets=num_sets,
            bracketing=bracketing,
            generator=self.generator,
            order=order,
        )
        lifted = monoid.lift(x)
        if self.training and self.associativity_weight > 0:
            out, nodes = monoid.segment_reduce_nodes(lifted, plan)
            self.aux_term = self.associativity_weight * associativity_loss(monoid, nodes, plan)
        else:
            out = monoid.segment_reduce(lifted, plan=plan)
        return monoid.lower(out)

    def __getstate__(self) -> dict[str, Any]:
        # the term of the last step holds its autograd graph, which can be neither copied nor pickled
        return {**self.__dict__, "aux_term": None}

    def reset_parameters(self) -> None:
        """Reinitialize all parameters."""
        for module in self.modules():
            reset = getattr(module, "reset_parameters", None)
            if module is not self and callable(reset):
                reset()

    def extra_repr(self) -> str:
        weight = f", associativity_weight={self.associativity_weight}" if self.associativity_weight else ""
        return f"random_bracketing={self.random_bracketing}{weight}"


@obeys("batch independence", lambda draw: sets_of_a_batch(draw, lambda: LCMAggregation(draw.width, 8), draw.width))
@breaks(
    "invariance to the order of three", lambda draw: order_of_three(draw, lambda: LCMAggregation(8, 8, project=False))
)
class LCMAggregation(MonoidAggregation):
    """Learnable commutative monoid that reduces each set by a balanced tree of symmetrized GRU cells.

    It is a drop-in replacement for `torch_geometric.nn.aggr.LCMAggregation`. The result of a set does not depend on the
    other sets of the batch. (In PyG it does, since zero padding passes through the cell.) `index` need not be
    sorted, an empty set has a defined value, and memory is linear in the number of elements.

    Use it where a fixed aggregation underfits or fails on sets larger than in training, and the order of elements
    should hardly matter. It is exactly commutative and approximately associative; `Conjugated` is exactly both.

    Args:
        in_channels: Width of the elements.
        out_channels: Width of the results.
        project: Whether to apply Linear and ReLU to the elements first; otherwise the two widths must agree.
        random_bracketing: Whether to draw a random bracketing in every training step, as for `MonoidAggregation`.
        associativity_weight: Weight of the associativity loss, as for `MonoidAggregation`.
        generator: Source of randomness for shuffling and bracketing; by default torch's global generator.

    Shapes:
        x `(elements, in_channels)` to `(sets, out_channels)`.

    Reference:
        Ong and Velickovic, Learnable Commutative Monoids for Graph Neural Networks, LoG 2022, section 2.3.

    Example:
        >>> agg = LCMAggregation(16, 32)
        >>> agg(torch.randn(10, 16), torch.randint(0, 4, (10,)), dim_size=4).shape
        torch.Size([4, 32])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        project: bool = True,
        *,
        random_bracketing: bool = False,
        associativity_weight: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        whole("in_channels", in_channels)
        whole("out_channels", out_channels)
        super().__init__(
            BinaryGRU(out_channels),
            random_bracketing=random_bracketing,
            associativity_weight=associativity_weight,
            generator=generator,
        )
        if not project and in_channels != out_channels:
            raise InputError(
                f"with project=False, in_channels must equal out_channels, got {in_channels} and {out_channels}"
            )
        self.in_channels, self.out_channels = in_channels, out_channels
        self.projection = nn.Sequential(nn.Linear(in_channels, out_channels), nn.ReLU()) if project else None

    def aggregate(self, x: Tensor, index: Tensor | None, ptr: Tensor | None, num_sets: int | None) -> Tensor:
        if x.shape[-1] != self.in_channels:
            raise InputError(f"x must have {self.in_channels} channels, got shape {tuple(x.shape)}")
        return super().aggregate(x if self.projection is None else self.projection(x), index, ptr, num_sets)


@obeys("batch independence", lambda draw: sets_of_a_batch(draw, lambda: GRUFoldAggregation(draw.width, 8), draw.width))
@breaks("invariance to order", lambda draw: order_of_three(draw, lambda: GRUFoldAggregation(8, 8)))
class GRUFoldAggregation(SetAggregation):
    """GRU over the elements of each set with a learnable initial state, the recurrent baseline of the paper.

    It is expressive, sequential (its depth is the size of the largest set) and not invariant to order. Training
    shuffles the elements of each set, and evaluation shuffles them in a fixed way. Sets are packed, so no padding
    enters the recurrence. The result of a set does not depend on the batch, unlike that of PyG's `GRUAggregation`. An
    empty set gives the initial state.

    Args:
        in_channels: Width of the elements.
        out_channels: Width of the state.
        generator: Source of randomness for shuffling; by default torch's global generator.

    Shapes:
        x `(elements, in_channels)` to `(sets, out_channels)`.

    Example:
        >>> agg = GRUFoldAggregation(16, 32)
        >>> agg(torch.randn(10, 16), torch.randint(0, 4, (10,)), dim_size=4).shape
        torch.Size([4, 32])
    """

    def __init__(self, in_channels: int, out_channels: int, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        whole("in_channels", in_channels)
        whole("out_channels", out_channels)
        check_generator(generator)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.gru = nn.GRU(in_channels, out_channels)
        self.start = nn.Parameter(torch.zeros(out_channels))
        self.generator = generator

    def aggregate(self, x: Tensor, index: Tensor | None, ptr: Tensor | None, num_sets: int | None) -> Tensor:
        if x.dim() != 2 or x.shape[1] != self.in_channels:
            raise InputError(f"x must have shape (elements, {self.in_channels}), got {tuple(x.shape)}")
        plan = lazy_plan(num_elements=x.shape[0], index=index, ptr=ptr, num_sets=num_sets)
        sizes, starts = plan.sizes, plan.sizes.cumsum(0) - plan.sizes
        out = self.start.to(x.dtype).expand(plan.num_sets, -1)
        if x.shape[0] == 0:
            return out
        order = scattered_order(sizes, self.generator, random=self.training)
        order = order if plan.order is None else plan.order[order]
        owner = torch.repeat_interleave(sizes)
        position = torch.arange(x.shape[0], device=x.device) - starts[owner]
        rank = torch.empty_like(sizes)
        longest_first = sizes.argsort(descending=True, stable=True)
        rank[longest_first] = torch.arange(sizes.numel(), device=x.device)
        by_step = (position * plan.num_sets + rank[owner]).argsort()
        packed = nn.utils.rnn.PackedSequence(x[order[by_step]], torch.bincount(position).cpu())
        filled = longest_first[: plan.occupied.numel()]
        _, last = self.gru(packed, self.start.to(x.dtype).expand(1, filled.numel(), -1).contiguous())
        return out.index_copy(0, filled, last[0].to(out.dtype))

    def reset_parameters(self) -> None:
        """Reinitialize all parameters; the initial state starts at zero."""
        self.gru.reset_parameters()
        nn.init.zeros_(self.start)
