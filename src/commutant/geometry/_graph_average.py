"""Frame averaging over the orders of the nodes of a graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from .._checks import one_of, whole
from .._errors import InputError
from ..algebra import GraphKind, graph_frame
from ..laws import breaks, obeys
from ._arguments import callable_given
from ._law_cases import SINGLE_PRECISION, average_of_graphs


@obeys(
    "invariance under relabeling",
    lambda draw: average_of_graphs(GraphAverage, draw, "scalars"),
    tolerance=SINGLE_PRECISION,
)
@obeys("equivariance of nodes", lambda draw: average_of_graphs(GraphAverage, draw, "nodes"), tolerance=SINGLE_PRECISION)
@breaks(
    "an order drawn at random in place of all", lambda draw: average_of_graphs(GraphAverage, draw, "scalars", samples=1)
)
class GraphAverage(nn.Module):
    """Network on graphs with numbered nodes, made exactly invariant or equivariant to node permutations.

    It returns the mean of the network's outputs over the node orders of `commutant.algebra.graph_frame`. A multilayer
    perceptron on flattened adjacencies becomes a universal invariant function of graphs. A message-passing network that
    reads the number of each node keeps its extra expressive power. Puny et al., ICLR 2022, section 3.

    Args:
        net: Module called with adjacencies `(frames, n, n)`, then features `(frames, n, f)` and a mask `(frames, n)`
            if they are given.
        outputs: Kind of the output: `"scalars"` (one row per graph), `"nodes"` `(frames, n, ...)` or `"pairs"`
            `(frames, n, n, ...)`.
        kind: Kind of frame: `"refined"` (one evaluation per graph for scalars) or `"spectral"` (as in the paper).
        samples: Number of orders drawn per graph in training; evaluation uses all.
        max_frames: Largest number of orders of a graph; graphs with more raise an error.

    Raises:
        InputError: If an argument is unknown, `commutant.algebra.graph_frame` rejects a graph, or the shapes of outputs
            are wrong.

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
        one_of("outputs", outputs, ("scalars", "nodes", "pairs"))
        one_of("kind", kind, ("refined", "spectral"))
        if samples is not None:
            whole("samples", samples)
        whole("max_frames", max_frames)
        self.net, self.outputs, self.kind = callable_given(net), outputs, kind
        self.samples, self.max_frames = samples, max_frames

    def forward(
        self,
        adjacency: Float[Tensor, "graphs n n"],
        features: Shaped[Tensor, "graphs n f"] | None = None,
        mask: Bool[Tensor, "graphs n"] | None = None,
    ) -> Shaped[Tensor, "graphs ..."]:
        """Return the mean over orders.

        Args:
            adjacency: Symmetric adjacency matrices, `(graphs, n, n)`.
            features: Features of the nodes, `(graphs, n, f)`.
            mask: True for valid nodes, `(graphs, n)`.
        """
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
            raise InputError(f"the network must return {len(frame)} rows, one per order, got shape {tuple(out.shape)}")
        return frame.pool(frame.restore(out, self.outputs))

    def extra_repr(self) -> str:
        return f"outputs={self.outputs}, kind={self.kind}"
