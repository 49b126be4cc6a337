"""How everything here is timed: interleaved repeats in one process, medians, a separate process for memory."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn


def time_all(
    makers: dict[str, Callable[[], nn.Module]], x: Tensor, index: Tensor, repeats: int
) -> dict[str, tuple[float, float]]:
    """Median seconds of forward, and of forward and backward, of each module; the modules take turns."""
    modules = {name: make() for name, make in makers.items()}
    forward: dict[str, list[float]] = {name: [] for name in modules}
    both: dict[str, list[float]] = {name: [] for name in modules}
    for repeat in range(repeats + 1):
        for name, module in modules.items():
            leaf = x.clone().requires_grad_()
            start = time.perf_counter()
            out = module(leaf, index)
            middle = time.perf_counter()
            out.sum().backward()
            end = time.perf_counter()
            del out, leaf
            if repeat:
                forward[name].append(middle - start)
                both[name].append(end - start)
    return {name: (statistics.median(forward[name]), statistics.median(both[name])) for name in modules}


def peak_memory(code: str) -> float:
    """GiB that the part of a script after `# MARK` adds to the peak of a process of its own (Linux)."""
    before, after = code.split("# MARK\n")
    probe = """
def memory(field):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 2**20
"""
    script = f"{probe}{before}\nstart = memory('VmRSS')\n{after}\nprint(memory('VmHWM') - start)\n"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def geometric_sets(sets: int, mean: int, longest: int, channels: int) -> tuple[Tensor, Tensor]:
    """Sets of geometric size, sorted by set."""
    generator = torch.Generator().manual_seed(0)
    share = torch.rand(sets, generator=generator, dtype=torch.float64)
    sizes = (share.log() / torch.tensor(1 - 1 / mean).log()).ceil().long().clamp(1, longest)
    index = torch.repeat_interleave(sizes)
    return torch.randn(index.numel(), channels, generator=generator), index
