"""What `method="auto"` takes, beside the plain loop: the measured table behind its thresholds, and the crossover plot."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from commutant.sequences import SLSTM, ParaGRU, ParallelRecurrence, solve_recurrence

LENGTHS = (32, 128, 512, 2048)
SHAPES = ((1, 16), (8, 32), (32, 64))
PLOT = Path("docs/assets/crossover.svg")


def _seconds(runs: dict[str, Callable[[], Tensor]], repeats: int) -> dict[str, float]:
    """Median of forward and backward; the runs take turns."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run().sum().backward()
            if repeat:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(found) for name, found in times.items()}


def _own_step(h: Tensor, x: Tensor, a: Tensor) -> Tensor:
    """A cell that the library has never seen."""
    return torch.tanh(a * h + x)


def _layer(make: Callable[..., ParallelRecurrence], width: int, solver: str, scale: float) -> ParallelRecurrence:
    torch.manual_seed(0)
    layer = make(width, width, batch_first=True, method=solver)
    with torch.no_grad():
        layer.weight_hh_l0.mul_(scale)
    return layer


def _own(x: Tensor, a: Tensor, solver: str, methods: dict[str, str]) -> Tensor:
    states, info = solve_recurrence(
        _own_step, x, torch.zeros_like(x[:, 0]), params=(a,), structure="diagonal", method=solver
    )
    methods[solver] = info.method
    return states


def recurrence_policy() -> dict[str, Any]:
    torch.set_num_threads(1)
    columns = ["batch x channels", "T", "loop, ms", "auto, ms", "auto / loop", "auto takes"]
    rows, worst, curves = [], 0.0, {}
    for batch, width in SHAPES:
        for length in LENGTHS:
            x = torch.randn(batch, length, width, generator=torch.Generator().manual_seed(1))
            repeats = 9 if length <= 512 else 4
            cells: dict[str, tuple[dict[str, Callable[[], Tensor]], Callable[[], str]]] = {}
            for name, make, scale in (
                ("`ParaGRU`", ParaGRU, 1.0),
                ("`SLSTM`", SLSTM, 1.0),
            ):
                layers = {solver: _layer(make, width, solver, scale) for solver in ("sequential", "auto")}
                runs = {s: (lambda layer=layer, x=x: layer(x)[0]) for s, layer in layers.items()}
                cells[name] = (runs, lambda layers=layers: layers["auto"].info[0].method)
            for name, size in (("own cell, forgets", 0.5), ("own cell, remembers", 1.5)):
                a = torch.full((width,), size, requires_grad=True)
                calm, methods = 0.3 * x, {}
                solvers = ("sequential", "auto", *(("multishoot", "newton") if size < 1 and batch == 8 else ()))
                runs = {s: (lambda a=a, c=calm, s=s, m=methods: _own(c, a, s, m)) for s in solvers}
                cells[name] = (runs, lambda m=methods: m["auto"])
            for name, (runs, method) in cells.items():
                found = _seconds(runs, repeats)
                ratio = found["auto"] / found["sequential"]
                taken = "kernel" if name == "`ParaGRU`" else method()
                worst = max(worst, ratio if taken != "sequential" else 0.0)
                row = {"name": name, columns[0]: f"{batch} x {width}", columns[1]: str(length)}
                row |= {columns[2]: found["sequential"] * 1e3, columns[3]: found["auto"] * 1e3}
                rows.append({**row, columns[4]: f"{ratio:.2f}", columns[5]: taken})
                if batch == 8:
                    for solver, seconds in found.items():
                        curves.setdefault(f"{name} {solver}", {})[length] = seconds
    _plot(curves)
    return {
        "name": "recurrence-policy",
        "title": "The method that `auto` chooses",
        "description": "Forward and backward on one thread, float32, compared with the loop in PyTorch operators. "
        "The custom cell is $h' = \\tanh(a h + x)$ through `solve_recurrence`; with a = 1.5 it has two stable states.",
        "columns": columns,
        "rows": rows,
        "reading": f"Where `auto` does not choose the loop, it takes at most {worst:.2f} times the time of the loop "
        "(bar: 1.10).",
    }


def _plot(curves: dict[str, dict[int, float]]) -> None:
    from matplotlib import rcParams
    from matplotlib.figure import Figure

    rcParams["svg.hashsalt"] = "commutant"
    shown = {
        "own cell, forgets newton": ("own cell, Newton (the paper's)", "#c8374a"),
        "own cell, forgets sequential": ("own cell, loop", "#858585"),
        "own cell, forgets multishoot": ("own cell, multiple shooting", "#0b7a75"),
        "`ParaGRU` sequential": ("ParaGRU, loop", "#a86f0b"),
        "`ParaGRU` auto": ("ParaGRU, kernel", "#1d4e89"),
    }
    figure = Figure(figsize=(7.2, 3.8), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3, linewidth=0.6)
    ends = sorted((curves[key][LENGTHS[-1]] * 1e3, *how) for key, how in shown.items())
    for key, (_, color) in shown.items():
        axes.plot(LENGTHS, [curves[key][n] * 1e3 for n in LENGTHS], "o-", color=color, linewidth=1.8, markersize=4)
    height = 0.0
    for value, label, color in ends:  # the axis is logarithmic: names keep a ratio apart
        height = max(value, height * 1.35)
        axes.text(LENGTHS[-1] * 1.08, height, label, color=color, va="center", fontsize=9)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(LENGTHS, [str(n) for n in LENGTHS])
    axes.minorticks_off()
    axes.set(xlabel="length", ylabel="milliseconds, forward and backward", xlim=(LENGTHS[0], LENGTHS[-1]))
    PLOT.parent.mkdir(exist_ok=True)
    figure.savefig(PLOT, metadata={"Date": None})


ALL = (recurrence_policy,)
