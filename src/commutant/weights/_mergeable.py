"""Groups of channels that can be merged, tested with equal channels on the traced graph and on the module itself."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from .._errors import InputError
from ..parameters import PermutationSpec, as_arguments, difference, generic, positions_by_group
from ._given import state_of
from ._merge_path import Cells, Rule, Site, equal_shares
from ._normalized import Normalized
from ._resizing import resize

TOLERANCE = 1e-5  # relative, in float64; modules that compute in float32 internally reach it


class Mergeable:
    """Groups of a network whose equal channels can be merged, and the reasons why others can't be.

    The test makes some channels equal and merges them. The graph must compute the same in float64 whatever values are
    left at the merged channels, and so must the module without them. A module that fixes how widths relate, as by
    `chunk(2, 1)` or `shape[1] // 2`, may fit some widths by chance, so several widths are tested.
    """

    def __init__(
        self,
        model: nn.Module,
        example: Any,
        spec: PermutationSpec,
        rule: Rule,
        outputs: Callable[[Any], Any] | None,
    ) -> None:
        self.model, self.example, self.spec, self.rule, self.outputs = model, example, spec, rule, outputs
        self.norms = Normalized(model, spec)
        self.refused: dict[str, str] = {}
        self.sites = self._candidates(state_of(model))
        self._try(list(self.sites))

    def _candidates(self, state: Mapping[str, Tensor]) -> dict[str, list[Site]]:
        """Return the sites of the groups that the spec allows to merge, and record why it refuses others."""
        found = {}
        for group in self.spec.sizes:
            uses = [(key, axis) for key, axis in self.spec.uses(group) if self.spec.name_in(state, key) in state]
            reads: dict[tuple[str, int], set[bool]] = {}
            for key, axis in uses:
                reads.setdefault((self.spec.ties.get(key, key), axis), set()).add((key, axis) in self.spec.summed)
            if self.spec.parents[group]:
                why = f"its channels differ by the index in {', '.join(self.spec.parents[group])}"
            elif any(len(kinds) > 1 for kinds in reads.values()):
                why = "one tensor holds both incoming and outgoing weights of its channels"
            elif {next(iter(kinds)) for kinds in reads.values()} != {True, False}:
                why = "no weight is summed over its channels" if reads else "no weight carries it"
            else:
                found[group] = [
                    Site(key, axis, positions_by_group(self.spec.axes[key][axis], [group]), next(iter(kinds)))
                    for (key, axis), kinds in reads.items()
                ]
                continue
            self.refused[group] = why
        return found

    def _try(self, groups: list[str]) -> None:
        """Keep the groups that pass the test: all at once if they do, else each separately."""
        if not groups or self._refutation(groups) is None:
            return
        for group in groups:
            if (why := self._refutation([group])) is not None:
                self.refused[group] = why
                del self.sites[group]
        places = self._places(self.spec.sizes)
        for doubtful in ([g for g in self.sites if places[g]], list(self.sites)):
            if self.sites and self._refutation(list(self.sites)) is not None:
                self.refused |= dict.fromkeys(doubtful, "it can only be merged alone")
                self.sites = {g: sites for g, sites in self.sites.items() if g not in doubtful}

    def _refutation(self, groups: Sequence[str]) -> str | None:
        """Return why merging equal channels of the groups fails, at generic parameters; None if it does not.

        First, two channels are merged in the first group, three in the next, and so on in turn; then most channels.
        Where several groups share an axis, most channels of some of them are merged, then of the others.
        """
        sizes = {group: len(self.sites[group][0].index) for group in groups}
        if (why := self._refutation_at({g: min(n, 2 + i % 2) for i, (g, n) in enumerate(sizes.items())})) is not None:
            return why
        places = self._places(sizes)
        for bit in range(max(1, max(places.values()).bit_length())):
            for side in range(2):
                some = {g: min(n, n // 2 + 2) for g, n in sizes.items() if n > 1 and places[g] >> bit & 1 == side}
                if some and (why := self._refutation_at(some)) is not None:
                    return why
        return None

    def _places(self, groups: Collection[str]) -> dict[str, int]:
        """Number the groups so that groups that share an axis of a weight have different numbers."""
        places: dict[str, int] = {}
        for labels in self.spec.axes.values():
            for label in labels:
                here = dict.fromkeys(g for g in label.groups() if g in groups)
                for group in here:
                    taken = {places[g] for g in here if g in places and g != group}
                    if group not in places or places[group] in taken:
                        places[group] = next(k for k in range(len(here) + len(taken)) if k not in taken)
        return places | {g: 0 for g in groups if g not in places}

    def _refutation_at(self, merged_channels: Mapping[str, int]) -> str | None:
        """Return why merging the given numbers of channels of each group fails; None if it does not."""
        generator = torch.Generator().manual_seed(0)
        twins = self.norms.split(generic(state_of(self.model), generator))
        chosen: dict[str, list[int]] = {}
        garbage: dict[tuple[str, str, int], Tensor] = {}
        for group, count in merged_channels.items():
            size = len(self.sites[group][0].index)
            chosen[group] = torch.randperm(size, generator=generator)[:count].sort().values.tolist()
            first, *others = chosen[group]
            for site in self.sites[group]:
                if not site.reads:
                    value, left = twins[site.key], site.index[others].flatten()
                    garbage[group, site.key, site.axis] = value.index_select(site.axis, left)
                    copies = value.index_select(site.axis, site.index[first].repeat(len(others)))
                    value.index_copy_(site.axis, left, copies)
        merged = {key: value.clone() for key, value in twins.items()}
        for group, (first, *others) in chosen.items():
            size = len(self.sites[group][0].index)
            clusters = [[first, *others] if c == first else [c] for c in range(size) if c not in others]
            cells = Cells(clusters, equal_shares(clusters))
            cells.merge(self.sites[group], merged, self.rule)
            for site in self.sites[group]:
                if not site.reads:  # values left there must not matter
                    left = site.index[others].flatten()
                    merged[site.key].index_copy_(site.axis, left, garbage[group, site.key, site.axis])
        for key, origin in self.spec.ties.items():
            twins[key], merged[key] = twins[origin], merged[origin]
        before, after = (self.norms.join(s) for s in (twins, merged))
        if self.spec.changes(before, after) > 1e-9:
            if self.rule == "ifm":
                return (
                    "the paper's rule is not exact: an activation is not homogeneous, or a norm or a sum runs over the "
                    "channels"
                )
            return "merging equal channels changes the function: a norm or a sum runs over the channels"
        small = self.dropped(after, {g: own[1:] for g, own in chosen.items()})
        try:
            try:
                error, tolerance = self._module_gap(before, small, torch.float64), TOLERANCE
            except Exception:  # some kernels have no float64
                error, tolerance = self._module_gap(before, small, torch.float32), 1e-2
        except Exception as failure:
            line = str(failure).splitlines()[0][:120]
            return f"the module does not run with fewer channels: {type(failure).__name__}: {line}"
        return None if error < tolerance else f"the module computes another function without them (by {error:.1e})"

    def _module_gap(self, before: Mapping[str, Tensor], small: Mapping[str, Tensor], dtype: torch.dtype) -> float:
        """Return how far the outputs of the module with fewer channels are from those with all."""
        large = copy.deepcopy(self.model).to(dtype)
        large.load_state_dict(before, strict=False)
        return _gap(
            run(large, self.example, self.outputs),
            run(resize(copy.deepcopy(self.model).to(dtype), small), self.example, self.outputs),
        )

    def agrees(self, small: nn.Module, state: Mapping[str, Tensor]) -> float:
        """Return how far the outputs of a smaller module are from those of the graph at full-size merged parameters."""
        found, wanted = run(small, self.example, self.outputs), self.spec.computed(state)
        return _gap(wanted, found) if len(found) == len(wanted) else 0.0  # the graph may have more outputs

    def dropped(self, state: Mapping[str, Tensor], gone: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
        """Return the parameters without some channels of each group."""
        result = dict(state)
        away: dict[tuple[str, int], list[Tensor]] = {}
        for group, channels in gone.items():
            for site in self.sites[group]:
                away.setdefault((site.key, site.axis), []).append(site.index[list(channels)].flatten())
        for (key, axis), positions in away.items():
            keep = torch.ones(result[key].shape[axis], dtype=torch.bool)
            keep[torch.cat(positions)] = False
            result[key] = result[key].index_select(axis, keep.nonzero().flatten())
        return {key: value for key, value in result.items() if key not in self.spec.ties}


def run(module: nn.Module, example: Any, outputs: Callable[[Any], Any] | None) -> list[Tensor]:
    """Return the outputs on the example, in evaluation mode, without changing the module."""
    dtypes = {p.dtype for p in module.parameters() if p.is_floating_point()}
    args, kwargs = as_arguments(example)
    if len(dtypes) == 1:
        (dtype,) = dtypes
        args, kwargs = pytree.tree_map(
            lambda x: x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x, (args, kwargs)
        )
    with torch.no_grad():
        found = copy.deepcopy(module).eval()(*args, **kwargs)  # eval() may merge adapters into weights
    return [x for x in pytree.tree_leaves(outputs(found) if outputs else found) if isinstance(x, Tensor)]


def check_example(model: nn.Module, example: Any, outputs: Callable[[Any], Any] | None) -> None:
    """Check that outputs can be compared on an example.

    Raises:
        InputError: The model does not run on it, or returns no finite number.
    """
    try:
        found = run(model, example, outputs)
    except Exception as failure:
        first = str(failure).splitlines()[0] if str(failure) else ""
        raise InputError(
            f"{type(model).__name__} does not run on the example: {type(failure).__name__}: {first}"
        ) from failure
    if not any(bool(x.isfinite().any()) for x in found):
        raise InputError(f"{type(model).__name__} returns no finite number on the example")


def _gap(first: list[Tensor], second: list[Tensor]) -> float:
    """Return the largest relative difference of two lists of outputs, infinite where shapes differ."""
    if any(x.shape != y.shape for x, y in zip(first, second, strict=True)):
        return float("inf")
    return difference([x.to(y.dtype) for x, y in zip(first, second, strict=True)], second)
