"""Measurement of the ranks of methods over many tables: the networks of the paper and methods in common use today."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from ..._errors import require
from ...data import load_table, uci_tables
from ...evidence import Context, Measurement
from .._shared.plain_training import best_of
from .measures import METHODS, plain

ALL = (*METHODS, "adamw", "boosting")
"""Four networks of the paper, then layer norm under AdamW and gradient boosting."""


def measure_ranks(context: Context) -> Measurement:
    """Return the test accuracy of every method on every table, and the paper's statistics of the accuracies."""
    names = uci_tables(context.data_dir)
    found: Measurement = {}
    found |= context.arms({name: partial(_on_table, context, name) for name in names})
    accuracies = {method: [found[f"_{method}@{name}"] for name in names] for method in ALL}
    return found | {"tables": len(names)} | _statistics(accuracies)


def _statistics(accuracies: dict[str, list[float]]) -> Measurement:
    """Return mean ranks, mean accuracies and p-values of Wilcoxon's paired test against SELU.

    Rank 1 is the best. `difference` is the rank among the paper's networks minus the middle rank, and `rank` is the
    rank among all methods.
    """
    wilcoxon = require("scipy.stats", "evidence").wilcoxon
    out: Measurement = {}
    middle = (len(METHODS) + 1) / 2
    out |= {f"difference@{method}": rank - middle for method, rank in mean_ranks(accuracies, METHODS).items()}
    out |= {f"rank@{method}": rank for method, rank in mean_ranks(accuracies, ALL).items()}
    for method in ALL:
        out[f"accuracy@{method}"] = statistics.fmean(accuracies[method])
        if method != "selu":
            gaps = [a - b for a, b in zip(accuracies["selu"], accuracies[method], strict=True)]
            out[f"p@{method}"] = float(wilcoxon(gaps).pvalue) if any(gaps) else 1.0
    return out


def mean_ranks(accuracies: dict[str, list[float]], methods: Sequence[str]) -> dict[str, float]:
    """Return the mean rank of each method over tables; equal accuracies share their rank.

    Args:
        accuracies: Accuracy on each table, by method.
        methods: Methods to rank.
    """
    rankdata = require("scipy.stats", "evidence").rankdata
    ranks = rankdata([[-a for a in accuracies[method]] for method in methods], axis=0).mean(axis=1)
    return {method: float(rank) for method, rank in zip(methods, ranks, strict=True)}


def _on_table(context: Context, name: str) -> Measurement:
    settings = context.settings
    table = load_table(name, context.data_dir).sample(context.generator(8), settings["rows"])
    parts = table.split(context.generator(9), 0.6375, 0.1125)
    out = {f"_{method}@{name}": _network(context, parts, method, method, settings["rates"]) for method in METHODS}
    out[f"_adamw@{name}"] = _network(context, parts, "layer", "adamw", settings["adamw_rates"])
    out[f"_boosting@{name}"] = _boosted(context, parts)
    return out


def _network(
    context: Context, parts: list[tuple[Tensor, Tensor]], network: str, method: str, rates: Sequence[float]
) -> float:
    settings = context.settings
    features, classes = parts[0][0].shape[1], 1 + max(int(y.max()) for _, y in parts if len(y))

    def make(depth: int, generator: torch.Generator) -> nn.Module:
        return plain(network, features, settings["width"], depth, classes, generator)

    makes = [partial(make, depth) for depth in settings["depths"]]
    optimizer = torch.optim.AdamW if method == "adamw" else torch.optim.SGD
    return best_of(context, makes, parts, rates, settings["steps"], optimizer)


def _boosted(context: Context, parts: list[tuple[Tensor, Tensor]]) -> float:
    (x, y), _, (x_test, y_test) = parts
    boosting = require("sklearn.ensemble", "evidence").HistGradientBoostingClassifier
    model = boosting(early_stopping=False, max_iter=context.settings["trees"], random_state=context.seed)
    return float((model.fit(x.numpy(), y.numpy()).predict(x_test.numpy()) == y_test.numpy()).mean())
