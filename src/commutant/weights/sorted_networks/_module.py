"""Sorted networks: any module as a family of nested sub-networks that share their weights."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..._checks import whole
from ..._errors import InputError
from ...parameters import PermutationSpec
from .._given import check_module, check_spec
from .._mergeable import check_example
from .._statistics import reset_batchnorm_stats
from ._cut import Applied, Cut
from ._dimensions import Dimension, dimensions
from ._elastic import Elastic
from ._menu import Budget, Menu, Value
from ._own_statistics import OwnStatistics
from ._passes import SharedPasses

_LOCK = threading.RLock()  # cuts change the network itself, so that threads take turns


class SortedModule(nn.Module):
    """Family of nested sub-networks of any module: each holds the first channels, heads and blocks of the larger ones.

    The groups of channels that are cut come from the module's `PermutationSpec`, so producers, norms, recurrences and
    consumers are cut together. Each group is tested first, in float64: the smaller module must compute what the full
    one computes when no weight reads the channels that were cut. Attributes that hold sizes, such as the number of
    heads, are found by the same test. So is each budget of the menu.

    At the full budget the module itself runs. At another one, its own code runs on slices of its parameters, which are
    views wherever the first channels come first in memory, so that gradients reach the full parameters. Layer norms run
    over the channels that are left. Weights are shared, and the state dict of `module` is that of the plain model.

    Batch norms share one set of running statistics during training, which is right for no sub-network. Call `calibrate`
    before you evaluate one.

    Do not use activation checkpointing inside the module: it computes a block again after the call, at full size, so
    that gradients are wrong. Sub-networks of several threads wait for each other. With distributed training, all
    processes draw the same budgets, and blocks that a budget leaves out need `find_unused_parameters=True`.

    Args:
        model: Network; it is held, not copied.
        example_inputs: Example as for `PermutationSpec.from_module`.
        dims: What each dimension of a budget sizes. A name that starts with `depth` takes blocks: a pattern of module
            names such as `"blocks.*"`, or several. Any other name takes groups of the spec: names, patterns, or
            `"auto"` for all groups that can be cut and that no other dimension takes. `"heads": "auto"` takes the
            groups with channels inside, which are attention heads and the groups of group norms and convolutions.
        menu: Budgets that the family is trained for.
        outputs: Function that selects the part of the output that matters, as for `PermutationSpec.from_module`.
        spec: Spec of this module, if there is one.
        verify: Whether to test each budget of the menu, beyond the test of each group. Where a norm runs over a group,
            the comparison is at its largest divisor of the full width, and the width itself must run.
        seed: Seed of the budgets that `draw` returns.

    Attributes:
        module: Network of full size.
        spec: Its permutation symmetries, without the traced graph.
        dims: Groups and blocks of each dimension.
        menu: Budgets.
        current: Budget of the next call.
        refused: Reasons why groups that `"auto"` looked at can't be cut.
        statistics: Running statistics of batch norms, by budget.
        blocks: Names of the blocks, if one list is cut and each block can be computed once for several depths.

    Raises:
        InputError: A dimension or size is unknown, a group can't be cut, or the module does not run on the example.

    Example:
        >>> model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 3))
        >>> x = torch.randn(5, 8)
        >>> nested = SortedModule(model, x, {"width": "auto"}, Menu.product(width=[0.25, 0.5, 1.0]))
        >>> small = nested.extract({"width": 0.25})
        >>> small
        Sequential(
          (0): Linear(in_features=8, out_features=16, bias=True)
          (1): ReLU()
          (2): Linear(in_features=16, out_features=3, bias=True)
        )
        >>> with nested.budget(width=0.25):
        ...     print(torch.equal(nested(x), small(x)))
        True
    """

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Any,
        dims: Mapping[str, str | Sequence[str]],
        menu: Menu,
        *,
        outputs: Callable[[Any], Any] | None = None,
        spec: PermutationSpec | None = None,
        verify: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_module(model, "model")
        if not isinstance(menu, Menu):
            raise InputError(f"menu must be a Menu, such as Menu.product(width=[0.5, 1.0]), got {menu!r:.60}")
        if spec is not None:
            check_spec(spec)
        whole("seed", seed, least=0)
        if any(p.is_meta for p in (*model.parameters(), *model.buffers())):
            raise InputError("the network is on the meta device: nesting is tested with numbers, so load it first")
        if any(isinstance(part, torch.jit.ScriptModule) for part in model.modules()):
            raise InputError("the network holds a TorchScript module, which can't be cut")
        check_example(model, example_inputs, outputs)
        self.module, self.menu, self.outputs = model, menu, outputs
        self.example_inputs = example_inputs
        self.spec = spec or PermutationSpec.from_module(model, example_inputs, outputs=outputs)
        found = dimensions(model, self.spec, dims)
        if set(found) != set(menu.dimensions):
            raise InputError(f"dims sizes {list(found)}, but the menu {list(menu.dimensions)}; both must name the same")
        elastic = Elastic(model, self.spec, example_inputs, outputs)
        self.dims = {name: self._possible(elastic, own) for name, own in found.items()}
        self.refused, self._sizes = elastic.refused, tuple(elastic.sizes)
        self.spec = replace(self.spec, graph=None, other_graphs=())  # traces are large, and can't be pickled
        for budget in menu:
            widths, gone = self.left_by(budget)
            if (verify or gone) and (why := elastic.refutation(widths, gone=gone)) is not None:
                raise InputError(f"the network can't be cut to {budget}: {why}")
        lists = [blocks for own in self.dims.values() for blocks in own.blocks.values()]
        left = [sum(b not in self.left_by(budget)[1] for b in lists[0]) for budget in menu] if len(lists) == 1 else []
        self.blocks = lists[0] if left and elastic.replays(lists[0], sorted(set(left))) else None
        self.current: Budget | None = None
        self.statistics = OwnStatistics(model)
        self._cuts: dict[Budget | None, Cut] = {}
        self._parts: list[int] = []
        self._open: Applied | None = None
        self._passes: SharedPasses | None = None
        self._generator = torch.Generator().manual_seed(seed)

    def _possible(self, elastic: Elastic, own: Dimension) -> Dimension:
        """Return a dimension without the groups that can't be cut.

        Raises:
            InputError: None is left, or the user named one that can't be cut.
        """
        if own.blocks:
            return own
        possible = elastic.find(list(own.sizes))
        if refused := [g for g in own.sizes if g not in possible]:
            why = f"group {refused[0]!r} can't be cut: {elastic.refused[refused[0]]}"
            if not own.auto or not possible:
                raise InputError(f"dimension {own.name!r}: {why}")
        if not possible:
            raise InputError(f"dimension {own.name!r}: the network has no group of channels that can be cut")
        return Dimension(own.name, {g: own.sizes[g] for g in possible}, {}, own.auto)

    def left_by(self, budget: Mapping[str, Value]) -> tuple[dict[str, int], list[str]]:
        """Return the widths of the groups of a sub-network, and the names of the blocks that it leaves out.

        Args:
            budget: Budget of the menu.
        """
        widths: dict[str, int] = {}
        gone: list[str] = []
        for name, value in budget.items():
            kept = self.dims[name].kept(value)
            for where, blocks in self.dims[name].blocks.items():
                gone += blocks[kept[where] :]
            if not self.dims[name].blocks:
                widths |= kept
        return widths, gone

    def set_budget(self, budget: Mapping[str, Value] | None) -> None:
        """Choose the sub-network that the next calls run.

        Args:
            budget: Budget of the menu, where dimensions left out have their largest size; None for the full network.

        Raises:
            InputError: The menu lacks the budget.
        """
        self.current = None if budget is None else self.menu.named(budget)

    @contextlib.contextmanager
    def budget(self, /, **sizes: Value) -> Iterator[SortedModule]:
        """Run a sub-network inside a `with` block.

        Args:
            sizes: Size by dimension. Dimensions left out have their largest size.

        Raises:
            InputError: The menu lacks the budget.
        """
        with _LOCK:
            before = self.current
            self.set_budget(sizes)
            try:
                yield self
            finally:
                self.current = before

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the sub-network of the current budget.

        Args:
            args: Arguments of the module.
            kwargs: Keyword arguments of the module.

        Warns:
            UserWarning: The statistics of batch norms are not those of this sub-network.
        """
        budget = self.current
        if budget is None and self._open is None and not self.statistics.norms:
            with _LOCK:
                return self.module(*args, **kwargs)
        with self.applied(budget):
            cut, passes = self._cuts[budget], self._passes
            if passes is None or budget is None or not self.statistics.in_training():
                return self.module(*args, **kwargs)
            return passes.run(cut.widths, cut.gone, args, kwargs)

    @contextlib.contextmanager
    def applied(self, budget: Mapping[str, Value] | None) -> Iterator[nn.Module]:
        """Turn the full network itself into a sub-network inside a `with` block, for code that calls it directly.

        Args:
            budget: Budget of the menu, where dimensions left out have their largest size; None for the full network.

        Raises:
            InputError: The menu lacks the budget.

        Warns:
            UserWarning: The statistics of batch norms are not those of this sub-network.
        """
        with self._whole():
            named = None if budget is None else self.menu.named(budget)
            cut = self._cut(named)
            self._open = Applied(cut, self.statistics.of(named, cut.full))
            try:
                yield self.module
            finally:
                self._open.context.__exit__(None, None, None)
                self._open = None

    @contextlib.contextmanager
    def _whole(self) -> Iterator[None]:
        """Undo the cut that is applied, if any, inside a `with` block of one thread."""
        with _LOCK:
            before, self._open = self._open, None
            if before is not None:
                before.context.__exit__(None, None, None)
            try:
                yield
            finally:
                self._open = None if before is None else Applied(before.cut, before.instead)

    @contextlib.contextmanager
    def one_pass(self) -> Iterator[None]:
        """Let calls on the same inputs, whose budgets differ in depth only, compute each block once.

        Call the deepest budget first. A block is computed again if inputs, weights or modes have changed, in evaluation
        mode if there are batch norms, and always if `blocks` is None: several lists are cut, or blocks do not run once,
        one after the other. Dropout drops the same activations in all passes.
        """
        before, self._passes = self._passes, SharedPasses(self.module, self.blocks) if self.blocks else None
        try:
            yield
        finally:
            self._passes = before

    def _cut(self, budget: Budget | None) -> Cut:
        parts = [id(part) for part in self.module.modules()]
        if self._parts and parts != self._parts:
            raise InputError("modules of the network were replaced after it was nested; build a new SortedModule")
        self._parts = parts
        if budget not in self._cuts:
            widths, gone = ({}, []) if budget is None else self.left_by(budget)
            self._cuts[budget] = Cut(self.module, self.spec, widths, gone, self._sizes)
        return self._cuts[budget]

    def __getstate__(self) -> dict[str, Any]:
        found = super().__getstate__() if hasattr(super(), "__getstate__") else dict(self.__dict__)
        return {**found, "_cuts": {}, "_parts": [], "_open": None, "_passes": None}

    def draw(self, weights: Sequence[int | float] | None = None) -> Budget:
        """Draw a budget of the menu at random, the same ones in all processes of distributed training.

        Args:
            weights: Weight of each budget of the menu; equal by default.

        Raises:
            InputError: There is not one weight for each budget, or they are not positive.
        """
        try:
            shares = torch.ones(len(self.menu)) if weights is None else torch.tensor(list(weights), dtype=torch.float64)
        except (TypeError, ValueError):
            shares = torch.empty(0)
        if shares.shape != (len(self.menu),) or not bool((shares >= 0).all() & shares.isfinite().all() & shares.any()):
            raise InputError(f"weights must be {len(self.menu)} finite numbers, none negative, got {weights!r:.60}")
        return self.menu[int(torch.multinomial(shares, 1, generator=self._generator))]

    def extract(self, budget: Mapping[str, Value] | None, *, share: bool = False) -> Any:
        """Return a sub-network as a module of the model's own class.

        Its output in evaluation mode is equal, bit by bit, to that of this module at the same budget. Its state dict
        has the names of the full one. For a Hugging Face model with a smaller configuration use `extract_pretrained`.

        Args:
            budget: Budget of the menu; None for the full network.
            share: Whether its parameters are views of the full ones where possible, for evaluation without copies.
                An optimizer must not update them.

        Raises:
            InputError: The menu lacks the budget.
        """
        named = None if budget is None else self.menu.named(budget)
        with self._whole():
            return self._cut(named).extracted(
                (lambda value: value) if share else torch.clone, self.statistics.known(named)
            )

    def count(self, budget: Mapping[str, Value] | None) -> int:
        """Return the number of parameters of a sub-network; tied parameters count once.

        Args:
            budget: Budget of the menu; None for the full network.
        """
        small = self.extract(budget, share=True)
        return sum(p.numel() for p in small.parameters())

    def calibrate(self, batches: Iterable[Any]) -> None:
        """Estimate the running statistics of batch norms of every budget, and of the full network, from data.

        Each is the plain mean over one pass, as by `reset_batchnorm_stats`. Without batch norms nothing happens.
        When weights change, the statistics of budgets are forgotten.

        Args:
            batches: Batches of training data that can be read several times, such as a list or a data loader.

        Raises:
            InputError: There is no batch, or the batches can be read only once.
        """
        if not self.statistics.norms:
            return
        if isinstance(batches, Iterator):
            raise InputError("batches must be readable several times: pass a list or a data loader, not an iterator")
        found = {}
        with self._whole():
            for budget in self.menu:
                small = reset_batchnorm_stats(self._cut(budget).extracted(torch.clone), batches)
                kept = [name for name in self.statistics.norms if name in dict(small.named_modules())]
                found[budget] = {f"{n}.{k}": v for n in kept for k, v in small.get_submodule(n).named_buffers()}
            reset_batchnorm_stats(self.module, batches)
            self.statistics.set(found, measured=True)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        """Add the statistics of batch norms of each budget, and the state of the draws, as tensors."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}draws"] = self._generator.get_state()
        for budget, found in self.statistics.values.items():
            for name, value in found.items():
                destination[f"{prefix}statistics.{budget}.{name}"] = value.detach()

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        """Take what `_save_to_state_dict` added; the state dict may lack it."""
        draws = state_dict.pop(f"{prefix}draws", None)
        if draws is not None:
            self._generator.set_state(draws.cpu())
        found: dict[Budget, dict[str, Tensor]] = {}
        for budget in self.menu:
            start = f"{prefix}statistics.{budget}."
            own = [key for key in state_dict if key.startswith(start)]
            if own:
                found[budget] = {key.removeprefix(start): state_dict.pop(key) for key in own}
        self.statistics.set(found, measured=False)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        """Return the dimensions and the number of budgets."""
        sizes = "; ".join(f"{name} {', '.join(map(str, own))}" for name, own in self.menu.sizes.items())
        return f"{len(self.menu)} budgets ({sizes})"


def check_nested(nested: Any) -> None:
    """Check that an argument is a sorted network.

    Raises:
        InputError: It is not.
    """
    if not isinstance(nested, SortedModule):
        raise InputError(f"the first argument must be a SortedModule, got {type(nested).__name__}")
