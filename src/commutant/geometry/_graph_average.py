"""Frame averaging over the orders of a graph's nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from .._errors import InputError
from ..algebra import GraphKind, graph_frame
from ..laws import Draw, Equivariance, GraphPermutation, Invariance, breaks, obeys
from ._arguments import callable_given, whole_given


def _relabelled(outputs: str, few: int | None = None):  # type: ignore[no-untyped-def]
    """A law of a network that reads a flattened adjacency, averaged over orders."""

    def case(draw: Draw):  # type: ignore[no-untyped-def]
        n = 5 + draw.size % 3
        ends = n if outputs == "nodes" else 4
        net = draw.module(lambda: nn.Sequential(nn.Flatten(), nn.Linear(n * n, 16), nn.Tanh(), nn.Linear(16, ends)))
        average = GraphAverage(net, outputs=outputs, samples=few, kind="spectral" if few else "refined")  # type: ignore[arg-type]
        average.train(few is not None)

        def read(x: Tensor, edges: Tensor) -> Tensor:
            pairs = x.new_zeros(1, n, n)
            pairs[0, edges[0], edges[1]] = 1.0
            found = average(pairs)[0]
            return found + x.sum() if outputs == "scalars" else found[:, None] * x

        ring = torch.stack([torch.arange(n), torch.arange(1, n + 1) % n])
        if not few:  # a path with a triangle at its end, which has no symmetry, in place of a ring
            ring[:, -1] = torch.tensor([0, 2])
        both = torch.cat([ring, ring.flip(0)], 1)
        law = Invariance(GraphPermutation()) if outputs == "scalars" else Equivariance(GraphPermutation())
        return law, read, (draw.normal(n, 2), both)

    return case


@obeys("invariance under relabelling", _relabelled("scalars"), tolerance={torch.float32: 1e-2})
@obeys("equivariance of nodes", _relabelled("nodes"), tolerance={torch.float32: 1e-2})
@breaks("an order drawn at random in place of all", _relabelled("scalars", few=1))
class GraphAverage(nn.Module):
    """A network that depends on how nodes are numbered, made exactly invariant or equivariant to it.

    The mean of the network's outputs over the orders of `commutant.algebra.graph_frame`. A multilayer perceptron on
    flattened adjacencies becomes a universal invariant function of graphs; a message-passing network that is told
    the number of each node keeps the power which that gives. Puny et al., ICLR 2022, section 3.

    Args:
        net: called with `(frames, n, n)`, then `(frames, n, f)` and `(frames, n)` where features and a mask are given.
        outputs: `"scalars"` (one row a graph), `"nodes"` `(frames, n, ...)` or `"pairs"` `(frames, n, n, ...)`.
        kind: `"refined"` (one evaluation a graph for scalars) or `"spectral"` (the paper's).
        samples: orders drawn for each graph in training; evaluation takes all.
        max_frames: orders of a graph beyond which it is refused.

    Raises:
        InputError: as `commutant.algebra.graph_frame`, or outputs that do not fit.

    Example:
        >>> net = GraphAverage(nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 1)))
        >>> square = torch.tensor([[0.0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0]])
        >>> order = torch.tensor([2, 1, 3, 0])
        >>> bool(torch.allclose(net(square[None]), net(square[order][:, order][None])))
        True
    """

    def __init__(
        self,
        net: Callable[..., Any],
        outputs: GraphKind = "scalars",
        *,
        kind: Literal["refined", "spectral"] = "refined",
        samples: int | None = None,
        max_frames: int = 10_000,
    ) -> None:
        super().__init__()
        if outputs not in ("scalars", "nodes", "pairs"):
            raise InputError(f"outputs must be scalars, nodes or pairs, got {outputs!r}")
        if kind not in ("refined", "spectral"):
            raise InputError(f"kind must be refined or spectral, got {kind!r}")
        if samples is not None:
            whole_given("samples", samples)
        whole_given("max_frames", max_frames)
        self.net, self.outputs, self.kind = callable_given(net), outputs, kind
        self.samples, self.max_frames = samples, max_frames

    def forward(
        self,
        adjacency: Float[Tensor, "graphs n n"],
        features: Shaped[Tensor, "graphs n f"] | None = None,
        mask: Bool[Tensor, "graphs n"] | None = None,
    ) -> Shaped[Tensor, "graphs ..."]:
        """The mean over orders; arguments as `commutant.algebra.graph_frame` takes them."""
        one = self.outputs == "scalars" and self.kind == "refined"
        frame = graph_frame(adjacency, features, mask=mask, kind=self.kind, invariant=one, max_frames=self.max_frames)  # type: ignore[arg-type]
        if mask is not None:
            adjacency = torch.where(mask[:, :, None] & mask[:, None, :], adjacency, 0.0)
            features = None if features is None else torch.where(mask[..., None], features, 0)
        if self.training and self.samples is not None:
            frame = frame.sample(self.samples)
        seen = [frame.canonicalize(adjacency, "pairs")]
        seen += [frame.canonicalize(value) for value in (features, mask) if value is not None]
        out = self.net(*seen)
        if not isinstance(out, Tensor) or not out.is_floating_point():
            raise InputError(f"the network must return one tensor of real numbers, got {type(out).__name__}")
        if not out.dim() or len(out) != len(frame):
            raise InputError(f"the network must return {len(frame)} rows, one an order, got shape {tuple(out.shape)}")
        return frame.pool(frame.restore(out, self.outputs))

    def extra_repr(self) -> str:
        return f"outputs={self.outputs}, kind={self.kind}"
