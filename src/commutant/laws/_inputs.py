"""Inputs of models as trees of tensors: tuples, dicts, ragged sets and PyG data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any, NamedTuple, TypeAlias

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from .._checks import check_generator
from .._errors import InputError

Inputs: TypeAlias = Any
"""A tensor, a tuple of positional arguments, a dict of keyword arguments, `Sets`, or a PyG `Data`."""


class Sets(NamedTuple):
    """Ragged batch of sets, passed to a function as `f(x, index)`, the signature of PyG aggregations."""

    x: Shaped[Tensor, "elements *features"]
    """Elements of all sets, `(elements, features)`."""
    index: Int[Tensor, " elements"]  # type: ignore[assignment]  # a PyG name that hides tuple.index
    """Index of the set of each element, sorted, `(elements,)`."""


def is_graph_data(x: Inputs) -> bool:
    """Return whether x is a PyG `Data` or `Batch`, without importing PyG."""
    return any(c.__module__.startswith("torch_geometric.data") for c in type(x).__mro__)


def is_hetero_data(x: Inputs) -> bool:
    """Return whether x is a PyG `HeteroData` or a batch of them."""
    return is_graph_data(x) and hasattr(x, "node_types")


def named_tensors(x: Inputs) -> Iterator[tuple[str, Tensor]]:
    """Return an iterator over the tensors of an input or output, with names that are valid Python."""
    return ((name, leaf) for name, leaf in named_leaves(x) if isinstance(leaf, Tensor))


def named_leaves(x: Inputs, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield all leaves of a tree with their names, tensors or not."""
    parts: list[tuple[str, Any]]
    if isinstance(x, Tensor):
        parts = []
    elif isinstance(x, tuple) and hasattr(x, "_fields"):
        parts = [(f"{prefix}.{field}" if prefix else field, getattr(x, field)) for field in x._fields]
    elif isinstance(x, tuple | list):
        parts = [(f"{prefix}[{i}]" if prefix else f"x{i}", part) for i, part in enumerate(x)]
    elif is_graph_data(x):
        parts = [(f"{prefix}.{key}" if prefix else key, x[key]) for key in x.keys()]  # noqa: SIM118  (no dict)
    elif isinstance(x, dict):
        named = [key if isinstance(key, str) and not prefix else f"{prefix}[{key!r}]" for key in x]
        parts = list(zip(named, x.values(), strict=True))
    elif is_dataclass(x) and not isinstance(x, type):
        parts = [(f"{prefix}.{f.name}" if prefix else f.name, getattr(x, f.name)) for f in fields(x)]
    else:
        parts = []
    if not parts:
        yield prefix or "x", x
    for name, part in parts:
        yield from named_leaves(part, name)


def map_tensors(function: Callable[[str, Tensor], Tensor], x: Inputs, name: str = "") -> Inputs:
    """Return x with every tensor replaced by `function(name, tensor)`.

    Args:
        function: Function of the name of a tensor (its key or position) and the tensor, which returns the new tensor.
        x: Tensor, tuple, list, dict, dataclass or PyG `Data`.
        name: Name of x if it is a tensor; "x" by default.
    """
    if isinstance(x, Tensor):
        return function(name or "x", x)
    if isinstance(x, tuple) and hasattr(x, "_fields"):
        return type(x)(*(map_tensors(function, p, f) for f, p in zip(x._fields, x, strict=True)))
    if isinstance(x, tuple | list):
        parts = [map_tensors(function, part, str(i)) for i, part in enumerate(x)]
        return tuple(parts) if isinstance(x, tuple) else parts
    if is_graph_data(x):
        out = x.clone()
        for key in x.keys():  # noqa: SIM118
            if isinstance(x[key], Tensor):
                out[key] = function(key, x[key])
        return out
    if isinstance(x, dict):
        return {key: map_tensors(function, part, str(key)) for key, part in x.items()}
    if is_dataclass(x) and not isinstance(x, type):
        changes = {f.name: map_tensors(function, getattr(x, f.name), f.name) for f in fields(x) if f.init}
        return replace(x, **changes)
    return x


def call(f: Callable[..., Any], x: Inputs) -> Any:
    """Call f with the positional arguments of a tuple, the keyword arguments of a dict, or x as one argument."""
    if isinstance(x, tuple):
        return f(*x)
    if isinstance(x, dict):
        return f(**x)
    return f(x)


