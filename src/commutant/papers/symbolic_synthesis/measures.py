"""Measurements of the experiments."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from scipy.cluster.vq import kmeans2
from scipy.stats import spearmanr
from torch import Tensor, nn

from ...evidence import Context, Measurement
from ...programs import (
    GraphMachine,
    LinearTieScore,
    PortGraph,
    TiePattern,
    enumerate_programs,
    search_states,
    search_ties,
    variance_components,
)
from .models import Population, graphs, grids

Scores = dict[int, tuple[Tensor, Tensor]]
"""Training and validation accuracy `(graphs, seeds)`, by the number of epochs."""


def _accuracies(context: Context, models: Sequence[PortGraph | None], draw: int, salt: int) -> Scores:
    """Train all graphs with all seeds on one draw of the data, and return their accuracies.

    A seed fixes the encoder at the start and the order of the batches, the same for all graphs.
    """
    s = context.settings
    g = context.generator(100 + draw)
    x, y, x_val, y_val = (
        t.to(context.device) for part in ("train", "validation") for t in grids(s[part], s["noise"], g)
    )
    torch.manual_seed(context.seed * 7919 + salt)
    seeds = s["seeds"]
    net = Population(models, seeds, s["features"]).to(context.device)
    optimizer = torch.optim.Adam(net.parameters(), s["learning_rate"])
    orders = [context.generator(1000 * draw + i) for i in range(seeds)]
    found: Scores = {}
    for epoch in range(1, max(s["epochs"]) + 1):
        net.train()
        order = (
            torch.stack([torch.randperm(len(x), generator=o) for o in orders]).repeat(len(models), 1).to(context.device)
        )
        for batch in order.split(s["batch_size"], 1):
            loss = nn.functional.binary_cross_entropy_with_logits(net(x[batch]), y[batch], reduction="none")
            optimizer.zero_grad()
            loss.mean(1).sum().backward()
            optimizer.step()
        if epoch in s["epochs"]:
            net.eval()
            found[epoch] = (_accuracy(net, x, y, len(order)), _accuracy(net, x_val, y_val, len(order)))
    return {e: tuple(t.view(len(models), seeds) for t in pair) for e, pair in found.items()}  # type: ignore[misc]


@torch.no_grad()
def _accuracy(net: nn.Module, x: Tensor, y: Tensor, models: int) -> Tensor:
    right = [
        ((net(a.expand(models, *a.shape)) > 0) == (b > 0.5)).double().sum(1)
        for a, b in zip(x.split(100), y.split(100), strict=True)
    ]
    return (torch.stack(right).sum(0) / len(x)).cpu()


def _correlation(a: Tensor, b: Tensor) -> float:
    """Return the correlation of two tables, zero if one of them is constant."""
    return float(torch.stack([a.flatten(), b.flatten()]).corrcoef()[0, 1].nan_to_num())


def _rank_correlation(a: Tensor, b: Tensor) -> float:
    constant = bool((a == a[0]).all() or (b == b[0]).all())
    return 0.0 if constant else float(spearmanr(a, b).statistic)


def measure_population(context: Context) -> Measurement:
    """Return accuracies of graph-conditioned networks and encoders, and what graphs and seeds explain of them."""
    s = context.settings
    few = min(s["epochs"])
    shapes = graphs(s["graphs"], s["steps"])
    size = torch.tensor([float(g.elements) for g in shapes])
    sizes = nn.functional.one_hot(size.unique(return_inverse=True)[1]).double()  # any effect of the size

    def arm(models: Sequence[PortGraph | None], draw: int, salt: int) -> Measurement:
        scores = _accuracies(context, models, draw, salt)
        return {
            f"{part}-{epoch}-{i}-{j}": float(table[i, j])
            for epoch, pair in scores.items()
            for part, table in zip(("train", "validation"), pair, strict=True)
            for i in range(len(models))
            for j in range(s["seeds"])
        }

    def table(found: Measurement, part: str, epoch: int, rows: int) -> Tensor:
        return torch.tensor(
            [[found[f"{part}-{epoch}-{i}-{j}"] for j in range(s["seeds"])] for i in range(rows)], dtype=torch.float64
        )

    n = len(shapes)
    arms = {
        "graphs": partial(arm, shapes, 0, 1),
        "fresh": partial(arm, shapes, 1, 2),
        "encoder": partial(arm, [None] * n, 0, 3),
        "point": partial(arm, [PortGraph()] * n, 0, 4),
    }
    context.total_arms = len(arms)
    out: Measurement = {}
    tables: dict[str, dict[int, tuple[Tensor, Tensor]]] = {}
    for name, run in arms.items():
        found = context.arm(name, run)
        tables[name] = {e: (table(found, "train", e, n), table(found, "validation", e, n)) for e in s["epochs"]}
        for epoch, (train, validation) in tables[name].items():
            out[f"{name}-train@{epoch}"] = float(train.mean())
            out[f"{name}-validation@{epoch}"] = float(validation.mean())
            out[f"{name}-share@{epoch}"] = variance_components(validation, sizes).share
            out[f"{name}-raw-share@{epoch}"] = variance_components(validation).share
            out[f"{name}-p@{epoch}"] = variance_components(validation, sizes).p
            whole = name in ("graphs", "fresh")
            pair = (train.mean(1), validation.mean(1)) if whole else (train, validation)
            out[f"{name}-r@{epoch}"] = _correlation(*pair)
    ranks = [tables[name][few][1].mean(1) for name in ("graphs", "fresh")]
    out["replicates"], out["size-predicts"] = _rank_correlation(*ranks), _rank_correlation(-size, ranks[1])
    for i, (t, v) in enumerate(zip(*(tables["graphs"][few][k].mean(1) for k in (0, 1)), strict=True)):
        out |= {f"_train@{i}": float(t), f"_validation@{i}": float(v), f"_size@{i}": float(size[i])}
    return out


def measure_search(context: Context) -> Measurement:
    """Return how many programs are run for each new graph, by search over states and over programs."""
    s = context.settings
    machine = GraphMachine(s["ports"][context.seed % len(s["ports"])])

    def states() -> Measurement:
        started = time.perf_counter()
        found = list(search_states(machine, max_applications=s["applications"]))
        seconds = time.perf_counter() - started
        steps = {f"states-steps@{i}": f.applications for i, f in enumerate(found, 1)}
        return {"states-graphs": len(found), "states-s": seconds, **steps}

    def programs() -> Measurement:
        started, steps, last = time.perf_counter(), 0, 1
        keys = set()
        for program in enumerate_programs(machine.dsl):
            steps += program.size
            if steps > s["applications"]:
                break
            output = machine.output(machine.run(program))
            if output is not None and (key := machine.key(output)) not in keys:
                keys.add(key)
                last = steps
        return {"programs-graphs": len(keys), "programs-steps": last, "programs-s": time.perf_counter() - started}

    return context.arms({"states": states, "programs": programs})


def planted(n: int) -> dict[str, TiePattern]:
    """Return patterns to plant in maps of n points, an even number, by the generators of their groups.

    Args:
        n: Number of points.
    """
    points = torch.arange(n)
    half, place = points // (n // 2), points % (n // 2)
    shift, flip = (points + 1) % n, points.flip(0)
    swap = torch.cat([points[:2].flip(0), points[2:]])
    inner, across = half * (n // 2) + (place + 1) % (n // 2), (points + n // 2) % n
    inner_swap = half * (n // 2) + torch.where(place < 2, 1 - place, place)
    groups = {
        "cyclic": [shift],
        "dihedral": [shift, flip],
        "symmetric": [shift, swap],
        "torus": [inner, across],
        "halves": [inner, inner_swap],
        "none": [],
    }
    return {name: TiePattern(n, [tuple(g.tolist()) for g in rows]) for name, rows in groups.items()}


def _planted(pattern: TiePattern, samples: int, noise: float, g: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Draw a map with a symmetry, and samples of it with noise relative to the output's spread."""
    weight = torch.randn(pattern.classes, generator=g, dtype=torch.float64)[pattern.labels] / pattern.n**0.5
    x = torch.randn(samples, pattern.n, generator=g, dtype=torch.float64)
    clean = x @ weight.T
    return x, clean + noise * clean.std() * torch.randn(clean.shape, generator=g, dtype=torch.float64), weight


