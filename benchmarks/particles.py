"""Frames beside networks that are equivariant by their layers, on charged particles: error for the time spent."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from commutant.data import Trajectories, charged_particles
from commutant.geometry import FrameAverage
from commutant.papers.frame_averaging.measures import flattened
from commutant.papers.frame_averaging.particles import EGNN, Particles

_SECONDS = 60.0
_WIDTH, _LAYERS, _SEEDS = 60, 4, 3


class _Tensors(nn.Module):
    """Tensor products of irreducible representations up to l = 1, from e3nn's own model."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        from e3nn.nn.models.v2106.gate_points_networks import NetworkForAGraphWithAttributes

        self.net = NetworkForAGraphWithAttributes(
            "1x0e + 1x1o", "1x0e", "1x0e", "1x1o", max_radius=6.0, num_neighbors=4.0, num_nodes=5.0,
            mul=width // 4, layers=layers, lmax=1, pool_nodes=False,
        )  # fmt: skip

    def forward(self, pos: Tensor, vel: Tensor, edge_index: Tensor, edge_attr: Tensor, batch: Tensor) -> Tensor:
        ones = torch.ones_like(vel[:, :1])
        seen = {"pos": pos, "edge_index": edge_index, "batch": batch, "node_attr": ones,
                "node_input": torch.cat([vel.norm(dim=-1, keepdim=True), vel], -1), "edge_attr": edge_attr[:, :1]}  # fmt: skip
        return pos + vel + self.net(seen)


_RECIPE = "`FrameAverage`, one frame in training, all in evaluation"


def _models() -> dict[str, Callable[[], nn.Module]]:
    base = lambda: Particles(_WIDTH, _LAYERS)  # noqa: E731
    average = lambda **options: FrameAverage(base(), "E(3)", outputs="points", **options)  # noqa: E731
    return {
        "message passing, no symmetry": base,
        "`FrameAverage`, all frames": average,
        "`FrameAverage`, a rule for the signs": lambda: average(signs="softskew"),
        _RECIPE: lambda: average(samples=1),
        "EGNN": lambda: EGNN(_WIDTH, _LAYERS),
        "EGNN with the same features of pairs": lambda: EGNN(_WIDTH, _LAYERS, features=True),
        "e3nn": lambda: _Tensors(_WIDTH, _LAYERS),
    }


def _trained(
    make: Callable[[], nn.Module], train: Trajectories, test: Trajectories, seed: int, seconds: float
) -> list[tuple[float, int, float]]:
    """(seconds of training, steps, test error) as it goes, for as long as all have."""
    torch.manual_seed(seed)
    model = make()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    rows, cpu = torch.arange(len(test.charge)), torch.device("cpu")
    inputs, target = flattened(test, rows, cpu)
    generator = torch.Generator().manual_seed(seed + 1)
    spent, steps, curve = 0.0, 0, []
    while spent < seconds:
        # a cosine in the time that is left, so that every model ends with small steps
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * spent / seconds)).item())
        start = time.perf_counter()
        seen, y = flattened(train, torch.randint(0, len(train.charge), (100,), generator=generator), cpu)
        loss = (model(*seen) - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        spent, steps = spent + time.perf_counter() - start, steps + 1
        if steps % 100 == 0 or spent >= seconds:
            model.eval()
            with torch.no_grad():
                curve.append((spent, steps, float((model(*inputs) - target).square().mean())))
            model.train()
    return curve


def particles(seconds: float = _SECONDS) -> dict[str, Any]:
    torch.set_num_threads(1)
    found: dict[str, list[tuple[float, int, float]]] = {}
    for seed in range(_SEEDS):
        train, test = (
            charged_particles(n, torch.Generator().manual_seed(10 * seed + s), warm_up=1000, horizon=1000)
            for n, s in ((3000, 0), (1000, 1))
        )
        for name, make in _models().items():
            try:
                found.setdefault(name, []).append(_trained(make, train, test, seed, seconds)[-1])
            except ImportError:
                continue
    rows: list[dict[str, Any]] = []
    for name, ends in found.items():
        errors = [error for _, _, error in ends]
        rows.append({
            "name": name,
            "ms a step": statistics.fmean(1000 * spent / steps for spent, steps, _ in ends),
            "steps": statistics.fmean(float(steps) for _, steps, _ in ends),
            "test error": statistics.fmean(errors),
            "smallest and largest": f"{min(errors):.3g}, {max(errors):.3g}",
        })  # fmt: skip
    share = [ours[2] / theirs[2] for ours, theirs in zip(found[_RECIPE], found["EGNN"], strict=True)]
    return {
        "name": "particles",
        "title": "Charged particles: frames against equivariant layers, for equal training time",
        "description": f"Five particles, 3000 systems, batches of 100, each network trained for {seconds:.0f} "
        "seconds on "
        f"one thread (width {_WIDTH}, {_LAYERS} layers, Adam with a cosine in time); squared error of the positions "
        "1000 "
        f"steps later, on 1000 other systems, mean over {_SEEDS} seeds. Frames are those of E(3) around a "
        "message-passing "
        "network that sees charges, distances, potentials, forces, relative positions and velocities of pairs. EGNN "
        "is run as published, and with the invariants of the same features; e3nn's message passing has l up to 1 and "
        "a quarter of the channels of each kind.",
        "columns": ["ms a step", "steps", "test error", "smallest and largest"],
        "rows": rows,
        "reading": "At equal time, one sampled frame in training and all frames in evaluation reach "
        f"{min(share):.2f} to {max(share):.2f} of the error of EGNN (bar: 0.80 on every seed).",
    }


ALL = (particles,)
