"""Measurements for the claims of the LCM paper."""

from __future__ import annotations

import statistics
import time
from functools import partial

import torch
from torch import Tensor, nn

from ...data import DigitPoints, GraphData, SetBatch, digit_points, load_graphs, second_minimum
from ...evidence import Context, Measurement
from ...laws import BatchIndependence, check, parse_input
from ...sets import GRUFoldAggregation, LCMAggregation, aux_loss
from .models import BitEmbedding, PointEmbedding, SetModel, aggregation, bit_accuracy, bit_loss

SIZES = (16, 18, 20, 24, 26, 28, 32, 36, 40, 48, 52, 56, 64, 72, 80, 96, 100, 104, 112, 128, 144, 160, 192, 200)
ARMS = ("gru", "binary-gru", "binary-gru-assoc", "binary-gru-random", "pna", "max", "sum", "sum-wide")


def measure_second_minimum(context: Context) -> Measurement:
    """Train every aggregation on small multisets and return the share of exact answers on larger ones."""
    settings = context.settings
    bits, channels = settings["bits"], settings["channels"]
    task = partial(second_minimum, bits=bits, spread_low=settings["spread_low"])
    out: Measurement = {}

    def accuracies(arm: str) -> Measurement:
        model = context.train(
            arm,
            lambda: SetModel(BitEmbedding(bits, channels), arm, channels, bits),
            lambda generator, sets: task(generator, sets, largest=16).to(context.device),
            partial(bit_loss, bits=bits),
            steps=settings["steps"],
            batch_size=settings["batch_size"],
            learning_rate=settings["learning_rate"],
        )
        tests = {n: task(context.generator(n), settings["tests"], smallest=n, largest=n) for n in SIZES}
        found = {str(n): bit_accuracy(model, batch.to(context.device), bits) for n, batch in tests.items()}
        mixed = task(context.generator(1), settings["tests"], largest=16).to(context.device)
        return {f"{arm}@{n}": value for n, value in found.items()} | {f"{arm}@train": bit_accuracy(model, mixed, bits)}

    out |= context.arms({arm: partial(accuracies, arm) for arm in ARMS})
    for n in SIZES:
        target = task(context.generator(n), settings["tests"], smallest=n, largest=n).target
        out[f"constant@{n}"] = float(torch.bincount(target).max()) / target.numel()
    return out


