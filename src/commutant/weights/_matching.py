"""Weight matching: the permutation of one network that brings its weights closest to another's.

`argmin_pi ||A - pi(B)||^2 = argmax_pi sum_k <A_k, pi(B)_k>` by coordinate descent: with all groups but one fixed, the
best permutation of that one solves a linear assignment (Ainsworth, Hayase and Srinivasa, "Git Re-Basin", 2023).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product as pairs_of

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .._errors import InputError
from ..algebra import birkhoff_ascent
from ..laws import Draw, Invariance, obeys
from ..parameters import AxisLabel, Permutation, PermutationSpec, WeightPermutation, positions_by_group
from ._pairing import TOLERANCE, assign, dot, gram, pair_up, picked

_FRANK_WOLFE = 512  # entries up to which a quadratic assignment starts at the centre too
State = Mapping[str, Tensor]


def _alignment_case(draw: Draw):  # type: ignore[no-untyped-def]
    target, source = (
        draw.module(lambda: nn.Sequential(nn.Linear(3, draw.size + 1), nn.Tanh(), nn.Linear(draw.size + 1, draw.width)))
        for _ in range(2)
    )
    spec = PermutationSpec.from_module(target, draw.normal(2, 3), verify=False)
    state = {k: v.detach() for k, v in source.state_dict().items()}
    return Invariance(WeightPermutation(spec)), lambda **s: weight_matching(spec, target, s).apply(s), lambda _: state


@obeys("what is aligned does not depend on how the source was permuted", _alignment_case)
def weight_matching(
    spec: PermutationSpec,
    target: nn.Module | State,
    source: nn.Module | State,
    *,
    init: str | Permutation = "anchored",
    restarts: int = 0,
    max_sweeps: int = 100,
    generator: torch.Generator | None = None,
) -> Permutation:
    """The permutation of `source` with the largest inner product with `target` that coordinate descent finds.

    Exact where the network has one group. Groups whose permutation may differ by the index of another (channels within
    heads) are solved with it: for every pair of heads the best permutation of their channels, then the best pairing of
    heads. A group that stands on both sides of one weight (recurrent weights) is a quadratic assignment: it takes
    Frank-Wolfe steps. Running statistics and other buffers do not count, but are permuted by the result. Ties go to the
    identity.

    Args:
        spec: of the network that both are parameters of.
        target: module or state dict; stays as it is.
        source: module or state dict; stays as it is.
        init: `"anchored"` resolves groups one after the other, those first whose weights lead to axes that are known
            already (the input and output of the network are); `"identity"`; or a permutation to go on from.
        restarts: further runs from random permutations; the best result is returned.
        max_sweeps: over all groups.
        generator: of the random starts.

    Raises:
        InputError: parameters that are not those of the spec, or that hold NaN or infinities; names the entry.
    """
    problem = Problem(spec, state_of(target), state_of(source))
    if isinstance(init, Permutation):
        Permutation(spec).compose(init)  # refuses one of another spec
        problem.tables = {k: v.clone() for k, v in init.tables.items()}
    elif init == "anchored":
        problem.anchor()
    elif init != "identity":
        raise InputError(f'init must be "anchored", "identity" or a Permutation, got {init!r}')
    best = problem.descend(max_sweeps)
    best_value = problem.value(best) if restarts else 0.0
    for _ in range(restarts):
        problem.tables = Permutation.random(spec, generator).tables
        tables = problem.descend(max_sweeps)
        value = problem.value(tables)
        if value > best_value + TOLERANCE * abs(best_value):
            best_value, best = value, tables
    return Permutation(spec, best)


def state_of(parameters: nn.Module | State) -> State:
    """The state dict of a module, or the mapping itself."""
    if isinstance(parameters, nn.Module):
        return {k: v for k, v in parameters.state_dict().items() if isinstance(v, Tensor)}
    return parameters


class Problem:
    """The tensors of both networks, the current permutation, and the scores of each group given the others."""

    def __init__(self, spec: PermutationSpec, target: State, source: State) -> None:
        spec.check(target)
        spec.check(source)
        self.spec = spec
        self.target, self.source = _Weights(spec, target, "target"), _Weights(spec, source, "source")
        self.tables = spec.identity_tables()
        self.uses: dict[str, list[str]] = {g: [] for g in spec.sizes}
        for key in self.target:
            for group in dict.fromkeys(g for label in spec.axes[key] for g in label.groups()):
                self.uses[group].append(key)
        self.solved: set[str] = set()
        self.children = {g: [c for c in spec.sizes if g in spec.parents[c]] for g in spec.sizes}

    def value(self, tables: Mapping[str, Tensor], keys: Sequence[str] | None = None) -> float:
        """The inner product of the target and the permuted source, over some entries or all, in float64."""
        permutation = Permutation(self.spec, tables)
        found = 0.0
        for key in self.target if keys is None else keys:
            found += dot(self.target[key], permutation.apply_to(key, self.source[key]))
        return found

    def descend(self, max_sweeps: int) -> dict[str, Tensor]:
        """Solve group after group until none gains; a group is visited again only after a neighbour has moved."""
        stale = set(self.spec.sizes) - self.solved
        self.solved = set()
        order = self.spec.outermost_first()
        for _ in range(max_sweeps):
            if not stale:
                break
            for group in order:
                if group not in stale:
                    continue
                stale.discard(group)
                if self._improve(group):
                    stale |= {
                        g for key in self.uses[group] for label in self.spec.axes[key] for g in label.groups()
                    } - {group}
        return {k: v.clone() for k, v in self.tables.items()}

    def anchor(self) -> None:
        """A start: the group whose weights lead mostly to known axes first, matched on those weights alone."""
        energy = {key: float(torch.linalg.vector_norm(x, dtype=torch.float64)) ** 2 for key, x in self.target.items()}
        groups = {key: {g for label in self.spec.axes[key] for g in label.groups()} for key in self.target}
        known: set[str] = set()
        self.solved = set()
        top = [g for g in self.spec.sizes if not self.spec.parents[g]]
        while top:
            shares = {}
            for group in top:
                family = {group, *self.children[group]}
                anchored = [key for key in self.uses[group] if groups[key] - family <= known]
                total = sum(energy[key] for key in self.uses[group])
                shares[group] = (sum(energy[key] for key in anchored) / total if total else 0.0, anchored)
            group = max(top, key=lambda g: shares[g][0])
            self._improve(group, shares[group][1] or self.uses[group])
            known |= {group, *self.children[group]}
            exact = not self.children[group] and not self._twice(group, self.uses[group])
            if exact and len(shares[group][1]) == len(self.uses[group]):  # nothing that it depends on is open
                self.solved.add(group)
            top.remove(group)

    def _improve(self, group: str, keys: Sequence[str] | None = None) -> bool:
        """Solve one group given the others; whether the inner product rose."""
        family = [group, *self.children[group]]
        touched = list(dict.fromkeys(key for g in family for key in self.uses[g])) if keys is None else list(keys)
        if not self.children[group] and not self._twice(group, touched):
            scores = self._scores(group, touched)
            new = assign(scores, self.tables[group])
            gain = float((picked(scores, new) - picked(scores, self.tables[group])).sum())
            if gain <= 0:
                return False
            self.tables[group] = new
            return True
        before = self.value(self.tables, touched)
        proposed = self._paired(group, touched) if self.children[group] else self._quadratic(group, touched)
        tables = {**self.tables, **proposed}
        if self.value(tables, touched) <= before + TOLERANCE * abs(before):
            return False
        self.tables = tables
        return True

    def _twice(self, group: str, keys: Sequence[str]) -> bool:
        return any(sum(group in label.groups() for label in self.spec.axes[key]) > 1 for key in keys)

    def _scores(self, group: str, keys: Sequence[str]) -> Float[Tensor, "*outer n n"]:
        """`C[..., i, j]`: what it adds to the inner product to put the source's entry j in place i."""
        parents = self.spec.parents[group]
        shape = self.spec.shape(group)
        found = torch.zeros(*shape, shape[-1], dtype=torch.float64)
        permutation = Permutation(self.spec, self.tables)
        for key in keys:
            labels = self.spec.axes[key]
            for axis, label in enumerate(labels):
                if group not in label.groups():
                    continue
                held = tuple(x.without({group}) if i == axis else x for i, x in enumerate(labels))
                moved = permutation.apply_to_labels(held, self.source[key])
                x = exposed(self.target[key], labels, (*parents, group), axis)
                y = exposed(moved, labels, (*parents, group), axis)
                found += gram(x, y)
        return found

    def _quadratic(self, group: str, keys: Sequence[str]) -> dict[str, Tensor]:
        """The better of one step from the current permutation and, for groups of moderate size, Frank-Wolfe from the
        centre of all permutations."""
        proposals = [assign(self._scores(group, keys), self.tables[group])]
        size = self.spec.sizes[group]
        if not self.spec.parents[group] and size <= _FRANK_WOLFE:
            start = torch.full((size, size), 1 / size, dtype=torch.float64)
            (found,), _ = birkhoff_ascent(self._softly(group, keys), [start])
            proposals.append(found)
        return {group: max(proposals, key=lambda t: self.value({**self.tables, group: t}, keys))}

    def _softly(self, group: str, keys: Sequence[str]) -> Callable[[Tensor], Tensor]:
        """The inner product as a function of a matrix in the place of the group's permutation."""
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
        """The best pairing of outer indices, each pair with its own best inner permutations."""
        children = [c for c in self.children[group] if self.spec.parents[c] == (group,)]
        inner = {group, *self.children[group]}
        permutation = Permutation(self.spec, self.tables)
        tensors = []
        for key in keys:
            labels = self.spec.axes[key]
            moved = permutation.apply_to_labels(tuple(label.without(inner) for label in labels), self.source[key])
            both = zip(*(pieces(t, labels, (group, *children)) for t in (self.target[key], moved)), strict=True)
            tensors += [(tuple(own[1:]), x, y) for (own, x), (_, y) in both if own and own[0] == group]
        outer, tables = pair_up({c: self.spec.sizes[c] for c in children}, tensors, self.tables[group])
        return {group: outer, **tables}


