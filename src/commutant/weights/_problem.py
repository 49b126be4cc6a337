"""Coordinate descent over the groups of a spec: the search of weight matching."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import frexp, inf

import torch
from jaxtyping import Float
from torch import Tensor

from .._errors import InputError
from ..algebra import birkhoff_ascent
from ..parameters import Permutation, PermutationSpec
from ._constants import Constants, constants_of, kinds_of_rows, one_hot_rows
from ._given import State
from ._nested import Piece, nest_of, pair_up
from ._pairing import TOLERANCE, assign, dot, gram, picked
from ._slices import exposed, pieces, stretches

SETTLED = 3e-4  # smallest gain of a sweep, relative to the squared distance of the networks, after which it ends
_FRANK_WOLFE = 512  # largest size of a quadratic assignment that also starts at the center


class Problem:
    """Matching problem: the tensors of both networks, the current permutation, and the scores of each group.

    Constants, such as masks, come first: the better of two permutations is the one under which more entries of the
    constants agree. If they agree equally, it is the one with the larger inner product of weights.
    """

    def __init__(self, spec: PermutationSpec, target: State, source: State) -> None:
        spec.check(target)
        spec.check(source)
        self.spec = spec
        self.constants: Constants = constants_of(spec, target, source)
        weights = [k for k, labels in spec.axes.items() if any(any(label.groups()) for label in labels)
                   and k not in spec.ties and (k not in spec.buffers or k in self.constants.differ)]  # fmt: skip
        self.target, self.source = (
            _Weights(spec, state, name, weights) for state, name in ((target, "target"), (source, "source"))
        )
        self.tables = spec.identity_tables()
        self.uses, self.fixed = (
            {
                g: [k for k in keys if any(g in label.groups() for label in spec.axes[k])] for g in spec.sizes
            } for keys in (self.target, self.constants.codes)
        )  # fmt: skip
        self.solved: set[str] = set()
        self.children = {g: [c for c in spec.sizes if g in spec.parents[c]] for g in spec.sizes}

    def value(self, tables: Mapping[str, Tensor], keys: Sequence[str] | None = None) -> float:
        """Return the inner product of the target and the permuted source, over some entries or all, in float64."""
        permutation = Permutation(self.spec, tables)
        found = 0.0
        for key in self.target if keys is None else keys:
            found += dot(self.target[key], permutation.apply_to(key, self.source[key]))
        return found

    def agreement(self, tables: Mapping[str, Tensor]) -> int:
        """Return the number of entries of constants that agree between the target and the permuted source."""
        permutation = Permutation(self.spec, tables)
        return sum(int((a == permutation.apply_to(k, b)).sum()) for k, (a, b) in self.constants.codes.items())

    def gain(
        self, tables: Mapping[str, Tensor], than: Mapping[str, Tensor], keys: Sequence[str] | None = None
    ) -> float:
        """Return how far the inner product of one permutation exceeds that of another.

        Zero if it does not or the difference is noise, infinite if more of the constants agree.
        """
        if (more := self.agreement(tables) - self.agreement(than)) != 0:
            return inf if more > 0 else 0.0
        before = self.value(than, keys)
        found = self.value(tables, keys) - before
        return found if found > TOLERANCE * abs(before) else 0.0

    def descend(self, max_sweeps: int) -> dict[str, Tensor]:
        """Solve group after group until none gains, or a sweep hardly brings the networks closer.

        A group is visited again only after a neighbor has moved. Groups with others nested in them take longest, so
        they wait until the others have settled.
        """
        stale = set(self.spec.sizes) - self.solved
        self.solved = set()
        order = self.spec.outermost_first()
        nests = {g for g in order if self.children[g]}
        apart = self._squared_distance()
        for _ in range(max_sweeps):
            if not stale:
                break
            before, sweep = apart, stale - nests or set(stale)
            for group in order:
                if group not in sweep or group not in stale:
                    continue
                stale.discard(group)
                if gain := self._improve(group):
                    apart -= 2 * gain
                    new = {g for key in self.uses[group] for label in self.spec.axes[key] for g in label.groups()}
                    stale |= new - {group}
                    sweep |= new - nests
            if before - apart < SETTLED * apart:
                if sweep & nests:
                    break
                stale &= nests
        else:
            for group in order:  # they waited until no sweep was left
                if group in stale & nests:
                    self._improve(group)
        return {k: v.clone() for k, v in self.tables.items()}

    def _squared_distance(self) -> float:
        """Return the squared distance of the target and the permuted source."""
        sizes = (float(torch.linalg.vector_norm(x, dtype=torch.float64)) ** 2
                 for weights in (self.target, self.source) for x in weights.values())  # fmt: skip
        return sum(sizes) - 2 * self.value(self.tables)

    def anchor(self) -> None:
        """Build a start: groups with most weight on matched axes come first, matched on those weights alone."""
        energy = {key: float(torch.linalg.vector_norm(x, dtype=torch.float64)) ** 2 for key, x in self.target.items()}
        groups = {key: {g for label in self.spec.axes[key] for g in label.groups()} for key in self.target}
        known: set[str] = set()
        self.solved = set()
        top = [g for g in self.spec.sizes if not self.spec.parents[g]]
        shares: dict[str, tuple[float, list[str]]] = {}
        open_to: set[str] = set(top)  # groups whose share may have changed
        while top:
            for group in open_to.intersection(top):
                family = {group, *self.children[group]}
                anchored = [key for key in self.uses[group] if groups[key] - family <= known]
                total = sum(energy[key] for key in self.uses[group])
                shares[group] = (sum(energy[key] for key in anchored) / total if total else 0.0, anchored)
            group = max(top, key=lambda g: shares[g][0])
            self._improve(group, shares[group][1] or self.uses[group])
            known |= {group, *self.children[group]}
            exact = not self.children[group] and not self._twice(group, self.uses[group])
            if exact and len(shares[group][1]) == len(self.uses[group]):  # all that it depends on is matched
                self.solved.add(group)
            top.remove(group)
            open_to = {g for key in self.uses[group] for g in groups[key]}

    def _improve(self, group: str, keys: Sequence[str] | None = None) -> float:
        """Solve one group given the others; return the gain, 0 if the permutation stays."""
        if self.children[group] and self.spec.parents[group]:  # solved together with its parents
            return 0.0
        family = [group, *self.children[group]]
        touched = list(dict.fromkeys(key for g in family for key in self.uses[g])) if keys is None else list(keys)
        if not self.children[group] and not self._twice(group, [*touched, *self.fixed[group]]):
            scores, old = self._scores(group, touched), self.tables[group]
            new = self.tables[group] = assign(scores, old)
            return 0.0 if torch.equal(new, old) else float((picked(scores, new) - picked(scores, old)).sum())
        proposed = self._paired(group, touched) if self.children[group] else self._quadratic(group, touched)
        tables = {**self.tables, **proposed}
        if gain := self.gain(tables, self.tables, touched):
            self.tables = tables
        return gain

    def _twice(self, group: str, keys: Sequence[str]) -> bool:
        """Return whether a group is on two axes of one entry."""
        return any(sum(group in label.groups() for label in self.spec.axes[key]) > 1 for key in keys)

    def _scores(self, group: str, keys: Sequence[str]) -> Float[Tensor, "*outer n n"]:
        """Return `C[..., i, j]`, the contribution to the inner product of moving entry j of the source to position i.

        Agreement of constants outweighs all weights together.
        """
        around = (*self.spec.parents[group], group)
        shape = self.spec.shape(group)
        found = torch.zeros(*shape, shape[-1], dtype=torch.float64)
        permutation = Permutation(self.spec, self.tables)
        tensors = [(key, self.target[key], self.source[key]) for key in keys]
        for key, own, other, axis in self._along(group, tensors):
            labels = self.spec.axes[key]
            held = tuple(x.without({group}) if i == axis else x for i, x in enumerate(labels))
            moved = permutation.apply_to_labels(held, other)
            found += gram(exposed(own, labels, around, axis), exposed(moved, labels, around, axis))
        if not self.fixed[group]:
            return found
        agree = torch.zeros_like(found)
        for key, own, other, axis in self._along(group, self.constants.entries(self.fixed[group])):
            labels = self.spec.axes[key]
            held = tuple(x.without({group}) if i == axis else x for i, x in enumerate(labels))
            moved = permutation.apply_to_labels(held, other)
            x, y = kinds_of_rows(exposed(own, labels, around, axis), exposed(moved, labels, around, axis))
            agree += x.unsqueeze(-1) == y.unsqueeze(-2)
        spread = float(found.max() - found.min()) if found.numel() else 0.0
        return found + agree * (2 * shape[-1] * spread or 1.0)

    def _along(
        self, group: str, tensors: Sequence[tuple[str, Tensor, Tensor]]
    ) -> Iterator[tuple[str, Tensor, Tensor, int]]:
        """Yield entries of both networks with each axis that carries a group."""
        for key, own, other in tensors:
            for axis, label in enumerate(self.spec.axes[key]):
                if group in label.groups():
                    yield key, own, other, axis

    def _quadratic(self, group: str, keys: Sequence[str]) -> dict[str, Tensor]:
        """Return the better of one step from the current permutation and a Frank-Wolfe search from the center.

        The search is skipped for large groups.
        """
        found = {group: assign(self._scores(group, keys), self.tables[group])}
        size = self.spec.sizes[group]
        if not self.spec.parents[group] and size <= _FRANK_WOLFE:
            start = torch.full((size, size), 1 / size, dtype=torch.float64)
            (table,), _ = birkhoff_ascent(self._softly(group, keys), [start])
            if self.gain({**self.tables, group: table}, {**self.tables, **found}, keys):
                found = {group: table}
        return found

    def _softly(self, group: str, keys: Sequence[str]) -> Callable[[Tensor], Tensor]:
        """Return the inner product as a function of a matrix instead of the permutation of the group."""
        permutation = Permutation(self.spec, self.tables)
        parts = []
        for key in keys:
            labels = self.spec.axes[key]
            moved = permutation.apply_to_labels(tuple(label.without({group}) for label in labels), self.source[key])
            for x, y in zip(*(stretches(t, labels, group) for t in (self.target[key], moved)), strict=True):
                parts.append((x.double(), y.double()))

        def value(p: Tensor) -> Tensor:
            total = p.new_zeros(())
            for x, y in parts:
                for axis in range(x.dim() - 1):
                    y = torch.tensordot(p, y, ([1], [axis])).movedim(0, axis)
                total = total + (x * y).sum()
            return total

        return value

    def _paired(self, group: str, keys: Sequence[str]) -> dict[str, Tensor]:
        """Return the best pairing of outer indices, each pair with its own best inner permutations."""
        nest = nest_of(self.spec, group)
        inner = {group, *self.children[group]}
        permutation = Permutation(self.spec, self.tables)

        def cut(key: str, own: Tensor, other: Tensor) -> Iterator[Piece]:
            labels = self.spec.axes[key]
            moved = permutation.apply_to_labels(tuple(label.without(inner) for label in labels), other)
            both = zip(*(pieces(t, labels, tuple(nest.sizes)) for t in (own, moved)), strict=True)
            return ((tuple(here), x, y) for (here, x), (_, y) in both if here and here[0] == group)

        found = [piece for key in keys for piece in cut(key, self.target[key], self.source[key])]
        worth = 2 * sum(float(x.double().norm()) * float(y.double().norm()) for _, x, y in found) or 1.0
        for key, own, other in self.constants.entries(dict.fromkeys(k for g in inner for k in self.fixed[g])):
            for here, x, y in cut(key, own, other):
                first, second = one_hot_rows(x, y)
                found.append((here, worth * first, second))
        return pair_up(nest, found, self.tables[group])


class _Weights(Mapping[str, Tensor]):
    """Weights of one network by name, read and checked on access."""

    def __init__(self, spec: PermutationSpec, state: State, name: str, keys: Sequence[str]) -> None:
        self.state, self.name = state, name
        self.names = {k: spec.name_in(state, k) for k in keys}
        self.finite: set[str] = set()
        self.scale = 1.0  # common factor, as products of very large or small entries leave the range of float64
        largest = max((float(x.abs().max()) for x in self.values() if x.numel()), default=0.0)
        if largest > 0 and not 1e-100 < largest < 1e100:
            self.scale = 2.0 ** min(1000, -frexp(largest)[1])

    def __getitem__(self, key: str) -> Tensor:
        value = self.state[self.names[key]].detach().cpu()
        if value.is_meta or not (value.is_floating_point() and value.element_size() > 1):
            raise InputError(
                f"{key!r} of the {self.name} is {value.dtype} on {self.state[self.names[key]].device}; weights "
                "must be real numbers of 16 bits or more, not on the meta device"
            )
        if key not in self.finite:
            if not bool(value.isfinite().all()):
                raise InputError(f"{key!r} of the {self.name} holds NaN or infinities")
            self.finite.add(key)
        return value if self.scale == 1 else value * self.scale

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)
