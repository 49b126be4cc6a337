"""Distance of an operator from associativity, and the loss that reduces it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .._errors import InputError
from ..algebra import Element, Monoid, ReductionPlan, check_monoid
from ..algebra.elements import concatenate, first_leaf, leaves, rows, split_rows


def associativity_defect(
    op: Monoid,
    a: Float[Tensor, "*batch channels"],
    b: Float[Tensor, "*batch channels"],
    c: Float[Tensor, "*batch channels"],
) -> Float[Tensor, "*batch"]:
    """Return the relative distance between the two bracketings of each triple.

    $\\|(a \\circ b) \\circ c - a \\circ (b \\circ c)\\| / \\|a \\circ (b \\circ c)\\|$

    Args:
        op: Operator on tensors.
        a: First elements, `(..., channels)`.
        b: Second elements, `(..., channels)`.
        c: Third elements, `(..., channels)`.

    Example:
        >>> from commutant.algebra import Max
        >>> associativity_defect(Max(), *torch.randn(3, 5, 8)).max()
        tensor(0.)
    """
    check_monoid("op", op)
    left, right = op.op(op.op(a, b), c), op.op(a, op.op(b, c))
    if not isinstance(left, Tensor):
        raise InputError("op must be an operator on tensors, got one on tuples; pass one of its factors")
    gap = torch.linalg.vector_norm(_gap(left, right), dim=-1)
    return gap / torch.where(gap == 0, 1.0, torch.linalg.vector_norm(right, dim=-1))


def _gap(left: Tensor, right: Tensor) -> Tensor:
    """Return the difference, which is zero between equal infinities."""
    return torch.where(left == right, 0.0, left - right)


def associativity_triples(plan: ReductionPlan) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the triples of nodes on which Ong and Velickovic (2022, appendix E) compare the two bracketings.

    A merge of two merges, `node(node(a, b), node(c, d))`, gives (a, b, c) and (b, c, d). A merge with a leaf,
    `node(node(a, b), leaf c)`, gives (a, b, c). Any other node gives none.

    Args:
        plan: Plan of the reduction, whose trees are read.

    Returns:
        Node ids a, b, c, and the node id of the known value of $b \\circ c$, or -1 where it must be computed.
    """
    left, right, n = plan.left, plan.right, plan.num_elements
    outer = left >= n
    a, b = left[left[outer] - n], right[left[outer] - n]
    above = right[outer]
    deep = above >= n
    c = torch.where(deep, left[(above - n).clamp(min=0)], above) if left.numel() else above
    d = right[above[deep] - n]
    unknown = torch.full_like(a, -1)
    return (
        torch.cat([a, b[deep]]),
        torch.cat([b, c[deep]]),
        torch.cat([c, d]),
        torch.cat([unknown, above[deep]]),
    )


def associativity_loss(op: Monoid, nodes: Element, plan: ReductionPlan) -> Float[Tensor, ""]:
    """Return the mean squared distance between the two bracketings over the triples of the plan's trees.

    $\\|(a \\circ b) \\circ c - a \\circ (b \\circ c)\\|^2$ is summed over channels and averaged over triples (Ong and
    Velickovic 2022, appendix E).

    Args:
        op: Operator.
        nodes: Values of the nodes, from `op.segment_reduce_nodes`.
        plan: Plan of the reduction that gave `nodes`.
    """
    check_monoid("op", op)
    a, b, c, known = associativity_triples(plan)
    if a.numel() == 0:
        return first_leaf(nodes).new_zeros(())
    fresh = known < 0
    first = op.op(
        concatenate(rows(nodes, a), rows(nodes, b[fresh])), concatenate(rows(nodes, b), rows(nodes, c[fresh]))
    )
    ab, new_bc = split_rows(first, [a.numel(), int(fresh.sum())])
    where = known.masked_scatter(fresh, first_leaf(nodes).shape[0] + torch.arange(a.numel(), device=a.device))
    bc = rows(concatenate(nodes, new_bc), where)
    both = op.op(concatenate(ab, rows(nodes, a)), concatenate(rows(nodes, c), bc))

    def squared(leaf: Tensor) -> Tensor:
        return _gap(*leaf.chunk(2)).square().flatten(1).sum(1)

    return torch.stack([squared(leaf) for leaf in leaves(both)]).sum(0).mean()


def aux_loss(model: nn.Module) -> Tensor:
    """Return the weighted associativity loss of the last forward pass, averaged over a model's aggregations.

    Add it to the task loss. It is zero if no aggregation has an `associativity_weight`.

    Args:
        model: Model that contains the aggregations.

    Example:
        >>> from commutant.sets import LCMAggregation
        >>> agg = LCMAggregation(4, 8, associativity_weight=1.0)
        >>> out = agg(torch.randn(9, 4), torch.tensor([0] * 5 + [1] * 4))
        >>> bool(aux_loss(agg) > 0)
        True
    """
    if not isinstance(model, nn.Module):
        given = f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__
        raise InputError(f"model must be a torch.nn.Module, got {given}")
    terms = [term for module in model.modules() if isinstance(term := getattr(module, "aux_term", None), Tensor)]
    return torch.stack(terms).mean() if terms else torch.zeros(())