def batch_size(x: Inputs) -> int:
    """Return the number of samples in a batch."""
    if isinstance(x, Sets):
        return int(x.index.max()) + 1 if x.index.numel() else 0
    if is_graph_data(x):
        return int(getattr(x, "num_graphs", 1))
    sizes = {tensor.shape[0] for _, tensor in named_tensors(x) if tensor.dim()}
    if len(sizes) != 1:
        raise InputError(f"all tensors of a batch must have the same leading size, got leading sizes {sorted(sizes)}")
    return sizes.pop()


def take_samples(x: Inputs, samples: Tensor) -> Inputs:
    """Return the samples of a batch at the given positions, in that order."""
    if isinstance(x, Sets):
        rows = [torch.nonzero(x.index == s).flatten() for s in samples.tolist()]
        lengths = torch.tensor([len(r) for r in rows], device=x.index.device)
        where = torch.cat(rows) if rows else x.index.new_empty(0)
        return Sets(x.x[where], torch.repeat_interleave(lengths).to(x.index.dtype))
    if is_graph_data(x):
        graphs = [x.get_example(i) for i in samples.tolist()]
        return type(x).from_data_list(graphs)
    return map_tensors(lambda _, tensor: tensor[samples.to(tensor.device)] if tensor.dim() else tensor, x)


def source_of(generator: torch.Generator | None) -> torch.Generator:
    """Return the generator that was given, or a new one seeded with 0."""
    check_generator(generator)
    if generator is None:
        return torch.Generator().manual_seed(0)
    if generator.device.type != "cpu":
        raise InputError(f"generator must be a torch.Generator on the CPU, got one on {generator.device}")
    return generator


def parse_input(spec: str, dtype: torch.dtype = torch.float32) -> Callable[[torch.Generator], Inputs]:
    """Return a function that draws random inputs as described by a string.

    A tensor is described by sizes or ranges of sizes, as in `8x100x3` and `4x2..50x3`. Other forms are `sets:4x10x8`
    (sets, elements, features), `graph:12x8` (nodes, features) and `ids:100:4x16` (token ids below 100).

    Args:
        spec: Description of the input in this format.
        dtype: Dtype of real-valued tensors.

    Example:
        >>> draw = parse_input("2x3..5x4")
        >>> draw(torch.Generator().manual_seed(0)).shape[::2]
        torch.Size([2, 4])
    """
    if not isinstance(spec, str):
        raise InputError(f"an input is described by a string such as '8x100x3', got {type(spec).__name__}")
    kind, _, rest = spec.rpartition(":")
    try:
        ranges = [tuple(int(v) for v in part.split("..")) for part in rest.split("x")]
        if any(len(r) > 2 or r[0] < 0 or r[-1] < r[0] for r in ranges):
            raise ValueError
        kind, _, vocabulary = kind.partition(":")
        if kind not in ("", "sets", "graph", "ids") or (kind == "sets") > (len(ranges) > 2):
            raise ValueError
        high = int(vocabulary) if kind == "ids" else 0
        if (kind == "ids") != (high > 0) or (kind != "ids" and vocabulary):
            raise ValueError
    except (ValueError, AttributeError):
        raise InputError(
            f"input {spec!r} is not understood; expected sizes such as 8x100x3 or 8x2..100x3, "
            "or sets:SETSxELEMENTSxFEATURES, graph:NODESxFEATURES, ids:VOCABULARY:SHAPE"
        ) from None

    def draw(generator: torch.Generator) -> Inputs:
        def uniform(low: int, top: int) -> int:
            return int(torch.randint(low, top + 1, (), generator=generator))

        shape = [uniform(r[0], r[-1]) for r in ranges]
        if kind == "ids":
            return torch.randint(0, high, shape, generator=generator)
        if kind == "sets":
            low = ranges[1][0] if len(ranges[1]) == 2 else 1
            lengths = torch.tensor([uniform(min(low, ranges[1][-1]), ranges[1][-1]) for _ in range(shape[0])])
            values = torch.randn(int(lengths.sum()), *shape[2:], generator=generator)
            return Sets(values.to(dtype), torch.repeat_interleave(lengths))
        values = torch.randn(shape, generator=generator).to(dtype)
        if kind == "graph":
            edges = torch.rand(shape[0], shape[0], generator=generator).triu(1) < min(1.0, 3 / max(shape[0], 1))
            return values, (edges | edges.t()).nonzero().t().contiguous()
        return values

    return draw
