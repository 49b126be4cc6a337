"""Linear symmetries of groups beyond permutations: signs, positive scales, rotations, any invertible matrix.

If a one-parameter group of changes of the weights leaves a function unchanged, the gradient of the function is
orthogonal to the direction of change at every point (Noether). For channel c of a group and the parts s of weights
that carry it, scaling by `exp(t a_s)` requires `sum_s a_s <grad_s[c], theta_s[c]> = 0`. The exponents are the null
space of a small matrix, which one backward pass fills for every channel of every group. Each candidate is then applied
to the weights, and the outputs are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ._linear_maps import Part, act_linearly, part_rows, parts_of_axis
from ._null_space import whole_null_space
from ._tied_axes import TiedAxes
from ._trace import Trace
from ._verify import difference, generic, outputs

TOLERANCE = 1e-8  # relative, in float64
_INFLUENCE = 1e-5  # smallest relative influence of a group on the output from which exponents can be told


@dataclass(frozen=True)
class LinearSymmetry:
    """Linear maps along the axes of a group that do not change what the network computes.

    A part of a weight is `(entry, axis, stretch)`, where a stretch is a contiguous range of an axis. For example,
    query, key and value in one weight are three stretches of one axis.

    Attributes:
        name: `"permutation"`; `"signed permutation"` (odd activations); `"scaled permutation"`, by positive numbers
            (ReLU, or a weight that only multiplies); `"monomial"`, both signs and scales; `"orthogonal"` (a stream that
            only RMS norms with equal gains read); or `"general linear"` (nothing nonlinear in between).
        scales: Independent scalings: for each part of a weight, the power of the channel's factor.
        signs: Parts that change sign together, one set for each independent change.
        gains: Parts with one number per channel that only multiplies the channel on its way to other weights.
        rotations: Parts on which an orthogonal matrix acts.
        frames: For general linear groups, 1 for each part on which a matrix acts and -1 for each part on which its
            inverse transpose acts.
    """

    name: str = "permutation"
    scales: tuple[dict[Part, int], ...] = ()
    signs: tuple[frozenset[Part], ...] = ()
    gains: frozenset[Part] = frozenset()
    rotations: frozenset[Part] = frozenset()
    frames: tuple[dict[Part, int], ...] = ()


def linear_symmetries(spec: TiedAxes, state: Mapping[str, Tensor]) -> dict[str, LinearSymmetry]:
    """Return the linear symmetries of every group of a spec that was derived from a module.

    Args:
        spec: Spec with the traces of the module.
        state: Parameters and buffers of the module.
    """
    return _Search(spec, state).found()


@dataclass(frozen=True)
class _Proposal:
    """Family of maps of one group; `draw(spread)` draws one, with scales within a factor of `exp(2 * spread)`."""

    group: str
    attribute: str
    value: Any
    draw: Callable[[float], Mapping[Part, Tensor]] = field(repr=False)


class _Point:
    """Parameters, a factor on the inputs, and the outputs of the traced modules there."""

    def __init__(self, traces: Sequence[Trace], state: Mapping[str, Tensor], factor: float, spread: float) -> None:
        self.state = {k: v.double() if v.is_floating_point() else v for k, v in state.items()}
        self.factor, self.spread = factor, spread
        self.traces = traces
        self.before = self.at(self.state)

    def at(self, state: Mapping[str, Tensor]) -> list[Tensor]:
        return [x for traced in self.traces for x in outputs(traced, state, self.factor)]


class _Search:
    """Search for the linear symmetries of all groups of a spec."""

    def __init__(self, spec: TiedAxes, state: Mapping[str, Tensor]) -> None:
        self.spec, self.traces = spec, spec.graphs
        self.given = {k: v.detach().cpu() for k, v in state.items()}
        self.generator = torch.Generator().manual_seed(0)
        used = {source.name for traced in self.traces
                for node, source in zip(_placeholders(traced), traced.sources, strict=True) if node.users}  # fmt: skip
        self.sites = {
            g: [part for key, axis in spec.uses(g) if self._counts(key, axis, g, used)
                for part in parts_of_axis(spec, key, axis, g)]
            for g in spec.sizes
        }  # fmt: skip
        self.equal: set[str] = set()  # vectors of the state dict whose entries are all equal
        self.points: list[_Point] = []
        self.kinds = {group: LinearSymmetry() for group in spec.sizes}

    def found(self) -> dict[str, LinearSymmetry]:
        """Propose maps for each group from gradients, and keep the ones that change no output."""
        spec = self.spec
        states = [generic(self.given, self.generator) for _ in range(2)]
        slopes = [self._gradients(s) for s in states]
        found = {group: self._scales(group, states, slopes) for group in spec.sizes}
        # streams rotate only where gains are equal for all channels: such vectors stay as they are
        self.equal = {k for k, v in self.given.items() if v.dim() == 1 and v.numel() > 1 and v.is_floating_point()
                      and bool((v == v[0]).all() & (v[0] != 0))}  # fmt: skip
        states = [s | {k: self.given[k].double() for k in self.equal} for s in states]
        slope = self._gradients(states[0]) if self.equal else slopes[0]
        self.points = [_Point(self.traces, states[0], 1.0, 0.4), _Point(self.traces, states[1], 30.0, 5.0),
                       _Point(self.traces, self.given, 0.1, 5.0)]  # fmt: skip
        proposals = [p for group in spec.sizes for p in self._proposals(group, *found[group], states[0], slope)]
        for proposal in proposals:
            if self._holds(proposal):
                self._accept(proposal)
        return self.kinds

    def _counts(self, key: str, axis: int, group: str, used: set[str]) -> bool:
        """Return whether an axis takes part in the balance of its group."""
        here = set(self.spec.axes[key][axis].groups())
        tied = {k for k, first in self.spec.ties.items() if first == key}
        return (
            key not in self.spec.ties
            and bool(({key} | tied) & used)
            and self.given[key].is_floating_point()
            and set(self.spec.parents[group]) <= here
            and not key.endswith("running_var")  # added to eps: it scales almost, but not exactly
        )

    def _gradients(self, point: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the normalized gradient of a random projection of the outputs."""
        keys = {key for sites in self.sites.values() for key, _, _ in sites}
        leaves = {k: point[k].double().clone().requires_grad_() for k in keys}
        state = {k: leaves.get(self.spec.ties.get(k, k), v) for k, v in point.items()}
        total, size = torch.zeros((), dtype=torch.float64), 1e-300
        for traced in self.traces:
            for x in outputs(traced, state):
                if x.is_floating_point() and x.requires_grad:
                    weight = torch.randn(x.shape, generator=self.generator, dtype=torch.float64)
                    total = total + (x * weight).sum()
                    size += float(x.detach().square().sum())
        if not total.requires_grad:
            return {k: torch.zeros_like(v) for k, v in leaves.items()}
        slopes = torch.autograd.grad(total / size**0.5, list(leaves.values()), allow_unused=True)
        return {k: torch.zeros_like(v) if g is None else g for (k, v), g in zip(leaves.items(), slopes, strict=True)}

    def _scales(
        self, group: str, states: Sequence[Mapping[str, Tensor]], slopes: Sequence[Mapping[str, Tensor]]
    ) -> tuple[list[Part], list[dict[Part, int]]]:
        """Return the parts with influence on the outputs, and the exponents that the gradients allow.

        Both are empty where the group has too little influence, or where the example leaves a weight unused.
        """
        sites = self.sites[group]
        if not sites:
            return [], []
        balance = torch.cat([
            torch.stack([(part_rows(self.spec, state[s[0]], s, group) * part_rows(self.spec, slope[s[0]], s, group))
                         .sum(2).flatten() for s in sites], 1)
            for state, slope in zip(states, slopes, strict=True)
        ])  # fmt: skip
        weight = balance.abs().amax(0)
        live = [i for i in range(len(sites)) if float(weight[i]) > 1e-10 * float(weight.max())]
        # a bias in front of a softmax has no influence; a matrix without influence was not exercised by the example
        idle = any(self.given[s[0]].dim() > 1 for i, s in enumerate(sites) if i not in live)
        if idle or not float(weight.max()) > _INFLUENCE:
            return [], []
        powers = whole_null_space(balance[:, live])
        return [sites[i] for i in live], [{sites[live[i]]: p for i, p in enumerate(own) if p} for own in powers]

    def _proposals(
        self,
        group: str,
        live: list[Part],
        scales: list[dict[Part, int]],
        state: Mapping[str, Tensor],
        slope: Mapping[str, Tensor],
    ) -> list[_Proposal]:
        """Return the families of maps that the gradients at one point allow for a group."""
        *parents, size = self.spec.shape(group)
        outer = int(torch.Size(parents).numel())

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=self.generator, dtype=torch.float64)

        def scaled(scale: Mapping[Part, int]) -> Callable[[float], Mapping[Part, Tensor]]:
            def draw(spread: float) -> dict[Part, Tensor]:
                log = spread * normal(outer, size).clamp(-2, 2)
                return {part: (power * log).exp() for part, power in scale.items()}

            return draw

        def flipped(parts: frozenset[Part]) -> Callable[[float], Mapping[Part, Tensor]]:
            def draw(_: float) -> dict[Part, Tensor]:
                signs = torch.ones(outer * size, dtype=torch.float64)
                signs[torch.randint(outer * size, (), generator=self.generator)] = -1  # one implies all others
                return dict.fromkeys(parts, signs.view(outer, size))

            return draw

        def mixed(frame: Mapping[Part, int]) -> Callable[[float], Mapping[Part, Tensor]]:
            def draw(_: float) -> dict[Part, Tensor]:
                matrix = torch.eye(size, dtype=torch.float64) + 0.2 * normal(outer, size, size) / size**0.5
                inverse = torch.linalg.inv(matrix).mT
                return {part: matrix if power > 0 else inverse for part, power in frame.items()}

            return draw

        def turned(parts: frozenset[Part]) -> Callable[[float], Mapping[Part, Tensor]]:
            return lambda _: dict.fromkeys(parts, torch.linalg.qr(normal(outer, size, size)).Q)

        found = [_Proposal(group, "scales", scale, scaled(scale)) for scale in scales]
        found += [_Proposal(group, "signs", parts, flipped(parts)) for parts in self._flips(live, scales)]
        forms = _Forms(self.spec, group, live, state, slope, normal)
        for scale in scales:
            if set(scale.values()) == {1, -1} and _vanishes([forms.linear(p, power) for p, power in scale.items()]):
                found.append(_Proposal(group, "frames", scale, mixed(scale)))
        turning = self._turning(live, forms) if size > 1 else frozenset()
        if turning:
            found.append(_Proposal(group, "rotations", turning, turned(turning)))
        return found

    def _turning(self, live: list[Part], forms: _Forms) -> frozenset[Part]:
        """Return the parts on which an orthogonal matrix may act: all but gains that are equal for all channels."""
        equal = [p for p in live if p[0] in self.equal]
        terms = {p: forms.turn(p) for p in live}
        chosen = [p for p in live if p not in equal]
        if equal and chosen:  # find out which of them rotate with the rest
            columns = torch.stack([terms[p].flatten() for p in equal], 1)
            rest = torch.stack([terms[p] for p in chosen]).sum(0).flatten()
            share = torch.linalg.lstsq(columns, -rest[:, None], driver="gelsd").solution[:, 0]
            chosen += [p for p, own in zip(equal, share.tolist(), strict=True) if own > 0.5]
        return frozenset(chosen) if chosen and _vanishes([terms[p] for p in chosen]) else frozenset()

    def _flips(self, live: list[Part], scales: list[dict[Part, int]]) -> list[frozenset[Part]]:
        """Return sets of parts that may change sign together.

        These are the odd powers of a scale, all parts, the parts whose outputs are the channels, and single gates.
        """
        axes = [p[:2] for p in live]
        several = {axis for axis in axes if axes.count(axis) > 1}
        found = [frozenset(p for p, power in scale.items() if power % 2) for scale in scales]
        found += [frozenset(live), frozenset(p for p in live if p[:2] not in self.spec.summed)]
        found += [frozenset(p for p in live if p[:2] not in several or p[2] == s) for s in {p[2] for p in live}]
        return [parts for parts in dict.fromkeys(found) if parts]

    def _holds(self, proposal: _Proposal) -> bool:
        """Return whether a map drawn from the proposal, applied alone, changes no output."""
        for point in self.points:
            elsewhere = self.points[point is self.points[0]].before
            state = act_linearly(self.spec, point.state, proposal.group, proposal.draw(point.spread))
            try:
                if not difference(point.before, point.at(state), elsewhere) < TOLERANCE:
                    return False
            except Exception:  # an operator refuses the values
                return False
        return True

    def _accept(self, proposal: _Proposal) -> None:
        """Add a verified map to the symmetries of its group, and name the group anew."""
        own, value = self.kinds[proposal.group], proposal.value
        if proposal.attribute != "rotations":
            value = (*getattr(own, proposal.attribute), value)
        changed: dict[str, Any] = {proposal.attribute: value}
        own = replace(own, **changed)
        name = (
            "general linear" if own.frames
            else "orthogonal" if own.rotations
            else "monomial" if own.scales and own.signs
            else "scaled permutation" if own.scales
            else "signed permutation" if own.signs
            else "permutation"
        )  # fmt: skip
        self.kinds[proposal.group] = replace(own, name=name, gains=_gains(self.given, own.scales))


