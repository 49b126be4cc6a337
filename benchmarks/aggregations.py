"""Ragged aggregation beside PyTorch Geometric: many sets, one huge set, and cost against size."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch_geometric.nn import aggr

from commutant.algebra import Sum
from commutant.sets import Conjugated, GRUFoldAggregation, LCMAggregation, MonoidAggregation

from ._measure import geometric_sets, peak_memory, time_all

H = 64


def many_sets() -> dict[str, Any]:
    x, index = geometric_sets(10_000, 20, 100, H)
    makers: dict[str, Callable[[], nn.Module]] = {
        "**`LCMAggregation`**": lambda: LCMAggregation(H, H, project=False).eval(),
        "**`GRUFoldAggregation`**": lambda: GRUFoldAggregation(H, H).eval(),
        "**`MonoidAggregation(Conjugated.of_sum)`**": lambda: MonoidAggregation(Conjugated.of_sum(H)),
        "**`MonoidAggregation(Sum)`**": lambda: MonoidAggregation(Sum()),
        "PyG `LCMAggregation`": lambda: aggr.LCMAggregation(H, H, project=False),
        "PyG `GRUAggregation`": lambda: aggr.GRUAggregation(H, H),
        "PyG `LSTMAggregation`": lambda: aggr.LSTMAggregation(H, H),
        "PyG `DeepSetsAggregation`": lambda: aggr.DeepSetsAggregation(nn.Linear(H, H), nn.Linear(H, H)),
        "PyG `SumAggregation`": lambda: aggr.SumAggregation(),
    }
    times = time_all(makers, x, index, repeats=5)
    ours = times["**`LCMAggregation`**"][1]
    columns = ["forward, ms", "forward + backward, ms", "of LCM here"]
    rows = [
        {"name": n, columns[0]: f * 1e3, columns[1]: b * 1e3, columns[2]: f"{b / ours:.2f}x"}
        for n, (f, b) in times.items()
    ]
    lcm, gru = times["PyG `LCMAggregation`"][1] / ours, times["PyG `GRUAggregation`"][1] / ours
    merges = len(x) - 10_000
    flops = 3 * 2 * merges * 8 * H * H
    return {
        "name": "many-sets",
        "title": "Many small sets",
        "description": f"10 000 sets of geometric size (mean 20, at most 100), {len(x)} elements, {H} channels.",
        "columns": columns,
        "rows": rows,
        "reading": f"LCM is {lcm:.1f} times as fast as PyG's LCM and {gru:.1f} times as fast as its GRU (bars: 10 "
        "and 4), "
        f"forward and backward. Its limit is arithmetic: {flops / 1e9:.0f} GFLOP of matrix products (8 h² "
        f"multiplications per merge, three passes), done at {flops / ours / 1e9:.0f} GFLOP/s if gates and gathers "
        "are included in the time; a "
        f"plain product of the same shapes reaches {_matmul_rate():.0f} GFLOP/s here.",
    }


def _matmul_rate() -> float:
    a, b = torch.randn(2048, H), torch.randn(H, 2 * H)
    best = float("inf")
    for _ in range(20):
        start = time.perf_counter()
        for _ in range(50):
            a @ b
        best = min(best, time.perf_counter() - start)
    return 50 * 2 * 2048 * H * 2 * H / best / 1e9


POWER_LAW = f"""
import torch, time
from commutant.sets import LCMAggregation
sizes = torch.cat([torch.randint(3, 8, (5000,), generator=torch.Generator().manual_seed(0)), torch.tensor([20_000])])
index = torch.repeat_interleave(sizes)
x = torch.randn(len(index), {H})
agg = LCMAggregation({H}, {H}, project=False).eval()
agg(x[:64].requires_grad_(), index[:64]).sum().backward()
# MARK
agg(x.clone().requires_grad_(), index).sum().backward()
"""


def one_huge_set() -> dict[str, Any]:
    sizes = torch.cat(
        [torch.randint(3, 8, (5000,), generator=torch.Generator().manual_seed(0)), torch.tensor([20_000])]
    )
    index = torch.repeat_interleave(sizes)
    x = torch.randn(len(index), H)
    times = time_all({"ours": lambda: LCMAggregation(H, H, project=False).eval()}, x, index, repeats=5)["ours"]
    memory = peak_memory(POWER_LAW)
    padded = 5001 * 20_000 * H * 4 / 2**30
    columns = ["forward, ms", "forward + backward, ms", "memory, GiB"]
    ours = {
        "name": "**`LCMAggregation`**",
        columns[0]: times[0] * 1e3,
        columns[1]: times[1] * 1e3,
        columns[2]: f"{memory:.2f}",
    }
    theirs = {
        "name": "PyG `LCMAggregation`, `GRUAggregation`",
        columns[0]: "not run",
        columns[1]: "not run",
        columns[2]: f"more than {padded:.0f}",
    }
    return {
        "name": "one-huge-set",
        "title": "One huge set among small ones",
        "description": f"5 000 sets of about 5 elements and one of 20 000, {H} channels, as at the hub of a "
        "power-law graph.",
        "columns": columns,
        "rows": [ours, theirs],
        "reading": f"Padding to the largest set would take {padded:.0f} GiB for the input alone, so PyG's "
        "aggregations were not run. The bar is a peak of 1 GiB, which forward and backward add to a process that "
        "has loaded the library and the input.",
    }


def cost_against_size() -> dict[str, Any]:
    total, columns = 2**17, ["forward + backward, ms", "ns an element", "of the cheapest"]
    found = []
    for power in range(4, 17):
        n = 2**power
        x, index = torch.randn(total, 32), torch.arange(total // n).repeat_interleave(n)
        _, both = time_all({"ours": lambda: LCMAggregation(32, 32, project=False).eval()}, x, index, repeats=7)["ours"]
        found.append((n, both))
    # per merge: a set of n elements takes n - 1
    cheapest = min(both for _, both in found)
    rows = [
        {"name": f"{n}", columns[0]: both * 1e3, columns[1]: both / total * 1e9, columns[2]: f"{both / cheapest:.2f}x"}
        for n, both in found
    ]
    worst = max(both for _, both in found) / cheapest
    return {
        "name": "cost-against-size",
        "title": "Cost against the size of the sets",
        "description": "2^17 elements in sets of n, 32 channels, `LCMAggregation`.",
        "columns": columns,
        "rows": rows,
        "reading": f"From n = 16 to 65 536 the time per element is at most {worst:.2f} times the smallest one (bar: "
        "2).",
    }


ALL = (many_sets, one_huge_set, cost_against_size)
