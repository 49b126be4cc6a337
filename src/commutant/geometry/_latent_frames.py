"""Frame averaging of every layer of a message-passing network, in frames of the layer's own input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from .._checks import one_of
from .._errors import InputError
from ..algebra import Clouds, FrameGroup, pca_frame
from ..laws import obeys
from ._arguments import callable_given, floats_given, module_given
from ._law_cases import SINGLE_PRECISION, average_of_layers


@obeys("equivariance", lambda draw: average_of_layers(LatentFrameAverage, draw), tolerance=SINGLE_PRECISION)
class LatentFrameAverage(nn.Module):
    """Message-passing network that averages every layer over frames of the layer's own input.

    The hidden features of a point are m vectors (`m d` numbers). Between layers they are rotated back and averaged over
    the frames. The next layer sees them in the frames of the cloud of all `n m` vectors. Such a network passes
    directions from layer to layer, unlike one frame average around the whole network. Puny et al., ICLR 2022, section
    4.3 (the n-body network).

    Args:
        lift: Module from the canonical coordinates and vectors of a point, `(points, (1 + k) d)`, to `(points, m d)`.
        layers: Modules called as `layer(h, edge_index, edge_attr)`, from `(points, m d)` to the same shape.
        head: Module from `(points, m d)` to the displacement of each point, `(points, d)`.
        group: Group, `"E"`, `"SE"`, `"O"` or `"SO"`.

    Shapes:
        points `(points, d)` and vectors `(points, k, d)`, with `batch` as in PyG, to points `(points, d)`.

    Raises:
        InputError: If the number of hidden features is not a multiple of d.
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
        one_of("group", group, ("E", "SE", "O", "SO"))
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
        """Return the points after their displacement, `(points, d)`.

        Args:
            pos: Positions of the points, `(points, d)`.
            vectors: Vectors of each point, such as velocities, `(points, k, d)`.
            edge_index: Pairs of points that exchange messages, `(2, edges)`.
            edge_attr: Attributes of the edges, which do not rotate, `(edges, e)`.
            batch: Index of the cloud of each point, `(points,)`.
        """
        floats_given("pos", pos, 2)
        d = pos.shape[-1]
        if vectors is not None:
            floats_given("vectors", vectors, 3)
        batch = torch.zeros(len(pos), dtype=torch.long, device=pos.device) if batch is None else batch
        clouds = Clouds.of(pos, batch)
        frame = pca_frame(pos, self.group, clouds=clouds, directions=vectors)
        center = clouds.spread(frame.origin).to(pos.dtype)
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
                if not torch.equal(before, frame.cloud):  # the number of frames of a cloud may change
                    copied = frame.copies.edges(edge_index)
            edges, which = copied
            given: tuple[Any, ...] = () if edge_attr is None else (edge_attr[which],)
            h = layer(h, edges, *given)
        return center + frame.pool(frame.restore(self.head(h), "vectors"), per_cloud=False)
