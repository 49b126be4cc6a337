"""Frame averaging beside its backbone and beside `frame-averaging-pytorch`; frames a second; cost against size."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from commutant.algebra import pca_frame
from commutant.geometry import FrameAverage, MDSCoordinates, landmark_mds


class _PointNet(nn.Module):
    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.outer = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU(), nn.Linear(width, 3))

    def forward(self, x: Tensor) -> Tensor:
        h = self.inner(x)
        return self.outer(torch.cat([h, h.amax(1, keepdim=True).expand_as(h)], -1))


class _Transformer(nn.Module):
    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.lift, self.head = nn.Linear(3, width), nn.Linear(width, 3)
        self.layers = nn.ModuleList(
            [nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, batch_first=True) for _ in range(2)]
        )

    def forward(self, x: Tensor) -> Tensor:
        h = self.lift(x)
        for layer in self.layers:
            h = layer(h)
        return self.head(h)


def _both(model: Callable[[Tensor], Tensor], x: Tensor) -> None:
    model(x).square().mean().backward()


def _medians(ways: dict[str, Callable[[], Any]], repeats: int = 7) -> dict[str, float]:
    """Seconds of each, taken in turns; the first round does not count."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if repeat:
                found[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in found.items()}


def frame_overhead() -> dict[str, Any]:
    rows = []
    for name, make, shape in (
        ("PointNet, 128 wide", _PointNet, (32, 256, 3)),
        ("transformer, 64 wide", _Transformer, (32, 64, 3)),
    ):
        for group, number in (("SE(3)", 4), ("E(3)", 8)):
            torch.manual_seed(0)
            net, x = make(), torch.randn(shape) * torch.tensor([3.0, 2.0, 1.0])
            copies = x.repeat(number, 1, 1)
            ours, one = (
                FrameAverage(net, group, outputs="vectors"),
                FrameAverage(net, group, outputs="vectors", signs="maxabs"),
            )
            ways: dict[str, Callable[[], Any]] = {
                "bare": lambda n=net, c=copies: _both(n, c),
                "ours": lambda m=ours, x=x: _both(m, x),
                "one": lambda m=one, x=x: _both(m, x),
            }
            rival = _rival(net) if group == "E(3)" else None
            if rival is not None:
                ways["rival"] = lambda m=rival, x=x: _both(m, x)
            found = _medians(ways)
            rows.append({
                "name": f"{name}, {group}",
                "backbone, ms": 1000 * found["bare"] / number,
                "times frames, ms": 1000 * found["bare"],
                "FrameAverage, ms": 1000 * found["ours"],
                "overhead": f"{100 * (found['ours'] / found['bare'] - 1):.0f} %",
                "with a rule, ms": 1000 * found["one"],
                "frame-averaging-pytorch, ms": 1000 * found["rival"] if "rival" in found else "–",
            })  # fmt: skip
    worst = max(float(r["overhead"].split()[0]) for r in rows)
    return {
        "name": "frame-overhead",
        "title": "Cost of frame averaging relative to its backbone",
        "description": "Forward and backward over 32 clouds of 256 and of 64 points, normal and stretched 3:2:1, so "
        "that "
        "their axes are distinct (round clouds: next table); vectors out. *Times frames*: the backbone alone on a "
        "batch that is larger by the number of frames, a lower bound for any average. *With a rule*: signs chosen by "
        "a rule, about one evaluation per cloud. frame-averaging-pytorch supports only E(d), does not treat "
        "degenerate clouds, and does not transform velocities or ragged batches.",
        "columns": ["backbone, ms", "times frames, ms", "FrameAverage, ms", "overhead", "with a rule, ms",
                    "frame-averaging-pytorch, ms"],
        "rows": rows,
        "reading": f"The overhead is at most {worst:.0f} % of the time of the evaluations (bar: 15 %).",
    }  # fmt: skip


def _rival(net: nn.Module) -> nn.Module | None:
    try:
        from frame_averaging_pytorch import FrameAverage as Rival
    except ImportError:
        return None
    return Rival(net, dim=3)


