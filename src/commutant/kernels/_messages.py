"""Messages along the edges of many small graphs, with dropout and without a tensor of messages or masks."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .._errors import InputError
from . import _native

_SIZE = 1 << 32


def edge_messages(
    node: Float[Tensor, "nodes channels"],
    edge: Float[Tensor, "edges channels"],
    ends: Int[Tensor, "edges 2"],
    node_starts: Int[Tensor, " models_and_one"],
    edge_starts: Int[Tensor, " models_and_one"],
    dropout: int | float = 0.0,
) -> Float[Tensor, "nodes channels"]:
    r"""Return the sums $\tilde n_v + \sum_{e = uv} \mathrm{relu}(\tilde n_u + \tilde m_e)$ of GINE after dropout.

    Edges are undirected and join two different nodes of one model. On a CPU in float32 the sums run in C if there is a
    compiler. A hash of a random seed and the place of an entry decides whether it is dropped, which the backward pass
    computes again.

    Args:
        node: Nodes of all models, one model after the other, `(nodes, channels)`.
        edge: Edges in the same order, `(edges, channels)`.
        ends: Rows of the two nodes of each edge, int64, `(edges, 2)`.
        node_starts: First node of each model, and the number of nodes, int64, `(models + 1,)`.
        edge_starts: The same for edges.
        dropout: Share of entries to drop, in [0, 1).

    Raises:
        InputError: For shapes that do not fit together, ends that are no nodes, or another share.
    """
    shapes = node.dim() == edge.dim() == 2 and node.shape[1] == edge.shape[1] and node.dtype == edge.dtype
    if not shapes or tuple(ends.shape) != (len(edge), 2) or node_starts.shape != edge_starts.shape:
        raise InputError(
            "node (nodes, channels), edge (edges, channels) of one dtype, ends (edges, 2) and starts (models + 1) must "
            f"fit together, got {tuple(node.shape)}, {tuple(edge.shape)}, {tuple(ends.shape)}, "
            f"{tuple(node_starts.shape)} and {tuple(edge_starts.shape)}"
        )
    if not 0 <= dropout < 1:
        raise InputError(f"dropout must be in [0, 1), got {dropout!r}")
    cut = min(round(dropout * _SIZE), _SIZE - 1)
    seeds = (
        torch.randint(_SIZE, (2,), device=node.device) if cut else torch.zeros(2, dtype=torch.long, device=node.device)
    )
    if torch.autograd.forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active():  # type: ignore[attr-defined]
        return _messages(node, edge, ends, seeds, cut)
    return torch.ops.commutant.edge_messages(node, edge, ends, node_starts, edge_starts, seeds, cut)


def _mixed(x: Tensor) -> Tensor:
    """Return a hash of integers below 2^32 (the last step of MurmurHash3)."""
    x = x ^ (x >> 16)
    x = _times(x, 0x85EBCA6B)
    x = x ^ (x >> 13)
    x = _times(x, 0xC2B2AE35)
    return x ^ (x >> 16)


def _times(x: Tensor, factor: int) -> Tensor:
    """Return the product modulo 2^32, of halves, since the product of two 32-bit numbers may not fit into int64."""
    low, high = x & 0xFFFF, x >> 16
    return (low * factor + ((high * factor & 0xFFFF) << 16)) & 0xFFFFFFFF


def _kept(x: Tensor, seed: Tensor, cut: int) -> Tensor:
    if not cut:
        return x
    place = torch.arange(x.numel(), device=x.device).view(x.shape) & 0xFFFFFFFF
    kept = _mixed(_mixed(place) ^ seed) >= cut
    return x * (kept.to(x.dtype) * (_SIZE / (_SIZE - cut)))


def _messages(node: Tensor, edge: Tensor, ends: Tensor, seeds: Tensor, cut: int) -> Tensor:
    """Return the sums by PyTorch alone, which any transform can differentiate."""
    node, edge = _kept(node, seeds[0], cut), _kept(edge, seeds[1], cut)
    a, b = ends.unbind(1)
    to_b, to_a = ((node.index_select(0, end) + edge).relu() for end in (a, b))
    return node.index_add(0, b, to_b).index_add(0, a, to_a)


def _in_c(node: Tensor, *others: Tensor) -> bool:
    """Return whether the kernel in C can take these tensors."""
    fits = all(t.device.type == "cpu" and t.dtype == torch.float32 for t in (node, *others))
    return fits and bool(node.numel()) and _native.library() is not None


_SCHEMA = "(Tensor node, Tensor edge, Tensor ends, Tensor node_starts, Tensor edge_starts, Tensor seeds, int cut)"


@torch.library.custom_op("commutant::edge_messages", mutates_args=(), schema=f"{_SCHEMA} -> Tensor")
def _forward(
    node: Tensor, edge: Tensor, ends: Tensor, node_starts: Tensor, edge_starts: Tensor, seeds: Tensor, cut: int
) -> Tensor:
    if node.device.type == "cpu":
        _check_ends(node, edge, ends, node_starts, edge_starts)
    if not _in_c(node, edge):
        return _messages(node, edge, ends, seeds, cut)
    total = node.new_empty(node.shape)
    tensors = (*(t.contiguous() for t in (node, edge, ends, node_starts, edge_starts, seeds)), total)
    _native.run("messages", "forward", tensors, (cut, node.shape[1]), len(node_starts) - 1, node.numel(), node_starts)
    return total


@_forward.register_fake
def _(node: Tensor, *_: Any) -> Tensor:
    return node.new_empty(node.shape)


@torch.library.custom_op(
    "commutant::edge_messages_backward",
    mutates_args=(),
    schema=f"(Tensor gradient, {_SCHEMA[1:]} -> (Tensor, Tensor)",
)
def _backward(
    gradient: Tensor,
    node: Tensor,
    edge: Tensor,
    ends: Tensor,
    node_starts: Tensor,
    edge_starts: Tensor,
    seeds: Tensor,
    cut: int,
) -> tuple[Tensor, Tensor]:
    if not _in_c(node, edge, gradient):
        return _gradients(gradient, node, edge, ends, seeds, cut)
    d_node, d_edge = node.new_empty(node.shape), edge.new_empty(edge.shape)
    given = (node, edge, ends, node_starts, edge_starts, seeds, gradient)
    tensors = (*(t.contiguous() for t in given), d_node, d_edge)
    _native.run("messages", "backward", tensors, (cut, node.shape[1]), len(node_starts) - 1, node.numel(), node_starts)
    return d_node, d_edge


@_backward.register_fake
def _(gradient: Tensor, node: Tensor, edge: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return node.new_empty(node.shape), edge.new_empty(edge.shape)


def _check_ends(node: Tensor, edge: Tensor, ends: Tensor, node_starts: Tensor, edge_starts: Tensor) -> None:
    """Check indices before C reads them: an edge joins two nodes of its own model."""
    for name, starts, rows in (("node_starts", node_starts, len(node)), ("edge_starts", edge_starts, len(edge))):
        whole = starts.dtype == torch.int64 and starts.dim() == 1 and len(starts) >= 1
        if not whole or int(starts[0]) or int(starts[-1]) != rows or bool((starts.diff() < 0).any()):
            raise InputError(f"{name} must be ascending int64 from 0 to {rows}, got {starts.tolist()!r:.60}")
    model = torch.repeat_interleave(edge_starts.diff(), output_size=len(edge))[:, None]
    fits = ends.dtype == torch.int64
    if not fits or bool(((ends < node_starts[model]) | (ends >= node_starts[model + 1])).any()):
        raise InputError("ends must be int64, and an edge must join two nodes of its own model")
    if bool((ends[:, 0] == ends[:, 1]).any()):
        raise InputError("an edge must join two different nodes, got a self-loop")


def _gradients(
    gradient: Tensor, node: Tensor, edge: Tensor, ends: Tensor, seeds: Tensor, cut: int
) -> tuple[Tensor, Tensor]:
    """Return the gradients of nodes and edges by PyTorch alone."""
    kept = _kept(node, seeds[0], cut), _kept(edge, seeds[1], cut)
    a, b = ends.unbind(1)
    along = gradient.index_select(0, b) * (kept[0].index_select(0, a) + kept[1] > 0)
    back = gradient.index_select(0, a) * (kept[0].index_select(0, b) + kept[1] > 0)
    d_node = gradient.index_add(0, a, along).index_add(0, b, back)
    return _kept(d_node, seeds[0], cut), _kept(along + back, seeds[1], cut)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.cut = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    if torch.is_grad_enabled():  # second derivatives
        node, edge, ends, *_, seeds = ctx.saved_tensors
        found = _gradients(gradient, node, edge, ends, seeds, ctx.cut)
    else:
        found = torch.ops.commutant.edge_messages_backward(gradient, *ctx.saved_tensors, ctx.cut)
    return (*found, None, None, None, None, None)


_forward.register_autograd(_differentiate, setup_context=_keep)
