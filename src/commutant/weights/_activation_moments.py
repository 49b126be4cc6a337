"""Moments of activations over data that may lie in several processes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ._sections import Trace


class Moments:
    """Running count, mean and covariance of activations, and second moments of slopes, in float64."""

    def __init__(self, width: int) -> None:
        self.count = 0.0
        self.mean, self.scatter = (
            torch.zeros(width, dtype=torch.float64),
            torch.zeros(width, width, dtype=torch.float64),
        )
        self.slopes: Tensor | None = torch.zeros((), dtype=torch.float64)

    @property
    def covariance(self) -> Tensor:
        return self.scatter / self.count

    def add(self, rows: Tensor) -> None:
        rows = rows.detach().double().cpu()
        mean, count = rows.mean(0), float(len(rows))
        self._join(count, mean, (rows - mean).mT @ (rows - mean))

    def _join(self, count: float, mean: Tensor, scatter: Tensor) -> None:
        if count:
            total, shift = self.count + count, mean - self.mean
            self.scatter = self.scatter + scatter + torch.outer(shift, shift) * (self.count * count / total)
            self.mean, self.count = self.mean + shift * (count / total), total

    def add_slopes(self, slopes: Tensor | None) -> None:
        if slopes is None or self.slopes is None:
            self.slopes = None
        else:
            slopes = slopes.detach().double()
            self.slopes = self.slopes + (slopes.mT @ slopes).cpu()

    def sum_over(self, group: Any) -> None:
        """Add up the moments of all processes of a group."""
        if group is None:
            return
        own = (self.count, self.mean, self.scatter, self.slopes)
        every: list[Any] = [None] * torch.distributed.get_world_size(group)
        torch.distributed.all_gather_object(every, own, group)
        self.count, self.mean, self.scatter, self.slopes = every[0]
        for count, mean, scatter, slopes in every[1:]:
            self._join(count, mean, scatter)
            self.slopes = None if slopes is None or self.slopes is None else self.slopes + slopes


def summed(x: Tensor, group: Any) -> Tensor:
    """Return the sum over all processes of a group, or the tensor itself without one."""
    if group is not None:
        torch.distributed.all_reduce(x, group=group)
    return x


def counted(rows: Tensor, valid: Tensor | None) -> Tensor:
    """Return the rows `(n, features)` of the positions that count."""
    flat = rows.reshape(-1, rows.shape[-1])
    return flat if valid is None or valid.numel() != len(flat) else flat[valid.flatten()]


def slopes_of(trace: Trace, place: int) -> Tensor | None:
    """Return the derivatives of a linear layer's outputs up to the next place, `(rows, features)`, if elementwise."""
    product = trace.products[place] if place < len(trace.products) else None
    if not isinstance(product, Tensor):
        return None
    arrival = trace.arrivals[place + 1]
    if product.shape != arrival.shape or not arrival.requires_grad:
        return None
    (slopes,) = torch.autograd.grad(arrival.sum(), product, retain_graph=True, allow_unused=True)
    signs = torch.randn(arrival.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(arrival)
    (mixed,) = torch.autograd.grad((arrival * signs).sum(), product, retain_graph=True, allow_unused=True)
    if slopes is None or mixed is None or not torch.allclose(mixed, signs * slopes, rtol=1e-4, atol=1e-6):
        return None
    return counted(slopes.reshape(-1, 1, slopes.shape[-1]), trace.valid)