def _tied_fit(pattern: TiePattern, x: Tensor, y: Tensor) -> Tensor:
    chosen = nn.functional.one_hot(pattern.labels).to(x.dtype)
    features = torch.einsum("ijk,sj->sik", chosen, x).flatten(0, 1)
    return torch.linalg.lstsq(features, y.flatten()[:, None], driver="gelsd").solution[:, 0][pattern.labels]


def _ridge_fit(x: Tensor, y: Tensor) -> Tensor:
    """Return the ridge regression with the penalty of least leave-one-out error, as scikit-learn's `RidgeCV` does."""
    from sklearn.linear_model import RidgeCV

    fit = RidgeCV(alphas=[10.0**k for k in range(-4, 4)], fit_intercept=False).fit(x.numpy(), y.numpy())
    return torch.from_numpy(fit.coef_)


def _clusters(weight: Tensor, classes: int, seed: int) -> Tensor:
    """Return clusters of the fitted weights, given the true number of clusters."""
    _, label = kmeans2(weight.flatten()[:, None].numpy(), classes, minit="++", seed=seed, iter=50)
    return torch.from_numpy(label).view(weight.shape)


def _same_partition(a: Tensor, b: Tensor) -> bool:
    pairs = set(zip(a.flatten().tolist(), b.flatten().tolist(), strict=True))
    return len(pairs) == len(a.unique()) == len(b.unique())


