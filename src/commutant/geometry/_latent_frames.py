"""Frame averaging layer by layer: every layer of a message-passing network in frames of what it is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from .._errors import InputError
from ..algebra import Clouds, FrameGroup, pca_frame
from ..laws import Draw, Equivariance, Euclidean, obeys
from ._arguments import callable_given, floats_given, module_given


def _turning(draw: Draw):  # type: ignore[no-untyped-def]
    """Points that come out of two layers of a small network turn and move with those that go in."""
    n = draw.size + 3
    edges = torch.combinations(torch.arange(n)).t()
    edges = torch.cat([edges, edges.flip(0)], 1)
    net = draw.module(lambda: LatentFrameAverage(nn.Linear(3, 12), [_Message(12), _Message(12)], nn.Linear(12, 3)))
    return Equivariance(Euclidean(3)), lambda x: net(x, edge_index=edges), draw.normal(n, 3)


class _Message(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * width, width)

    def forward(self, h: Tensor, edge_index: Tensor, edge_attr: Tensor | None = None) -> Tensor:
        message = torch.tanh(self.linear(torch.cat([h[edge_index[0]], h[edge_index[1]]], -1)))
        return h + torch.zeros_like(h).index_add(0, edge_index[0], message)


@obeys("equivariance", _turning, tolerance={torch.float32: 1e-2})
class LatentFrameAverage(nn.Module):
    """A message-passing network of which every layer is equivariant, in frames of its own input.

    The hidden features of a point, `m d` numbers, are m vectors once they are turned back: between layers they are
    averaged over the frames, and the next layer sees them in the frames of the cloud of all `n m` vectors. A network of
    this kind passes directions from layer to layer, which one frame around the whole network does not. Puny et al.,
    ICLR 2022, section 4.3 (the n-body network).

    Args:
        lift: from the canonical coordinates and vectors of a point, `(points, (1 + k) d)`, to `(points, m d)`.
        layers: each called as `layer(h, edge_index, edge_attr)`, from `(points, m d)` to the same shape.
        head: from `(points, m d)` to the vector by which a point moves, `(points, d)`.
        group: `"E"`, `"SE"`, `"O"` or `"SO"`.

    Shapes:
        points `(points, d)`, vectors `(points, k, d)`, `batch` as in PyG; out: points `(points, d)`.

    Raises:
        InputError: hidden features whose number is no multiple of d.
    """

    def __init__(
        self,
        lift: Callable[..., Tensor],
        layers: Sequence[nn.Module],
        head: Callable[..., Tensor],
        group: FrameGroup = "E",
    ) -> None:
        super().__init__()
        if not isinstance(layers, Sequence | nn.ModuleList) or not len(layers):
            raise InputError(f"layers must be a sequence of at least one layer, got {type(layers).__name__}")
        if group not in ("E", "SE", "O", "SO"):
            raise InputError(f"group must be E, SE, O or SO, got {group!r}")
        self.layers = nn.ModuleList([module_given(layer, "each layer") for layer in layers])
        self.lift, self.head, self.group = callable_given(lift, "lift"), callable_given(head, "head"), group

    def forward(
        self,
        pos: Float[Tensor, "points d"],
        vectors: Float[Tensor, "points k d"] | None = None,
        *,
        edge_index: Int[Tensor, "2 edges"],
        edge_attr: Shaped[Tensor, "edges e"] | None = None,
        batch: Int[Tensor, " points"] | None = None,
    ) -> Float[Tensor, "points d"]:
        """Where the points go."""
        floats_given("pos", pos, 2)
        d = pos.shape[-1]
        if vectors is not None:
            floats_given("vectors", vectors, 3)
        batch = torch.zeros(len(pos), dtype=torch.long, device=pos.device) if batch is None else batch
        clouds = Clouds.of(pos, batch)
        frame = pca_frame(pos, self.group, clouds=clouds, directions=vectors)
        centre = clouds.spread(frame.origin).to(pos.dtype)
        parts = [frame.canonicalize(pos, "points")]
        if vectors is not None:
            parts.append(frame.canonicalize(vectors, "vectors").flatten(-2))
        h = self.lift(torch.cat(parts, -1))
        copied = frame.copies.edges(edge_index)
        for number, layer in enumerate(self.layers):
            if h.dim() != 2 or h.shape[1] % d:
                raise InputError(f"hidden features must be (points, multiple of {d}), got shape {tuple(h.shape)}")
            if number:
                z = frame.pool(frame.restore(h.unflatten(-1, (-1, d)), "vectors"), per_cloud=False)
                own = pca_frame(z.flatten(0, 1), self.group, batch=batch.repeat_interleave(z.shape[1]))
                before, frame = frame.cloud, replace(own, clouds=clouds)
                h = frame.canonicalize(z, "points").flatten(-2)
                if not torch.equal(before, frame.cloud):  # a degenerate cloud has other frames than before
                    copied = frame.copies.edges(edge_index)
            edges, which = copied
            given: tuple[Any, ...] = () if edge_attr is None else (edge_attr[which],)
            h = layer(h, edges, *given)
        return centre + frame.pool(frame.restore(self.head(h), "vectors"), per_cloud=False)
