"""Training with plain SGD at the best of a few learning rates, chosen on validation data."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ...evidence import Context

_BATCH, _EVERY = 64, 50


def best_of(
    context: Context,
    makes: Sequence[Callable[[torch.Generator], nn.Module]],
    parts: list[tuple[Tensor, Tensor]],
    rates: Sequence[float],
    steps: int,
    optimizer_class: type[torch.optim.Optimizer] = torch.optim.SGD,
) -> float:
    """Train every network at every learning rate; return the test accuracy where validation accuracy was highest.

    Ties go to the first.

    Args:
        context: Context of the run, the source of randomness.
        makes: Functions that build the networks.
        parts: Inputs and classes for training, validation and testing.
        rates: Learning rates.
        steps: Number of training steps.
        optimizer_class: Optimizer, given the parameters and `lr`.
    """
    (x, y), (x_valid, y_valid), (x_test, y_test) = parts
    best = (-1.0, 0.0)
    for make, rate in itertools.product(makes, rates):
        generator = context.generator(3)
        net = make(generator)
        optimizer = optimizer_class(net.parameters(), lr=rate)  # type: ignore[call-arg]
        for step in range(1, steps + 1):
            rows = torch.randint(len(x), (min(_BATCH, len(x)),), generator=generator)
            loss = nn.functional.cross_entropy(net(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if not math.isfinite(float(loss.detach())):
                break
            if step % _EVERY == 0 or step == steps:
                net.eval()
                with torch.no_grad():
                    valid = float((net(x_valid).argmax(1) == y_valid).float().mean())
                    test = float((net(x_test).argmax(1) == y_test).float().mean())
                net.train()
                best = max(best, (valid, test), key=lambda pair: pair[0])
    return best[1]
