"""Recurrences over time: the parallel layers beside their own loop, nn.GRU, nn.LSTM and the closest rival.

python benchmarks/recurrences.py [--device cpu|cuda] writes results/benchmarks/.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from commutant.sequences import MinGRU, ParaGRU, ParaLSTM

BATCH, WIDTH = 8, 64


def _rival() -> Callable[[], nn.Module] | None:
    """pararnn-torch, where it is installed (`pip install --no-deps pararnn-torch triton`)."""
    try:
        from pararnn import ParaGRU as Cell  # type: ignore[import-not-found]
        from pararnn import ParaRNN
    except ImportError:
        return None
    return lambda: ParaRNN(Cell(WIDTH, WIDTH), solver="newton").train()


def _time(makers: dict[str, Callable[[], nn.Module]], x: Tensor, repeats: int) -> dict[str, float]:
    """Median seconds of forward and backward; the modules take turns."""
    modules = {name: make() for name, make in makers.items()}
    times: dict[str, list[float]] = {name: [] for name in modules}
    for repeat in range(repeats + 2):
        for name, module in modules.items():
            leaf = x.clone().requires_grad_()
            start = time.perf_counter()
            out = module(leaf)
            (out[0] if isinstance(out, tuple) else out).sum().backward()
            if repeat > 1:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(found) for name, found in times.items()}


def recurrences() -> dict[str, Any]:
    makers: dict[str, Callable[[], nn.Module]] = {
        "**`ParaGRU`**": lambda: ParaGRU(WIDTH, WIDTH, batch_first=True),
        "**`ParaLSTM`**": lambda: ParaLSTM(WIDTH, WIDTH, batch_first=True),
        "**`MinGRU`**, linear": lambda: MinGRU(WIDTH, WIDTH, batch_first=True),
        "`ParaGRU`, step by step": lambda: ParaGRU(WIDTH, WIDTH, batch_first=True, method="sequential"),
        "`ParaGRU`, the paper's Newton iteration": lambda: ParaGRU(WIDTH, WIDTH, batch_first=True, method="newton"),
        "`nn.GRU`, dense recurrence": lambda: nn.GRU(WIDTH, WIDTH, batch_first=True),
        "`nn.LSTM`, dense recurrence": lambda: nn.LSTM(WIDTH, WIDTH, batch_first=True),
    }
    rival = _rival()
    if rival is not None:
        makers["pararnn-torch `ParaGRU`"] = rival
    columns, found = [], {}
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for length in (512, 4096):
            torch.manual_seed(0)
            x = torch.randn(BATCH, length, WIDTH)
            columns.append(f"T = {length}, {threads} thread{'s' * (threads > 1)}, ms")
            found[columns[-1]] = _time(makers, x, 9 if length == 512 else 5)
    torch.set_num_threads(before)
    ours, lstm = "**`ParaGRU`**", "`nn.LSTM`, dense recurrence"
    rows = [{"name": name, **{c: found[c][name] * 1e3 for c in columns}} for name in makers]
    long = [c for c in columns if "4096" in c]
    against = [
        f"{min(found[c][lstm] / found[c][ours] for c in long):.1f} times as fast as nn.LSTM at T = 4096 (bar: 1)"
    ]
    if rival is not None:
        ratio = min(found[c]["pararnn-torch `ParaGRU`"] / found[c][ours] for c in columns)
        against.append(f"{ratio:.1f} times as fast as pararnn-torch at the least favorable setting (bar: 3)")
    loop = min(found[c]["`ParaGRU`, step by step"] / found[c][ours] for c in columns)
    against.append(f"{loop:.1f} times as fast as its own loop")
    flops = 3 * 2 * BATCH * 4096 * WIDTH * 3 * WIDTH
    share = flops / 1e9 / found[long[0]][ours]
    return {
        "name": "recurrences",
        "title": "Recurrences over time",
        "description": f"Forward and backward of one layer, {BATCH} sequences, {WIDTH} features and channels, float32. "
        "`nn.GRU` and `nn.LSTM` (oneDNN) have a dense recurrence, a different and larger model; pararnn-torch has "
        "the same "
        "cell as `ParaGRU` and runs Newton's method.",
        "columns": columns,
        "rows": rows,
        "reading": f"`ParaGRU` is {', '.join(against)}. Its limit here is arithmetic: the products of the gates and "
        "their "
        f"gradients alone are {flops / 1e9:.1f} GFLOP at T = 4096, of which one thread does {share:.0f} per second, "
        "including the time of the recurrence.",
    }


ALL = (recurrences,)

if __name__ == "__main__":
    import argparse
    import json
    import sys
    from pathlib import Path

    from recurrences_gpu import recurrences_gpu  # type: ignore[import-not-found]

    from commutant import InputError
    from commutant.evidence import environment, write_json

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    try:
        result = recurrences() if parser.parse_args().device == "cpu" else recurrences_gpu()
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    write_json(Path("results") / "benchmarks" / f"{result['name']}.json", {**result, **environment()})
    print(json.dumps(result, indent=1))
