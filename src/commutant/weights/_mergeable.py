"""Which channels of a network can be merged: tried out on equal channels, on the graph and on the module itself."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ..parameters import PermutationSpec, as_arguments, generic, positions_by_group
from ._matching import state_of
from ._merge_path import Rule, Site
from ._normalised import Normalised
from ._resizing import resize

TOLERANCE = 1e-5  # relative, of the smaller module in float64: modules that compute in float32 inside are that exact


class Mergeable:
    """The groups of a network whose equal channels can be merged, and why the others can't be.

    A pair of channels is made equal and then merged: the graph must compute the same in float64 whatever is left in the
    place of the second channel, and so must the module without it.
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
        self.norms = Normalised(model, spec)
        self.refused: dict[str, str] = {}
        self.sites = self._candidates(state_of(model))
        self._try(list(self.sites))

    def _candidates(self, state: Mapping[str, Tensor]) -> dict[str, list[Site]]:
        found = {}
        for group in self.spec.sizes:
            uses = [(key, axis) for key, axis in self.spec.uses(group) if self.spec.name_in(state, key) in state]
            reads: dict[tuple[str, int], set[bool]] = {}
            for key, axis in uses:
                reads.setdefault((self.spec.ties.get(key, key), axis), set()).add((key, axis) in self.spec.summed)
            if self.spec.parents[group]:
                why = f"its channels differ by the index in {', '.join(self.spec.parents[group])}"
            elif any(len(kinds) > 1 for kinds in reads.values()):
                why = "one tensor both makes its channels and reads them"
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
        """Keep the groups that pass: all at once if they do, else each by itself."""
        if not groups or self._refutation(groups) is None:
            return
        for group in groups:
            if (why := self._refutation([group])) is not None:
                self.refused[group] = why
                del self.sites[group]
        if self.sites and self._refutation(list(self.sites)) is not None:
            self.refused |= dict.fromkeys(self.sites, "it can be merged by itself only")
            self.sites.clear()

    def _refutation(self, groups: Sequence[str]) -> str | None:
        """What goes wrong when a pair of equal channels of each group is merged, with generic parameters."""
        generator = torch.Generator().manual_seed(0)
        twins = self.norms.split(generic(state_of(self.model), generator))
        pairs = {g: torch.randperm(len(self.sites[g][0].index), generator=generator)[:2].sort().values.tolist()
                 for g in groups}  # fmt: skip
        gone: dict[str, list[int]] = {}
        garbage: dict[tuple[str, str, int], Tensor] = {}
        for group in groups:
            i, j = pairs[group]
            for site in self.sites[group]:
                if not site.reads:
                    value = twins[site.key]
                    garbage[group, site.key, site.axis] = value.index_select(site.axis, site.index[j])
                    value.index_copy_(site.axis, site.index[j], value.index_select(site.axis, site.index[i]))
        merged = {key: value.clone() for key, value in twins.items()}
        for group in groups:
            i, j = pairs[group]
            clusters = [[c] if c != i else [i, j] for c in range(len(self.sites[group][0].index)) if c != j]
            cells = Cells(clusters, torch.tensor([0.5 if c in (i, j) else 1.0 for c in range(len(clusters) + 1)]))
            for site in self.sites[group]:
                merged[site.key] = cells.gather(site, merged[site.key], self.rule)
                left = site.index[j]
                if site.reads:
                    merged[site.key].index_fill_(site.axis, left, 0.0)
                else:
                    merged[site.key].index_copy_(site.axis, left, garbage[group, site.key, site.axis])
            gone[group] = [j]
        for key, first in self.spec.ties.items():
            twins[key], merged[key] = twins[first], merged[first]
        before, after = (self.norms.join(s) for s in (twins, merged))
        if self.spec.changes(before, after) > 1e-9:
            if self.rule == "ifm":
                return (
                    "the paper's rule is not exact: an activation is not homogeneous, or a norm or a sum runs over them"
                )
            return "merging equal channels changes the function: a norm or a sum runs over them"
        small = resize(copy.deepcopy(self.model).double(), self.dropped(after, gone))
        large = copy.deepcopy(self.model).double()
        large.load_state_dict(before, strict=False)
        try:
            error = _gap(*(self.run(module) for module in (large, small)))
        except Exception as failure:
            return f"the module does not run with fewer: {type(failure).__name__}: {str(failure).splitlines()[0][:120]}"
        return None if error < TOLERANCE else f"the module computes something else with fewer (by {error:.1e})"

    def run(self, module: nn.Module) -> list[Tensor]:
        """The outputs on the example, in evaluation mode."""
        double = next((p.dtype == torch.float64 for p in module.parameters()), False)
        args, kwargs = as_arguments(self.example)
        if double:
            args, kwargs = pytree.tree_map(
                lambda x: x.double() if isinstance(x, Tensor) and x.is_floating_point() else x, (args, kwargs)
            )
        with torch.no_grad():
            found = module.eval()(*args, **kwargs)
        return [x for x in pytree.tree_leaves(self.outputs(found) if self.outputs else found) if isinstance(x, Tensor)]

    def dropped(self, state: Mapping[str, Tensor], gone: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
        """The state without the channels that went into others."""
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


class Cells:
    """Clusters as an index: which cluster each channel is in, and its weight in the mean."""

    def __init__(self, clusters: Sequence[Sequence[int]], shares: Float[Tensor, " n"]) -> None:
        self.first = torch.tensor([own[0] for own in clusters])
        self.of: Int[Tensor, " n"] = torch.zeros(len(shares), dtype=torch.long)
        for i, own in enumerate(clusters):
            self.of[list(own)] = i
        self.shares = shares.double()

    def gather(self, site: Site, value: Tensor, rule: Rule) -> Tensor:
        """The tensor with the sum or mean of each cluster at the place of its first channel."""
        averaged = site.reads != (rule == "fold")
        rows = value.movedim(site.axis, 0)[site.index]
        if averaged:
            rows = rows * self.shares.view(-1, *[1] * (rows.dim() - 1)).to(rows)
        merged = torch.zeros(len(self.first), *rows.shape[1:], dtype=rows.dtype).index_add_(0, self.of, rows)
        result = value.movedim(site.axis, 0).clone()
        result[site.index[self.first]] = merged
        return result.movedim(0, site.axis).contiguous()


def _gap(first: list[Tensor], second: list[Tensor]) -> float:
    worst = 0.0
    for x, y in zip(first, second, strict=True):
        if x.shape != y.shape:
            return float("inf")
        size = float(x.abs().max()) if x.numel() else 0.0
        worst = max(worst, float((x.double() - y.double()).abs().max()) / (size or 1.0)) if x.numel() else worst
    return worst
