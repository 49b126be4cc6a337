"""Loss along the line between two networks."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .._checks import is_whole
from .._errors import InputError
from ._given import check_callable, check_module, number, state_of
from ._merging import interpolate, same_entries


@dataclass(frozen=True)
class Barrier:
    """Loss barrier between networks A and B on a grid of t from 0 (A) to 1 (B).

    `B(t) = L(A + t (B - A)) - ((1 - t) L(A) + t L(B))` for a loss L.

    Attributes:
        weights: Grid of t.
        losses: Loss L at each t.
        curve: Barrier B(t), negative where the loss of the merged network is below the interpolated loss of its
            parents.
    """

    weights: tuple[float, ...]
    losses: tuple[float, ...]
    curve: tuple[float, ...]

    @property
    def sup(self) -> float:
        """Largest value of the barrier on the grid."""
        return max(self.curve)

    @property
    def midpoint(self) -> float:
        """Value of the barrier at t = 1/2."""
        return self.curve[len(self.curve) // 2]


def loss_barrier(
    a: nn.Module, b: nn.Module, evaluate: Callable[[nn.Module], float | Tensor], *, points: int = 25
) -> Barrier:
    """Return the loss barrier on the line from `a` to `b`.

    Args:
        a: Module; not modified.
        b: Module of the same architecture, usually aligned with `a` first.
        evaluate: Function from a module to its loss, a number or a tensor of one element. It may reset batch-norm
            statistics first (`reset_batchnorm_stats`).
        points: Number of grid points, odd, so that the midpoint is one of them.

    Raises:
        InputError: The number of points is even or below three, or a loss is not a finite number.
    """
    check_module(a, "a")
    check_module(b, "b")
    check_callable(evaluate, "evaluate", "a function from a module to its loss")
    if not is_whole(points) or points < 3 or points % 2 == 0:
        raise InputError(f"points must be odd and at least 3, got {points}")
    network = copy.deepcopy(a)
    grid = [i / (points - 1) for i in range(points)]
    losses = []
    for t in grid:
        network.load_state_dict(interpolate([a, b], [1 - t, t]))
        losses.append(number(evaluate(network), "the loss that evaluate returns"))
        if not math.isfinite(losses[-1]):
            raise InputError(f"evaluate must return a finite loss, got {losses[-1]} at t = {t:g}")
    curve = [loss - (1 - t) * losses[0] - t * losses[-1] for t, loss in zip(grid, losses, strict=True)]
    return Barrier(tuple(grid), tuple(losses), tuple(curve))


def taylor_barrier(a: nn.Module, b: nn.Module, loss: Callable[[nn.Module], Float[Tensor, ""]]) -> float:
    """Estimate the barrier at the midpoint from second-order Taylor expansions at both ends.

    The estimate is `(1/4) d.(g_a - g_b) + (1/16) d.(H_a + H_b) d` with `d = B - A`, gradients g and Hessians H. It
    takes two Hessian-vector products. In Ito et al. (2025, Table 1) it does not predict the barrier.

    Args:
        a: Module; not modified.
        b: Module of the same architecture; not modified.
        loss: Differentiable function from a module to its loss.

    Raises:
        InputError: The loss is not a finite scalar with a gradient, or the architectures differ.
    """
    check_module(a, "a")
    check_module(b, "b")
    check_callable(loss, "loss", "a function from a module to its loss")
    same_entries(state_of(a), state_of(b), 1)
    a, b = copy.deepcopy(a), copy.deepcopy(b)  # a loss in training mode updates running statistics
    ends, slopes, curvatures = [dict(m.named_parameters()) for m in (a, b)], [], []
    direction = {k: (ends[1][k] - ends[0][k]).detach() for k in ends[0]}
    for network, parameters in zip((a, b), ends, strict=True):
        names = [k for k, p in parameters.items() if p.requires_grad]
        leaves = [parameters[k] for k in names]
        value = loss(network)
        if not (isinstance(value, Tensor) and value.numel() == 1 and value.requires_grad and bool(value.isfinite())):
            raise InputError(f"loss must return a finite scalar tensor that has a gradient, got {value!r}")
        gradients = torch.autograd.grad(value.sum(), leaves, create_graph=True, allow_unused=True)
        slope = sum(
            ((g * direction[k]).sum() for k, g in zip(names, gradients, strict=True) if g is not None), torch.zeros(())
        )
        slopes.append(float(slope.detach()))
        if not slope.requires_grad:  # linear in the parameters
            continue
        again = torch.autograd.grad(slope, leaves, allow_unused=True)
        curvatures.append(
            sum(float((h * direction[k]).sum()) for k, h in zip(names, again, strict=True) if h is not None)
        )
    return (slopes[0] - slopes[1]) / 4 + sum(curvatures) / 16


def distance(a: nn.Module, b: nn.Module) -> float:
    """Return the Euclidean distance between the parameters of two networks, without buffers.

    Args:
        a: Module.
        b: Module of the same architecture.
    """
    check_module(a, "a")
    check_module(b, "b")
    first, second = state_of(a), state_of(b)
    same_entries(first, second, 1)
    names = [name for name, _ in a.named_parameters()]
    return float(sum((first[k].double() - second[k].double()).square().sum() for k in names)) ** 0.5
