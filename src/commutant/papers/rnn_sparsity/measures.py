"""Measurements for the claims of the thesis on sparse recurrent networks."""

from __future__ import annotations

import copy
from functools import partial

import torch
from torch import Tensor, nn

from ...data import ReberStrings, reber_strings
from ...evidence import Context, Measurement
from ...sequences import GraphRNN, diagonalize_recurrent, graph_features, prune_recurrent, random_dag
from ...training import fit

CELLS = ("tanh", "relu", "lstm", "gru")
KINDS = ("both", "i2h", "h2h")


class ReberClassifier(nn.Module):
    """String classifier: an embedding, a recurrent network and a linear readout at the true last letter.

    Args:
        embedding: Width of the embedding.
        recurrence: Recurrent network with `batch_first=True`.
        width: Width of the output of the recurrent network.
    """

    def __init__(self, embedding: int, recurrence: nn.Module, width: int) -> None:
        super().__init__()
        self.embedding, self.recurrence = nn.Embedding(8, embedding), recurrence
        self.head = nn.Linear(width, 2)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Return logits `(batch, 2)` of tokens `(batch, time)` with their lengths `(batch,)`."""
        y = self.recurrence(self.embedding(tokens))
        y = y[0] if isinstance(y, tuple) else y
        return self.head(y[torch.arange(len(tokens), device=y.device), lengths - 1])


def _base(cell: str, width: int) -> ReberClassifier:
    if cell in ("lstm", "gru"):
        kind = nn.LSTM if cell == "lstm" else nn.GRU
        return ReberClassifier(width, kind(width, width, 3, batch_first=True), width)
    return ReberClassifier(width, nn.RNN(width, width, 3, nonlinearity=cell, batch_first=True), width)


def _batch(strings: ReberStrings, device: torch.device, generator: torch.Generator, count: int) -> tuple[Tensor, ...]:
    rows = torch.randint(0, len(strings), (count,), generator=generator)
    return tuple(t[rows].to(device) for t in (strings.tokens, strings.lengths, strings.labels))


def _loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0], batch[1]), batch[2])


@torch.no_grad()
def _accuracy(model: nn.Module, strings: ReberStrings, device: torch.device) -> float:
    found = model.eval()(strings.tokens.to(device), strings.lengths.to(device)).argmax(1).cpu()
    return float((found == strings.labels).float().mean())


def _strings(context: Context) -> tuple[ReberStrings, ReberStrings]:
    settings = context.settings
    return reber_strings(context.generator(1), settings["pairs"], held_out=settings["held_out"])


def measure_pruning(context: Context) -> Measurement:
    """Return the accuracy after pruning and after retraining with the mask fixed, by cell and kind of weights."""
    return context.arms({cell: partial(_prune_cell, context, cell) for cell in CELLS})


def _prune_cell(context: Context, cell: str) -> Measurement:
    settings, device = context.settings, context.device
    train, test = _strings(context)
    draw = partial(_batch, train, device)
    epoch = len(train) // 64
    make = partial(_base, cell, settings["width"])
    base = context.train(
        cell, make, draw, _loss, steps=settings["epochs"] * epoch, batch_size=64, learning_rate=2e-3, clip=5.0
    )
    score = partial(_accuracy, strings=test, device=device)

    def retrain(model: nn.Module, epochs: int) -> float:
        options = {"batch_size": 64, "learning_rate": 1e-3, "clip": 5.0, "seed": context.seed, "fabric": context.fabric}
        return score(fit(model, draw, _loss, steps=epochs * epoch, **options).model)

    found: Measurement = {f"{cell}@base": score(base)}
    for which in KINDS:
        for percent in (20, 40, 60, 80, 90, 100):
            pruned = prune_recurrent(copy.deepcopy(base), percent / 100, which)
            found[f"{cell}-{which}@{percent}"] = score(pruned)
            if percent >= 80:
                found[f"{cell}-{which}@{percent}+1"] = retrain(pruned, 1)
                found[f"{cell}-{which}@{percent}+3"] = retrain(pruned, 2)
        random = prune_recurrent(
            copy.deepcopy(base), 0.4, which, criterion="random", generator=context.generator(hash_of(which))
        )
        found[f"{cell}-{which}@random-40"] = score(random)
    diagonal = diagonalize_recurrent(copy.deepcopy(base))
    found[f"{cell}-diagonal@0"] = score(diagonal)
    found[f"{cell}-diagonal@4"] = retrain(diagonal, 4)
    torch.manual_seed(context.seed)
    found[f"{cell}@fresh+3"] = retrain(prune_recurrent(make().to(device), 0.8, "both"), 3)
    return found


def hash_of(word: str) -> int:
    """Return a small hash of a word that is the same in every process."""
    return sum(map(ord, word))


def measure_structure(context: Context) -> Measurement:
    """Return the accuracy of networks wired by random graphs, and its correlations with properties of the graph."""
    settings, device = context.settings, context.device
    train, test = _strings(context)
    rows: list[dict[str, float]] = []
    graphs = [(kind, i) for kind in ("ws", "ba") for i in range(settings["graphs"])]
    context.total_arms = len(graphs)

    def measure(kind: str, i: int) -> Measurement:
        generator = context.generator(10_000 + 100 * hash_of(kind) + i)
        nodes = int(torch.randint(settings["smallest"], settings["largest"] + 1, (), generator=generator))
        graph = random_dag(kind, nodes, generator)
        features = graph_features(graph)
        sources = int(features["sources"])
        torch.manual_seed(context.seed * 1000 + i)
        wired = GraphRNN(graph, sources, settings["cell"], skip="sum")
        model = ReberClassifier(sources, wired, wired.output_size).to(device)
        options = {
            "batch_size": 128,
            "learning_rate": 1e-2,
            "clip": 5.0,
            "seed": context.seed,
            "fabric": context.fabric,
        }
        fitted = fit(model, partial(_batch, train, device), _loss, steps=settings["steps"], **options)
        parameters = sum(p.numel() for p in model.parameters())
        return {**features, "parameters": float(parameters), "accuracy": _accuracy(fitted.model, test, device)}

    for kind, i in graphs:
        found = context.arm(f"{kind}-{i}", partial(measure, kind, i))
        rows.append({**found, "family": float(kind == "ws")})
    out: Measurement = {}
    for name in ("nodes", "edges", "sources", "layers", "closeness_variance", "betweenness_variance", "parameters"):
        out[f"r-{name}"] = correlation(rows, name, ())
    for name in ("closeness_variance", "betweenness_variance"):
        out[f"partial-{name}"] = correlation(rows, name, ("nodes", "sources", "family"))
    for row, (kind, i) in zip(rows, graphs, strict=True):
        out |= {f"{kind}-{i}@{key}": row[key] for key in ("accuracy", "sources", "nodes", "closeness_variance")}
    return out


def correlation(rows: list[dict[str, float]], name: str, given: tuple[str, ...]) -> float:
    """Return the partial correlation (Pearson) of accuracy with a property.

    Args:
        rows: Properties and accuracy of every graph.
        name: Name of the property.
        given: Names of properties whose linear effect is removed first.
    """
    column = lambda key: torch.tensor([row[key] for row in rows], dtype=torch.float64)  # noqa: E731
    others = torch.stack([torch.ones(len(rows), dtype=torch.float64), *map(column, given)], 1)
    rest = [y - others @ torch.linalg.lstsq(others, y[:, None]).solution[:, 0] for y in map(column, ("accuracy", name))]
    scale = rest[0].norm() * rest[1].norm()
    return float((rest[0] @ rest[1]) / scale) if scale > 1e-12 else 0.0
