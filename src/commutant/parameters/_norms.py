"""Batch norms in a traced graph that directly follow a layer."""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx

from ._trace import Trace
from ._walk import arguments_of, name_of

_LAYERS = ("conv1d", "conv2d", "conv3d", "convolution", "linear")
_NORMS = ("batch_norm", "_native_batch_norm_legit_no_training", "native_batch_norm", "cudnn_batch_norm")


def batch_norm_pairs(traced: Trace) -> Iterator[tuple[str, str]]:
    """Yield `(norm, layer)`, names of modules, for each batch norm that is the only reader of a layer's output."""
    graph = traced.module.graph
    names: dict[object, str] = {}
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    for node, source in zip(placeholders, traced.sources, strict=True):
        if source.kind in ("parameter", "buffer") and len(node.users) == 1:
            names[node] = source.name
    for node in graph.nodes:
        given = _called(node, _NORMS)
        layer = given.get("input")
        own = _called(layer, _LAYERS) if isinstance(layer, fx.Node) and len(layer.users) == 1 else {}
        weight, gamma, bias = names.get(own.get("weight"), ""), names.get(given.get("weight"), ""), own.get("bias")
        norm, made = gamma.rpartition(".")[0], weight.rpartition(".")[0]
        fits = gamma == f"{norm}.weight" and weight == f"{made}.weight"
        if fits and not own.get("transposed") and (bias is None or names.get(bias) == f"{made}.bias"):
            yield norm, made


def _called(node: fx.Node, operators: tuple[str, ...]) -> dict[str, object]:
    """Return the arguments of a call of one of the operators; empty for any other node."""
    found = node.op == "call_function" and name_of(node.target).removeprefix("aten.") in operators
    return arguments_of(node) if found else {}
