"""The permutation symmetries of a network: derived from any module, verified, and readable."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import lgamma, log, prod
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from .._errors import InputError
from ._checkpoint import Checkpoint
from ._derive import Derived, derive, moving
from ._given import check_example, check_examples, check_module, check_state, check_tensors, kind_of
from ._kinds import Kinds, LinearSymmetry
from ._labels import AxisLabel, Factor
from ._norms import batch_norm_pairs
from ._refutation import verified
from ._returned import selecting
from ._storage import storage_of
from ._trace import Trace, as_arguments, trace
from ._verify import captured, difference, outputs

_LARGE = 5_000_000  # parameters above which the summary does not look for kinds by itself


@dataclass(frozen=True)
class PermutationSpec:
    """Which axes of which parameters may be permuted together without changing what a network computes.

    For every group g of size n and every permutation of n entries, permuting all axes that carry g leaves the function
    alone: f(pi(theta), x) = f(theta, x). Where a group has parents (the channels of a head have the heads), its
    permutation may differ for each index of the parents: a wreath product.

    Attributes:
        axes: for each entry of the state dict, what acts on each of its axes.
        sizes: entries of each group, outer groups before those that depend on them.
        parents: the groups on whose index each group's permutation may depend.
        frozen: why an axis `(entry, number)` that carries no group can't move.
        unknown_ops: operators without a rule, and the first node of each: they froze what they touched.
        error: the largest relative change of an output when everything is permuted at random, in float64, with
            parameters perturbed so that no zero or one hides a mistake; None where nothing was verified.
        how: how the module was traced, and what that leaves out.
        buffers: the entries that are buffers, such as running statistics: they are permuted, but are no weights.
        ties: entries that are the same tensor as an earlier one; a checkpoint may leave them out.
        reads: the activations that layers sum over, by node of the graph, and what acts on their axes.
        summed: the axes `(entry, number)` of weights that layers sum over: the others are filled by what comes before.
        idle: the entries that no example reads though their shape fits some groups, and those groups.
        equal_parts: the labels of the parts of an axis that is cut into equal parts, for each axis that is: their sizes
            have to stay equal where widths change; parts that are unequal now have to keep their sizes.
        graph: the traced module, for `activations`.
        other_graphs: the traces of further examples.
    """

    axes: dict[str, tuple[AxisLabel, ...]]
    sizes: dict[str, int]
    parents: dict[str, tuple[str, ...]]
    frozen: dict[tuple[str, int], str]
    unknown_ops: dict[str, str]
    error: float | None = None
    how: str = "by hand"
    buffers: frozenset[str] = frozenset()
    ties: dict[str, str] = field(default_factory=dict)
    reads: dict[str, tuple[AxisLabel, ...]] = field(default_factory=dict, repr=False)
    summed: frozenset[tuple[str, int]] = frozenset()
    idle: dict[str, tuple[str, ...]] = field(default_factory=dict)
    equal_parts: tuple[tuple[AxisLabel, ...], ...] = ()
    graph: Trace | None = field(default=None, repr=False, compare=False)
    other_graphs: tuple[Trace, ...] = field(default=(), repr=False, compare=False)

    @classmethod
    def from_module(
        cls,
        model: nn.Module,
        example_inputs: Any,
        *,
        outputs: Callable[[Any], Any] | None = None,
        verify: bool = True,
        seed: int = 0,
        also: Sequence[Any] = (),
    ) -> PermutationSpec:
        """Derive the symmetries of a module by tracing it, and verify them.

        Args:
            model: any module that runs on the example; on the `meta` device too, where nothing can be verified.
            example_inputs: a tensor, a tuple of positional arguments, or a mapping of keyword arguments, such as the
                output of a tokenizer. Use a batch of two or more.
            outputs: what of the model's output must stay as it is, such as `lambda out: out.logits`; by default all of
                it, hidden states and caches included.
            verify: permute at random and compare outputs in float64; a group that fails is frozen, with a warning.
            seed: of the permutations that verify.
            also: further examples, for models that take another path through their code on other inputs.

        Raises:
            InputError: the module can't be traced on the example, or an argument is of a wrong kind.

        Warns:
            UserWarning: a group was refuted, nothing could be verified, or other inputs may take other paths.

        Example:
            >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
            >>> spec = PermutationSpec.from_module(model, torch.randn(3, 4))
            >>> spec.sizes
            {'0': 8}
            >>> [str(label) for label in spec.axes["2.weight"]]
            ['2', '0']
        """
        check_module(model)
        check_example(example_inputs, "example_inputs")
        check_examples(also)
        if outputs is not None and not callable(outputs):
            raise InputError(f"outputs must be a function of the model's output, got {kind_of(outputs)}")
        with selecting(model, outputs) as left_out:
            traces = [trace(model, *as_arguments(example)) for example in (example_inputs, *also)]
        derived = derive(model, traces)
        how = "; ".join(dict.fromkeys([*(t.lost or t.how for t in traces), *left_out]))
        weights = {name for name, _ in model.named_parameters(remove_duplicate=False)}
        spec = cls(**_fields(derived), how=how, buffers=frozenset(set(derived.axes) - weights), ties=_ties(model),
                   graph=traces[0], other_graphs=tuple(traces[1:]))  # fmt: skip
        if words := spec._other_paths():
            warnings.warn(words, stacklevel=2)
        tensors = [v for v in model.state_dict().values() if isinstance(v, Tensor)]
        if not verify or any(t.is_meta for t in tensors):
            return spec
        return spec._verified(model, traces, torch.Generator().manual_seed(seed))

    @classmethod
    def from_axes(cls, axes: Mapping[str, Sequence[str | None]], state: Mapping[str, Tensor]) -> PermutationSpec:
        """A spec written by hand: for each entry of a state dict the group of each axis, or None.

        Raises:
            InputError: an entry that the state dict lacks, a wrong number of axes, or a group of two sizes.
        """
        check_state(axes, "axes")
        check_state(state, "state")
        check_tensors(state)
        sizes: dict[str, int] = {}
        labels: dict[str, tuple[AxisLabel, ...]] = {}
        if missing := sorted(set(axes) - set(state)):
            raise InputError(f"the state dict has no {missing[0]!r}")
        for key, value in state.items():
            groups = axes.get(key, (None,) * value.ndim)
            if isinstance(groups, str) or not all(isinstance(g, str | None) for g in groups):
                raise InputError(f"{key!r} must have a list of a group's name or None for each axis, got {groups!r}")
            if len(groups) != value.ndim:
                raise InputError(f"{key!r} has {value.ndim} axes, but {len(groups)} are labelled")
            for group, size in zip(groups, value.shape, strict=True):
                if group is not None and sizes.setdefault(group, size) != size:
                    raise InputError(f"group {group!r} has {sizes[group]} entries, but {size} in {key!r}")
            labels[key] = tuple(AxisLabel(((Factor(n, g),),)) for g, n in zip(groups, value.shape, strict=True))
        return cls(labels, sizes, {g: () for g in sizes}, {}, {})

    def _verified(self, model: nn.Module, traces: Sequence[Trace], generator: torch.Generator) -> PermutationSpec:
        return verified(self, model, traces, generator)

    def _other_paths(self) -> str | None:
        """Why other inputs may not allow what was found, and what to do; None where nothing says so."""
        if self.idle:
            entry = next(iter(self.idle))
            groups = sorted({g for own in self.idle.values() for g in own})
            named = ", ".join(groups[:4]) + (f" and {len(groups) - 4} more" if len(groups) > 4 else "")
            more = f" nor {len(self.idle) - 1} entries more" if len(self.idle) > 1 else ""
            return (
                f"the example does not read {entry!r}{more}, whose shapes fit the groups {named}: an input that does "
                "may not allow these permutations; give such inputs in also="
            )
        if any(t.branches for t in self.graphs) and not self.other_graphs and self.sizes:
            return (
                "the module branches on numbers that it computes, and its groups were found on the path of the example "
                "alone; give inputs that take the other paths in also="
            )
        return None

    def without(self, groups: Sequence[str], why: str = "frozen by hand") -> PermutationSpec:
        """The spec with some groups frozen.

        Raises:
            InputError: a group that the spec lacks.
        """
        gone = {groups} if isinstance(groups, str) else set(groups)
        if unknown := gone - self.sizes.keys():
            raise InputError(
                f"the spec has no group {min(unknown)!r}; its groups are {', '.join(self.sizes) or 'none'}"
            )
        axes, reads = (
            {key: tuple(label.without(gone) for label in labels) for key, labels in found.items()}
            for found in (self.axes, self.reads)
        )
        parts = (tuple(label.without(gone) for label in labels) for labels in self.equal_parts)
        frozen = self.frozen | {
            (key, i): why
            for key, labels in self.axes.items()
            for i, label in enumerate(labels)
            if any(label.groups()) and not any(axes[key][i].groups())
        }
        sizes = {g: n for g, n in self.sizes.items() if g not in gone}
        parents = {g: tuple(p for p in self.parents[g] if p not in gone) for g in sizes}
        idle = {key: own for key, groups in self.idle.items() if (own := tuple(g for g in groups if g not in gone))}
        return replace(self, axes=axes, sizes=sizes, parents=parents, frozen=frozen, error=None, reads=reads, idle=idle,
                       equal_parts=moving(parts))  # fmt: skip

    def activations(self, state: Mapping[str, Tensor], example: Any) -> dict[str, Tensor]:
        """What the layers of the network read, by the names of `reads`, for an input of the example's shapes.

        Raises:
            InputError: the spec was written by hand, or the input has other shapes than the example.
        """
        if self.graph is None:
            raise InputError("activations need a spec that PermutationSpec.from_module derived")
        self.check(state)
        check_example(example, "the example")
        return captured(self.graph, state, pytree.tree_leaves(as_arguments(example)), self.reads)

    def computed(self, state: Mapping[str, Tensor]) -> list[Tensor]:
        """The outputs of the traced module on its example for other parameters, in float64."""
        if self.graph is None:
            raise InputError("outputs need a spec that PermutationSpec.from_module derived")
        return outputs(self.graph, state)

    def changes(self, first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> float:
        """How much the outputs of the traced module differ on the example between two sets of parameters, in float64:
        relative to the largest entry of each output.
        """
        return max(difference(outputs(traced, first), outputs(traced, second)) for traced in self.graphs)

    @cached_property
    def kinds(self) -> dict[str, LinearSymmetry]:
        """What may act on each group beside permutations, found at the parameters that the spec was derived from.

        Signs, positive scales, orthogonal and general linear maps, each verified at several parameters and inputs, on
        every example. Permutations alone where the spec was written by hand, on the `meta` device, where the example
        leaves some weights of the group idle, or where the model can't be differentiated. Takes some forward passes for
        each group that has none, which for large models is minutes.
        """
        plain = {group: LinearSymmetry() for group in self.sizes}
        if self.graph is None or self.error is None:
            return plain
        state = {s.name: s.value for s in self.graph.sources if s.kind in ("parameter", "buffer")}
        with torch.inference_mode(False), torch.enable_grad():
            try:
                return Kinds(self, state).kinds
            except Exception as error:  # no derivative: an operator has none, or does not know float64
                warnings.warn(
                    f"only permutations were looked for: {type(error).__name__}: {str(error)[:200]}", stacklevel=3
                )
                return plain

    @property
    def graphs(self) -> tuple[Trace, ...]:
        """The traces of all examples."""
        return () if self.graph is None else (self.graph, *self.other_graphs)

    def batch_norms(self) -> list[tuple[str, str]]:
        """`(norm, layer)`, by the names of the modules, where a batch norm alone reads what a layer makes."""
        return [] if self.graph is None else list(batch_norm_pairs(self.graph))

    def outermost_first(self) -> list[str]:
        """The groups, each after those that it depends on."""
        return sorted(self.sizes, key=lambda g: len(self.parents[g]))

    def shape(self, group: str) -> tuple[int, ...]:
        """Of the table of a group: the sizes of its parents, then its own."""
        return (*(self.sizes[p] for p in self.parents[group]), self.sizes[group])

    def identity_tables(self) -> dict[str, Int[Tensor, "..."]]:
        """The identity of every group."""
        return {g: torch.arange(n).expand(self.shape(g)).clone() for g, n in self.sizes.items()}

    def uses(self, group: str) -> list[tuple[str, int]]:
        """The axes `(entry of the state dict, number)` that carry a group."""
        return [(k, i) for k, labels in self.axes.items() for i, label in enumerate(labels) if group in label.groups()]

    def name_in(self, state: Collection[str], key: str) -> str:
        """The name under which a checkpoint holds an entry: its own, or that of one that it is tied to."""
        if key in state:
            return key
        first = self.ties.get(key, key)
        return next((k for k in (first, *(k for k, v in self.ties.items() if v == first)) if k in state), key)

    def check(self, state: Mapping[str, Tensor]) -> None:
        """Refuse parameters that are not those of this network.

        Raises:
            InputError: names the first key or shape that differs.
        """
        check_state(state)
        missing = sorted(k for k in self.axes if self.name_in(state, k) not in state)
        if missing:
            raise InputError(f"the parameters lack {missing[0]!r} ({len(missing)} missing), which the spec has")
        if extra := sorted(set(state) - set(self.axes)):
            raise InputError(f"the parameters have {extra[0]!r} ({len(extra)} more), which the spec lacks")
        if not isinstance(state, Checkpoint):
            check_tensors(state)
        shapes = state.shapes if isinstance(state, Checkpoint) else {k: tuple(v.shape) for k, v in state.items()}
        for key, shape in shapes.items():
            wanted = tuple(label.size for label in self.axes[key])
            if shape != wanted:
                raise InputError(f"{key!r} must have shape {wanted}, got {shape}")

    @property
    def log_order(self) -> float:
        """Decimal logarithm of the number of permutations."""
        total = 0.0
        for group, size in self.sizes.items():
            copies = 1
            for parent in self.parents[group]:
                copies *= self.sizes[parent]
            total += copies * lgamma(size + 1)
        return total / log(10)

    def summary(self) -> str:
        """A table: each group, its size, its kind and the axes that carry it; then what keeps the other axes in place.

        Kinds are looked for in models of up to five million parameters, or where `kinds` was asked for before.
        """
        lines = [f"{len(self.sizes)} permutation groups, 10^{self.log_order:.0f} permutations; traced with {self.how}"]
        width = max((len(g) for g in self.sizes), default=5)
        entries = sum(prod(label.size for label in labels) for key, labels in self.axes.items() if key not in self.ties)
        known = "kinds" in self.__dict__ or entries <= _LARGE
        kinds = {group: self.kinds[group].name if known else "not asked for" for group in self.sizes}
        wide = max(map(len, kinds.values()), default=4)
        lines.append(f"{'group':<{width}}  {'size':>6}  {'kind':<{wide}}  carried by")
        for group, size in self.sizes.items():
            kind = kinds[group]
            uses = [f"{key}:{axis}" for key, axis in self.uses(group)]
            within = f"  (within each {', '.join(self.parents[group])})" if self.parents[group] else ""
            shown = ", ".join(uses[:4]) + (f" and {len(uses) - 4} more" if len(uses) > 4 else "")
            lines.append(f"{group:<{width}}  {size:>6}  {kind:<{wide}}  {shown}{within}")
        reasons: dict[str, list[str]] = {}
        for (key, axis), why in self.frozen.items():
            reasons.setdefault(why, []).append(f"{key}:{axis}")
        for why, where in reasons.items():
            lines.append(
                f"fixed by {why}: {', '.join(where[:3])}" + (f" and {len(where) - 3} more" if len(where) > 3 else "")
            )
        if words := self._other_paths():
            lines.append(words)
        for name, node in self.unknown_ops.items():
            lines.append(f"no rule for {name} (node {node}): every axis that it reads is fixed")
        lines.append(
            "not verified" if self.error is None else f"verified in float64: largest relative change {self.error:.1e}"
        )
        return "\n".join(lines)


def _ties(model: nn.Module) -> dict[str, str]:
    first: dict[tuple[object, ...], str] = {}
    found = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if first.setdefault(storage_of(parameter), name) != name:
            found[name] = first[storage_of(parameter)]
    return found


def _fields(derived: Derived) -> dict[str, Any]:
    return {"axes": derived.axes, "sizes": derived.sizes, "parents": derived.parents, "frozen": derived.frozen,
            "unknown_ops": derived.unknown, "reads": derived.reads, "summed": derived.summed, "idle": derived.idle,
            "equal_parts": derived.equal_parts}  # fmt: skip
