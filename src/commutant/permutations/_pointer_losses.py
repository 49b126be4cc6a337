"""Likelihoods of answers that may be written in several ways: polygons from any vertex, triangles in any order."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from .._errors import InputError
from ._pointer_decoder import PointerDecoder, PointerMemory, log_probs_of


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

    The triangles before are those of the target. The LSTM reads them once, and each missing triangle from there.

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
    triangles = targets[:, : 3 * most].unflatten(1, (most, 3)).clamp(min=0)
    inputs = memory.inputs.gather(1, triangles.flatten(1)[..., None].expand(-1, -1, memory.inputs.shape[-1]))
    inputs = inputs.unflatten(1, (most, 3))  # (batch, triangles, 3, features)
    last = decoder.start.to(inputs.dtype).expand(len(inputs), 1, 1, -1)
    state = tuple(s[None].contiguous() for s in memory.state)
    projected = decoder.projected(memory)
    for slot in range(most):
        left = most - slot
        x = torch.cat([last.expand(-1, left, -1, -1), inputs[:, slot:, :2]], 2).flatten(0, 1)
        hidden, after = decoder.lstm(x, tuple(s.repeat_interleave(left, 1) for s in state))
        scores = decoder.scores(hidden.reshape(len(inputs), 3 * left, -1), projected, memory.valid)
        logs = log_probs_of(scores, triangles[:, slot:].flatten(1)).unflatten(1, (left, 3)).sum(-1)
        exists = torch.arange(slot, most, device=targets.device) < count[:, None] // 3
        used = exists[:, 0]
        anyone = logs.masked_fill(~exists & used[:, None], -torch.inf).logsumexp(-1)
        total = total + anyone.masked_fill(~used, 0)
        state = tuple(s.unflatten(1, (-1, left))[:, :, 0].contiguous() for s in after)
        last = inputs[:, slot : slot + 1, 2:]
    return total