class _Forms:
    """First-order changes when matrices act on parts: `sum_ij u_i (g_i . x_j) v_j` for random directions u, v."""

    def __init__(
        self,
        spec: TiedAxes,
        group: str,
        parts: Sequence[Part],
        state: Mapping[str, Tensor],
        slope: Mapping[str, Tensor],
        normal: Callable[..., Tensor],
    ) -> None:
        *parents, size = spec.shape(group)
        u, v = (normal(int(torch.Size(parents).numel()), size, 24) for _ in range(2))
        self.sides = {}
        for part in parts:
            x, g = (part_rows(spec, t[part[0]], part, group).mT for t in (state, slope))
            self.sides[part] = x @ u, x @ v, g @ u, g @ v

    def linear(self, part: Part, power: int) -> Tensor:
        """Return the first-order change when a matrix (or its inverse transpose) acts on `part`."""
        xu, xv, gu, gv = self.sides[part]
        return (gu * xv).sum(1) if power > 0 else -(xu * gv).sum(1)

    def turn(self, part: Part) -> Tensor:
        """Return the first-order change when a rotation acts on `part`."""
        return self.linear(part, 1) + self.linear(part, -1)


def _gains(given: Mapping[str, Tensor], scales: Sequence[Mapping[Part, int]]) -> frozenset[Part]:
    """Return parts with one number per channel that a scale multiplies while it divides all other parts."""
    return frozenset(
        part
        for scale in scales
        for part, power in scale.items()
        if given[part[0]].dim() == 1
        and abs(power) == 1
        and len(scale) > 1
        and all(other == -power for p, other in scale.items() if p != part)
    )


def _placeholders(traced: Trace) -> list[torch.fx.Node]:
    return [node for node in traced.module.graph.nodes if node.op == "placeholder"]


def _vanishes(terms: Sequence[Tensor]) -> bool:
    """Return whether terms that are not all zero add up to zero, up to rounding."""
    size = max(float(t.abs().max()) for t in terms)
    total: Tensor = sum(terms)  # type: ignore[assignment]
    return size > 0 and float(total.abs().max()) < TOLERANCE * size
