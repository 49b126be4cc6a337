"""Likelihoods of answers that may be written in several ways: polygons from any vertex, triangles in any order."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from .._errors import InputError
from ._pointer_decoder import PointerDecoder, PointerMemory


def rotations(
    targets: Int[Tensor, "batch steps"],
) -> tuple[Int[Tensor, "batch ways steps"], Bool[Tensor, "batch ways"]]:
    """Return each polygon from each of its vertices, and which of these ways exist.

    A polygon may repeat its first vertex at the end; so do its rotations.

    Args:
        targets: Indices of the vertices, -1 after them, `(batch, steps)`.

    Example:
        >>> rotations(torch.tensor([[0, 2, 1, 0, -1]]))[0]
        tensor([[[ 0,  2,  1,  0, -1],
                 [ 2,  1,  0,  2, -1],
                 [ 1,  0,  2,  1, -1]]])
    """
    if targets.dim() != 2:
        raise InputError(f"targets must have shape (batch, steps) to be turned, got {tuple(targets.shape)}")
    count = (targets >= 0).sum(-1)
    last = targets.gather(1, (count - 1).clamp(min=0)[:, None])[:, 0]
    repeats = (last == targets[:, 0]) & (count > 1)
    vertices = count - repeats.long()
    ways = max(1, int(vertices.max())) if len(vertices) else 1  # an empty polygon can be written in one way
    place = torch.arange(targets.shape[1], device=targets.device)
    start = torch.arange(ways, device=targets.device)
    index = (start[:, None] + place).remainder(vertices.clamp(min=1)[:, None, None])
    turned = targets[:, None].expand(-1, ways, -1).gather(2, index)
    turned = turned.masked_fill((place >= count[:, None])[:, None], -1)
    return turned, start < vertices.clamp(min=1)[:, None]


def rotation_log_prob(decoder: PointerDecoder, memory: PointerMemory, targets: Tensor) -> Tensor:
    """Return the log probability of a polygon, summed over the vertices to start from, `(batch,)`.

    Args:
        decoder: Decoder.
        memory: Encoded points.
        targets: Indices of the vertices, then -1, `(batch, steps)`.
    """
    turned, exists = rotations(targets)
    found = decoder.step_log_probs(memory, turned).sum(-1)
    return found.masked_fill(~exists, -torch.inf).logsumexp(-1)


def triangle_log_prob(decoder: PointerDecoder, memory: PointerMemory, targets: Tensor) -> Tensor:
    """Return the sum over triangles of the log probability that any missing triangle comes next, and of the stop.

    The triangles before are those of the target. For T triangles the decoder runs on T (T + 1) / 2 sequences.

    Args:
        decoder: Decoder.
        memory: Encoded points.
        targets: Indices of the corners, three for each triangle, then -1, `(batch, steps)`.
    """
    count = (targets >= 0).sum(1)
    if bool((count % 3 != 0).any()):
        raise InputError(f"targets must have three indices for each triangle, got {int(count[count % 3 != 0][0])}")
    most = int(count.max()) // 3 if len(count) else 0
    own = decoder.step_log_probs(memory, targets)
    corners = torch.arange(targets.shape[1], device=targets.device) < count[:, None]
    total = own.masked_fill(corners, 0).sum(-1)  # the stop
    if not most:
        return total
    slot, chosen = torch.triu_indices(most, most, device=targets.device)
    triangles = targets[:, : 3 * most].unflatten(1, (most, 3))
    place = torch.arange(most, device=targets.device)
    order = torch.where(place == slot[:, None], chosen[:, None], place)  # the chosen triangle in its slot
    ways = triangles[:, order].masked_fill((place > slot[:, None])[..., None], -1).flatten(2)
    ways = ways.masked_fill((ways < 0).cummax(-1).values, -1)  # nothing after a missing triangle
    steps = decoder.step_log_probs(memory, ways).unflatten(-1, (most, 3)).sum(-1)  # (batch, pairs, slots)
    logs = steps.gather(2, slot[None, :, None].expand(len(steps), -1, 1))[..., 0]
    exists = (torch.maximum(slot, chosen) < count[:, None] // 3)[:, None] & (place[:, None] == slot)
    anyone = logs[:, None].masked_fill(~exists, -torch.inf)
    used = exists.any(-1)
    anyone = anyone.masked_fill(~used[..., None], 0).logsumexp(-1)
    return total + anyone.masked_fill(~used, 0).sum(-1)
