"""Derivation of groups from traces: walk the graphs, read off the free axes, and find which group depends on which."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, zip_longest

from torch import Tensor, nn

from . import _rules_indexing, _rules_pointwise, _rules_reshaping, _rules_sums  # noqa: F401  (register the rules)
from ._axes import Axis, freeze, unify
from ._labels import AxisLabel, Factor
from ._storage import storage_of
from ._trace import Source, Trace
from ._walk import PARAMETER, WEIGHTS, Events, Labels, Stacked, Value, collapse, constant, fixed, walk


@dataclass
class Derived:
    """Groups of a network and their action on its parameters, before verification."""

    axes: dict[str, tuple[AxisLabel, ...]]
    sizes: dict[str, int]
    parents: dict[str, tuple[str, ...]]
    frozen: dict[tuple[str, int], str]
    unknown: dict[str, str] = field(default_factory=dict)
    reads: dict[str, tuple[AxisLabel, ...]] = field(default_factory=dict)
    summed: frozenset[tuple[str, int]] = frozenset()
    idle: dict[str, tuple[str, ...]] = field(default_factory=dict)
    equal_parts: tuple[tuple[AxisLabel, ...], ...] = ()


def derive(model: nn.Module, traces: Sequence[Trace]) -> Derived:
    """Return the permutation symmetries that every trace allows."""
    state = {k: v for k, v in model.state_dict(keep_vars=True).items() if isinstance(v, Tensor)}
    own = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
    atoms: dict[tuple[object, ...], tuple[Axis, ...]] = {}

    def of(name: str) -> tuple[Axis, ...]:
        """Return the axes of a tensor of the module; names of the same tensor share them."""
        tensor = own[name]
        place = storage_of(tensor)
        if place not in atoms:
            whole = not (tensor.is_floating_point() or tensor.is_complex())
            atoms[place] = tuple(fixed(n, "integers") if whole or name not in state else Axis(n) for n in tensor.shape)
        return atoms[place]

    events = Events()
    for key in state:
        events.tensors.append(of(key) if key in own else ())
    for traced in traces:
        placeholders = [node for node in traced.module.graph.nodes if node.op == "placeholder"]
        for node, source in zip(placeholders, traced.sources, strict=True):
            node.meta[WEIGHTS] = source.kind in ("parameter", "buffer")
            node.meta[PARAMETER] = source.value if source.kind == "parameter" else None
        starts = [_start(source, of, traced.written) for source in traced.sources]
        result = walk(traced.module.graph, starts, events)
        outputs = result if isinstance(result, tuple) else (result,)
        for axes in _visible(tuple(traced.returned(outputs))):
            for axis in axes:
                freeze(axis, "an axis of the output")
        held = {source.name: start for source, start in zip(traced.sources, starts, strict=True)}
        for output, name in zip(outputs, traced.written, strict=False):
            if name is not None:
                for axes in _visible(output):
                    _keep(axes, held.get(name), name)
    labeled = {key: of(key) for key in state if key in own}
    for axes in labeled.values():
        for axis in axes:
            for leaf in axis.leaves():
                if not leaf.used:
                    leaf.frozen = leaf.frozen or "not used by the example"
    names = _names(labeled)
    parents = _parents(names, labeled, events)
    acts = {key: tuple(_label(a, names) for a in labeled.get(key, ())) for key in state}
    for key, value in state.items():
        if key not in labeled:
            acts[key] = tuple(AxisLabel(((Factor(n),),)) for n in value.shape)
    frozen = {
        (key, i): next(iter(leaf.frozen for leaf in axis.leaves() if leaf.frozen), "one entry")
        for key, labels in labeled.items()
        for i, axis in enumerate(labels)
        if not any(acts[key][i].groups())
    }
    own_nodes = {node.name for node in traces[0].module.graph.nodes}
    reads = {node: tuple(_label(a, names) for a in axes) for node, axes in events.read.items() if node in own_nodes}
    reads = {node: labels for node, labels in reads.items() if any(any(label.groups()) for label in labels)}
    sizes = {name: leaf.size for leaf, name in names.items()}
    summed = {id(axis) for axis in events.summed}
    over = frozenset((key, i) for key, axes in labeled.items() for i, axis in enumerate(axes) if id(axis) in summed)
    parts = moving(tuple(dict.fromkeys(_label(axis, names) for axis in own)) for own in _equal_parts(events))
    return Derived(acts, sizes, parents, frozen, dict(events.unknown), reads, over, _idle(own, acts, traces), parts)


def moving(parts: Iterable[tuple[AxisLabel, ...]]) -> tuple[tuple[AxisLabel, ...], ...]:
    """Return the tuples of two or more labels of which at least one moves, without duplicates."""
    return tuple(dict.fromkeys(own for own in parts if len(own) > 1 and any(any(label.groups()) for label in own)))


def _equal_parts(events: Events) -> Iterator[list[Axis]]:
    """Yield the parts of each axis that is cut into equal parts, as by `chunk`, or in half."""
    pieces: dict[int, dict[int, list[Axis]]] = {}
    for whole, parts, taken in events.cuts:
        sizes = [part.size for part in parts]
        shorter_last = len(parts) > 2 and len(set(sizes[:-1])) == 1 and sizes[-1] < sizes[0]
        if len(parts) > 1 and (max(sizes) - min(sizes) <= 1 or shorter_last):
            yield list(parts)
        for part in taken:
            pieces.setdefault(id(whole.find()), {}).setdefault(part.size, []).append(part)
    for found in pieces.values():
        yield from found.values()


def _idle(
    own: Mapping[str, Tensor], acts: Mapping[str, tuple[AxisLabel, ...]], traces: Sequence[Trace]
) -> dict[str, tuple[str, ...]]:
    """Return the entries that no trace reads, and the groups that they may carry judging by their shapes."""
    used = {storage_of(own[name]) for traced in traces for name in traced.used() if name in own}
    fits: dict[int, set[str]] = {}
    for labels in acts.values():
        for label in labels:
            for group in label.groups():
                fits.setdefault(label.size, set()).add(group)
    found = {
        key: {group for n in own[key].shape for group in fits.get(n, ())}
        for key in acts
        if key in own and storage_of(own[key]) not in used
    }
    return {key: tuple(sorted(groups)) for key, groups in found.items() if groups}


def _keep(axes: Sequence[Axis], held: Value, name: str) -> None:
    """Tie the axes of a value to the axes of the tensor of the module that it is written into."""
    own = held.axes if isinstance(held, Labels) else ()
    for axis, other in zip_longest(axes, own[-len(axes) :] if axes else ()):
        if other is None:
            freeze(axis, f"what is written into {name}")
        else:
            unify(axis, other, f"what is written into {name}")


def _start(source: Source, of: object, written: Sequence[str | None] = ()) -> Value:
    """Return the labels of a placeholder of the graph."""
    value = source.value
    if source.kind in ("parameter", "buffer"):
        return Labels(of(source.name))  # type: ignore[operator]
    if not isinstance(value, Tensor):
        return None
    if source.kind == "input":
        return Labels(tuple(fixed(n, "an axis of the input") for n in value.shape))
    return constant(value, source.name in written)


def _visible(value: Value) -> Iterator[tuple[Axis, ...]]:
    """Yield the axes of every tensor in an output."""
    if isinstance(value, Stacked):
        value = collapse(value, "an axis of the output")
    if isinstance(value, Labels):
        yield value.axes
        if value.points_to is not None:
            yield (value.points_to,)
    elif isinstance(value, tuple):
        for part in value:
            yield from _visible(part)


def _names(labeled: Mapping[str, Sequence[Axis]]) -> dict[Axis, str]:
    """Name each free leaf after the module in which it first occurs, outputs before inputs."""
    names: dict[Axis, str] = {}
    taken: set[str] = set()
    for position in range(max((len(axes) for axes in labeled.values()), default=0)):
        for key, axes in labeled.items():
            if position >= len(axes):
                continue
            leaves = list(dict.fromkeys(axes[position].leaves()))
            for i, leaf in enumerate(leaves):
                if leaf in names or leaf.frozen is not None or leaf.size <= 1:
                    continue
                name = next(n for n in _proposals(key, i if len(leaves) > 1 else None) if n not in taken)
                names[leaf] = name
                taken.add(name)
    order = {
        leaf: i
        for i, leaf in enumerate(dict.fromkeys(leaf for a in labeled.values() for x in a for leaf in x.leaves()))
    }
    return dict(sorted(names.items(), key=lambda item: order[item[0]]))


def _proposals(key: str, number: int | None) -> Iterator[str]:
    """Yield names for a group that first occurs in an entry: its module, the entry, then numbered names."""
    ending = "" if number is None else f"[{number}]"
    yield (key.rpartition(".")[0] or key) + ending
    yield key + ending
    for i in count(2):
        yield f"{key}{ending}#{i}"


def _label(axis: Axis, names: Mapping[Axis, str]) -> AxisLabel:
    return AxisLabel(tuple(tuple(_factors(block, names)) for block in _blocks([axis])) or ((Factor(axis.size),),))


def _blocks(block: Sequence[Axis]) -> list[list[Axis]]:
    """Expand a product of terms into a direct sum of products whose outermost factors are leaves."""
    if not block:
        return []
    outer, *rest = block
    outer = outer.find()
    if outer.join == "sum":
        return [b for part in outer.parts for b in _blocks([part, *rest])]
    if outer.join == "product":
        return _blocks([*outer.parts, *rest])
    return [[outer, *rest]]


def _factors(block: Sequence[Axis], names: Mapping[Axis, str]) -> Iterator[Factor]:
    for axis in block:
        axis = axis.find()
        if axis.join == "product":
            yield from _factors(axis.parts, names)
        elif axis.join == "sum":
            inner = _label(axis, names)
            yield Factor(axis.size, label=inner if any(inner.groups()) else None)
        elif axis.size != 1 or len(block) == 1:
            yield Factor(axis.size, names.get(axis))


def _paths(axis: Axis) -> list[list[int]]:
    """Return the leaves of each product in the term, as identifiers."""
    axis = axis.find()
    if axis.join is None:
        return [[id(axis)]]
    if axis.join == "sum":
        return [path for part in axis.parts for path in _paths(part)]
    found: list[list[int]] = [[]]
    for part in axis.parts:
        found = [left + right for left in found for right in _paths(part)]
    return found


def _parents(
    names: Mapping[Axis, str], labeled: Mapping[str, Sequence[Axis]], events: Events
) -> dict[str, tuple[str, ...]]:
    """Return, for each group, the groups on whose index its permutation may depend: d in S_d wr S_H.

    The permutation of d may depend on the index along H under three conditions. In every tensor, an entry along d has
    one index along H. No operation moves values along H, or sums over H, while d stays. No sum over d leaves two axes
    H.
    """
    free = {id(leaf): name for leaf, name in names.items()}
    seen: dict[tuple[int, ...], list[list[list[int]]]] = {}

    def paths(axes: Iterable[Axis]) -> list[list[list[int]]]:
        key = tuple(id(axis.find()) for axis in axes)
        if key not in seen:
            seen[key] = [[[n for n in path if n in free] for path in _paths(axis)] for axis in axes]
        return seen[key]

    candidates: set[tuple[int, int]] = set()
    for axes in labeled.values():
        flat = {n for axis in paths(axes) for path in axis for n in path}
        candidates |= {(d, h) for d in flat for h in flat if d != h}
    tensors: dict[tuple[int, ...], tuple[Axis, ...]] = {}
    for axes in events.tensors:
        tensors.setdefault(tuple(id(axis.find()) for axis in axes), axes)
    for axes in tensors.values():
        own = paths(axes)
        flat = {n for axis in own for path in axis for n in path}
        candidates -= {(d, h) for d, h in candidates if d in flat and not _indexed(d, h, own)}
    for along, axes in events.mixed:
        mixed = {n for axis in paths(along) for path in axis for n in path}
        stays = {n for axis in paths(axes) for path in axis for n in path} - mixed
        candidates -= {(d, h) for d, h in candidates if h in mixed and d in stays}
    for axis, result in events.contracted:
        gone = {n for path in paths([axis])[0] for n in path}
        left = [n for own in paths(result) for n in {n for path in own for n in path}]
        candidates -= {
            (d, h)
            for d, h in candidates
            if (d in gone and left.count(h) > 1) or (h in gone and d not in gone and d in left)
        }
    for axis, letters in events.summed_next_to:  # a sum over d while two axes H are present
        gone = {n for path in paths([axis])[0] for n in path}
        there = [n for own in paths(letters) for n in {n for path in own for n in path}]
        candidates -= {(d, h) for d, h in candidates if d in gone and there.count(h) > 1}
    candidates -= {(d, h) for d, h in candidates if (h, d) in candidates and _first(free, d, h)}
    found: dict[str, tuple[str, ...]] = {}
    for d, name in free.items():
        found[name] = tuple(free[h] for h in free if (d, h) in candidates)
    while True:  # a child must be allowed to depend on everything that its parent depends on
        kept = {d: tuple(h for h in hs if set(found[h]) <= set(hs)) for d, hs in found.items()}
        if kept == found:
            return found
        found = kept


def _first(free: Mapping[int, str], d: int, h: int) -> bool:
    """Return whether d comes before h: of two groups that could depend on each other, the earlier is the outer one."""
    order = list(free)
    return order.index(d) < order.index(h)


def _indexed(d: int, h: int, axes: list[list[list[int]]]) -> bool:
    """Return whether every entry of a tensor along d has one index along h."""
    holders = [(i, path) for i, axis in enumerate(axes) for path in axis if d in path]
    if all(path.count(h) == 1 and path.count(d) == 1 for _, path in holders):
        return True
    others = [i for i, axis in enumerate(axes) if any(h in path for path in axis)]
    return (
        len(holders) == 1
        and all(len(axis) == 1 for axis in axes)
        and len(others) == 1
        and others[0] != holders[0][0]
        and axes[others[0]][0].count(h) == 1
    )
