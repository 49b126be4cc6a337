"""Interaction bases: derivatives in closed form beside those of each input, and their memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import jacrev, vmap

from commutant.weights import InteractionBasis
from commutant.weights._activation_moments import Moments
from commutant.weights._interactions import slopes_of

from ._measure import peak_memory

INPUTS, FEWER, SIZES, SECTIONS = 10_000, 500, (784, 512, 512, 10), ["0", "2", "4"]
_FIT = """
import torch, warnings
from torch import nn
from commutant.weights import InteractionBasis
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))
x = torch.randn(10_000, 784)
batches = x.split(1000)
InteractionBasis(model, ["0", "2", "4"], "pca").fit(x[:1000, :].split(500))
# MARK
InteractionBasis(model, ["0", "2", "4"], KIND).fit(batches)
"""


def interaction_moments() -> dict[str, Any]:
    torch.manual_seed(0)
    a, b, c, d = SIZES
    model = nn.Sequential(nn.Linear(a, b), nn.ReLU(), nn.Linear(b, c), nn.ReLU(), nn.Linear(c, d))
    x = torch.randn(INPUTS, a)
    basis = InteractionBasis(model, SECTIONS).fit(x.split(1000))
    ends = [*SECTIONS[1:], "output"]
    rows = []
    reads = [x, model[:2](x).detach(), model[:4](x).detach()]
    for place, (name, end) in enumerate(zip(SECTIONS, ends, strict=True)):
        after = basis.bases[end].directions
        section = nn.Sequential(*list(model.children())[int(name) : None if end == "output" else int(end)])

        def closed(inputs: Tensor = x, place: int = place, after: Tensor = after) -> Tensor:
            moments = Moments(SIZES[place])
            for part in inputs.split(1000):
                trace = basis.places.trace(part)
                moments.count += len(part)
                moments.add_slopes(slopes_of(trace, place))
            return basis._local(place, moments, after, [], None)

        def each(section: nn.Module = section, after: Tensor = after, read: Tensor = reads[place]) -> Tensor:
            columns, total = after.float(), torch.zeros(read.shape[1], read.shape[1])
            of = vmap(jacrev(lambda row: section(row) @ columns))
            for part in read[:FEWER].split(50):
                found = of(part).flatten(0, 1)
                total += found.mT @ found
            return total / FEWER

        fast, slow = _seconds(closed, 3), _seconds(each, 1) * INPUTS / FEWER
        exact = closed(x[:FEWER])
        gap = float((exact - each().double()).abs().max() / exact.abs().max())
        rows.append({"name": f"section {name}: {SIZES[place]} to {SIZES[place + 1]}", "closed form": fast,
                     "each input": slow, "ratio": slow / fast, "difference": f"{gap:.0e}"})  # fmt: skip
    ours, gram = (peak_memory(_FIT.replace("KIND", repr(kind))) for kind in ("local", "pca"))
    start = time.perf_counter()
    edges = basis.edges([x[:1000]])
    seconds = time.perf_counter() - start
    whole = sum(r["each input"] for r in rows) / sum(r["closed form"] for r in rows)
    return {
        "name": "interaction-moments",
        "title": "Derivatives in closed form",
        "description": "The mean of $J^T C C^T J$ over 10 000 inputs of a 784-512-512-10 ReLU network, by section: in "
        "closed form, forward passes included, and as the sum over inputs of products of `vmap(jacrev(...))`, timed on "
        f"{FEWER} inputs and multiplied. Seconds on two threads.",
        "columns": ["closed form", "each input", "ratio", "difference"],
        "rows": rows,
        "reading": f"{whole:.0f} times as fast over all sections (bar 50). Fitting all bases adds {ours:.2f} GiB to the "
        f"process, and principal components alone {gram:.2f} GiB (bar 1.1 times). All {sum(e.numel() for e in edges.values())} "
        f"interactions over 1000 inputs take {seconds:.1f} s.",
    }  # fmt: skip


def _seconds(call: Callable[[], Any], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


ALL = [interaction_moments]
