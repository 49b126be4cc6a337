"""What may act on a group beside permutations: signs, positive scales, rotations, any invertible matrix.

A one-parameter group of changes of the weights leaves a function alone only if the function's gradient is orthogonal to
its direction, at every point (Noether). For channel c of a group and the parts s of weights that carry it, scaling by
`exp(t a_s)` asks that `sum_s a_s <grad_s[c], theta_s[c]> = 0`: the exponents are the null space of a small matrix,
which one backward pass fills for every channel of every group. What is found is then applied for real, and verified.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import lcm
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from ._linear_maps import Part, act_linearly, part_rows, parts_of_axis
from ._trace import Trace
from ._verify import difference, generic, outputs

if TYPE_CHECKING:
    from ._spec import PermutationSpec

TOLERANCE = 1e-8  # relative, in float64
_INFLUENCE = 1e-5  # of a group on the output, relative: below it nothing can be told


@dataclass(frozen=True)
class LinearSymmetry:
    """The linear maps along a group's axes that leave the function alone.

    Attributes:
        name: `"permutation"`; `"signed permutation"` (odd activations); `"scaled permutation"`, by positive numbers
            (ReLU, or a weight that only multiplies); `"monomial"`, both; `"orthogonal"` (a stream that only RMS norms
            read, their gains all equal); or `"general linear"` (nothing nonlinear in between).
        scales: independent scalings: for each part of a weight, the power of the channel's factor. A part is `(entry,
            axis, stretch)`: query, key and value in one weight are three stretches of one axis.
        signs: the parts that change sign together, one set for each independent change that was found.
        gains: parts with one number a channel that only multiplies the channel on its way to other weights.
        rotations: the parts that an orthogonal matrix acts on.
        frames: for general linear groups, the parts that a matrix acts on (1) and those that its inverse transpose acts
            on (-1).
    """

    name: str = "permutation"
    scales: tuple[dict[Part, int], ...] = ()
    signs: tuple[frozenset[Part], ...] = ()
    gains: frozenset[Part] = frozenset()
    rotations: frozenset[Part] = frozenset()
    frames: tuple[dict[Part, int], ...] = ()


@dataclass(frozen=True)
class _Proposal:
    """A family of maps of one group, to be drawn from; how far apart scales are is up to who draws."""

    group: str
    attribute: str
    value: Any
    draw: Callable[[float], Mapping[Part, Tensor]] = field(repr=False)


class _Point:
    """Parameters and a factor on the inputs, and what the traced modules compute there."""

    def __init__(self, traces: Sequence[Trace], state: Mapping[str, Tensor], factor: float, spread: float) -> None:
        self.state = {k: v.double() if v.is_floating_point() else v for k, v in state.items()}
        self.factor, self.spread = factor, spread
        self.traces = traces
        self.before = self.at(self.state)

    def at(self, state: Mapping[str, Tensor]) -> list[Tensor]:
        return [x for traced in self.traces for x in outputs(traced, state, self.factor)]


class Kinds:
    """The kinds of all groups of a spec.

    Args:
        spec: derived from a module, with values.
        state: the module's parameters.
    """

    def __init__(self, spec: PermutationSpec, state: Mapping[str, Tensor]) -> None:
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
        states = [generic(self.given, self.generator) for _ in range(2)]
        slopes = [self._gradients(s) for s in states]
        found = {group: self._scales(group, states, slopes) for group in spec.sizes}
        # streams turn only where gains are equal for all channels: such vectors stay as they are
        self.equal = {k for k, v in self.given.items() if v.dim() == 1 and v.numel() > 1 and v.is_floating_point()
                      and bool((v == v[0]).all() & (v[0] != 0))}  # fmt: skip
        states = [s | {k: self.given[k].double() for k in self.equal} for s in states]
        slope = self._gradients(states[0]) if self.equal else slopes[0]
        self.points = [_Point(self.traces, states[0], 1.0, 0.4), _Point(self.traces, states[1], 30.0, 5.0),
                       _Point(self.traces, self.given, 0.1, 5.0)]  # fmt: skip
        proposals = [p for group in spec.sizes for p in self._proposals(group, *found[group], states[0], slope)]
        self.kinds = {group: LinearSymmetry() for group in spec.sizes}
        for proposal in proposals:
            if self._holds(proposal):
                self._accept(proposal)

    def _counts(self, key: str, axis: int, group: str, used: set[str]) -> bool:
        here = set(self.spec.axes[key][axis].groups())
        tied = {k for k, first in self.spec.ties.items() if first == key}
        return (
            key not in self.spec.ties
            and bool(({key} | tied) & used)
            and self.given[key].is_floating_point()
            and set(self.spec.parents[group]) <= here
            and not key.endswith("running_var")  # eps stands beside it: it scales almost, but not quite
        )

    def _gradients(self, point: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of a random projection of the outputs, by the parameters; divided by its size."""
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
        """The parts that matter, and the exponents that the gradients allow; nothing where too little matters."""
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
        # a bias in front of a softmax has no part in anything; a weight without one was not exercised by the example
        idle = any(self.given[s[0]].dim() > 1 for i, s in enumerate(sites) if i not in live)
        if idle or not float(weight.max()) > _INFLUENCE:
            return [], []
        powers = _null_space(balance[:, live])
        return [sites[i] for i in live], [{sites[live[i]]: p for i, p in enumerate(own) if p} for own in powers]

    def _proposals(
        self,
        group: str,
        live: list[Part],
        scales: list[dict[Part, int]],
        state: Mapping[str, Tensor],
        slope: Mapping[str, Tensor],
    ) -> list[_Proposal]:
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
                signs[torch.randint(outer * size, (), generator=self.generator)] = -1  # all follow from one alone
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
        """The parts that an orthogonal matrix may act on: all but some that are equal for all channels, gains."""
        equal = [p for p in live if p[0] in self.equal]
        terms = {p: forms.turn(p) for p in live}
        chosen = [p for p in live if p not in equal]
        if equal and chosen:  # which of them turn with the rest
            columns = torch.stack([terms[p].flatten() for p in equal], 1)
            rest = torch.stack([terms[p] for p in chosen]).sum(0).flatten()
            share = torch.linalg.lstsq(columns, -rest[:, None], driver="gelsd").solution[:, 0]
            chosen += [p for p, own in zip(equal, share.tolist(), strict=True) if own > 0.5]
        return frozenset(chosen) if chosen and _vanishes([terms[p] for p in chosen]) else frozenset()

    def _flips(self, live: list[Part], scales: list[dict[Part, int]]) -> list[frozenset[Part]]:
        """Sets of parts that may change sign: odd powers of a scale; all; what makes the channels; one of the gates."""
        axes = [p[:2] for p in live]
        several = {axis for axis in axes if axes.count(axis) > 1}
        found = [frozenset(p for p, power in scale.items() if power % 2) for scale in scales]
        found += [frozenset(live), frozenset(p for p in live if p[:2] not in self.spec.summed)]
        found += [frozenset(p for p in live if p[:2] not in several or p[2] == s) for s in {p[2] for p in live}]
        return [parts for parts in dict.fromkeys(found) if parts]

    def _holds(self, proposal: _Proposal) -> bool:
        """Whether it leaves the function alone, with nothing else applied that could make up for it."""
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
    """What the gradient says of matrices that act on parts: `sum_ij u_i (g_i . x_j) v_j` for random directions u, v."""

    def __init__(
        self,
        spec: PermutationSpec,
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
        """To first order, of a matrix, or of its inverse transpose."""
        xu, xv, gu, gv = self.sides[part]
        return (gu * xv).sum(1) if power > 0 else -(xu * gv).sum(1)

    def turn(self, part: Part) -> Tensor:
        """To first order, of a rotation."""
        return self.linear(part, 1) + self.linear(part, -1)


def _gains(given: Mapping[str, Tensor], scales: Sequence[Mapping[Part, int]]) -> frozenset[Part]:
    """Parts with one number a channel that a scale multiplies while it divides all else."""
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
    """Whether a sum is zero up to the rounding of its terms, and not because all of them are."""
    size = max(float(t.abs().max()) for t in terms)
    total: Tensor = sum(terms)  # type: ignore[assignment]
    return size > 0 and float(total.abs().max()) < TOLERANCE * size


def _null_space(matrix: Float[Tensor, "equations unknowns"]) -> list[list[int]]:
    """A basis of small whole numbers of the solutions of `matrix @ x = 0`; directions that have none are left out."""
    count = matrix.shape[1]
    if not count:
        return []
    scale = matrix.abs().amax(0)
    _, values, v = torch.linalg.svd(matrix / scale, full_matrices=True)
    rank = int((values > 1e-9 * values[0]).sum()) if len(values) else 0
    basis = v[rank:] / scale
    row = 0
    for column in range(count):  # to reduced echelon form, with the largest entry as the pivot
        if row == len(basis):
            break
        pivot = row + int(basis[row:, column].abs().argmax())
        if float(basis[pivot, column].abs()) < 1e-6 * float(basis.abs().max()):
            continue
        basis[[row, pivot]] = basis[[pivot, row]]
        basis[row] /= basis[row, column].clone()
        for other in range(len(basis)):
            if other != row:
                basis[other] -= basis[other, column].clone() * basis[row]
        row += 1
    found = []
    for vector in basis.tolist():
        fractions = [Fraction(x).limit_denominator(4) for x in vector]
        if all(abs(float(f) - x) < 1e-5 for f, x in zip(fractions, vector, strict=True)) and any(fractions):
            common = lcm(*(f.denominator for f in fractions))
            found.append([int(f * common) for f in fractions])
    return found