def exposed(
    value: Tensor, labels: Sequence[AxisLabel], groups: Sequence[str], at: int | None = None
) -> Float[Tensor, "*sizes rest"]:
    """A tensor with the indices of some groups as its leading axes, and all else flattened behind them.

    A group that stands on several axes is read off axis `at` if it is there, else off the first that carries it.
    """
    carriers = {g: [i for i, label in enumerate(labels) if g in label.groups()] for g in groups}
    place = {g: at if at in found else found[0] for g, found in carriers.items()}
    tags: list[str | None] = []
    for axis in reversed(range(value.dim())):
        here = [g for g in groups if place[g] == axis]
        if here:
            index = positions_by_group(labels[axis], here)
            value = value.index_select(axis, index.flatten()).unflatten(axis, index.shape)
        tags = [*here, None, *tags]
    order = [*(tags.index(g) for g in groups), *(i for i, tag in enumerate(tags) if tag is None)]
    value = value.permute(order)
    return value.reshape(*value.shape[: len(groups)], -1)


def stretches(value: Tensor, labels: Sequence[AxisLabel], group: str) -> list[Float[Tensor, "*sizes rest"]]:
    """The parts of a tensor along which a group stands on the same axes, with its index on each as a leading axis."""
    cuts = []
    for label in labels:
        sets = {(group,) if group in block.groups() else () for block in label.stretches()}
        cuts.append([(here, positions_by_group(label, here, () if here else (group,))) for here in sorted(sets)])
    found = []
    for chosen in pairs_of(*cuts):
        part, lead = value, list[int]()
        for axis in reversed(range(value.dim())):
            here, index = chosen[axis]
            part = part.index_select(axis, index.flatten()).unflatten(axis, index.shape)
            lead = ([axis] if here else []) + [a + len(here) for a in lead]
        if lead and part.numel():
            part = part.movedim(lead, list(range(len(lead))))
            found.append(part.reshape(*part.shape[: len(lead)], -1))
    return found


