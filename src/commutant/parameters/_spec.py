"""The permutation symmetries of a network: derived from any module, verified, and readable."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from .._checks import check_generator
from .._errors import InputError
from ._derive import Derived, derive
from ._given import (
    check_example,
    check_examples,
    check_module,
    check_state,
    check_tensors,
    kind_of,
)
from ._labels import AxisLabel, Factor
from ._linear_symmetries import LinearSymmetry, linear_symmetries
from ._norms import batch_norm_pairs
from ._refutation import verified
from ._returned import selecting
from ._storage import storage_of
from ._tied_axes import TiedAxes
from ._trace import as_arguments, trace
from ._verify import captured, difference, outputs

_LARGE = 5_000_000  # parameters above which the summary does not start the search for linear symmetries


@dataclass(frozen=True)
class PermutationSpec(TiedAxes):
    """Axes of parameters that may be permuted together without changing what a network computes.

    For every group g of size n and every permutation of n entries, permuting all axes that carry g leaves the function
    unchanged: f(pi(theta), x) = f(theta, x). Where a group has parents (the channels of a head depend on the head), its
    permutation may differ for each index of the parents: a wreath product.

    Build one with `PermutationSpec.from_module`, or with `PermutationSpec.from_axes` from labels written by hand.

    Attributes:
        axes: Labels of the axes of each entry of the state dict: the groups that act on them.
        sizes: Number of entries of each group, outer groups before the groups that depend on them.
        parents: Groups on whose index each group's permutation may depend.
        frozen: Reason why an axis `(entry, number)` that carries no group can't move.
        unknown_ops: Operators without a rule, with the first node of each. The axes that they read are frozen.
        error: Largest relative change of an output when everything is permuted at random, in float64. Parameters are
            perturbed first, so that no zero or one hides a mistake. None if nothing was verified.
        how: Tracer that was used or the parts that it could not follow, and the parts of the output that were left out.
        buffers: Entries that are buffers, such as running statistics. They are permuted, but they are not weights.
        ties: Entries that are the same tensor as an earlier entry. A checkpoint may leave them out.
        reads: Labels of the axes of the activations that layers sum over, by node of the graph.
        summed: Axes `(entry, number)` of weights that layers sum over. The other axes of a weight index its outputs.
        idle: Entries that no example uses although their shapes fit some groups, with those groups.
        equal_parts: Labels of the parts of each axis that is cut into equal parts. When widths change, parts of equal
            size must stay equal, and parts of unequal size must keep their sizes.
        graph: Traced module, used by `activations`.
        other_graphs: Traces of the further examples.
    """

    @classmethod
    def from_module(
        cls,
        model: nn.Module,
        example_inputs: Any,
        *,
        outputs: Callable[[Any], Any] | None = None,
        verify: bool = True,
        generator: torch.Generator | None = None,
        also: Sequence[Any] = (),
    ) -> PermutationSpec:
        """Derive the symmetries of a module by tracing it, and verify them.

        Args:
            model: Any module that runs on the example. On the `meta` device nothing can be verified.
            example_inputs: A tensor, a tuple of positional arguments, or a mapping of keyword arguments, such as the
                output of a tokenizer. Use a batch size of two or more.
            outputs: Function that selects the part of the model's output to preserve, such as `lambda out: out.logits`.
                By default, everything is preserved, including hidden states but not key-value caches.
            verify: Whether to permute at random and compare outputs in float64. A group that fails is frozen, with a
                warning.
            generator: Random generator of the permutations that verify; None means a fixed seed.
            also: Further examples, for models that take different code paths on different inputs.

        Raises:
            InputError: The module can't be traced on the example, or an argument has the wrong type.

        Warns:
            UserWarning: A group was refuted, nothing could be verified, or other inputs may take other paths.

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
        check_generator(generator)
        if outputs is not None and not callable(outputs):
            raise InputError(f"outputs must be a function of the model's output, got {kind_of(outputs)}")
        with selecting(model, outputs) as left_out:
            traces = [trace(model, *as_arguments(example)) for example in (example_inputs, *also)]
        derived = derive(model, traces)
        how = "; ".join(dict.fromkeys([*(t.lost or t.how for t in traces), *left_out]))
        weights = {name for name, _ in model.named_parameters(remove_duplicate=False)}
        spec = cls(**_fields(derived), how=how, buffers=frozenset(set(derived.axes) - weights), ties=_ties(model),
                   graph=traces[0], other_graphs=tuple(traces[1:]))  # fmt: skip
        if words := _other_paths(spec):
            warnings.warn(words, stacklevel=2)
        tensors = [v for v in model.state_dict().values() if isinstance(v, Tensor)]
        if not verify or any(t.is_meta for t in tensors):
            return spec
        return verified(spec, model, traces, generator or torch.Generator().manual_seed(0))

    @classmethod
    def from_axes(cls, axes: Mapping[str, Sequence[str | None]], state: Mapping[str, Tensor]) -> PermutationSpec:
        """Build a spec from labels written by hand.

        Args:
            axes: For each labeled entry of the state dict, the name of a group or None for each of its axes.
            state: State dict of the network, which gives the sizes of the groups.

        Raises:
            InputError: The state dict lacks an entry, the number of axes is wrong, or a group has two sizes.
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
                raise InputError(f"{key!r} has {value.ndim} axes, but {len(groups)} are labeled")
            for group, size in zip(groups, value.shape, strict=True):
                if group is not None and sizes.setdefault(group, size) != size:
                    raise InputError(f"group {group!r} has {sizes[group]} entries, but {size} in {key!r}")
            labels[key] = tuple(AxisLabel(((Factor(n, g),),)) for g, n in zip(groups, value.shape, strict=True))
        return cls(labels, sizes, {g: () for g in sizes}, {}, {})

    def activations(self, state: Mapping[str, Tensor], example: Any) -> dict[str, Tensor]:
        """Return the activations that the layers of the network read, by the names of `reads`.

        Args:
            state: Parameters and buffers of the network.
            example: Input of the same shapes as the example of `from_module`.

        Raises:
            InputError: The spec was written by hand, or the input has other shapes than the example.
        """
        if self.graph is None:
            raise InputError("activations need a spec derived by PermutationSpec.from_module")
        self.check(state)
        check_example(example, "the example")
        return captured(self.graph, state, pytree.tree_leaves(as_arguments(example)), self.reads)

    def computed(self, state: Mapping[str, Tensor]) -> list[Tensor]:
        """Return the outputs of the traced module on its example for other parameters, in float64.

        Args:
            state: Parameters and buffers of the network.

        Raises:
            InputError: The spec was written by hand.
        """
        if self.graph is None:
            raise InputError("outputs need a spec derived by PermutationSpec.from_module")
        return outputs(self.graph, state)

    def changes(self, first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> float:
        """Return how much the outputs on the examples differ between two sets of parameters.

        Outputs are computed in float64, and differences are relative to the largest entry of each output.

        Args:
            first: Parameters and buffers of the network.
            second: Other parameters and buffers of the network.
        """
        return max(difference(outputs(traced, first), outputs(traced, second)) for traced in self.graphs)

    @cached_property
    def kinds(self) -> dict[str, LinearSymmetry]:
        """Linear symmetries of each group, found at the parameters that the spec was derived from.

        The search covers signs, positive scales, orthogonal and general linear maps. Each is verified at several
        parameters and inputs, on every example. Only permutations are reported for a spec written by hand, on the
        `meta` device, for groups with weights that the example does not use, and for models that can't be
        differentiated. The search takes a few forward passes for each group that has no other symmetry, which is
        minutes for large models.
        """
        plain = {group: LinearSymmetry() for group in self.sizes}
        if self.graph is None or self.error is None:
            return plain
        state = {s.name: s.value for s in self.graph.sources if s.kind in ("parameter", "buffer")}
        with torch.inference_mode(False), torch.enable_grad():
            try:
                return linear_symmetries(self, state)
            except Exception as error:  # an operator has no derivative or no float64
                warnings.warn(
                    f"only permutations were searched for: {type(error).__name__}: {str(error)[:200]}", stacklevel=3
                )
                return plain

    def batch_norms(self) -> list[tuple[str, str]]:
        """Return `(norm, layer)`, names of modules, for each batch norm that is the only reader of a layer's output."""
        return [] if self.graph is None else list(batch_norm_pairs(self.graph))

    def summary(self) -> str:
        """Return a table of the groups, then the reasons that keep the other axes in place.

        The table shows the size, the kind and the axes of each group. Kinds are computed for models of up to five
        million parameters. For larger models they are shown only if `kinds` was read before.
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
        if words := _other_paths(self):
            lines.append(words)
        for name, node in self.unknown_ops.items():
            lines.append(f"no rule for {name} (node {node}): every axis that it reads is fixed")
        lines.append(
            "not verified" if self.error is None else f"verified in float64: largest relative change {self.error:.1e}"
        )
        return "\n".join(lines)


def _other_paths(spec: PermutationSpec) -> str | None:
    """Return why the groups may not hold on other inputs, and what to do; None if nothing suggests that."""
    if spec.idle:
        entry = next(iter(spec.idle))
        groups = sorted({g for own in spec.idle.values() for g in own})
        named = ", ".join(groups[:4]) + (f" and {len(groups) - 4} more" if len(groups) > 4 else "")
        more = f" and {len(spec.idle) - 1} more entries" if len(spec.idle) > 1 else ""
        return (
            f"the example does not use {entry!r}{more}, whose shapes fit the groups {named}; inputs that use them may "
            "break these symmetries, so pass such inputs in also="
        )
    if any(t.branches for t in spec.graphs) and not spec.other_graphs and spec.sizes:
        return (
            "the module branches on values that it computes, and only the path of the example was analyzed; pass "
            "inputs that take the other paths in also="
        )
    return None


def _ties(model: nn.Module) -> dict[str, str]:
    """Return the names of parameters that are the same tensor as an earlier one, with that one's name."""
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
