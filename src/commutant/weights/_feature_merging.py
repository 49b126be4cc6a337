"""Networks made smaller without data: channels that are alike are merged, and the smaller module is a real one."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from .._errors import InputError
from ..parameters import PermutationSpec, as_arguments, generic, positions_by_group
from ._matching import exposed, state_of
from ._merge_path import Criterion, Merge, Reference, Rule, Site, merge_path
from ._normalised import Normalised
from ._resizing import resize

TOLERANCE = 1e-5  # relative, of the smaller module in float64: modules that compute in float32 inside are that exact


@dataclass(frozen=True)
class Shrunk:
    """A smaller network and how it was made.

    Attributes:
        module: of the class of the given one, with fewer channels.
        clusters: for each group, the channels of the given network that each channel stands for.
        parameters: of the smaller network and of the given one.
        bounds: for groups with one weight that makes the channels and one that reads them, by folding: how much the
            input of the next layer may change, as a multiple of the norm of the input (with a one appended for the
            bias) of the weight that makes them, if the activation between has a slope of at most one. Under the
            criterion `"activations"` the change is the root mean square over the data, and no multiple.
    """

    module: nn.Module = field(repr=False)
    clusters: dict[str, list[list[int]]] = field(repr=False)
    parameters: tuple[int, int]
    bounds: dict[str, float]

    @property
    def widths(self) -> dict[str, tuple[int, int]]:
        """Channels that are left and that there were, by group."""
        return {g: (len(found), sum(map(len, found))) for g, found in self.clusters.items()}

    @property
    def kept(self) -> float:
        """The share of the parameters that is left."""
        return self.parameters[0] / self.parameters[1]

    def summary(self) -> str:
        """A table of widths, then the share of the parameters."""
        wide = max((len(g) for g in self.clusters), default=5)
        lines = [f"{'group':<{wide}}  {'before':>6}  {'after':>6}"]
        lines += [f"{g:<{wide}}  {before:>6}  {after:>6}" for g, (after, before) in self.widths.items()]
        small, large = self.parameters
        return "\n".join([*lines, f"{small} of {large} parameters are left ({self.kept:.1%})"])


class FeatureMerger:
    """Iterative feature merging of any module: find channels that do the same, and put each set of them into one.

    Groups come from the module's `PermutationSpec`. A group takes part if its equal channels can be merged without
    changing the function and if the module runs with fewer channels; both are tried out in float64 before anything
    else. Streams that pass a layer norm, and whatever a module's own code gives a fixed size (as heads often have), stay
    as they are; `refused` says why.

    Channels in front of a batch norm of their own are measured and merged at the scale that the norm gives them, and
    standard deviations are merged in place of variances, so that merging equal channels is exact there too.

    Args:
        model: stays as it is.
        example_inputs: as for `PermutationSpec.from_module`.
        rule: `"fold"` averages what makes the channels and adds what reads them: exact for equal channels under any
            activation. `"ifm"` is the paper's rule (Eqs. 9 to 11), the other way round: exact for positively homogeneous
            activations only, and refused for groups where it is not.
        criterion: what "alike" means, squared: `"inout"`, the distance of all weights that make or read two channels
            (the paper's); `"saliency"`, a bound on what merging them changes in the next layer,
            |v_m| |v_n| / (|v_m| + |v_n|) |w_m - w_n|; `"activations"`, the same with the root mean square difference
            of the channels on data in the place of |w_m - w_n|.
        reference: thresholds are shares of the largest distance in the group: the `"initial"` one, or the `"current"`
            one (the paper's), which grows as the paper's rule adds weights up.
        batches: of data, of the example's shapes, for `"activations"`.
        outputs: what of the model's output must stay as it is, as for `PermutationSpec.from_module`.
        spec: derived from this model before.

    Attributes:
        groups: the channels that can be merged, and how many there are.
        refused: why the other groups can't be.

    Raises:
        InputError: an unknown rule, criterion or reference; data missing; weights that are not finite (named).

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
        >>> merger = FeatureMerger(model, torch.randn(3, 4))
        >>> merger.shrink(widths=5).module
        Sequential(
          (0): Linear(in_features=4, out_features=5, bias=True)
          (1): ReLU()
          (2): Linear(in_features=5, out_features=2, bias=True)
        )
    """

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Any,
        *,
        rule: Rule = "fold",
        criterion: Criterion = "inout",
        reference: Reference = "initial",
        batches: Iterable[Any] | None = None,
        outputs: Callable[[Any], Any] | None = None,
        spec: PermutationSpec | None = None,
    ) -> None:
        for name, value, known in (("rule", rule, ("fold", "ifm")), ("reference", reference, ("initial", "current")),
                                   ("criterion", criterion, ("inout", "saliency", "activations"))):  # fmt: skip
            if value not in known:
                raise InputError(f"{name} must be one of {', '.join(known)}, got {value!r}")
        if (batches is None) == (criterion == "activations"):
            raise InputError('the criterion "activations" needs batches, and the others take none')
        self.model, self.rule, self.criterion, self.reference = model, rule, criterion, reference
        self._example, self._outputs = example_inputs, outputs
        state = state_of(model)
        for key, value in state.items():
            if value.is_meta:
                raise InputError(f"{key!r} is on the meta device: merging needs its values")
            if value.is_floating_point() and not bool(value.isfinite().all()):
                raise InputError(f"{key!r} holds NaN or infinities")
        self.spec = spec or PermutationSpec.from_module(model, example_inputs, outputs=outputs)
        self.spec.check(state)
        if self.spec.graph is None:
            raise InputError("features can be merged with a spec that PermutationSpec.from_module derived")
        self._norms = Normalised(model, self.spec)
        self.refused: dict[str, str] = {}
        self._sites = self._candidates(state)
        self._try(list(self._sites))
        self.groups = {g: len(sites[0].index) for g, sites in self._sites.items()}
        if not self.groups:
            warnings.warn(f"no group of channels can be merged: {self.refused or 'the network has none'}", stacklevel=2)
        self._moments = None if batches is None else self._seen(state, batches)

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
                del self._sites[group]
        if self._sites and self._refutation(list(self._sites)) is not None:
            self.refused |= dict.fromkeys(self._sites, "it can be merged by itself only")
            self._sites.clear()

    def _refutation(self, groups: Sequence[str]) -> str | None:
        """What goes wrong when a pair of equal channels of each group is merged, with generic parameters."""
        generator = torch.Generator().manual_seed(0)
        twins = self._norms.split(generic(state_of(self.model), generator))
        pairs = {g: torch.randperm(len(self._sites[g][0].index), generator=generator)[:2].sort().values.tolist()
                 for g in groups}  # fmt: skip
        gone: dict[str, list[int]] = {}
        garbage: dict[tuple[str, str, int], Tensor] = {}
        for group in groups:
            i, j = pairs[group]
            for site in self._sites[group]:
                if not site.reads:
                    value = twins[site.key]
                    garbage[group, site.key, site.axis] = value.index_select(site.axis, site.index[j])
                    value.index_copy_(site.axis, site.index[j], value.index_select(site.axis, site.index[i]))
        merged = {key: value.clone() for key, value in twins.items()}
        for group in groups:
            i, j = pairs[group]
            clusters = [[c] if c != i else [i, j] for c in range(len(self._sites[group][0].index)) if c != j]
            cells = _Cells(clusters, torch.tensor([0.5 if c in (i, j) else 1.0 for c in range(len(clusters) + 1)]))
            for site in self._sites[group]:
                merged[site.key] = cells.gather(site, merged[site.key], self.rule)
                left = site.index[j]
                if site.reads:
                    merged[site.key].index_fill_(site.axis, left, 0.0)
                else:
                    merged[site.key].index_copy_(site.axis, left, garbage[group, site.key, site.axis])
            gone[group] = [j]
        for key, first in self.spec.ties.items():
            twins[key], merged[key] = twins[first], merged[first]
        before, after = (self._norms.join(s) for s in (twins, merged))
        if self.spec.changes(before, after) > 1e-9:
            if self.rule == "ifm":
                return "the paper's rule is not exact for equal channels: the activation is not positively homogeneous, "\
                       "or a norm or a sum runs over the channels"  # fmt: skip
            return "merging equal channels changes the function: a norm or a sum runs over them"
        small = resize(copy.deepcopy(self.model).double(), self._dropped(after, gone))
        large = copy.deepcopy(self.model).double()
        large.load_state_dict(before, strict=False)
        try:
            error = _gap(*(self._run(module) for module in (large, small)))
        except Exception as failure:
            return f"the module does not run with fewer: {type(failure).__name__}: {str(failure).splitlines()[0][:120]}"
        return None if error < TOLERANCE else f"the module computes something else with fewer (by {error:.1e})"

    def _run(self, module: nn.Module) -> list[Tensor]:
        """The outputs on the example, in evaluation mode."""
        double = next((p.dtype == torch.float64 for p in module.parameters()), False)
        args, kwargs = as_arguments(self._example)
        if double:
            args, kwargs = pytree.tree_map(
                lambda x: x.double() if isinstance(x, Tensor) and x.is_floating_point() else x, (args, kwargs)
            )
        with torch.no_grad():
            found = module.eval()(*args, **kwargs)
        return [x for x in pytree.tree_leaves(self._outputs(found) if self._outputs else found) if isinstance(x, Tensor)]

    def _seen(self, state: Mapping[str, Tensor], batches: Iterable[Any]) -> dict[str, Float[Tensor, "n n"]]:
        """The second moments of the activations that layers read, for each group."""
        found = {g: torch.zeros(n, n, dtype=torch.float64) for g, n in self.groups.items()}
        count = dict.fromkeys(found, 0)
        for batch in batches:
            values = self.spec.activations(state, batch)
            for node, labels in self.spec.reads.items():
                for group in {g for label in labels for g in label.groups()} & set(found):
                    rows = exposed(values[node].detach().cpu().double(), labels, [group])
                    if not bool(rows.isfinite().all()):
                        raise InputError(f"the activations at {node!r} hold NaN or infinities")
                    found[group] += rows @ rows.T
                    count[group] += rows.shape[1]
        if silent := [g for g, n in count.items() if not n]:
            raise InputError(f"no batch was given, or no layer reads the channels of {silent[0]!r}")
        return {g: moments / count[g] for g, moments in found.items()}

    @cached_property
    def path(self) -> list[Merge]:
        """All merges, in order, down to one channel in every group."""
        return merge_path(
            self._norms.rescaled(self._norms.split(self._state())),
            self._sites,
            rule=self.rule,
            criterion=self.criterion,
            reference=self.reference,
            buffers=self.spec.buffers,
            moments=self._moments,
        )

    def _state(self) -> dict[str, Tensor]:
        """The parameters in float64, each tensor once."""
        return {
            key: value.detach().cpu().double() if value.is_floating_point() else value.detach().cpu()
            for key, value in state_of(self.model).items()
            if key not in self.spec.ties
        }

    def clusters(
        self,
        *,
        beta: float | None = None,
        parameters: float | None = None,
        widths: int | Mapping[str, int] | None = None,
    ) -> dict[str, list[list[int]]]:
        """Which channels go together, by one of three measures of how far to go.

        Args:
            beta: merge until no two channels of any group are closer than this share of the reference, squared;
                0 merges equal channels only.
            parameters: merge until at most this share of the parameters is left.
            widths: channels to leave in every group, or by group; groups left out stay as they are.
        """
        if sum(given is not None for given in (beta, parameters, widths)) != 1:
            raise InputError("give one of beta, parameters and widths")
        if widths is not None:
            wanted = dict.fromkeys(self.groups, widths) if isinstance(widths, int) else dict(widths)
            for group, width in wanted.items():
                if group not in self.groups:
                    raise InputError(f"{group!r} can't be merged: {self.refused.get(group, 'there is no such group')}")
                if width < 1:
                    raise InputError(f"at least one channel of {group!r} must be left, got {width}")
            left = {g: n - min(n, wanted.get(g, n)) for g, n in self.groups.items()}
            steps = []
            for step in self.path:
                if left[step.group]:
                    left[step.group] -= 1
                    steps.append(step)
            return self._clusters(steps)
        if beta is not None:
            if not 0 <= beta < 1:
                raise InputError(f"beta must be at least 0 and below 1, got {beta}")
            count = next((i for i, step in enumerate(self.path) if step.level > beta), len(self.path))
            return self._clusters(self.path[:count])
        assert parameters is not None
        if not 0 < parameters <= 1:
            raise InputError(f"parameters must be a share above 0 and at most 1, got {parameters}")
        low, high, total = 0, len(self.path), self.count(self._clusters([]))
        if self.count(self._clusters(self.path)) > parameters * total:
            least = self.count(self._clusters(self.path)) / total
            raise InputError(f"merging leaves at least {least:.1%} of the parameters, asked for {parameters:.1%}")
        while low < high:
            middle = (low + high) // 2
            if self.count(self._clusters(self.path[:middle])) <= parameters * total:
                high = middle
            else:
                low = middle + 1
        return self._clusters(self.path[:low])

    def _clusters(self, steps: Sequence[Merge]) -> dict[str, list[list[int]]]:
        found = {g: {c: [c] for c in range(n)} for g, n in self.groups.items()}
        for step in steps:
            found[step.group][step.kept] += found[step.group].pop(step.gone)
        return {g: [sorted(members) for members in own.values()] for g, own in found.items()}

    def count(self, clusters: Mapping[str, list[list[int]]]) -> int:
        """Parameters of the network with these clusters merged; tied ones count once."""
        total = 0
        gone = {g: _gone(found) for g, found in clusters.items()}
        for key, value in self.model.named_parameters():
            sizes = list(value.shape)
            for group, sites in self._sites.items():
                for site in sites:
                    if site.key == key:
                        sizes[site.axis] -= len(gone[group]) * site.index.shape[1]
            total += int(torch.Size(sizes).numel())
        return total

    def shrink(
        self,
        *,
        beta: float | None = None,
        parameters: float | None = None,
        widths: int | Mapping[str, int] | None = None,
    ) -> Shrunk:
        """The smaller network; arguments as for `clusters`.

        Raises:
            InputError: none or several of the arguments, one out of range, or widths that the module's own code refuses.
        """
        clusters = self.clusters(beta=beta, parameters=parameters, widths=widths)
        state = self._merged(clusters)
        small = resize(self.model, state)
        mode = small.training
        try:
            self._run(small)
        except Exception as failure:
            raise InputError(
                f"{type(self.model).__name__} does not run with these widths: {type(failure).__name__}: {failure}"
            ) from failure
        small.train(mode)
        return Shrunk(small, clusters, (self.count(clusters), self.count(self._clusters([]))), self._bounds(clusters))

    def _merged(self, clusters: Mapping[str, list[list[int]]]) -> dict[str, Tensor]:
        several = {g: {c for own in found if len(own) > 1 for c in own} for g, found in clusters.items()}
        state = self._norms.split(self._state())
        if any(several.values()):
            state = self._norms.rescaled(state, several)
        shares = self._shares(clusters)
        for group, sites in self._sites.items():
            cells = _Cells(clusters[group], shares[group])
            for site in sites:
                state[site.key] = cells.gather(site, state[site.key], self.rule)
        return self._dropped(self._norms.join(state), {g: _gone(found) for g, found in clusters.items()})

    def _shares(self, clusters: Mapping[str, list[list[int]]]) -> dict[str, Float[Tensor, " n"]]:
        """The weight of each channel in the mean of its cluster: the path replayed."""
        found = {g: torch.ones(n, dtype=torch.float64) for g, n in self.groups.items()}
        members = {g: {c: [c] for c in range(n)} for g, n in self.groups.items()}
        home = {g: {c: i for i, own in enumerate(found) for c in own} for g, found in clusters.items()}
        for step in self.path:
            own = members[step.group]
            if home[step.group][step.kept] != home[step.group][step.gone]:
                continue
            kept, gone = own[step.kept], own.pop(step.gone)
            found[step.group][kept] *= step.share
            found[step.group][gone] *= 1 - step.share
            kept += gone
        return found

    def _bounds(self, clusters: Mapping[str, list[list[int]]]) -> dict[str, float]:
        left = {g: n - len(clusters[g]) for g, n in self.groups.items()}
        found = {g: 0.0 for g in self.groups if self.rule == "fold" and self._plain(g)}
        for step in self.path:
            if left[step.group]:
                left[step.group] -= 1
                if step.group in found:
                    found[step.group] += step.bound
        return found

    def _plain(self, group: str) -> bool:
        """Whether one weight makes the channels, with a bias at most, and one reads them."""
        sites = [(site, self.model.state_dict()[site.key].dim()) for site in self._sites[group]]
        made = [dim for site, dim in sites if not site.reads]
        return made.count(1) <= 1 and len(made) - made.count(1) == 1 and len(sites) - len(made) == 1

    def _dropped(self, state: Mapping[str, Tensor], gone: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
        """The state without the channels that went into others."""
        result = dict(state)
        away: dict[tuple[str, int], list[Tensor]] = {}
        for group, channels in gone.items():
            for site in self._sites[group]:
                away.setdefault((site.key, site.axis), []).append(site.index[list(channels)].flatten())
        for (key, axis), positions in away.items():
            keep = torch.ones(result[key].shape[axis], dtype=torch.bool)
            keep[torch.cat(positions)] = False
            result[key] = result[key].index_select(axis, keep.nonzero().flatten())
        return {key: value for key, value in result.items() if key not in self.spec.ties}


class _Cells:
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


def _gone(clusters: Sequence[Sequence[int]]) -> list[int]:
    return [c for own in clusters for c in own[1:]]


def _gap(first: list[Tensor], second: list[Tensor]) -> float:
    worst = 0.0
    for x, y in zip(first, second, strict=True):
        if x.shape != y.shape:
            return float("inf")
        size = float(x.abs().max()) if x.numel() else 0.0
        worst = max(worst, float((x.double() - y.double()).abs().max()) / (size or 1.0)) if x.numel() else worst
    return worst
