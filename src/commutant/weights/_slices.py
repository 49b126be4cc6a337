"""Slices of tensors along the axes that carry groups."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product as pairs_of

from jaxtyping import Shaped
from torch import Tensor

from ..parameters import AxisLabel, positions_by_group


def exposed(
    value: Tensor, labels: Sequence[AxisLabel], groups: Sequence[str], at: int | None = None
) -> Shaped[Tensor, "*sizes rest"]:
    """Return a tensor with the indices of some groups as leading axes, and all other axes flattened into the last.

    A group on several axes is taken from axis `at` if that carries it, else from the first axis that does.
    """
    carriers = {g: [i for i, label in enumerate(labels) if g in label.groups()] for g in groups}
    place = {g: at if at in found else found[0] for g, found in carriers.items()}
    tags: list[str | None] = []
    for axis in reversed(range(value.dim())):
        here = [g for g in groups if place[g] == axis]
        if here:
            index = positions_by_group(labels[axis], here)
            value = value.index_select(axis, index.flatten()).unflatten(axis, index.shape)
        tags = [*here, None, *tags]
    order = [*(tags.index(g) for g in groups), *(i for i, tag in enumerate(tags) if tag is None)]
    value = value.permute(order)
    return value.reshape(*value.shape[: len(groups)], -1)


def stretches(value: Tensor, labels: Sequence[AxisLabel], group: str) -> list[Shaped[Tensor, "*sizes rest"]]:
    """Return the parts of a tensor that carry a group on the same axes, with its index on each as a leading axis."""
    cuts = []
    for label in labels:
        sets = {(group,) if group in block.groups() else () for block in label.stretches()}
        cuts.append([(here, positions_by_group(label, here, () if here else (group,))) for here in sorted(sets)])
    found = []
    for chosen in pairs_of(*cuts):
        part, lead = value, list[int]()
        for axis in reversed(range(value.dim())):
            here, index = chosen[axis]
            part = part.index_select(axis, index.flatten()).unflatten(axis, index.shape)
            lead = ([axis] if here else []) + [a + len(here) for a in lead]
        if lead and part.numel():
            part = part.movedim(lead, list(range(len(lead))))
            found.append(part.reshape(*part.shape[: len(lead)], -1))
    return found


def pieces(
    value: Tensor, labels: Sequence[AxisLabel], family: Sequence[str]
) -> list[tuple[list[str], Shaped[Tensor, "*sizes rest"]]]:
    """Cut a tensor into parts that carry the same groups of a family, such as query, key and value of one weight.

    Each part comes with its groups, in the order of the family, and has their indices as leading axes.
    """
    cuts = []
    for label in labels:
        sets = {tuple(g for g in family if g in block.groups()) for block in label.stretches()}
        cuts.append([(here, positions_by_group(label, here, [g for g in family if g not in here])) for here in sets])
    found = []
    for chosen in pairs_of(*cuts):
        part, tags = value, []  # type: ignore[var-annotated]
        for axis in reversed(range(value.dim())):
            here, index = chosen[axis]
            part = part.index_select(axis, index.flatten()).unflatten(axis, index.shape)
            tags = [*here, None, *tags]
        own = [g for g in family if g in tags]
        order = [*(tags.index(g) for g in own), *(i for i, tag in enumerate(tags) if tag is None or tag in tags[:i])]
        part = part.permute(order)
        found.append((own, part.reshape(*part.shape[: len(own)], -1)))
    return sorted(found, key=lambda piece: piece[0])
