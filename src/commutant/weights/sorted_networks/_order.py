"""Orders of channels: an exact permutation that puts the most important ones first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..._checks import one_of
from ..._errors import InputError
from ...parameters import Permutation, PermutationSpec, evaluating, positions_by_group
from .._given import batches_of, check_callable, check_module, check_spec, state_of

M = TypeVar("M", bound=nn.Module)


def sort_channels(
    model: M,
    spec: PermutationSpec,
    importance: Literal["l2", "taylor"] = "l2",
    *,
    batches: Iterable[Any] | None = None,
    loss_fn: Callable[[M, Any], Tensor] | None = None,
) -> M:
    """Return a copy of a network, which computes the same, with the most important channels of each group first.

    Channels inside others, such as those of a head, are sorted inside each. Sort a trained network before nested
    training, so that its sub-networks begin with what it uses most.

    Args:
        model: Network; not modified.
        spec: Its permutation symmetries.
        importance: `"l2"` is the sum of the squares of all weights of a channel. `"taylor"` is the sum over batches of
            `(sum of weight times gradient)^2`, the first-order change of the loss without the channel.
        batches: Batches of data, for `"taylor"`.
        loss_fn: Function from the network and a batch to a loss, for `"taylor"`.

    Raises:
        InputError: The importance is unknown, data is missing, or the model does not have the spec's parameters.

    Example:
        >>> model = nn.Sequential(nn.Linear(1, 3, bias=False), nn.ReLU(), nn.Linear(3, 1, bias=False))
        >>> for weight in model.parameters():
        ...     weight.data = torch.tensor([1.0, 3.0, 2.0]).view(weight.shape)
        >>> spec = PermutationSpec.from_module(model, torch.ones(2, 1))
        >>> sort_channels(model, spec)[0].weight.flatten().tolist()
        [3.0, 2.0, 1.0]
    """
    check_module(model, "model")
    check_spec(spec)
    one_of("importance", importance, ("l2", "taylor"))
    spec.check(state_of(model))
    if (batches is None or loss_fn is None) == (importance == "taylor"):
        raise InputError('the importance "taylor" needs batches and loss_fn, and "l2" takes none')
    if loss_fn is not None:
        check_callable(loss_fn, "loss_fn", "a function from the network and a batch to a loss")
    if importance == "l2":
        weights = {k: p.detach().double() for k, p in model.named_parameters() if p.dim() > 1}
        terms = [{k: p.square() for k, p in weights.items()}]
    else:
        terms = _products(model, batches, loss_fn)
    order = Permutation(spec)
    for depth in sorted({len(own) for own in spec.parents.values()}):
        tables = {}
        for group in (g for g in spec.sizes if len(spec.parents[g]) == depth):
            scores = torch.zeros(spec.shape(group), dtype=torch.float64)
            for term in terms:
                moved = {k: order.apply_to(k, v) for k, v in term.items()}
                own = _summed(spec, group, moved)
                scores += own if importance == "l2" else own.square()
            tables[group] = scores.argsort(dim=-1, descending=True, stable=True)
        order = order.compose(Permutation(spec, tables))
    return order.apply(model)


def _products(model: Any, batches: Any, loss_fn: Any) -> list[dict[str, Tensor]]:
    """Return weight times gradient for each batch."""
    found = []
    parameters = {k: p for k, p in model.named_parameters() if p.requires_grad}
    with evaluating(model), torch.enable_grad():
        for batch in batches_of(batches):
            loss = loss_fn(model, batch)
            if not isinstance(loss, Tensor) or loss.dim() or not bool(loss.isfinite()):
                raise InputError("loss_fn must return a finite scalar tensor")
            grads = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
            found.append(
                {
                    k: (p.detach() * g).double()
                    for (k, p), g in zip(parameters.items(), grads, strict=True)
                    if g is not None
                }
            )
    if not found:
        raise InputError("no batch was given to measure the importance on")
    return found


def _summed(spec: PermutationSpec, group: str, values: Mapping[str, Tensor]) -> Float[Tensor, "*outer n"]:
    """Return the sum of all entries of tensors that carry each entry of a group, each tensor once."""
    total = torch.zeros(spec.shape(group), dtype=torch.float64)
    family = [*spec.parents[group], group]
    for key, value in values.items():
        for axis, label in enumerate(spec.axes.get(key, ())):
            if set(family) <= set(label.groups()):
                index = positions_by_group(label, family)
                sums = value.movedim(axis, 0).reshape(label.size, -1).sum(1).cpu()
                total += sums[index].sum(-1)
    return total
