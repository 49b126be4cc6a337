"""Graphs of PyTorch Geometric as arguments: split into their attributes, and rebuilt for copied clouds."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor

from .._errors import InputError
from ..algebra import Clouds


def is_graph(value: Any) -> bool:
    """Return whether `value` is a `Data` or `Batch` of PyTorch Geometric.

    Raises:
        InputError: If it is a heterogeneous graph, whose attributes do not say which nodes are points.
    """
    module = sys.modules.get("torch_geometric.data")
    if module is None:
        return False
    if isinstance(value, module.HeteroData):
        raise InputError("a heterogeneous graph can't be averaged; pass a Data or tensors")
    return isinstance(value, module.Data)


def graph_fields(data: Any) -> dict[str, Any]:
    """Return the tensors, numbers and strings of a graph by name, with `batch` added for a single graph.

    Lists are left out, as they cannot be copied. `ptr` and the number of nodes are computed again for the copies.
    """
    left_out = ("ptr", "num_nodes")
    fields = {k: v for k, v in data.to_dict().items() if k not in left_out and not isinstance(v, list | tuple | dict)}
    if not isinstance(pos := fields.get("pos"), Tensor):
        raise InputError(f"a graph needs a tensor pos, the positions of its nodes; it has {', '.join(fields)}")
    if fields.get("batch") is None:
        fields["batch"] = torch.zeros(len(pos), dtype=torch.long, device=pos.device)
    return fields


def number_of_graphs(data: Any) -> int | None:
    """Return the number of graphs in a batch, empty ones included; None for a single graph."""
    return getattr(data, "_num_graphs", None)


def graph_with(data: Any, fields: dict[str, Any], clouds: Clouds | None) -> Any:
    """Return a batch of graphs of the class of `data`, with the attributes `fields` and the layout `clouds`."""
    if clouds is None:
        return data
    from torch_geometric.data import Batch

    base = next(c for c in type(data).__mro__ if not (issubclass(c, Batch) or c is Batch))
    batch = Batch(_base_cls=base)
    for name, value in fields.items():
        batch[name] = value
    sizes = torch.bincount(clouds.index, minlength=clouds.number)  # type: ignore[arg-type]
    batch.ptr = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
    batch._num_graphs = clouds.number
    return batch
