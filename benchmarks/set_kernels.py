"""Kernel of random-feature attention beside the same sums written in PyTorch."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from commutant.sets import attention_kernel

from ._measure import peak_memory

SETS, KEYS, D = 2000, 32, 16


def drawn(sets: int) -> tuple[Tensor, Tensor]:
    """Return unit queries and keys."""
    generator = torch.Generator().manual_seed(0)
    query, keys = torch.randn(sets, D, generator=generator), torch.randn(sets, KEYS, D, generator=generator)
    return query / query.norm(dim=1, keepdim=True), keys / keys.norm(dim=2, keepdim=True)


def all_at_once(query: Tensor, keys: Tensor) -> Tensor:
    """Form all pairs of keys of all sets."""
    q, k = (torch.nn.functional.pad(x, (0, 1), value=1.0) for x in (query, keys))
    between = torch.einsum("aid,bjd->aibj", k, k)
    rho = ((q @ q.t())[:, None, :, None] * between / 4).clamp(-1, 1)
    return (((1 - rho**2).sqrt() + (math.pi - rho.arccos()) * rho) / (2 * math.pi) * between).mean((1, 3))


def row_by_row(query: Tensor, keys: Tensor) -> Tensor:
    """Form the pairs of keys of one set with all others at a time, which fits into memory."""
    q, k = (torch.nn.functional.pad(x, (0, 1), value=1.0) for x in (query, keys))
    out = []
    for one, mine in zip(q, k, strict=True):
        between = torch.einsum("id,bjd->ibj", mine, k)
        rho = ((q @ one)[:, None] * between / 4).clamp(-1, 1)
        out.append((((1 - rho**2).sqrt() + (math.pi - rho.arccos()) * rho) / (2 * math.pi) * between).mean((0, 2)))
    return torch.stack(out)


WAYS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], tuple[int, ...]]] = {
    "**`attention_kernel`**": (lambda q, k: attention_kernel(q, k), (400, SETS)),
    "**`attention_kernel`, float64**": (lambda q, k: attention_kernel(q.double(), k.double()), (400, SETS)),
    "PyTorch, row by row": (row_by_row, (400, SETS)),
    "PyTorch, all at once": (all_at_once, (400,)),
}

MEMORY = f"""
from benchmarks.set_kernels import attention_kernel, drawn
query, keys = drawn({SETS})
attention_kernel(query[:300], keys[:300])  # what any first call adds to a process
# MARK
attention_kernel(query, keys)
"""


def kernel_of_sets() -> dict[str, Any]:
    """Time each way on the same sets, in turn."""
    columns = [f"{n} sets, s" for n in (400, SETS)]
    rows = []
    for name, (way, sizes) in WAYS.items():
        row: dict[str, Any] = {"name": name, columns[1]: "more than 16 GB for each intermediate value"}
        for n in sizes:
            query, keys = drawn(n)
            way(query[:4], keys[:4])
            times = []
            for _ in range(5 if n == 400 else 3):
                start = time.perf_counter()
                way(query, keys)
                times.append(time.perf_counter() - start)
            row[f"{n} sets, s"] = statistics.median(times)
        rows.append(row)
    ours, theirs = (
        next(row for row in rows if row["name"] == name)[columns[1]]
        for name in ("**`attention_kernel`**", "PyTorch, row by row")
    )
    memory = peak_memory(MEMORY) * 2**30 / (SETS**2 * 4)
    pairs = SETS * (SETS + 1) / 2 * KEYS**2
    return {
        "name": "kernel-of-sets",
        "title": "Kernel of random-feature attention",
        "description": f"Sets of {KEYS} keys in {D} dimensions, float32, {torch.get_num_threads()} threads.",
        "columns": columns,
        "rows": rows,
        "reading": f"For {SETS} sets the compiled sums are {theirs / ours:.1f} times as fast as PyTorch row by row "
        "(bar: 5) "
        f"and add {memory:.2f} times the memory of the result to the peak (bar: 1.2). They use the symmetry of the "
        f"kernel and take {ours / pairs * 1e9:.2f} ns a pair of keys, of which {2 * (D + 1)} operations are the inner "
        "product.",
    }


ALL = (kernel_of_sets,)
