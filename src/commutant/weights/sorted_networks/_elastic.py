"""Groups of a network that can be cut, tested on the module itself, and the attributes that must follow."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils import _pytree as pytree

from ...parameters import PermutationSpec, as_arguments, difference, evaluating, generic, positions_by_group
from ._cut import Cut, Size

TOLERANCE = 1e-5  # relative, in float64; modules that compute in float32 internally reach it
_MOST_TRIALS = 48


class Elastic:
    """Test of cuts against the full network, at generic parameters in float64.

    A cut network must compute what the full one computes when no weight reads the entries that were cut. Where a norm
    runs over them, it must compute what the full one computes when these entries repeat the others, each equally often,
    and readers take the mean. So a module whose code fixes a width, such as the number of heads in a `view`, is found
    out even if it runs.

    Args:
        model: Network.
        spec: Its symmetries.
        example: Example of its inputs.
        outputs: Function that selects the part of its output to compare.
    """

    def __init__(
        self, model: nn.Module, spec: PermutationSpec, example: Any, outputs: Callable[[Any], Any] | None
    ) -> None:
        self.spec, self.outputs = spec, outputs
        self.probe = copy.deepcopy(model)
        dtypes = {p.dtype for p in model.parameters() if p.is_floating_point()}
        self.args, self.kwargs = as_arguments(example)
        if len(dtypes) == 1:  # else the module mixes them by itself
            self.probe.double()
            self.args, self.kwargs = pytree.tree_map(
                lambda x: x.double() if isinstance(x, Tensor) and x.is_floating_point() else x, (self.args, self.kwargs)
            )
        state = {k: v for k, v in self.probe.state_dict().items() if isinstance(v, Tensor)}
        self.state = generic(state, torch.Generator().manual_seed(0))
        self.probe.load_state_dict(self.state, strict=False)
        for p in self.probe.parameters():
            p.requires_grad_(False)
        # weights that are tied to others look as if they were read in the same way
        self._looked_up = {f"{path}.weight" for path, m in model.named_modules() if isinstance(m, nn.Embedding)}
        self.sizes: list[Size] = []
        self.repeated: set[str] = set()
        self.refused: dict[str, str] = {}
        self._learned: list[frozenset[tuple[str, str]]] = []

    def find(self, groups: Sequence[str]) -> list[str]:
        """Return the groups that can be cut; `refused` gives the reasons for the others.

        Args:
            groups: Groups to test.
        """
        found: list[str] = []
        alone: list[str] = []
        for unit in self._units(groups):
            why = self._settle(unit)
            if why is None and found:
                why = self.refutation({g: _part(self.spec.sizes[g]) for g in (*found, *unit)})
                why = why and f"it can't be cut together with {', '.join(found[:3])}: {why}"
            if why is None:
                found += unit
            else:
                self.refused |= dict.fromkeys(unit, why)
                self.sizes = [s for s in self.sizes if s.group not in unit]
                alone += unit
        for unit in self._of_one_module(alone):  # as the layers of a GRU, which have one hidden size
            if self._settle(unit) is None:
                if self.refutation({g: _part(self.spec.sizes[g]) for g in (*found, *unit)}) is None:
                    found += unit
                    self.refused = {g: why for g, why in self.refused.items() if g not in unit}
                else:
                    self.sizes = [s for s in self.sizes if s.group not in unit]
        return [g for g in groups if g in found]

    def _of_one_module(self, groups: Sequence[str]) -> list[list[str]]:
        """Return sets of several groups of one size that one module carries."""
        found: dict[tuple[str, int], list[str]] = {}
        for group in groups:
            for owner in dict.fromkeys(key.rpartition(".")[0] for key, _ in self.spec.uses(group)):
                found.setdefault((owner, self.spec.sizes[group]), []).append(group)
        return [own for own in found.values() if len(own) > 1]

    def _units(self, groups: Sequence[str]) -> list[list[str]]:
        """Return the groups, with those together that parts of equal size of one axis carry, as in `chunk(2)`."""
        units = [{g} for g in groups]
        for labels in self.spec.equal_parts:
            together = {g for label in labels for g in label.groups()} & set(groups)
            if touched := [u for u in units if u & together]:
                units = [u for u in units if not u & together] + [set.union(*touched)]
        units.sort(key=lambda unit: min(groups.index(g) for g in unit))
        return [[g for g in groups if g in unit] for unit in units]

    def _settle(self, unit: Sequence[str]) -> str | None:
        """Find the attributes that follow the width of some groups; return why none will do."""
        if any(self.spec.sizes[g] == 1 for g in unit):
            return "it has one entry"
        widths = {g: _part(self.spec.sizes[g]) for g in unit}
        first: str | None = None
        known = list(self.sizes)
        for sizes in self._attributes(unit):
            self.sizes = known + sizes
            for repeated in (set[str](), set(unit)):
                why = self.refutation(widths, self.repeated - set(unit) | repeated)
                if why is None:
                    self.repeated = self.repeated - set(unit) | repeated
                    names = frozenset((type(self.probe.get_submodule(s.module)).__name__, s.attribute) for s in sizes)
                    if names and names not in self._learned:
                        self._learned.append(names)
                    return None
                first = first or why
        self.sizes = known
        return first

    def _attributes(self, unit: Sequence[str]) -> Iterator[list[Size]]:
        """Yield the sets of attributes that may follow the width of some groups, likely ones first."""
        yield []
        found: list[tuple[Size, int, int]] = []
        for group in unit:
            n = self.spec.sizes[group]
            owners = {key.rpartition(".")[0] for key, _ in self.spec.uses(group)}
            lengths = {self.spec.axes[key][axis].size for key, axis in self.spec.uses(group)}
            root = _common(owners)
            for path, part in self.probe.named_modules():
                if path != root and not path.startswith(root + "." if root else "") and not root.startswith(path + "."):
                    continue
                for name, value in vars(part).items():
                    if type(value) is int and value > 1 and value % n == 0:
                        found.append((Size(path, name, group), 0 if value == n else 1 if value in lengths else 2, n))
        kinds: dict[tuple[str, str], list[Size]] = {}
        rank: dict[tuple[str, str], int] = {}
        for size, likely, _ in found:
            kind = (type(self.probe.get_submodule(size.module)).__name__, size.attribute)
            kinds.setdefault(kind, []).append(size)
            rank[kind] = max(rank.get(kind, 0), likely)
        sets = [set(known) for known in self._learned if known <= kinds.keys()]
        sets += [{k for k in kinds if rank[k] <= most} for most in (0, 1)]
        likely_first = sorted(kinds, key=rank.__getitem__)
        sets += [set(some) for count in (1, 2, 3) for some in combinations(likely_first, count)]
        seen: list[set[tuple[str, str]]] = []
        for chosen in sets[:_MOST_TRIALS]:
            if chosen and chosen not in seen:
                seen.append(chosen)
                yield [size for kind in kinds if kind in chosen for size in kinds[kind]]

    def cut(self, widths: Mapping[str, int], gone: Sequence[str] = ()) -> Cut:
        """Return a cut of the copy of the network that is tested.

        Args:
            widths: Number of entries to keep, by group.
            gone: Names of the blocks to leave out.
        """
        return Cut(self.probe, self.spec, widths, gone, self.sizes)

    def refutation(
        self, widths: Mapping[str, int], repeated: set[str] | None = None, gone: Sequence[str] = ()
    ) -> str | None:
        """Return why the module with fewer entries and blocks is not the network cut to them; None if it is.

        Args:
            widths: Number of entries to keep, by group.
            repeated: Groups over which norms run; by default, those that were found.
            gone: Names of the blocks to leave out.
        """
        repeated = self.repeated if repeated is None else repeated
        try:
            with self.cut(widths, gone).applied():
                self._run(None)
            exact = {g: _divisor(self.spec.sizes[g], k) if g in repeated else k for g, k in widths.items()}
            with self.cut(exact, gone).applied():
                small = self._run(None)
        except Exception as failure:
            line = str(failure).splitlines()[0][:120] if str(failure) else ""
            return f"the module does not run with this size: {type(failure).__name__}: {line}"
        handles = [self.probe.get_submodule(name).register_forward_hook(_passed_on) for name in gone]
        try:
            large = self._run(self._silenced(exact, repeated))
        finally:
            for handle in handles:
                handle.remove()
        if [x.shape for x in small] != [x.shape for x in large]:
            return "the output has another shape"
        error = difference(large, small)
        if error < TOLERANCE:
            return None
        return f"the module computes another function than the network cut to this size (by {error:.1e})"

    def _silenced(self, widths: Mapping[str, int], repeated: set[str]) -> dict[str, Tensor]:
        """Return parameters of full size for which the network computes what the cut one shall compute."""
        found = {}
        for key, value in self.state.items():
            value = value.clone()
            for axis, label in enumerate(self.spec.axes.get(key, ())):
                for group in dict.fromkeys(g for g in label.groups() if g in widths):
                    index, k = positions_by_group(label, [group]), widths[group]
                    front = value.movedim(axis, 0)
                    summed = (key, axis) in self.spec.summed and key not in self._looked_up
                    if group in repeated:
                        front[index[k:]] = front[index[torch.arange(k, len(index)) % k]]
                        if summed:
                            front[index] *= k / len(index)
                    elif summed:
                        front[index[k:]] = 0
            found[key] = value
        return found

    def _run(self, state: Mapping[str, Tensor] | None) -> list[Tensor]:
        """Return the outputs of the copy on the example, with its own or other parameters."""
        with torch.no_grad(), torch.random.fork_rng(devices=[]), evaluating(self.probe):
            torch.manual_seed(0)
            if state is None:
                found = self.probe(*self.args, **self.kwargs)
            else:
                names = [f"{path}.{name}" if path else name for path, part in self.probe.named_modules()
                         for name in (*part._parameters, *part._buffers)]  # fmt: skip
                own = {name: state[name] for name in names if name in state}
                found = functional_call(self.probe, own, self.args, self.kwargs, tie_weights=False)
        leaves = pytree.tree_leaves(self.outputs(found) if self.outputs else found)
        return [x for x in leaves if isinstance(x, Tensor)]


def _passed_on(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
    """Replace the output of a block by what it read."""
    return (args[0], *output[1:]) if isinstance(output, tuple) else args[0]


def _part(size: int) -> int:
    """Return the largest proper divisor."""
    return next((size // d for d in range(2, size + 1) if size % d == 0), 1)


def _divisor(size: int, most: int) -> int:
    """Return the largest divisor that is at most a number."""
    return next(d for d in range(most, 0, -1) if size % d == 0)


def _common(paths: set[str]) -> str:
    """Return the name of the module that holds all of some modules."""
    parts = [p.split(".") if p else [] for p in sorted(paths)]
    shared = []
    for names in zip(*parts, strict=False):
        if len(set(names)) > 1:
            break
        shared.append(names[0])
    return ".".join(shared)
