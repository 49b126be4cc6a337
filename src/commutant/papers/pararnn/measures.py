"""Measurements for the claims of the ParaRNN paper on solvers: agreement, parity, speed."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from ...evidence import Context, Measurement
from ...sequences import GATED_CELLS, MinGRU, ParaGRU, ParallelRecurrence
from ...sequences.solvers import Attempt, Problem, multishoot, newton_like, sequential, tabulated
from .._shared.timing import median_seconds


def _random_problem(context: Context, name: str, alpha: float, length: int) -> Problem:
    """Return a problem in float32 with normal gate inputs and recurrent weights uniform within +-alpha."""
    cell, generator = GATED_CELLS[name], context.generator(length)
    batch, channels = context.settings["batch"], context.settings["channels"]
    pre = torch.randn(length, batch, cell.gates, channels, generator=generator)
    weights = alpha * (2 * torch.rand(cell.recurrent, channels, generator=generator) - 1)
    pre, weights = pre.to(context.device), weights.to(context.device)
    return Problem(cell, cell.initial(batch, channels, pre), (pre,), (weights,), 0.0)


def _error(attempt: Attempt, expected: Tensor) -> float:
    """Return the largest error of a trajectory, capped because divergent iterates overflow."""
    return min(float((attempt.h - expected).abs().nan_to_num(nan=torch.inf).max()), 1e9)


def measure_agreement(context: Context) -> Measurement:
    """Return the error of Newton's method after three iterations against the loop, by weight bound and length."""
    out: Measurement = {}
    for name in ("gru", "lstm"):
        for alpha in (0.5, 0.9, 2.0):
            for length in context.settings["lengths"]:
                problem = _random_problem(context, name, alpha, length)
                expected = sequential(problem).h
                out[f"{name}-{alpha}@{length}"] = _error(newton_like(problem, "newton", 3), expected)
                if alpha == 2.0 and name == "gru":
                    out[f"shoot-{alpha}@{length}"] = _error(multishoot(problem, 2, max(2, length // 128), 64), expected)
    return out


class ParityModel(nn.Module):
    """Sequence classifier: an embedding, one recurrence and a linear readout at every step.

    Args:
        recurrence: Recurrence with `batch_first=True`.
        channels: Width of the embedding.
    """

    def __init__(self, recurrence: ParallelRecurrence, channels: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(2, channels)
        self.recurrence = recurrence
        self.head = nn.Linear(recurrence.hidden_size, 2)

    def forward(self, bits: Tensor) -> Tensor:
        """Return logits `(batch, time, 2)` of bits `(batch, time)`."""
        return self.head(self.recurrence(self.embedding(bits))[0])


def _parity_loss(model: nn.Module, bits: Tensor) -> Tensor:
    return nn.functional.cross_entropy(model(bits).flatten(0, 1), (bits.cumsum(1) % 2).flatten())


def _recurrence(arm: str, channels: int) -> ParallelRecurrence:
    if arm == "gru":
        return ParaGRU(channels, channels, batch_first=True, a_max=None)
    return MinGRU(channels, channels * (4 if arm == "linear-wide" else 1), batch_first=True)


def measure_parity(context: Context) -> Measurement:
    """Train on parity, test on longer strings, then solve the trained cell with each method."""
    settings = context.settings
    arms = ("gru", "linear", "linear-wide")

    def bits(generator: torch.Generator, count: int, length: int) -> Tensor:
        return torch.randint(0, 2, (count, length), generator=generator).to(context.device)

    def measure(arm: str) -> Measurement:
        model = context.train(
            arm,
            lambda: ParityModel(_recurrence(arm, settings["channels"]), settings["channels"]),
            lambda generator, count: bits(generator, count, settings["length"]),
            _parity_loss,
            steps=settings["steps"],
            batch_size=64,
            learning_rate=2e-2,
        )
        model.eval()
        found: Measurement = {}
        with torch.no_grad():
            for factor in (1, 4, 16):
                test = bits(context.generator(factor), 256, factor * settings["length"])
                right = model(test).argmax(-1) == test.cumsum(1) % 2
                found[f"{arm}@{factor}"] = float(right.float().mean())
            if arm == "gru":
                found |= _solve_trained(model, bits(context.generator(99), 32, settings["solve_length"]))
        return found

    return context.arms({arm: partial(measure, arm) for arm in arms})


def _solve_trained(model: nn.Module, test: Tensor) -> Measurement:
    """Return the errors of each method on the trained parity cell."""
    layer = model.recurrence
    assert isinstance(layer, ParaGRU)
    pre, weights = layer._gates(model.embedding(test).transpose(0, 1), "_l0")  # type: ignore[operator]
    start = layer.cell.initial(test.shape[0], layer.hidden_size, pre)
    problem = Problem(layer.cell, start, (pre,), (weights,), 0.0)
    expected = sequential(problem).h
    problem.tolerance = 1e-6
    table = tabulated(problem, 3, max(2, test.shape[1] // 64))
    return {
        "newton-3": _error(newton_like(problem, "newton", 3), expected),
        "newton-24": _error(newton_like(problem, "newton", 24), expected),
        "tabulated": _error(table, expected),
        "tabulated-mismatch": table.mismatch,
        "largest-weight": float(weights.abs().max()),
    }


def _leaf(x: Tensor) -> Tensor:
    """Return a copy that collects gradients."""
    return x.clone().requires_grad_()


def measure_speed(context: Context) -> Measurement:
    """Return the seconds of a forward and backward pass of a ParaGRU layer, by solver and length."""
    settings = context.settings
    out: Measurement = {}
    width = settings["channels"]
    for length in settings["lengths"]:
        x = torch.randn(settings["batch"], length, width, generator=context.generator(length)).to(context.device)
        layers = {}
        for solver in ("sequential", "multishoot", "auto", "newton"):
            torch.manual_seed(context.seed)
            layers[solver] = ParaGRU(width, width, batch_first=True, method=solver).to(context.device)
        runs = {solver: (lambda x, layer=layer: layer(x)[0]) for solver, layer in layers.items()}
        times = median_seconds(runs, partial(_leaf, x), settings["repeats"])
        out |= {f"{solver}@{length}": seconds for solver, seconds in times.items()}
    return out
