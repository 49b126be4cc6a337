"""Inference of pruned recurrences: compressed rows beside the dense layer with the same zeros."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
from torch import nn

from commutant.sequences import prune_recurrent, to_sparse

STEPS = 64


def sparse_recurrences() -> dict[str, Any]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    columns = ["dense `nn`, ms", "90 % pruned, ms", "95 % pruned, ms", "99 % pruned, ms", "gain at 95 %"]
    rows, gains = [], {}
    for kind in (nn.GRU, nn.LSTM):
        for width in (256, 1024):
            for batch in (1, 8, 32):
                torch.manual_seed(0)
                x = torch.randn(STEPS, batch, 64)
                modules: dict[str, nn.Module] = {columns[0]: kind(64, width)}
                for name, amount in zip(columns[1:4], (0.9, 0.95, 0.99), strict=True):
                    modules[name] = to_sparse(prune_recurrent(kind(64, width), amount))
                times: dict[str, list[float]] = {name: [] for name in modules}
                with torch.no_grad():
                    for repeat in range(8):
                        for name, module in modules.items():
                            start = time.perf_counter()
                            module(x)
                            if repeat:
                                times[name].append(time.perf_counter() - start)
                found: dict[str, Any] = {name: statistics.median(t) * 1e3 for name, t in times.items()}
                gains[width, batch] = min(gains.get((width, batch), 1e9), found[columns[0]] / found[columns[2]])
                found[columns[4]] = f"{found[columns[0]] / found[columns[2]]:.1f}x"
                rows.append({"name": f"`{kind.__name__}`, {width} units, batch {batch}", **found})
    torch.set_num_threads(before)
    said = ", ".join(f"{gains[1024, b]:.1f}x at batch {b}" for b in (1, 8, 32))
    return {
        "name": "sparse-recurrences",
        "title": "Pruned recurrences, inference",
        "description": f"{STEPS} steps, 64 features, float32, one thread. The dense layer multiplies by every zero; "
        "`to_sparse` reads only the remaining entries.",
        "columns": columns,
        "rows": rows,
        "reading": f"With 1024 units and 95 % pruned the worse of GRU and LSTM gains {said}. A step at batch size 1 "
        "is limited by reading the weights, 8 bytes per remaining weight against 4 per dense one, so 10x is the "
        "limit at 95 %. At larger batch sizes a dense product does more arithmetic per byte.",
    }


ALL = (sparse_recurrences,)