def _by_information(weight: Tensor, patterns: Sequence[TiePattern]) -> TiePattern:
    """Return the pattern of least BIC for given weights: the spread within classes against their number."""
    values, count = weight.flatten(), weight.numel()

    def criterion(pattern: TiePattern) -> float:
        label = pattern.labels.flatten()
        mean = torch.zeros(pattern.classes, dtype=values.dtype).index_add(0, label, values) / label.bincount()
        spread = (values - mean[label]).square().mean().clamp(min=1e-12)
        return float(count * spread.log()) + pattern.classes * math.log(count)

    return min(patterns, key=criterion)


def measure_ties(context: Context) -> Measurement:
    """Return how often planted symmetries are found, and the errors of maps that use them."""
    s, n = context.settings, context.settings["n"]

    def found(name: str, pattern: TiePattern) -> Measurement:
        g = context.generator(10 + list(planted(n)).index(name))
        out = dict.fromkeys(["found", "clusters", "bic", "tied-error", "ridge-error", "true-error"], 0.0)
        for trial in range(s["trials"]):
            x, y, weight = _planted(pattern, s["samples"], s["noise"], g)
            result = search_ties(LinearTieScore(x, y), n, max_cost=s["max_cost"])
            ridge = _ridge_fit(x, y)
            # of patterns with fewer classes than weights, since those of as many always fit
            rivals = [h.pattern for h in result.hypotheses if h.pattern.classes < n * n]
            out["found"] += result.chosen.pattern == pattern
            out["bic"] += _by_information(ridge, rivals) == pattern
            out["clusters"] += _same_partition(_clusters(ridge, pattern.classes, context.seed + trial), pattern.labels)
            fits = {"tied": _tied_fit(result.chosen.pattern, x, y), "ridge": ridge, "true": _tied_fit(pattern, x, y)}
            for arm, fit in fits.items():
                out[f"{arm}-error"] += float((fit - weight).square().sum() / weight.square().sum())
        return {f"{name}-{what}": total / s["trials"] for what, total in out.items()}

    patterns = planted(n)
    arms: dict[str, Any] = {name: partial(found, name, pattern) for name, pattern in patterns.items()}
    out = context.arms(arms)
    true = [name for name in patterns if name != "none"]
    for what in ("found", "clusters", "bic", "tied-error", "ridge-error", "true-error"):
        out[what] = sum(out[f"{name}-{what}"] for name in true) / len(true)
    return out | {"trials": float(s["trials"] * len(true)), "none-trials": float(s["trials"])}
