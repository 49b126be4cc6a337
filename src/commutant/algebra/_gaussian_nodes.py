"""Nodes and weights for expectations over up to four correlated Gaussian variables."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from .._errors import InputError
from ._gaussian import RADIUS, density, panel_edges, panel_nodes, powers_of_two

MOST = 4  # most variables, since a tensor grid of more would be too large
_PANEL_ORDER = 10
_DEGREES = {3: 40, 4: 22}  # nodes of the Gauss-Hermite rule along each axis, by number of axes


def gaussian_nodes(
    covariance: Float[Tensor, "n n"], kinks: tuple[float, ...] = ()
) -> tuple[Float[Tensor, "nodes rank"], Float[Tensor, "nodes"], Float[Tensor, "n rank"]]:
    """Return standard normal nodes y, their weights, and a matrix R such that $z = R y$ has the given covariance.

    Up to two variables get panels between the kinks of every z, so that functions with kinks converge. Three and four
    variables get a Gauss-Hermite grid, for smooth functions. A singular covariance needs only as many axes as its rank.

    Args:
        covariance: Positive semidefinite matrix, `(n, n)`.
        kinks: Points where the functions to be integrated are not smooth, the same for every variable.

    Returns:
        Nodes `(nodes, rank)`, weights `(nodes,)` and R `(n, rank)`.

    Raises:
        InputError: For more than four independent variables, or an indefinite matrix.
    """
    if covariance.dim() != 2 or covariance.shape[0] != covariance.shape[1] or not bool(covariance.isfinite().all()):
        raise InputError(f"a covariance must be a finite square matrix, got shape {tuple(covariance.shape)}")
    # rounding error of zero in the given precision
    noise = 4 * max(1, len(covariance)) * torch.finfo(covariance.dtype).eps if covariance.is_floating_point() else 0.0
    covariance = covariance.to(torch.float64)
    size = float(covariance.abs().max()) if covariance.numel() else 0.0
    if bool(((covariance - covariance.mT).abs() > max(1e-9, noise) * size).any()):
        raise InputError("a covariance must be symmetric; symmetrize it by (c + c.mT) / 2")
    values, vectors = torch.linalg.eigh((covariance + covariance.mT) / 2)
    top = float(values[-1]) if len(values) else 0.0
    if bool((values < -max(1e-9, noise) * max(top, 1e-300)).any()):
        raise InputError(f"a covariance must have no negative eigenvalue, got {float(values[0]):.3g}")
    keep = values > max(1e-12, noise) * max(top, 1e-300)
    rank = int(keep.sum())
    if rank > MOST:
        raise InputError(f"expectations are limited to {MOST} independent Gaussian variables, got {rank}")
    root = vectors[:, keep] * values[keep].sqrt()
    if rank == 2:
        # triangular root: the first variable depends on one axis only
        root = torch.linalg.qr(root.mT).R.mT
    if rank == 0:
        return torch.zeros(1, 0, dtype=torch.float64), torch.ones(1, dtype=torch.float64), root
    if rank > 2:
        return (*_hermite_grid(rank, covariance), root)
    if rank == 1:
        return (*_line(root[:, 0], kinks), root)
    return (*_plane(root, kinks), root)


def _hermite_grid(rank: int, like: Tensor) -> tuple[Tensor, Tensor]:
    x, w = (torch.from_numpy(t).to(like.device) for t in np.polynomial.hermite_e.hermegauss(_DEGREES[rank]))
    w = w / w.sum()
    weights = torch.cartesian_prod(*[w] * rank).prod(-1)
    return torch.cartesian_prod(*[x] * rank), weights


def _points(slopes: Tensor, kinks: tuple[float, ...]) -> Tensor:
    """Return the points on the axis y where one of the variables slope * y meets a kink or a power of two."""
    at = torch.tensor([*kinks, *powers_of_two(RADIUS * float(slopes.abs().max()))], dtype=torch.float64)
    return (at.to(slopes.device) / slopes[slopes.abs() > 1e-12, None]).flatten()


def _line(slopes: Tensor, kinks: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    zero, one = torch.zeros_like(slopes[:1]), torch.ones_like(slopes[:1])
    y, weights = panel_nodes(panel_edges(zero, one, _points(slopes, kinks)), 2 * _PANEL_ORDER)
    return y[0, :, None], (weights * density(y, one, zero))[0]


def _plane(root: Tensor, kinks: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """Return nodes and weights for two axes, with panels of y2 for each y1 that end at the kinks of every z."""
    y1, w1 = _line(root[:, 0], kinks)
    y1 = y1[:, 0]
    free = root[:, 1].abs() > 1e-12
    at = torch.tensor([*kinks, 0.0], dtype=torch.float64, device=root.device)
    crossing = (at - root[free, 0, None, None] * y1[:, None]) / root[free, 1, None, None]
    crossing = crossing.transpose(0, 1).flatten(1)
    zero, one = torch.zeros_like(y1), torch.ones_like(y1)
    y2, w2 = panel_nodes(panel_edges(zero, one, at, extra=(crossing,)), _PANEL_ORDER)
    weights = w1[:, None] * w2 * density(y2, one, zero)
    keep = (weights > 1e-25).flatten()
    nodes = torch.stack([y1[:, None].expand_as(y2), y2], -1).flatten(0, 1)
    return nodes[keep], weights.flatten()[keep]
