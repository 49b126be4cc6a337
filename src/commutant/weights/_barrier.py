"""Loss along the line between two networks."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .._errors import InputError
from ._given import check_callable, check_module, number, state_of
from ._merging import interpolate, same_entries


@dataclass(frozen=True)
class Barrier:
    """`B(t) = L(A + t (B - A)) - ((1 - t) L(A) + t L(B))` on a grid of t from 0 (A) to 1 (B).

    Attributes:
        weights: t.
        losses: L along the line.
        curve: B(t); below zero where the merge is better than its parents.
    """

    weights: tuple[float, ...]
    losses: tuple[float, ...]
    curve: tuple[float, ...]

    @property
    def sup(self) -> float:
        """The largest value on the grid."""
        return max(self.curve)

    @property
    def midpoint(self) -> float:
        """The value half way."""
        return self.curve[len(self.curve) // 2]


def loss_barrier(
    a: nn.Module, b: nn.Module, evaluate: Callable[[nn.Module], float | Tensor], *, points: int = 25
) -> Barrier:
    """Evaluate the networks on the line from `a` to `b`.

    Args:
        a: a module; stays as it is.
        b: of the same architecture, usually aligned with `a` first.
        evaluate: from a module to its loss, a number or a tensor of one element; it may reset batch-norm statistics
            first (`reset_batchnorm_stats`).
        points: on the grid, odd, so that the midpoint is one of them.

    Raises:
        InputError: an even number of points or fewer than three, or a loss that is no finite number.
    """
    check_module(a, "a")
    check_module(b, "b")
    check_callable(evaluate, "evaluate", "a function from a module to its loss")
    if isinstance(points, bool) or not isinstance(points, int) or points < 3 or points % 2 == 0:
        raise InputError(f"points must be odd and three or more, got {points}")
    network = copy.deepcopy(a)
    grid = [i / (points - 1) for i in range(points)]
    losses = []
    for t in grid:
        network.load_state_dict(interpolate([a, b], [1 - t, t]))
        losses.append(number(evaluate(network), "what evaluate returns"))
        if not math.isfinite(losses[-1]):
            raise InputError(f"evaluate gave {losses[-1]} at t = {t:g}")
    curve = [loss - (1 - t) * losses[0] - t * losses[-1] for t, loss in zip(grid, losses, strict=True)]
    return Barrier(tuple(grid), tuple(losses), tuple(curve))


def taylor_barrier(a: nn.Module, b: nn.Module, loss: Callable[[nn.Module], Float[Tensor, ""]]) -> float:
    """What second-order Taylor expansions at both ends say of the barrier half way.

    `(1/4) d.(g_a - g_b) + (1/16) d.(H_a + H_b) d` with `d = B - A`, gradients g and Hessians H, by two Hessian-vector
    products (after Ito et al., 2025, Table 1; there it does not predict the barrier).

    Args:
        a: a module.
        b: of the same architecture.
        loss: differentiable, of a module.
    """
    check_module(a, "a")
    check_module(b, "b")
    check_callable(loss, "loss", "a function from a module to its loss")
    same_entries(state_of(a), state_of(b), 1)
    a, b = copy.deepcopy(a), copy.deepcopy(b)  # a loss in training mode moves running statistics
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
    """The Euclidean distance of two networks' parameters, buffers left out."""
    check_module(a, "a")
    check_module(b, "b")
    first, second = state_of(a), state_of(b)
    same_entries(first, second, 1)
    names = [name for name, _ in a.named_parameters()]
    return float(sum((first[k].double() - second[k].double()).square().sum() for k in names)) ** 0.5
