"""Fused recurrences on a GPU, beside what else one could run there; started by `benchmarks/recurrences.py --device cuda`.

The kernels get their pre-activations; `nn.GRU` and the rival get an input of the same width and do their own products.
"""

from __future__ import annotations

import importlib
import importlib.util
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from commutant import InputError
from commutant.kernels import fused_recurrence
from commutant.sequences import GATED_CELLS
from commutant.sequences._find import loop

SHAPES = ((1, 1024), (8, 1024), (8, 4096), (32, 4096))
LENGTHS = tuple(2**k for k in range(8, 18))
LONGEST_LOOP = 2**13  # a step by step loop takes tens of microseconds a step


def _seconds(run: Callable[[], Tensor], leaves: list[Tensor], device: torch.device, repeats: int) -> float:
    """Median of forward and backward."""
    found = []
    for repeat in range(repeats + 2):
        for leaf in leaves:
            leaf.grad = None
        _wait(device)
        started = time.perf_counter()
        run().sum().backward()
        _wait(device)
        if repeat > 1:
            found.append(time.perf_counter() - started)
    return statistics.median(found)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _arms(
    length: int, batch: int, channels: int, dtype: torch.dtype, device: torch.device
) -> Iterator[tuple[str, Callable[[], Tensor], list[Tensor]]]:
    cell = GATED_CELLS["gru"]
    pre = torch.randn(length, batch, 3, channels, device=device, dtype=dtype, requires_grad=True)
    weights = (torch.rand(3, channels, device=device) - 0.5).requires_grad_()
    h0 = torch.zeros(batch, channels, device=device, dtype=dtype)
    for method in ("sequential", "multishoot", "newton"):
        name = f"`ParaGRU` kernel, {method}" + (" (the paper's scheme, 3 iterations)" if method == "newton" else "")
        yield name, lambda m=method: fused_recurrence("gru", pre, weights, h0, m)[0], [pre, weights]
    if length <= LONGEST_LOOP:
        yield "the same cell, loop in Python", lambda: loop(cell, (pre,), h0, (weights,)), [pre, weights]
    if length <= 2**9:
        step = torch.compile(cell.step)

        def compiled() -> Tensor:
            h, out = h0.float(), []
            for t in range(length):
                h = step(h, (pre[t].float(),), (weights,))
                out.append(h)
            return torch.stack(out)

        yield "the same cell, compiled loop", compiled, [pre, weights]
    if importlib.util.find_spec("accelerated_scan") is not None and length & (length - 1) == 0 and length <= 2**16:
        scan = importlib.import_module("accelerated_scan.scalar").scan
        gates = torch.rand(batch, channels, length, device=device, dtype=dtype, requires_grad=True)
        tokens = torch.randn(batch, channels, length, device=device, dtype=dtype, requires_grad=True)
        yield "`accelerated-scan`, linear", lambda: scan(gates, tokens), [gates, tokens]
    if channels <= 1024:
        x = torch.randn(batch, length, channels, device=device, dtype=dtype, requires_grad=True)
        dense = nn.GRU(channels, channels, batch_first=True).to(device, dtype)
        yield "`nn.GRU`, dense recurrence", lambda: dense(x)[0], [x, *dense.parameters()]
        if importlib.util.find_spec("pararnn") is not None:
            rival = importlib.import_module("pararnn")
            model = rival.ParaRNN(rival.ParaGRU(channels, channels), solver="newton").to(device, dtype).train()
            out = lambda y: y[0] if isinstance(y, tuple) else y  # noqa: E731
            yield "pararnn-torch `ParaGRU`", lambda: out(model(x)), [x, *model.parameters()]


def recurrences_gpu(
    device: str = "cuda",
    shapes: tuple[tuple[int, int], ...] = SHAPES,
    lengths: tuple[int, ...] = LENGTHS,
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.bfloat16),
    repeats: int = 5,
) -> dict[str, Any]:
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda was asked for, but torch sees no CUDA device")
    place, rows, best = torch.device(device), [], 0.0
    columns = ["T", "B x D", "dtype", "ms", "TB/s", "of the naive loop"]
    for dtype in dtypes:
        for batch, channels in shapes:
            for length in lengths:
                size = length * batch * channels * dtype.itemsize
                if place.type == "cuda" and 12 * size > torch.cuda.get_device_properties(place).total_memory:
                    continue
                found: dict[str, float | str] = {}
                for name, run, leaves in _arms(length, batch, channels, dtype, place):
                    try:
                        found[name] = _seconds(run, leaves, place, repeats)
                    except (torch.cuda.OutOfMemoryError, RuntimeError) as error:
                        found[name] = f"failed: {str(error).splitlines()[0][:60]}"
                naive = found.get("the same cell, loop in Python")
                for name, seconds in found.items():
                    timed = isinstance(seconds, float)
                    # what must move: 3 in and 1 out forward; 5 in and 3 out backward
                    rate = 12 * size / seconds / 1e12 if timed and "kernel" in name else 0.0
                    best = max(best, rate)
                    row: dict[str, Any] = {"name": name, "T": str(length), "B x D": f"{batch} x {channels}"}
                    row |= {"dtype": str(dtype).removeprefix("torch."), "ms": seconds * 1e3 if timed else seconds}
                    row["TB/s"] = f"{rate:.2f}" if rate else "–"
                    row["of the naive loop"] = f"{naive / seconds:.0f}x" if timed and isinstance(naive, float) else "–"
                    rows.append(row)
    return {
        "name": "recurrences-gpu",
        "title": "Recurrences over time on a GPU",
        "description": "Forward and backward of one recurrence. The kernels get their pre-activations; `nn.GRU` and "
        "pararnn-torch do their matrix products too.",
        "columns": columns,
        "rows": rows,
        "reading": "A kernel must move 12 numbers a step and channel, forward and backward; the best rate is "
        f"{best:.2f} "
        "TB/s.",
    }
