"""Frames beside networks that are equivariant by their layers, on charged particles: error for the time spent."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from commutant.data import Trajectories, charged_particles
from commutant.geometry import FrameAverage
from commutant.papers._frame_measures import flattened
from commutant.papers._frame_models import Particles

_SECONDS = 60.0
_WIDTH, _LAYERS = 60, 4


class _EGNN(nn.Module):
    """Satorras, Hoogeboom and Welling (2021), equations 3 to 7, with velocities and charges on the edges."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        two = lambda a, b: nn.Sequential(nn.Linear(a, width), nn.SiLU(), nn.Linear(width, b))  # noqa: E731
        self.lift = nn.Linear(1, width)
        self.edge = nn.ModuleList([nn.Sequential(two(2 * width + 2, width), nn.SiLU()) for _ in range(layers)])
        self.push = nn.ModuleList([two(width, 1) for _ in range(layers)])
        self.keep = nn.ModuleList([two(width, 1) for _ in range(layers)])
        self.node = nn.ModuleList([two(2 * width, width) for _ in range(layers)])
        for push in self.push:  # as in the authors' code, so that positions hardly move at first
            nn.init.xavier_uniform_(push[-1].weight, gain=1e-3)

    def forward(self, pos: Tensor, vel: Tensor, edge_index: Tensor, edge_attr: Tensor, batch: Tensor) -> Tensor:
        source, target = edge_index
        h = self.lift(vel.norm(dim=-1, keepdim=True))
        for edge, push, keep, node in zip(self.edge, self.push, self.keep, self.node, strict=True):
            apart = pos[source] - pos[target]
            far = apart.square().sum(-1, keepdim=True)
            message = edge(torch.cat([h[source], h[target], far, edge_attr[:, :1]], -1))
            moved = torch.zeros_like(pos).index_add(0, source, apart * push(message)) / 4
            pos = pos + keep(h) * vel + moved
            h = h + node(torch.cat([h, torch.zeros_like(h).index_add(0, source, message)], -1))
        return pos


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


def _models() -> dict[str, Callable[[], nn.Module]]:
    base = lambda: Particles(_WIDTH, _LAYERS)  # noqa: E731
    return {
        "message passing, no symmetry": base,
        "`FrameAverage`, SE(3), all frames": lambda: FrameAverage(base(), "SE(3)", outputs="points"),
        "`FrameAverage`, SE(3), a rule": lambda: FrameAverage(base(), "SE(3)", outputs="points", signs="softskew"),
        "EGNN": lambda: _EGNN(_WIDTH, _LAYERS),
        "e3nn": lambda: _Tensors(_WIDTH, _LAYERS),
    }


def _trained(make: Callable[[], nn.Module], train: Trajectories, test: Trajectories) -> list[tuple[float, int, float]]:
    """(seconds of training, steps, test error) as it goes, for as long as all have."""
    torch.manual_seed(0)
    model = make()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    rows, cpu = torch.arange(len(test.charge)), torch.device("cpu")
    inputs, target = flattened(test, rows, cpu)
    generator = torch.Generator().manual_seed(1)
    spent, steps, curve = 0.0, 0, []
    while spent < _SECONDS:
        # a cosine in the time that is left, so that every model ends with small steps
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * spent / _SECONDS)).item())
        start = time.perf_counter()
        seen, y = flattened(train, torch.randint(0, len(train.charge), (100,), generator=generator), cpu)
        loss = (model(*seen) - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        spent, steps = spent + time.perf_counter() - start, steps + 1
        if steps % 100 == 0 or spent >= _SECONDS:
            with torch.no_grad():
                curve.append((spent, steps, float((model(*inputs) - target).square().mean())))
    return curve


def particles() -> dict[str, Any]:
    torch.set_num_threads(1)
    train, test = (
        charged_particles(n, torch.Generator().manual_seed(s), warm_up=1000, horizon=1000)
        for n, s in ((3000, 0), (1000, 1))
    )
    curves = {}
    for name, make in _models().items():
        try:
            curves[name] = _trained(make, train, test)
        except ImportError:
            continue
    aim = curves["`FrameAverage`, SE(3), a rule"][-1][2] * 1.05
    rows = []
    for name, curve in curves.items():
        spent, steps, error = curve[-1]
        reached = next((f"{s:.0f}" for s, _, e in curve if e <= aim), "not in time")
        rows.append({
            "name": name,
            "ms a step": 1000 * spent / steps,
            "steps": float(steps),
            "test error": error,
            "seconds to the error of frames": reached,
        })  # fmt: skip
    error = {row["name"]: row["test error"] for row in rows}
    ours = error["`FrameAverage`, SE(3), a rule"]
    return {
        "name": "particles",
        "title": "Charged particles: frames beside equivariant layers, for the same time",
        "description": f"Five particles, 3000 systems, batches of 100, each network trained for {_SECONDS:.0f} seconds on "
        f"one thread (width {_WIDTH}, {_LAYERS} layers, Adam with a cosine in time); squared error of the positions 1000 "
        "steps later, on 1000 other systems. EGNN as published, e3nn's own message passing with l up to 1 and a quarter "
        "of the channels of each kind.",
        "columns": ["ms a step", "steps", "test error", "seconds to the error of frames"],
        "rows": rows,
        "reading": f"At equal time frames with a rule for the signs reach {ours:.3g}, EGNN {error['EGNN']:.3g}"
        + (f", e3nn {error['e3nn']:.3g}." if "e3nn" in error else "."),
    }


ALL = (particles,)
