"""Networks made smaller without data: channels that are alike are merged, and the smaller module is a real one."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

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
    """Iterative feature merging of any module: find channels that do the same, and put each set of them into one.

    Groups come from the module's `PermutationSpec`. A group takes part if its equal channels can be merged without
    changing the function and if the module runs with fewer channels; both are tried out in float64 before anything
    else. Streams that pass a layer norm stay as they are, and so does whatever a module's own code gives a fixed size,
    as it often does with heads; `refused` says why.

    Channels in front of a batch norm of their own are measured and merged at the scale that the norm gives them, and
    standard deviations are merged in place of variances, so that merging equal channels is exact there too; those that
    are not quite alike keep the spread that the norm expects. Layers wider than 64 learn of their neighbours' merges in
    steps of a 64th.

    A Hugging Face model keeps its configuration: load the smaller one with `resize`, not with `from_pretrained`.

    Args:
        model: stays as it is.
        example_inputs: as for `PermutationSpec.from_module`.
        rule: `"fold"` averages what makes the channels and adds what reads them: exact for equal channels under any
            activation. `"ifm"` is the paper's rule (Eqs. 9 to 11), the other way round: exact for positively
            homogeneous activations only, and refused for groups where it is not.
        criterion: what "alike" means, squared: `"saliency"`, a bound on what merging two channels changes in the next
            layer, |v_m| |v_n| / (|v_m| + |v_n|) |w_m - w_n|, the default of `"fold"`; `"inout"`, the distance of all
            weights that make or read them, the paper's and the default of `"ifm"`; `"activations"`, as `"saliency"`
            with the root mean square difference of the channels on data in the place of |w_m - w_n|.
        reference: thresholds are shares of the largest distance in the group: the `"initial"` one, or the `"current"`
            one (the paper's), which grows as the paper's rule adds weights up.
        modulo_scale: channels that differ by a positive factor count as equal where the activation between lets the
            factor through, as ReLU does: all are brought to the same norm before they are compared or merged.
        batches: of data, of the example's shapes, for `"activations"`.
        outputs: what of the model's output must stay as it is, as for `PermutationSpec.from_module`.
        spec: derived from this model before.

    Attributes:
        groups: the channels that can be merged, and how many there are.
        refused: why the other groups can't be.
        sites: for each group, the axes of the parameters that carry its channels.

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
        criterion: Criterion | None = None,
        reference: Reference = "initial",
        modulo_scale: bool = False,
        batches: Iterable[Any] | None = None,
        outputs: Callable[[Any], Any] | None = None,
        spec: PermutationSpec | None = None,
    ) -> None:
        check_module(model, "model")
        criterion = criterion or ("inout" if rule == "ifm" else "saliency")
        for name, given, known in (("rule", rule, ("fold", "ifm")), ("reference", reference, ("initial", "current")),
                                   ("criterion", criterion, ("inout", "saliency", "activations"))):  # fmt: skip
            if given not in known:
                raise InputError(f"{name} must be one of {', '.join(known)}, got {given!r}")
        if rule == "ifm" and criterion != "inout":
            raise InputError(
                f'the rule "ifm" goes with the criterion "inout", got {criterion!r}: the others bound folding'
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
            raise InputError("features can be merged with a spec that PermutationSpec.from_module derived")
        self._channels = Mergeable(model, example_inputs, self.spec, rule, outputs)
        self._norms, self.sites, self.refused = self._channels.norms, self._channels.sites, self._channels.refused
        self.groups = {g: len(sites[0].index) for g, sites in self.sites.items()}
        if not self.groups:
            warnings.warn(f"no group of channels can be merged: {self.refused or 'the network has none'}", stacklevel=2)
        self._level = Level(self.spec, self.sites if modulo_scale else {})
        self._moments = None if batches is None else self._seen(state, batches)

    def _seen(self, state: Mapping[str, Tensor], batches: Iterable[Any]) -> dict[str, Float[Tensor, "n n"]]:
        """The second moments of the activations that layers read, for each group."""
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
            wanted = dict(widths) if isinstance(widths, Mapping) else dict.fromkeys(self.groups, widths)
            for group, width in wanted.items():
                if group not in self.groups:
                    raise InputError(f"{group!r} can't be merged: {self.refused.get(group, 'there is no such group')}")
                if isinstance(width, bool) or not isinstance(width, int) or width < 1:
                    raise InputError(f"at least one channel of {group!r} must be left, a whole number, got {width!r}")
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
            raise InputError(f"merging leaves at least {least:.1%} of the parameters, asked for {parameters:.1%}")
        while low < high:
            middle = (low + high) // 2
            if self.count(self._clusters(self.path[:middle])) <= parameters * total:
                high = middle
            else:
                low = middle + 1
        return self._clusters(self.path[:low])

    def complexity(self, betas: Sequence[float]) -> dict[str, list[int]]:
        """Feature complexity: how many channels of each group are left at each threshold."""
        if not isinstance(betas, Sequence) or isinstance(betas, str):
            raise InputError(f"betas must be a list of numbers, got {type(betas).__name__}")
        return {g: [len(self.clusters(beta=beta)[g]) for beta in betas] for g in self.groups}

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
        """The smaller network; arguments as for `clusters`.

        Raises:
            InputError: none or several of the arguments, one out of range, or widths that the module's code refuses.
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
                f"{type(self.model).__name__} computes something else than the merged weights (by {error:.1e}): "
                "its code depends on its width"
            )
        counts = self.count(clusters), self.count(self._clusters([]))
        bounds = folding_bounds(self._state(), self.sites, clusters, shares) if self.rule == "fold" else {}
        return Shrunk(small, clusters, counts, bounds)

    def dropped(self, state: Mapping[str, Tensor], gone: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
        """The parameters without some channels of each group, and nothing in their place: pruning."""
        return self._channels.dropped(state, gone)

    def merged(self, clusters: Mapping[str, list[list[int]]]) -> dict[str, Tensor]:
        """The parameters with the channels of each cluster merged, whichever clusters these are.

        Args:
            clusters: for each group, a partition of its channels; all count alike in the mean of their cluster.
        """
        for group, found in clusters.items():
            if group not in self.groups or sorted(c for own in found for c in own) != list(range(self.groups[group])):
                raise InputError(f"the clusters of {group!r} are no partition of the channels of a group")
        state = self._merged(clusters, {g: equal_shares(found) for g, found in clusters.items()})
        return self.dropped(state, {g: _gone(found) for g, found in clusters.items()})

    def _merged(
        self, clusters: Mapping[str, list[list[int]]], shares: Mapping[str, Float[Tensor, " channels"]]
    ) -> dict[str, Tensor]:
        """At full size: each cluster in the place of its first channel, and nothing reads the others."""
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


def feature_complexity(
    model: nn.Module, example_inputs: Any, betas: Sequence[float], **options: Any
) -> dict[str, list[int]]:
    """How many channels of each group are left when those closer than each threshold are merged.

    An estimate of the number of functions that a layer computes. It says that channels have close weights, not that
    they are equal as functions (Definition 3.3 of the paper), and it depends strongly on the threshold: read the whole
    curve, and do not compare thresholds between networks of different width or depth.

    Args:
        model: stays as it is.
        example_inputs: as for `PermutationSpec.from_module`.
        betas: at least 0 and below 1.
        options: of `FeatureMerger`.

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
