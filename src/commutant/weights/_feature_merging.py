"""Feature merging: networks made smaller, without data, by merging similar channels."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .._checks import one_of, whole
from .._errors import InputError
from ..parameters import PermutationSpec
from ._given import batches_of, check_module, check_spec, number, state_of
from ._merge_path import Cells, Criterion, Merge, Reference, Rule, equal_shares, merge_path
from ._mergeable import Mergeable, check_example
from ._normalized import Level
from ._resizing import resize
from ._shrunk import Shrunk, folding_bounds
from ._slices import exposed


class FeatureMerger:
    """Iterative feature merging of any module: similar channels are found and merged into one.

    Groups come from the module's `PermutationSpec`. A group takes part if merging equal channels does not change the
    function and if the module runs with fewer channels. Both are tested in float64 first. Residual streams that pass a
    layer norm are refused, and so are widths that are fixed in the module's code, as is common for heads. `refused`
    gives the reason.

    Channels directly in front of a batch norm are compared and merged at the scale that the norm gives them. Standard
    deviations are merged instead of variances, so that merging equal channels is exact there too. Channels that are not
    equal keep the standard deviation that the norm expects. In layers wider than 64 channels, distances are updated
    for merges in neighboring layers in batches of 1/64 of the width.

    A Hugging Face model keeps its configuration: load the smaller one with `resize`, not with `from_pretrained`.

    Args:
        model: Module to shrink; not modified.
        example_inputs: Example as for `PermutationSpec.from_module`.
        rule: `"fold"` averages the incoming weights of channels and adds their outgoing weights: exact for equal
            channels under any activation. `"ifm"` is the paper's rule (Eqs. 9 to 11), which adds incoming weights and
            averages outgoing ones: exact only for positively homogeneous activations, and refused for other groups.
        criterion: Squared distance of two channels. `"saliency"`, the default of `"fold"`, bounds the change in the
            next layer: |v_m| |v_n| / (|v_m| + |v_n|) |w_m - w_n| for incoming weights w and outgoing weights v.
            `"inout"`, the paper's criterion and the default of `"ifm"`, is the distance of all incoming and outgoing
            weights. `"activations"` is `"saliency"` with the root mean square difference of the channels on data
            instead of |w_m - w_n|.
        reference: Largest squared distance in a group, to which thresholds are relative. `"initial"` measures it before
            any merge. `"current"`, as in the paper, measures it at each step; it grows as the paper's rule adds
            weights.
        modulo_scale: Whether channels that differ by a positive factor count as equal where the activation commutes
            with the factor, as ReLU does. All channels are then normalized before they are compared or merged.
        batches: Batches of data of the example's shapes, for `"activations"`.
        outputs: Function that selects the part of the model's output to preserve, as for `PermutationSpec.from_module`.
        spec: Spec that was derived from this model, if there is one.

    Attributes:
        groups: Number of channels of each group that can be merged.
        refused: Reason why each of the other groups can't be merged.
        sites: Axes of the parameters that carry the channels of each group.

    Raises:
        InputError: The rule, criterion or reference is unknown, data is missing, or weights are not finite.

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
        criterion: Criterion | None = None,
        reference: Reference = "initial",
        modulo_scale: bool = False,
        batches: Iterable[Any] | None = None,
        outputs: Callable[[Any], Any] | None = None,
        spec: PermutationSpec | None = None,
    ) -> None:
        check_module(model, "model")
        criterion = criterion or ("inout" if rule == "ifm" else "saliency")
        one_of("rule", rule, ("fold", "ifm"))
        one_of("reference", reference, ("initial", "current"))
        one_of("criterion", criterion, ("inout", "saliency", "activations"))
        if rule == "ifm" and criterion != "inout":
            raise InputError(
                f'the rule "ifm" goes with the criterion "inout", got {criterion!r}, which is meant for "fold"'
            )
        if (batches is None) == (criterion == "activations"):
            raise InputError('the criterion "activations" needs batches, and the others take none')
        self.model, self.rule, self.criterion, self.reference = model, rule, criterion, reference
        state = state_of(model)
        for key, value in state.items():
            if value.is_meta:
                raise InputError(f"{key!r} is on the meta device: merging needs its values")
            if value.is_floating_point() and not bool(value.isfinite().all()):
                raise InputError(f"{key!r} holds NaN or infinities")
        if spec is not None:
            check_spec(spec)
        check_example(model, example_inputs, outputs)
        self.spec = spec or PermutationSpec.from_module(model, example_inputs, outputs=outputs)
        self.spec.check(state)
        if self.spec.graph is None:
            raise InputError("merging needs a spec derived by PermutationSpec.from_module, got one written by hand")
        self._channels = Mergeable(model, example_inputs, self.spec, rule, outputs)
        self._norms, self.sites, self.refused = self._channels.norms, self._channels.sites, self._channels.refused
        self.groups = {g: len(sites[0].index) for g, sites in self.sites.items()}
        if not self.groups:
            warnings.warn(f"no group of channels can be merged: {self.refused or 'the network has none'}", stacklevel=2)
        self._level = Level(self.spec, self.sites if modulo_scale else {})
        self._moments = None if batches is None else self._seen(state, batches)

    def _seen(self, state: Mapping[str, Tensor], batches: Iterable[Any]) -> dict[str, Float[Tensor, "n n"]]:
        """Return the second moments of the activations that layers read, for each group."""
        found = {g: torch.zeros(n, n, dtype=torch.float64) for g, n in self.groups.items()}
        count = dict.fromkeys(found, 0)
        for batch in batches_of(batches):
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
            self._norms.fused(self._level(self._norms.split(self._state()))),
            self.sites,
            rule=self.rule,
            criterion=self.criterion,
            reference=self.reference,
            moments=self._moments,
        )

    def _state(self) -> dict[str, Tensor]:
        """Return the parameters in float64, each tensor once."""
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
        """Return the clusters of channels to merge for a threshold, a parameter budget or given widths.

        Args:
            beta: Largest squared distance of two channels to merge, as a fraction of the reference; 0 merges equal
                channels only.
            parameters: Largest fraction of the parameters to keep.
            widths: Number of channels to keep in every group, or by group. Groups left out keep all.

        Raises:
            InputError: Not exactly one of the arguments is given, or it is out of range.
        """
        if sum(given is not None for given in (beta, parameters, widths)) != 1:
            raise InputError("give exactly one of beta, parameters and widths")
        if widths is not None:
            wanted = dict(widths) if isinstance(widths, Mapping) else dict.fromkeys(self.groups, widths)
            for group, width in wanted.items():
                if group not in self.groups:
                    raise InputError(f"{group!r} can't be merged: {self.refused.get(group, 'there is no such group')}")
                whole(f"the width of {group!r}", width)
            left = {g: n - min(n, wanted.get(g, n)) for g, n in self.groups.items()}
            steps = []
            for step in self.path:
                if left[step.group]:
                    left[step.group] -= 1
                    steps.append(step)
            return self._clusters(steps)
        if beta is not None:
            beta = number(beta, "beta")
            if not 0 <= beta < 1:
                raise InputError(f"beta must be at least 0 and below 1, got {beta}")
            count = next((i for i, step in enumerate(self.path) if step.level > beta), len(self.path))
            return self._clusters(self.path[:count])
        assert parameters is not None
        parameters = number(parameters, "parameters")
        if not 0 < parameters <= 1:
            raise InputError(f"parameters must be a share above 0 and at most 1, got {parameters}")
        low, high, total = 0, len(self.path), self.count(self._clusters([]))
        if self.count(self._clusters(self.path)) > parameters * total:
            least = self.count(self._clusters(self.path)) / total
            raise InputError(f"parameters must be at least {least:.1%}, left after all merges, got {parameters:.1%}")
        while low < high:
            middle = (low + high) // 2
            if self.count(self._clusters(self.path[:middle])) <= parameters * total:
                high = middle
            else:
                low = middle + 1
        return self._clusters(self.path[:low])

    def complexity(self, betas: Sequence[float]) -> dict[str, list[int]]:
        """Return the feature complexity: the number of channels left in each group at each threshold.

        Args:
            betas: Thresholds, at least 0 and below 1.
        """
        if not isinstance(betas, Sequence) or isinstance(betas, str):
            raise InputError(f"betas must be a list of numbers, got {type(betas).__name__}")
        return {g: [len(self.clusters(beta=beta)[g]) for beta in betas] for g in self.groups}

    def _clusters(self, steps: Sequence[Merge]) -> dict[str, list[list[int]]]:
        """Return the clusters after some steps of the path."""
        found = {g: {c: [c] for c in range(n)} for g, n in self.groups.items()}
        for step in steps:
            found[step.group][step.kept] += found[step.group].pop(step.gone)
        return {g: [sorted(members) for members in own.values()] for g, own in found.items()}

    def count(self, clusters: Mapping[str, list[list[int]]]) -> int:
        """Return the number of parameters that remain after merging the clusters; tied parameters count once.

        Args:
            clusters: Partition of the channels of each group.
        """
        total = 0
        gone = {g: _gone(found) for g, found in clusters.items()}
        for key, value in self.model.named_parameters():
            sizes = list(value.shape)
            for group, sites in self.sites.items():
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
        """Return the smaller network for a threshold, a parameter budget or given widths.

        Args:
            beta: Threshold, as for `clusters`.
            parameters: Largest fraction of the parameters to keep.
            widths: Number of channels to keep in every group, or by group.

        Raises:
            InputError: Not exactly one of the arguments is given, it is out of range, or the module does not run with
                these widths.
        """
        clusters = self.clusters(beta=beta, parameters=parameters, widths=widths)
        shares = self._shares(clusters)
        state = self._merged(clusters, shares)
        small = resize(self.model, self.dropped(state, {g: _gone(found) for g, found in clusters.items()}))
        for key, value in small.state_dict().items():
            if value.is_floating_point() and not bool(value.isfinite().all()):
                raise InputError(f"{key!r} would hold numbers beyond the range of {value.dtype}")
        try:
            error = self._channels.agrees(small, state)
        except Exception as failure:
            raise InputError(
                f"{type(self.model).__name__} does not run with these widths: {type(failure).__name__}: {failure}"
            ) from failure
        rough = any(p.element_size() < 4 for p in self.model.parameters())
        if not error < (0.3 if rough else 1e-2):
            raise InputError(
                f"{type(self.model).__name__} does not compute the function of the merged weights (it differs by "
                f"{error:.1e}): its code depends on its width"
            )
        counts = self.count(clusters), self.count(self._clusters([]))
        bounds = folding_bounds(self._state(), self.sites, clusters, shares) if self.rule == "fold" else {}
        return Shrunk(small, clusters, counts, bounds)

    def dropped(self, state: Mapping[str, Tensor], gone: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
        """Return the parameters with some channels of each group dropped, as in pruning.

        Args:
            state: Parameters of full size.
            gone: Channels to drop from each group.
        """
        return self._channels.dropped(state, gone)

    def merged(self, clusters: Mapping[str, list[list[int]]]) -> dict[str, Tensor]:
        """Return the parameters with the channels of each cluster merged, for any clusters.

        Args:
            clusters: Partition of the channels of each group. All channels of a cluster have the same weight in its
                mean.

        Raises:
            InputError: The clusters of a group are not a partition of its channels.
        """
        for group, found in clusters.items():
            if group not in self.groups or sorted(c for own in found for c in own) != list(range(self.groups[group])):
                raise InputError(f"the clusters of {group!r} are not a partition of the channels of a group")
        state = self._merged(clusters, {g: equal_shares(found) for g, found in clusters.items()})
        return self.dropped(state, {g: _gone(found) for g, found in clusters.items()})

    def _merged(
        self, clusters: Mapping[str, list[list[int]]], shares: Mapping[str, Float[Tensor, " channels"]]
    ) -> dict[str, Tensor]:
        """Return full-size parameters with each cluster at its first channel; no weight reads the other channels."""
        several = {g: {c for own in found if len(own) > 1 for c in own} for g, found in clusters.items()}
        state = self._state()
        if not any(several.values()):
            return state | {key: state[first] for key, first in self.spec.ties.items()}
        given = self._norms.split(state)
        rescaled = self._norms.rescaled(self._level(given, several), several)
        state, cells = dict(rescaled), {g: Cells(found, shares[g]) for g, found in clusters.items()}
        for group, own in cells.items():
            own.merge(self.sites[group], state, self.rule)
        state = self._norms.join(self._norms.settled(state, given, rescaled, cells, self.rule))
        return state | {key: state[first] for key, first in self.spec.ties.items()}

    def _shares(self, clusters: Mapping[str, list[list[int]]]) -> dict[str, Float[Tensor, " n"]]:
        """Return the weight of each channel in the mean of its cluster, by replaying the path."""
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


def feature_complexity(
    model: nn.Module, example_inputs: Any, betas: Sequence[float], **options: Any
) -> dict[str, list[int]]:
    """Return the number of channels of each group that are left after merging at each threshold.

    This estimates the number of functions that a layer computes. It compares the weights of channels, not their
    functions (Definition 3.3 of the paper), and depends strongly on the threshold. Read the whole curve, and do not
    compare thresholds between networks of different width or depth.

    Args:
        model: Module to measure; not modified.
        example_inputs: Example as for `PermutationSpec.from_module`.
        betas: Thresholds, at least 0 and below 1.
        options: Keyword arguments of `FeatureMerger`.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
        >>> twins = model[0].weight.data, model[0].bias.data
        >>> for value in twins:
        ...     value[8:] = value[:8]
        >>> feature_complexity(model, torch.randn(3, 4), [0.0], criterion="saliency")
        {'0': [8]}
    """
    return FeatureMerger(model, example_inputs, **options).complexity(betas)


def _gone(clusters: Sequence[Sequence[int]]) -> list[int]:
    return [c for own in clusters for c in own[1:]]
