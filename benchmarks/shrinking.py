"""Merging features beside pruning by `torch-pruning`, to the same number of parameters and without retraining."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from commutant.data import image_classes
from commutant.weights import FeatureMerger, reset_batchnorm_stats

SEEDS = 5


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(width, width, 3, 1, 1), nn.Conv2d(width, width, 3, 1, 1)
        self.norm_a, self.norm_b = nn.BatchNorm2d(width), nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.norm_b(self.b(torch.relu(self.norm_a(self.a(x))))))


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(),
                         nn.Linear(256, 10))  # fmt: skip


def _vgg() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, 1, 1), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 64, 3, 1, 1), nn.BatchNorm2d(64), nn.ReLU(),
        nn.MaxPool2d(2), nn.Conv2d(64, 64, 3, 1, 1), nn.BatchNorm2d(64), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(64, 10),
    )  # fmt: skip


def _resnet() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 32, 3, 1, 1), nn.BatchNorm2d(32), nn.ReLU(), _Residual(32), _Residual(32),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))  # fmt: skip


SUBJECTS: dict[str, tuple[Callable[[], nn.Module], int, float]] = {
    "MLP 64-256-256-10": (_mlp, 880, 0.1),
    "three convolutions with batch norm": (_vgg, 300, 0.4),
    "residual, two blocks of 32 channels": (_resnet, 300, 0.6),
}


def shrinking() -> dict[str, Any]:
    rows = [_row(name, *subject) for name, subject in SUBJECTS.items()]
    return {
        "name": "shrinking",
        "title": "Smaller networks without retraining",
        "description": "Networks trained on scikit-learn's digits, reduced to a share of their parameters; test "
        "accuracy directly afterwards, and with re-estimated running statistics (medians over five seeds). "
        "*Seconds*: time from the trained module to the smaller one, including tracing and verification. "
        "`torch-pruning` removes channels by the norm of their group, "
        "over all layers.",
        "columns": ["accuracy", "left", "merged", "merged, reset", "pruned", "pruned, reset", "seconds",
                    "torch-pruning seconds"],
        "rows": rows,
        "reading": f"Without retraining, merging is {_points(rows, 'merged', 'pruned')} points more accurate than "
        "removal, "
        f"and {_points(rows, 'merged, reset', 'pruned, reset')} with re-estimated running statistics.",
    }  # fmt: skip


def _points(rows: list[dict[str, Any]], ours: str, theirs: str) -> str:
    found = sorted(100 * (row[ours] - row[theirs]) for row in rows)
    return f"{found[0]:.0f} to {found[-1]:.0f}"


def _row(name: str, make: Callable[[], nn.Module], steps: int, share: float) -> dict[str, Any]:
    data = image_classes()
    found: dict[str, list[float]] = {}
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        model = _trained(make(), *data.train, steps)
        start = time.perf_counter()
        small = FeatureMerger(model, data.train[0][:8], criterion="saliency").shrink(parameters=share).module.eval()
        seconds = time.perf_counter() - start
        start = time.perf_counter()
        pruned = _pruned(model, data.train[0][:8], share)
        other = time.perf_counter() - start
        batches = [(x,) for x in data.train[0].split(256)]
        own = {
            "accuracy": _accuracy(model, *data.test),
            "left": sum(p.numel() for p in small.parameters()) / sum(p.numel() for p in model.parameters()),
            "merged": _accuracy(small, *data.test),
            "merged, reset": _accuracy(reset_batchnorm_stats(small, batches), *data.test),
            "pruned": _accuracy(pruned, *data.test),
            "pruned, reset": _accuracy(reset_batchnorm_stats(pruned, batches), *data.test),
            "seconds": seconds,
            "torch-pruning seconds": other,
        }
        for key, value in own.items():
            found.setdefault(key, []).append(value)
    return {"name": name, **{key: statistics.median(values) for key, values in found.items()}}


def _trained(model: nn.Module, x: torch.Tensor, y: torch.Tensor, steps: int) -> nn.Module:
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    for _ in range(steps):
        rows = torch.randint(0, len(x), (128,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()
    return model.eval()


def _pruned(model: nn.Module, example: torch.Tensor, share: float) -> nn.Module:
    """The largest network of at most this share of the parameters that one call of the pruner gives."""
    import torch_pruning as tp

    last = [m for m in model.modules() if isinstance(m, nn.Linear)][-1]
    total = sum(p.numel() for p in model.parameters())
    for ratio in (i / 50 for i in range(1, 50)):
        small, ignored = copy.deepcopy((model, last))
        pruner = tp.pruner.BasePruner(small, example, importance=tp.importance.GroupMagnitudeImportance(p=2),
                                      global_pruning=True, pruning_ratio=ratio, ignored_layers=[ignored])  # fmt: skip
        pruner.step()
        if sum(p.numel() for p in small.parameters()) <= share * total:
            return small.eval()
    raise RuntimeError("the pruner does not get so small")


def _accuracy(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    with torch.no_grad():
        return float((model(x).argmax(1) == y).float().mean())


ALL = (shrinking,)
