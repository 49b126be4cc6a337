"""Measurement of graph classification in ten folds."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn
from torch_geometric.data import Batch

from ...data import GraphData, load_graphs
from ...evidence import Context, Measurement
from ...graphs import SPEN, EgoNets
from .measures import accuracy, cross_entropy
from .models import GIN, GNNAK, parameters, rooted_ego_nets

ARMS = ("spen", "gin", "gnn-ak")


def _network(arm: str, features: int, classes: int, budget: int) -> nn.Module:
    """Return the widest network of an arm with at most as many parameters as the budget."""

    def make(width: int) -> nn.Module:
        if arm == "spen":
            return SPEN(features, width, classes, 3)
        return (GIN if arm == "gin" else GNNAK)(features, width, classes)

    width = 4
    while parameters(make(width + 1)) <= budget:
        width += 1
    return make(width)


def measure_classification(context: Context) -> Measurement:
    """Return the test accuracy of each arm, averaged over the last epochs and over the folds of this seed.

    A seed takes `folds` of the ten folds, the next one those that follow.
    """
    data = {name: load_graphs(name, context.data_dir) for name in context.settings["data"]}
    out = {}
    for name, part in data.items():
        out[f"majority@{name}"] = float(torch.bincount(torch.cat([g.y for g in part.graphs])).max()) / len(part.graphs)
    found = context.arms(
        {f"{arm}@{name}": partial(_folds_of, context, arm, name, part) for name, part in data.items() for arm in ARMS}
    )
    return out | found


def _folds_of(context: Context, arm: str, name: str, data: GraphData) -> Measurement:
    settings, taken = context.settings, context.settings["folds"]
    prepare: Any = {"spen": EgoNets(1), "gin": lambda g: g, "gnn-ak": rooted_ego_nets}[arm]
    graphs = [prepare(g) for g in data.graphs]
    features = graphs[0].x.shape[1]
    found = []
    for fold in ((context.seed * taken + i) % len(data.folds) for i in range(taken)):
        torch.manual_seed(context.seed * 100 + fold)
        model = _network(arm, features, data.classes, settings["parameters"]).to(context.device)
        found.append(_last_epochs(context, model, graphs, data.folds[fold], fold))
    return {f"{arm}@{name}": sum(found) / len(found), f"{arm}@{name}@parameters": float(parameters(model))}


def _last_epochs(context: Context, model: nn.Module, graphs: list[Any], held_out: torch.Tensor, fold: int) -> float:
    """Train a network on one fold; return its test accuracy, averaged over the last epochs."""
    settings, generator = context.settings, context.generator(10 + fold)
    test = set(held_out.tolist())
    train = [i for i in range(len(graphs)) if i not in test]
    unseen = Batch.from_data_list([graphs[i] for i in held_out.tolist()]).to(context.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=settings["learning_rate"])
    decay = torch.optim.lr_scheduler.StepLR(optimizer, max(1, settings["epochs"] * 3 // 5), 0.1)
    scores = []
    for epoch in range(settings["epochs"]):
        model.train()
        for rows in torch.randperm(len(train), generator=generator).split(settings["batch_size"]):
            if len(rows) == 1:
                continue  # batch normalization of the rivals needs two graphs
            batch = Batch.from_data_list([graphs[train[i]] for i in rows.tolist()]).to(context.device)
            optimizer.zero_grad()
            cross_entropy(model, batch).backward()
            optimizer.step()
        decay.step()
        if epoch >= settings["epochs"] - settings["averaged"]:
            scores.append(accuracy(model.eval(), unseen))
    return sum(scores) / len(scores)