def step_height(measurement: Measurement, arm: str) -> float:
    """Return the accuracy lost just past a power of two minus that lost halfway to the next, averaged over 16..128."""
    heights = []
    for power in (16, 32, 64, 128):
        at = {n: measurement[f"{arm}@{n}"] for n in SIZES}
        past = at[power] - at[power + power // 8]
        half = power * 3 // 2
        middle = at[half] - at.get(half + power // 8, at[200])
        heights.append(past - middle)
    return statistics.fmean(heights)


def measure_cost(context: Context) -> Measurement:
    """Return the seconds of a forward and backward pass for the fold and for the tree, by size of the sets."""
    settings, out = context.settings, {}
    for n in settings["sizes"]:
        x = torch.randn(settings["sets"] * n, settings["channels"], generator=context.generator(n)).to(context.device)
        index = torch.arange(settings["sets"], device=context.device).repeat_interleave(n)
        for arm in ("gru", "binary-gru"):
            torch.manual_seed(context.seed)
            module = aggregation(arm, settings["channels"]).to(context.device).eval()
            out[f"{arm}@{n}"] = _seconds(module, x, index, settings["repeats"])
    return out


def _seconds(module: nn.Module, x: Tensor, index: Tensor, repeats: int) -> float:
    times = []
    for _ in range(repeats + 2):
        leaf = x.clone().requires_grad_()
        if x.is_cuda:
            torch.cuda.synchronize()
        start = time.perf_counter()
        module(leaf, index).sum().backward()
        if x.is_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def measure_digits(context: Context) -> Measurement:
    """Return the test accuracy of every aggregation on handwritten digits as sets of lit pixels."""
    settings, digits = context.settings, digit_points()
    order = torch.randperm(len(digits.labels), generator=context.generator(2))
    train, test = order[: settings["train"]], order[settings["train"] :]
    arms = ("gru", "binary-gru", "max", "sum", "sum-wide")

    def accuracy(arm: str) -> Measurement:
        model = context.train(
            arm,
            lambda: SetModel(PointEmbedding(settings["channels"]), arm, settings["channels"], 10),
            lambda generator, sets: _augmented(digits, train, generator, sets).to(context.device),
            lambda model, batch: nn.functional.cross_entropy(model(batch), batch.target) + aux_loss(model),
            steps=settings["steps"],
            batch_size=settings["batch_size"],
            learning_rate=settings["learning_rate"],
        )
        batch = digits.batch(test).to(context.device)
        with torch.no_grad():
            return {arm: float((model(batch).argmax(1) == batch.target).double().mean())}

    out: Measurement = {}
    out |= context.arms({arm: partial(accuracy, arm) for arm in arms})
    out["constant"] = float(torch.bincount(digits.labels[test]).max()) / test.numel()
    return out


def _augmented(digits: DigitPoints, train: Tensor, generator: torch.Generator, sets: int) -> SetBatch:
    return digits.batch(train[torch.randint(0, len(train), (sets,), generator=generator)])


def measure_graphs(context: Context) -> Measurement:
    """Return the test accuracy of message passing with each aggregation, on the fold that the seed selects."""
    folds = {name: _fold(context, name) for name in context.settings["names"]}
    arms = ("binary-gru-random", "sum", "max")
    return context.arms(
        {f"{name}-{arm}": partial(_on_fold, context, name, arm, *fold) for name, fold in folds.items() for arm in arms}
    )


def _fold(context: Context, name: str) -> tuple[GraphData, Tensor, Tensor]:
    """Return the graphs of a data set, and the indices of the training and test graphs."""
    data = load_graphs(name, context.data_dir)
    test = data.folds[context.seed % len(data.folds)]
    is_test = torch.zeros(len(data.graphs), dtype=torch.bool).index_fill(0, test, True)
    return data, (~is_test).nonzero().flatten(), test


def _on_fold(context: Context, name: str, arm: str, data: GraphData, train: Tensor, test: Tensor) -> Measurement:
    from .graphs import GraphModel, batch_graphs

    settings = context.settings
    model = context.train(
        f"{name}-{arm}",
        lambda: GraphModel(data.graphs[0].x.shape[1], settings["channels"], data.classes, arm),
        lambda generator, count: batch_graphs(
            data.graphs, train[torch.randint(0, len(train), (count,), generator=generator)]
        ).to(context.device),
        lambda model, batch: nn.functional.cross_entropy(model(batch), batch.y) + aux_loss(model),
        steps=settings["steps"],
        batch_size=settings["batch_size"],
        learning_rate=settings["learning_rate"],
    )
    batch = batch_graphs(data.graphs, test).to(context.device)
    with torch.no_grad():
        return {f"{name}/{arm}": float((model(batch).argmax(1) == batch.y).double().mean())}


def measure_batch_dependence(context: Context) -> Measurement:
    """Return the largest change of a set's result when other sets join its batch, relative to the spread of results."""
    from torch_geometric.nn import aggr

    channels = context.settings["channels"]
    draw = parse_input(f"sets:6x1..12x{channels}")
    makers = {
        "pyg-gru": lambda: aggr.GRUAggregation(channels, channels),
        "pyg-lstm": lambda: aggr.LSTMAggregation(channels, channels),
        "pyg-lcm": lambda: aggr.LCMAggregation(channels, channels),
        "lcm": lambda: LCMAggregation(channels, channels),
        "gru": lambda: GRUFoldAggregation(channels, channels),
    }
    out = {}
    for name, make in makers.items():
        torch.manual_seed(context.seed)
        generator = torch.Generator().manual_seed(context.seed)
        report = check(BatchIndependence(), make().eval(), draw, generator=generator, explain=False)
        out[name] = report.worst
    return out


def needs_pyg(_: str | None) -> str | None:
    """Return why PyTorch Geometric can't be imported, or None."""
    try:
        import torch_geometric  # noqa: F401
    except ImportError:
        return "torch_geometric is not installed; it comes with: pip install 'commutant[graphs]'"
    return None
