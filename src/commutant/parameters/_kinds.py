"""What may act on a group beside permutations: signs, positive scales, rotations, any invertible matrix.

A one-parameter group of changes of the weights leaves a function alone only if the function's gradient is orthogonal to
its direction, at every point (Noether). For channel c of a group and the parts s of weights that carry it, scaling by
`exp(t a_s)` asks that `sum_s a_s <grad_s[c], theta_s[c]> = 0`: the exponents are the null space of a small matrix,
which one backward pass fills for every channel of every group. What is found is then applied for real, and verified.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import lcm
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils import _pytree as pytree

from ._linear_maps import Part, act_linearly, part_rows, parts_of_axis
from ._trace import Trace
from ._verify import InDouble, difference, generic, outputs
from ._walk import name_of

if TYPE_CHECKING:
    from ._spec import PermutationSpec

TOLERANCE = 1e-8  # relative, in float64


@dataclass(frozen=True)
class Kind:
    """The linear maps along a group's axes that leave the function alone.

    Attributes:
        name: `"permutation"`; `"signed permutation"` (odd activations); `"scaled permutation"`, by positive numbers
            (ReLU, or a weight that only multiplies); `"monomial"`, both; `"orthogonal"` (a stream that only RMS norms
            read, their weights all equal); or `"general linear"` (nothing nonlinear in between).
        scales: independent scalings: for each part of a weight, the power of the channel's factor. A part is `(entry,
            axis, stretch)`: query, key and value in one weight are three stretches of one axis.
        signs: the parts that change sign together, one set for each independent change that was found.
        rotations: the parts that an orthogonal matrix acts on.
        frames: for general linear groups, the parts that a matrix acts on (1) and those that its inverse transpose acts
            on (-1).
    """

    name: str = "permutation"
    scales: tuple[dict[Part, int], ...] = ()
    signs: tuple[frozenset[Part], ...] = ()
    rotations: frozenset[Part] = frozenset()
    frames: tuple[dict[Part, int], ...] = field(default=())


class Kinds:
    """The kinds of all groups of a spec.

    Args:
        spec: derived from a module, with values.
        state: the module's parameters.
    """

    def __init__(self, spec: PermutationSpec, state: Mapping[str, Tensor]) -> None:
        assert spec.graph is not None
        self.spec, self.traced = spec, spec.graph
        self.given = {k: v.detach() for k, v in state.items()}
        self.generator = torch.Generator().manual_seed(0)
        used = {source.name for node, source in zip(_placeholders(spec.graph), spec.graph.sources, strict=True)
                if node.users}  # fmt: skip
        self.sites = {
            g: [part for key, axis in spec.uses(g) if self._counts(key, axis, g, used)
                for part in parts_of_axis(spec, key, axis, g)]
            for g in spec.sizes
        }  # fmt: skip
        self.points = [generic(self.given, self.generator) for _ in range(2)]
        self.before = [outputs(self.traced, point) for point in self.points]
        self.slopes = [self._gradients(point) for point in self.points]

    def _counts(self, key: str, axis: int, group: str, used: set[str]) -> bool:
        here = set(self.spec.axes[key][axis].groups())
        tied = {k for k, first in self.spec.ties.items() if first == key}
        return (
            key not in self.spec.ties
            and bool(({key} | tied) & used)
            and self.given[key].is_floating_point()
            and set(self.spec.parents[group]) <= here
        )

    def _gradients(self, point: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of a random projection of the outputs, by the parameters."""
        keys = {key for sites in self.sites.values() for key, _, _ in sites}
        leaves = {k: point[k].double().clone().requires_grad_() for k in keys}
        state = {k: leaves.get(self.spec.ties.get(k, k), v) for k, v in point.items()}
        given = [state.get(s.name, s.value) if s.kind in ("parameter", "buffer") else s.value
                 for s in self.traced.sources]  # fmt: skip
        found = _Differentiable(self.traced.module).run(*given)
        total = torch.zeros((), dtype=torch.float64)
        for x in pytree.tree_leaves(found):
            if isinstance(x, Tensor) and x.is_floating_point() and x.requires_grad:
                total = total + (x * torch.randn(x.shape, generator=self.generator, dtype=torch.float64)).sum()
        if not total.requires_grad:
            return {k: torch.zeros_like(v) for k, v in leaves.items()}
        slopes = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
        return {k: torch.zeros_like(v) if g is None else g for (k, v), g in zip(leaves.items(), slopes, strict=True)}

    def holds(self, group: str, draw: Callable[[int], Mapping[Part, Tensor]], number: int = 0) -> bool:
        """Whether the function stays what it is under the maps that are drawn for this many outer indices."""
        try:
            moved = act_linearly(self.spec, self.points[number], group, draw(self._outer(group)))
            return difference(self.before[number], outputs(self.traced, moved)) < TOLERANCE
        except Exception:  # an operator refuses the values
            return False

    def _outer(self, group: str) -> int:
        return int(torch.Size(self.spec.shape(group)[:-1]).numel())

    def kind(self, group: str) -> Kind:
        """What acts on one group."""
        size, sites = self.spec.sizes[group], self.sites[group]
        balance = torch.cat([
            torch.stack([self._balance(point, slope, site, group) for site in sites], 1)
            for point, slope in zip(self.points, self.slopes, strict=True)
        ]) if sites else torch.zeros(1, 0)  # fmt: skip
        weight = balance.abs().amax(0)  # a bias in front of a softmax has no part in anything: its slope is rounding
        live = [i for i in range(len(sites)) if float(weight[i]) > 1e-10 * float(weight.max())]
        scales = tuple(
            {sites[live[i]]: power for i, power in enumerate(powers) if power}
            for powers in _null_space(balance[:, live])
        )
        if scales and not self._scaled(group, scales):
            scales = tuple(scale for scale in scales if self._scaled(group, [scale]))
        candidates = [frozenset(s for s, power in scale.items() if power % 2) for scale in scales]
        candidates += [frozenset(sites[i] for i in live)]
        signs = tuple(c for c in dict.fromkeys(candidates) if c and self._flipped(group, c))
        frames = tuple(s for s in scales if set(s.values()) == {1, -1} and self._linear(group, s))
        rotations = frozenset() if size < 2 else self._rotated(group, [sites[i] for i in live])
        name = (
            "general linear" if frames
            else "orthogonal" if rotations
            else "monomial" if scales and signs
            else "scaled permutation" if scales
            else "signed permutation" if signs
            else "permutation"
        )  # fmt: skip
        return Kind(name, scales, signs, rotations, frames)

    def _balance(self, point: Mapping[str, Tensor], slope: Mapping[str, Tensor], site: Part, group: str) -> Tensor:
        """The change of the output, to first order, when each channel of a part is scaled."""
        x, g = (part_rows(self.spec, t[site[0]], site, group) for t in (point, slope))
        return (x * g).sum(2).flatten()

    def _scaled(self, group: str, scales: Sequence[Mapping[Part, int]]) -> bool:
        def draw(outer: int) -> dict[Part, Tensor]:
            size = self.spec.sizes[group]
            logs: dict[Part, Tensor] = {}
            for scale in scales:
                log = 0.4 * torch.randn(outer, size, generator=self.generator, dtype=torch.float64)
                for site, power in scale.items():
                    logs[site] = logs.get(site, 0) + power * log
            return {site: log.exp().diag_embed() for site, log in logs.items()}

        return self.holds(group, draw)

    def _flipped(self, group: str, sites: frozenset[Part]) -> bool:
        def draw(outer: int) -> dict[Part, Tensor]:
            bits = torch.randint(0, 2, (outer, self.spec.sizes[group]), generator=self.generator)
            bits[:, 0] = 1  # at least one is flipped
            return dict.fromkeys(sites, (1 - 2 * bits).double().diag_embed())

        return self.holds(group, draw) and self.holds(group, draw)

    def _linear(self, group: str, scale: Mapping[Part, int]) -> bool:
        """Whether any invertible matrix may act where the exponent is 1, with its inverse transpose where it is -1."""
        pairs = []
        for point, slope in zip(self.points, self.slopes, strict=True):
            for site, power in scale.items():
                x, g = (part_rows(self.spec, t[site[0]], site, group) for t in (point, slope))
                pairs.append(g @ x.mT if power > 0 else -(x @ g.mT))
        count = len(scale)
        if not all(_vanishes(pairs[i : i + count]) for i in range(0, len(pairs), count)):
            return False

        def draw(outer: int) -> dict[Part, Tensor]:
            matrix = (
                torch.eye(self.spec.sizes[group], dtype=torch.float64)
                + 0.2
                * torch.randn(outer, *2 * (self.spec.sizes[group],), generator=self.generator, dtype=torch.float64)
                / self.spec.sizes[group] ** 0.5
            )
            inverse = torch.linalg.inv(matrix).mT
            return {site: matrix if power > 0 else inverse for site, power in scale.items()}

        return self.holds(group, draw)

    def _rotated(self, group: str, sites: Sequence[Part]) -> frozenset[Part]:
        """The parts on which any orthogonal matrix may act: all, or all but gains that are equal for every channel."""
        given = self.given
        equal = {s for s in sites if given[s[0]].dim() == 1 and bool((given[s[0]] == given[s[0]][0]).all())}
        for left_out in (set(), equal):
            chosen = [s for s in sites if s not in left_out]
            held = {key for key, _, _ in left_out}
            point = {k: given[k].double() if k in held else v for k, v in self.points[0].items()}
            slope = self._gradients(point) if held else self.slopes[0]
            pairs = []
            for site in chosen:
                x, g = (part_rows(self.spec, t[site[0]], site, group) for t in (point, slope))
                pairs += [g @ x.mT, -(x @ g.mT)]
            if not pairs or not _vanishes(pairs):
                continue
            size, before = self.spec.sizes[group], outputs(self.traced, point)
            turn = torch.linalg.qr(
                torch.randn(self._outer(group), size, size, generator=self.generator, dtype=torch.float64)
            ).Q
            moved = act_linearly(self.spec, point, group, dict.fromkeys(chosen, turn))
            if difference(before, outputs(self.traced, moved)) < TOLERANCE:
                return frozenset(chosen)
        return frozenset()


class _Differentiable(InDouble):
    """With gradients: batch norm in evaluation is plain arithmetic, so that running statistics have them too."""

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = name_of(target).removeprefix("aten.")
        if name == "view" and not isinstance(args[1], torch.dtype):  # kernels that have derivatives lay out otherwise
            return args[0].reshape(args[1])
        if not kwargs and (name == "_native_batch_norm_legit_no_training" or (name == "batch_norm" and not args[5])):
            x, gain, shift, mean, variance = args[:5]
            shape = [1, -1, *[1] * (x.dim() - 2)]
            scale = (variance + (args[6] if name != "batch_norm" else args[7])).rsqrt()
            scale = scale if gain is None else gain * scale
            out = (x - mean.view(shape)) * scale.view(shape)
            out = out if shift is None else out + shift.view(shape)
            return out if name == "batch_norm" else (out, mean, variance)
        return super().call_function(target, args, kwargs)


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
