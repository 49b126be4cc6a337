"""Times of forward and backward passes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor


def median_seconds(
    runs: Mapping[str, Callable[[Tensor], Tensor]], inputs: Callable[[], Tensor], repeats: int
) -> dict[str, float]:
    """Return the median seconds of a forward and backward pass of each run.

    The runs take turns, so that a change of the machine's load affects all of them. The first round is a warm-up.

    Args:
        runs: Functions of one tensor, by name.
        inputs: Function that returns the input of a pass; its time does not count.
        repeats: Number of timed passes of each run.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            x = inputs()
            started = time.perf_counter()
            run(x).sum().backward()  # type: ignore[no-untyped-call]
            if x.is_cuda:
                torch.cuda.synchronize()
            if repeat:
                times[name].append(time.perf_counter() - started)
    return {name: statistics.median(found) for name, found in times.items()}
