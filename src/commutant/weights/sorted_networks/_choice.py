"""Choices among the sub-networks of a sorted network by what they cost."""

from __future__ import annotations

import contextlib
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ..._errors import InputError, require
from ...parameters import as_arguments, evaluating
from .._given import check_callable, number
from ._menu import Budget
from ._module import SortedModule, check_nested

_REPEATS = 7


@dataclass(frozen=True)
class Cost:
    """Cost of a sub-network on the example inputs.

    Attributes:
        budget: Its budget.
        parameters: Number of parameters; tied ones count once.
        macs: Number of multiplications in products of matrices and in convolutions.
        seconds: Median time of a call without gradients, or None where it was not measured.
        score: Score of an evaluation, or None.
    """

    budget: Budget
    parameters: int
    macs: int
    seconds: float | None = None
    score: float | None = None


def cost(nested: SortedModule, budget: Budget, *, timed: bool = False) -> Cost:
    """Return what a sub-network costs on the example inputs.

    Args:
        nested: Sorted network.
        budget: Budget of its menu.
        timed: Whether to measure the time of a call.
    """
    check_nested(nested)
    small = nested.extract(budget, share=True)
    args, kwargs = as_arguments(nested.example_inputs)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), evaluating(small):
        with _products(), counter:
            small(*args, **kwargs)
        seconds = _seconds(lambda: small(*args, **kwargs), small) if timed else None
    parameters = sum(p.numel() for p in small.parameters())
    return Cost(budget, parameters, counter.get_total_flops() // 2, seconds)


@contextlib.contextmanager
def _products() -> Iterator[None]:
    """Let attention and recurrences compute by products that can be counted, not by fused kernels."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about settings of devices that are not there
            with sdpa_kernel(SDPBackend.MATH), torch.backends.mkldnn.flags(enabled=False):
                yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _seconds(call: Callable[[], Any], model: nn.Module) -> float:
    """Return the median time of a call."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    times = []
    for _ in range(_REPEATS + 2):
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def select(
    nested: SortedModule,
    *,
    max_params: int | float | None = None,
    max_macs: int | float | None = None,
    max_latency: int | float | None = None,
) -> Budget:
    """Return the budget of the menu with most parameters among those within some limits; no search is needed.

    Args:
        nested: Sorted network.
        max_params: Largest number of parameters.
        max_macs: Largest number of multiplications on the example inputs.
        max_latency: Longest time of a call on the example inputs, in seconds, measured now.

    Raises:
        InputError: No limit is given, or no budget is within them.

    Example:
        >>> from commutant.weights import Menu
        >>> model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 3))
        >>> nested = SortedModule(model, torch.randn(5, 8), {"width": "auto"}, Menu.product(width=[0.25, 0.5, 1.0]))
        >>> select(nested, max_params=500)
        Budget(width=0.5)
    """
    limits = {"parameters": max_params, "macs": max_macs, "seconds": max_latency}
    given = {name: number(value, f"the limit of {name}") for name, value in limits.items() if value is not None}
    check_nested(nested)
    if not given:
        raise InputError("give at least one of max_params, max_macs and max_latency")
    costs = [cost(nested, budget, timed=max_latency is not None) for budget in nested.menu]
    fitting = [c for c in costs if all(getattr(c, name) <= limit for name, limit in given.items())]
    if not fitting:
        least = ", ".join(f"{min(getattr(c, name) for c in costs):.6g} {name}" for name in given)
        wanted = ", ".join(f"{limit:.6g} {name}" for name, limit in given.items())
        raise InputError(f"no budget of the menu is within {wanted}; the least are {least}")
    return max(fitting, key=lambda c: (c.parameters, c.macs)).budget


@dataclass(frozen=True)
class Pareto:
    """Costs and scores of all budgets of a menu.

    Attributes:
        rows: One row for each budget, fewest parameters first.
    """

    rows: tuple[Cost, ...]

    @property
    def best(self) -> tuple[Cost, ...]:
        """Rows for which no row with as few parameters or fewer has a higher score."""
        found: list[Cost] = []
        for row in self.rows:
            if not found or _score(row) > _score(found[-1]):
                found.append(row)
        return tuple(found)

    def __str__(self) -> str:
        names = [str(row.budget) for row in self.rows]
        wide, best = max(map(len, [*names, "budget"])), {row.budget for row in self.best}
        lines = [f"{'budget':<{wide}}  {'parameters':>12}  {'multiplications':>15}  {'score':>8}  best of its size"]
        for name, row in zip(names, self.rows, strict=True):
            mark = "yes" if row.budget in best else ""
            lines.append(
                f"{name:<{wide}}  {row.parameters:>12,}  {row.macs:>15,}  {_score(row):>8.4f}  {mark}".rstrip()
            )
        return "\n".join(lines)

    def plot(self, path: str | Path) -> None:
        """Write a picture of score against parameters.

        Args:
            path: File to write, such as `pareto.svg`.
        """
        figure = require("matplotlib.figure", "evidence").Figure(figsize=(6, 3.6), layout="constrained")
        axes = figure.subplots()
        axes.scatter(
            [r.parameters for r in self.rows], [_score(r) for r in self.rows], s=22, color="#9aa5b1", label="budget"
        )
        axes.plot([r.parameters for r in self.best], [_score(r) for r in self.best], "o-", color="#0b6e99", ms=5,
                  label="best of its size")  # fmt: skip
        axes.set_xscale("log", subs=[])
        ticker = require("matplotlib.ticker", "evidence")
        axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
        axes.set_xlabel("parameters")
        axes.set_ylabel("score")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
        figure.savefig(str(path), dpi=150)


def pareto(nested: SortedModule, evaluate: Callable[[SortedModule], int | float]) -> Pareto:
    """Return the costs and scores of all budgets, as a table that can be printed and plotted.

    Args:
        nested: Sorted network.
        evaluate: Function from the network, at the budget to score, to a number; higher is better.

    Raises:
        InputError: The function does not return a finite number.
    """
    check_nested(nested)
    check_callable(evaluate, "evaluate", "a function from the network to a score")
    rows = []
    for budget in nested.menu:
        with nested.budget(**budget):
            score = number(evaluate(nested), "the score")
        if score != score or score in (float("inf"), float("-inf")):
            raise InputError(f"the score of {budget} is {score}")
        found = cost(nested, budget)
        rows.append(Cost(budget, found.parameters, found.macs, None, score))
    return Pareto(tuple(sorted(rows, key=lambda r: (r.parameters, r.macs))))


def _score(row: Cost) -> float:
    assert row.score is not None
    return row.score