def frame_round_clouds() -> dict[str, Any]:
    """What clouds cost whose axes are not distinct: mean and largest number of frames, and time."""
    torch.manual_seed(0)
    net = _PointNet()
    shapes = {
        "normal, stretched 3:2:1": torch.randn(32, 256, 3) * torch.tensor([3.0, 2.0, 1.0]),
        "normal, round": torch.randn(32, 256, 3),
        "on a sphere": nn.functional.normalize(torch.randn(32, 256, 3), dim=-1),
    }
    rows = []
    for name, x in shapes.items():
        for label, options in (
            ("", {}),
            (", `tuples=16`", {"tuples": 16}),
            (", `samples=1` in training", {"samples": 1}),
        ):
            model = FrameAverage(net, "E(3)", outputs="vectors", chunk=512, **options)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that tuples are drawn is what is measured
                frame = pca_frame(x, "E", tuples=options.get("tuples", 4096))
                frame = frame.sample(1) if "samples" in options else frame
                found = _medians({"ours": lambda m=model, x=x: _both(m, x), "bare": lambda x=x: _both(net, x)}, 3)
            counts = torch.bincount(frame.cloud, minlength=len(x))
            rows.append({
                "name": name + label,
                "frames a cloud": float(counts.double().mean()),
                "most frames of a cloud": float(counts.max()),
                "times the backbone": found["ours"] / found["bare"],
                "exact": "yes" if frame.exact else "on average" if "samples" in options else "no, a warning says so",
            })  # fmt: skip
    plain, bounded = (
        next(r["most frames of a cloud"] for r in rows if r["name"] == f"on a sphere{end}")
        for end in ("", ", `tuples=16`")
    )
    return {
        "name": "frame-round-clouds",
        "title": "Cost of frame averaging for round clouds",
        "description": "E(3), forward and backward of the PointNet over 32 clouds of 256 points, 512 frames at a "
        "time. Where "
        "two variances are within 1 % of the whole, a cloud has a frame for every tuple of points (`on_degenerate="
        '"weighted"`); `tuples=16` draws at most 16 tuples.',
        "columns": ["frames a cloud", "most frames of a cloud", "times the backbone", "exact"],
        "rows": rows,
        "reading": f"A round cloud has up to {plain:.0f} frames instead of 8; `tuples=16` bounds their number by "
        f"{bounded:.0f}.",
    }


def frames_per_second() -> dict[str, Any]:
    torch.manual_seed(0)
    clouds, n = 100_000, 20
    x = torch.randn(clouds, n, 3)
    batch = torch.arange(clouds).repeat_interleave(n)
    ways: dict[str, Callable[[], Any]] = {
        "`pca_frame`, SE(3)": lambda: pca_frame(x, "SE"),
        "`pca_frame`, E(3)": lambda: pca_frame(x, "E"),
        "`pca_frame`, SE(3), a rule for the signs": lambda: pca_frame(x, "SE", signs="maxabs"),
        "`pca_frame`, SE(3), indexed by batch": lambda: pca_frame(x.flatten(0, 1), "SE", batch=batch),
        "covariance and `eigh` alone, float64": lambda: _axes_alone(x.double()),
    }
    found = _medians(ways, 5)
    rows = [{"name": name, "seconds": value, "clouds a second": clouds / value} for name, value in found.items()]
    share = found["covariance and `eigh` alone, float64"] / found["`pca_frame`, SE(3)"]
    return {
        "name": "frames-per-second",
        "title": "Frames of many small clouds",
        "description": "100 000 clouds of 20 points, input in float32, frames computed in float64.",
        "columns": ["seconds", "clouds a second"],
        "rows": rows,
        "reading": f"{clouds / found['`pca_frame`, SE(3)']:,.0f} clouds per second (bar: 100 000). The covariance "
        f"and its eigenvectors, which any frame needs, take {100 * share:.0f} % of that time.".replace(",", " ", 1),
    }


def _axes_alone(x: Tensor) -> Tensor:
    y = x - x.mean(1, keepdim=True)
    return torch.linalg.eigh(y.mT @ y)[1]


def frame_sizes() -> dict[str, Any]:
    rows = []
    for n in (1000, 10_000, 100_000, 1_000_000):
        torch.manual_seed(0)
        x = torch.randn(n, 3) * torch.tensor([3.0, 2.0, 1.0])
        marks = x[:16].double()
        towards = (x[:, None].double() - marks).square().sum(-1)
        between = (marks[:, None] - marks).square().sum(-1)
        coordinates = MDSCoordinates(on_degenerate="ignore")
        found = _medians(
            {
                "pca": lambda x=x: pca_frame(x, "SE"),
                "mds": lambda x=x, m=coordinates: m(x),
                "landmarks": lambda b=between, t=towards: landmark_mds(b, t, 3),
            },
            5,
        )
        rows.append({
            "name": f"{n:,} points".replace(",", " "),
            "pca_frame, ns a point": 1e9 * found["pca"] / n,
            "MDSCoordinates, ns a point": 1e9 * found["mds"] / n,
            "landmark_mds, ns a point": 1e9 * found["landmarks"] / n,
        })  # fmt: skip
    last, before = rows[-1], rows[-2]
    growth = max(float(last[c]) / float(before[c]) for c in last if c != "name")
    return {
        "name": "frame-sizes",
        "title": "Cost against the size of a cloud",
        "description": "One cloud; `landmark_mds` uses 16 landmarks with given distances.",
        "columns": ["pca_frame, ns a point", "MDSCoordinates, ns a point", "landmark_mds, ns a point"],
        "rows": rows,
        "reading": "From a hundred thousand to a million points the time per point grows by at most a factor of "
        f"{growth:.2f}.",
    }


ALL = (frame_overhead, frame_round_clouds, frames_per_second, frame_sizes)