def pieces(
    value: Tensor, labels: Sequence[AxisLabel], family: Sequence[str]
) -> list[tuple[list[str], Float[Tensor, "*sizes rest"]]]:
    """A tensor cut into parts along each of which the same groups of a family stand, as query, key and value of one
    weight: for each part its groups, in the family's order, and the part with their indices as leading axes.
    """
    cuts = []
    for label in labels:
        sets = {tuple(g for g in family if g in block.groups()) for block in label.stretches()}
        cuts.append([(here, positions_by_group(label, here, [g for g in family if g not in here])) for here in sets])
    found = []
    for chosen in pairs_of(*cuts):
        part, tags = value, []  # type: ignore[var-annotated]
        for axis in reversed(range(value.dim())):
            here, index = chosen[axis]
            part = part.index_select(axis, index.flatten()).unflatten(axis, index.shape)
            tags = [*here, None, *tags]
        own = [g for g in family if g in tags]
        order = [*(tags.index(g) for g in own), *(i for i, tag in enumerate(tags) if tag is None or tag in tags[:i])]
        part = part.permute(order)
        found.append((own, part.reshape(*part.shape[: len(own)], -1)))
    return sorted(found, key=lambda piece: piece[0])


class _Weights(Mapping[str, Tensor]):
    """The entries that count: floating-point, moved by some group, no buffers, tied ones once; read when asked for."""

    def __init__(self, spec: PermutationSpec, state: State, name: str) -> None:
        self.state, self.name = state, name
        moved = [k for k, labels in spec.axes.items() if any(any(label.groups()) for label in labels)]
        self.names = {k: spec.name_in(state, k) for k in moved if k not in spec.buffers and k not in spec.ties}
        self.finite: set[str] = set()

    def __getitem__(self, key: str) -> Tensor:
        value = self.state[self.names[key]].detach().cpu()
        if value.is_meta or not (value.is_floating_point() and value.element_size() > 1):
            raise InputError(
                f"{key!r} of the {self.name} is {value.dtype} on {self.state[self.names[key]].device}; weights "
                "must be real numbers of 16 bits or more, with values"
            )
        if key not in self.finite:
            if not bool(value.isfinite().all()):
                raise InputError(f"{key!r} of the {self.name} holds NaN or infinities")
            self.finite.add(key)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)
