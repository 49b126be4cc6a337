"""Tensors cut along the axes that carry groups."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product as pairs_of

from jaxtyping import Shaped
from torch import Tensor

from ..parameters import AxisLabel, positions_by_group


def exposed(
    value: Tensor, labels: Sequence[AxisLabel], groups: Sequence[str], at: int | None = None
) -> Shaped[Tensor, "*sizes rest"]:
    """A tensor with the indices of some groups as its leading axes, and all else flattened behind them.

    A group that stands on several axes is read off axis `at` if it is there, else off the first that carries it.
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
    """The parts of a tensor along which a group stands on the same axes, with its index on each as a leading axis."""
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
    """A tensor cut into parts along each of which the same groups of a family stand, as query, key and value of one
    weight: for each part its groups, in the family's order, and the part with their indices as leading axes.
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
