"""Classifiers of sets at equal seconds: random-feature attention in closed form, and trained networks of PyG."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.nn.aggr import DeepSetsAggregation, SetTransformerAggregation

from commutant.data import digit_points, load_time_series
from commutant.sets import LCMAggregation, RandomAttentionClassifier

SEEDS, WIDTH, BATCH = 3, 64, 64
BUDGETS = (1, 5, 10)
"""Seconds of training; the first is replaced by the time of the closed form."""

Part = tuple[list[Tensor], Tensor]


def digits(seed: int) -> tuple[Part, Part]:
    """Return handwritten digits as sets of lit pixels."""
    points = digit_points()
    sets = list(points.points.split(points.sizes.tolist()))
    order = torch.randperm(len(sets), generator=torch.Generator().manual_seed(seed)).tolist()
    train, test = order[:1297], order[1297:]
    return ([sets[i] for i in train], points.labels[train]), ([sets[i] for i in test], points.labels[test])


def vowels(seed: int) -> tuple[Part, Part]:
    """Return utterances of Japanese vowels as bags of frames, in the parts of the archive."""
    data = load_time_series("JapaneseVowels")
    return (data.train, data.train_labels), (data.test, data.test_labels)


class Classifier(nn.Module):
    """Encoder of elements, aggregation and readout."""

    def __init__(self, features: int, classes: int, aggregation: nn.Module) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(features, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))
        self.aggregation, self.read = aggregation, nn.Linear(WIDTH, classes)

    def forward(self, x: Tensor, index: Tensor, count: int) -> Tensor:
        return self.read(self.aggregation(self.encode(x), index, dim_size=count))  # type: ignore[no-any-return]


def deep_sets() -> nn.Module:
    def mlp() -> nn.Module:
        return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))

    return DeepSetsAggregation(mlp(), mlp())


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "PyG `DeepSetsAggregation`": deep_sets,
    "PyG `SetTransformerAggregation`": lambda: SetTransformerAggregation(WIDTH, heads=4, layer_norm=True),
    "`LCMAggregation`": lambda: LCMAggregation(WIDTH, WIDTH),
}


def batch_of(sets: list[Tensor]) -> tuple[Tensor, Tensor, int]:
    sizes = torch.tensor([len(s) for s in sets])
    return torch.cat(sets), torch.repeat_interleave(sizes), len(sets)


def trained(make: Callable[[], nn.Module], train: Part, test: Part, budgets: list[float], seed: int) -> list[float]:
    """Return the test accuracy after each number of seconds of training."""
    torch.manual_seed(seed)
    (sets, labels), (test_sets, test_labels) = train, test
    every = torch.cat(sets)
    mean, spread = every.mean(0), every.std(0).clamp(min=1e-6)
    sets, test_sets = ([(s - mean) / spread for s in part] for part in (sets, test_sets))
    net = Classifier(every.shape[1], int(labels.max()) + 1, make())
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    out, spent = [], 0.0
    for budget in budgets:
        while spent < budget:
            start = time.perf_counter()
            rows = torch.randint(len(sets), (BATCH,))
            loss = nn.functional.cross_entropy(net(*batch_of([sets[i] for i in rows.tolist()])), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            spent += time.perf_counter() - start
        net.eval()
        with torch.no_grad():
            right = net(*batch_of(test_sets)).argmax(1) == test_labels
        net.train()
        out.append(float(right.float().mean()))
    return out


def set_classifiers() -> dict[str, Any]:
    """Classify digits as point sets and utterances as bags of frames."""
    tasks = {"digits": digits}
    if Path(os.environ.get("COMMUTANT_DATA", ""), "timeseries/uea_ucr_small.zip").is_file():
        tasks["vowels"] = vowels
    found: dict[str, dict[str, list[float]]] = {}
    closed: dict[str, float] = {}
    ours = "**`RandomAttentionClassifier(256)`**"
    for task, load in tasks.items():
        for seed in range(SEEDS):
            train, test = load(seed)
            start = time.perf_counter()
            model = RandomAttentionClassifier(256, random_state=seed).fit(train[0], train[1].numpy())
            seconds = time.perf_counter() - start
            found.setdefault(ours, {}).setdefault(task, []).append(model.score(test[0], test[1].numpy()))
            closed.setdefault(task, seconds)
            for name, make in NETWORKS.items():
                accuracy = trained(make, train, test, [seconds, *BUDGETS[1:]], seed)
                for budget, value in zip(BUDGETS, accuracy, strict=True):
                    key = task if budget == 1 else f"{task}, {budget} s"
                    found.setdefault(name, {}).setdefault(key, []).append(value)
    columns = [f"{task}{end}" for task in tasks for end in ("", *(f", {b} s" for b in BUDGETS[1:]))]
    heads = {c: c if "," in c else f"{c}, {closed[c]:.2g} s" for c in columns}
    rows = [
        {"name": name, **{heads[c]: f"{np.mean(f[c]):.3f}" if c in f else "–" for c in columns}}
        for name, f in found.items()
    ]
    best = {t: max(statistics.fmean(f[f"{t}, {BUDGETS[-1]} s"]) for n, f in found.items() if n != ours) for t in tasks}
    said = "; ".join(
        f"{task}: {statistics.fmean(found[ours][task]):.3f} in {closed[task]:.2g} s, and {best[task]:.3f} for the best "
        f"network after {BUDGETS[-1]} s"
        for task in tasks
    )
    return {
        "name": "set-classifiers",
        "title": "Classifiers of sets at equal seconds",
        "description": f"Test accuracy, the mean over {SEEDS} seeds, after the seconds in which random-feature attention "
        f"is fitted, and after {BUDGETS[1]} and {BUDGETS[2]} s of training on {torch.get_num_threads()} threads. "
        "Digits: 1297 sets of lit pixels to train on, 500 to test on. Vowels: 270 utterances of 7 to 29 frames "
        "(JapaneseVowels), 370 to test on. Networks: encoder of width 64, batches of 64, Adam with 2e-3.",
        "columns": list(heads.values()),
        "rows": rows,
        "reading": f"{said}.",
    }


ALL = (set_classifiers,)
