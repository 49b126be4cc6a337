"""Groups of a network that can be cut, tested on the module itself, and the attributes that must follow."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils import _pytree as pytree

from ...parameters import PermutationSpec, as_arguments, difference, evaluating, generic, positions_by_group
from ._cut import Cut, Size, copied, first_of, scaled
from ._passes import recording, replaying

TOLERANCE = 1e-5  # relative, in float64; modules that compute in float32 internally reach it
ROUGH = 2e-3  # for modules that do not run in float64
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
        self.probe = copied(model)
        dtypes = {p.dtype for p in model.parameters() if p.is_floating_point()}
        given = as_arguments(example)
        self.args, self.kwargs, self.tolerance = *given, TOLERANCE
        if len(dtypes) == 1:  # else the module mixes them by itself
            self._to(torch.float64)
            try:
                self._run(None)
            except Exception:  # some kernels have no float64
                (self.args, self.kwargs), self.tolerance = given, ROUGH
                self._to(dtypes.pop())
        state = {k: v for k, v in self.probe.state_dict().items() if isinstance(v, Tensor)}
        self.state = generic(state, torch.Generator().manual_seed(0))
        for key in dict(self.probe.named_parameters()):  # gains near zero would hide what they multiply
            value = self.state[key]
            if value.is_floating_point() and value.dim() <= 1 and value.numel() and float(value.abs().max()) < 0.1:
                value += 0.5
        self.probe.load_state_dict(self.state, strict=False)
        self.state |= {k: v.clone() for k, v in self.probe.state_dict().items() if isinstance(v, Tensor)}
        for p in self.probe.parameters():
            p.requires_grad_(False)
        self.full = self._run(None)
        self.judged = any(x.is_floating_point() or x.is_complex() for x in self.full)
        # weights that are tied to others look as if they were read in the same way
        self._looked_up = {f"{path}.weight" for path, m in model.named_modules() if isinstance(m, nn.Embedding)}
        self.spectral = tuple(
            f"{path}." for path, m in model.named_modules()
            if type(m).__name__ == "_SpectralNorm"
        )  # fmt: skip
        self.sizes: list[Size] = []
        self.repeated: set[str] = set()
        self.refused: dict[str, str] = {}
        self._learned: list[frozenset[tuple[str, str]]] = []

    def _to(self, dtype: torch.dtype) -> None:
        self.probe.to(dtype)
        self.args, self.kwargs = pytree.tree_map(
            lambda x: x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x, (self.args, self.kwargs)
        )

    @cached_property
    def unseen(self) -> dict[str, str]:
        """Groups with a weight on which the output on the example does not depend, and that weight."""
        weights = {k: p for k, p in self.probe.named_parameters() if p.dim() > 1 and p.is_floating_point()}
        try:
            for p in weights.values():
                p.requires_grad_(True)
            with torch.enable_grad():
                output = [x for x in self._run(None, grad=True) if x.requires_grad]
            generator = torch.Generator().manual_seed(0)
            total = sum(
                (x * torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x)).sum() for x in output
            )
            grads = torch.autograd.grad(total, list(weights.values()), allow_unused=True)  # type: ignore[arg-type]
        except Exception:  # an operator has no derivative
            return {}
        finally:
            for p in weights.values():
                p.requires_grad_(False)
        found: dict[str, str] = {}
        for key, grad in zip(weights, grads, strict=True):
            for axis, label in enumerate(self.spec.axes.get(key, ())):
                for group in dict.fromkeys(label.groups()):
                    index = positions_by_group(label, [group])
                    rows = None if grad is None else grad.abs().movedim(axis, 0).flatten(1).sum(1)[index].sum(0)
                    if rows is None or not bool((rows > 1e-12 * rows.max()).all()):
                        found.setdefault(group, key)
        return found

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
        for group in unit:
            if any(key.startswith(self.spectral) for key, _ in self.spec.uses(group) if self.spectral):
                return "a spectral norm depends on all of its channels"
            if group in self.unseen:
                return f"the output on the example does not depend on {self.unseen[group]!r}, so a cut can't be judged"
        widths = {g: _part(self.spec.sizes[g]) for g in unit}
        first: str | None = None
        known = list(self.sizes)
        for sizes in self._attributes(unit):
            self.sizes = known + sizes
            for repeated in (set[str](), set(unit)):
                why = self.refutation(widths, self.repeated - set(unit) | repeated)
                if why is None:
                    self.repeated = self.repeated - set(unit) | repeated
                    sizes = self._fewest(known, sizes, widths)
                    self.sizes = known + sizes
                    names = frozenset(map(self._kind, sizes))
                    if names and names not in self._learned:
                        self._learned.append(names)
                    return None
                first = first or why
        self.sizes = known
        return first

    def _fewest(self, known: list[Size], sizes: list[Size], widths: Mapping[str, int]) -> list[Size]:
        """Return the attributes that must follow, without those that need not."""
        for kind in dict.fromkeys(self._kind(s) for s in sizes):
            fewer = [s for s in sizes if self._kind(s) != kind]
            self.sizes = known + fewer
            if self.refutation(widths) is None:
                sizes = fewer
        return sizes

    def _kind(self, size: Size) -> tuple[str, str]:
        return type(self.probe.get_submodule(size.module)).__name__, size.attribute

    def _attributes(self, unit: Sequence[str]) -> Iterator[list[Size]]:
        """Yield the sets of attributes that may follow the width of some groups, likely ones first."""
        yield []
        found: list[tuple[Size, int]] = []
        for group in unit:
            n = self.spec.sizes[group]
            owners = {key.rpartition(".")[0] for key, _ in self.spec.uses(group)}
            lengths = {self.spec.axes[key][axis].size for key, axis in self.spec.uses(group)}
            root = _common(owners)
            for path, part in self.probe.named_modules():
                if path != root and not path.startswith(root + "." if root else "") and not root.startswith(path + "."):
                    continue
                kernel = isinstance(part, nn.modules.conv._ConvNd)  # its tuples are no widths
                for name, value in vars(part).items():
                    if scaled(value, n, 1) is not None and not (kernel and isinstance(value, tuple)):
                        near = (value,) if isinstance(value, int) else value
                        likely = 0 if n in near else 1 if lengths & set(near) else 2
                        found.append((Size(path, name, group), likely))
        kinds: dict[tuple[str, str], list[Size]] = {}
        rank: dict[tuple[str, str], int] = {}
        for size, likely in found:
            kind = self._kind(size)
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
        if not self.judged:
            return "the output holds no floating-point tensor to compare; select one, such as logits, with outputs"
        try:
            with self.cut(widths, gone).applied():
                self._run(None)
            exact = {g: _divisor(self.spec.sizes[g], k) if g in repeated else k for g, k in widths.items()}
            with self.cut(exact, gone).applied():
                small = self._run(None)
        except Exception as failure:
            line = str(failure).splitlines()[0][:120] if str(failure) else ""
            return f"the module does not run with this size: {type(failure).__name__}: {line}"
        with self._passed_on(gone):
            large = self._run(self._silenced(exact, repeated))
        if [x.shape for x in small] != [x.shape for x in large]:
            return "the output has another shape"
        error = difference(large, small)
        if not error < self.tolerance:
            return f"the module computes another function than the network cut to this size (by {error:.1e})"
        less = gone or any(k < self.spec.sizes[g] for g, k in exact.items())
        if less and [x.shape for x in self.full] == [x.shape for x in large]:
            moved = difference(self.full, large)
            if moved < 100 * self.tolerance:
                return (
                    f"the output on the example hardly depends on what is cut (by {moved:.1e}), so it can't be judged"
                )
        return None

    @contextlib.contextmanager
    def _passed_on(self, blocks: Sequence[str]) -> Iterator[None]:
        """Let blocks return what they read."""
        read: dict[nn.Module, Any] = {}

        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            given = first_of(args, kwargs)
            read[module] = given.clone() if isinstance(given, Tensor) else given  # some blocks write into it

        def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
            return (read[module], *output[1:]) if isinstance(output, tuple) else read[module]

        parts = [self.probe.get_submodule(name) for name in blocks]
        handles = [part.register_forward_pre_hook(before, with_kwargs=True) for part in parts]
        handles += [part.register_forward_hook(after) for part in parts]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def replays(self, blocks: Sequence[str], depths: Sequence[int]) -> bool:
        """Return whether the outputs of blocks of the deepest network are those of the blocks of shallower ones.

        Args:
            blocks: Names of the blocks, in order.
            depths: Numbers of blocks.
        """
        try:
            with self.cut({}, blocks[depths[-1] :]).applied(), recording(self.probe, blocks[: depths[-1]]) as found:
                self._run(None)
            for depth in depths:
                with self.cut({}, blocks[depth:]).applied():
                    wanted = self._run(None)
                    with replaying(self.probe, {name: found[name] for name in blocks[:depth]}):
                        if not difference(wanted, self._run(None)) < self.tolerance:
                            return False
        except Exception:
            return False
        return True

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

    def _run(self, state: Mapping[str, Tensor] | None, grad: bool = False) -> list[Tensor]:
        """Return the outputs of the copy on the example, with its own or other parameters."""
        args, kwargs = pytree.tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, (self.args, self.kwargs))
        with torch.set_grad_enabled(grad), torch.random.fork_rng(devices=[]), evaluating(self.probe):
            torch.manual_seed(0)
            if state is None:
                found = self.probe(*args, **kwargs)
            else:
                names = [f"{path}.{name}" if path else name for path, part in self.probe.named_modules()
                         for name in (*part._parameters, *part._buffers)]  # fmt: skip
                own = {name: state[name] for name in names if name in state}
                found = functional_call(self.probe, own, args, kwargs, tie_weights=False)
        leaves = pytree.tree_leaves(self.outputs(found) if self.outputs else found)
        return [x for x in leaves if isinstance(x, Tensor)]


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
