"""Iterative feature merging: the two closest channels are merged, again and again.

Chen, Zhou and Yan, "Going Beyond Neural Network Feature Similarity", ICLR 2024. The whole sequence of merges is
computed once; a threshold or a budget is a position in it. Distances come from matrices of inner products, which each
merge updates, also for the layers on the other side of a weight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

Rule = Literal["fold", "ifm"]
Criterion = Literal["inout", "saliency", "activations"]
Reference = Literal["initial", "current"]
_NOISE = 1e-13  # smallest squared distance relative to the squared norms; below it channels are equal


@dataclass(frozen=True, eq=False)
class Site:
    """Axis of a tensor that carries the channels of a group.

    Attributes:
        key: Name of the tensor in the state dict.
        axis: Number of the axis.
        index: Positions of each channel along the axis.
        reads: Whether a layer sums over the axis, so that the weights are outgoing weights of the channels. Otherwise
            they are incoming weights.
    """

    key: str
    axis: int
    index: Int[Tensor, "channels copies"]
    reads: bool

    def rows(self, value: Tensor) -> Float[Tensor, "channels rest"]:
        """Return the entries that belong to each channel."""
        return value.movedim(self.axis, 0)[self.index].flatten(1)

    def gram(self, value: Tensor) -> NDArray[np.float64]:
        rows = self.rows(value)
        return (rows @ rows.T).numpy()  # type: ignore[no-any-return]


class Cells:
    """Index of the cluster of each channel, and its weight in the mean of the cluster."""

    def __init__(self, clusters: Sequence[Sequence[int]], shares: Float[Tensor, " n"]) -> None:
        self.first = torch.tensor([own[0] for own in clusters])
        self.of: Int[Tensor, " n"] = torch.zeros(len(shares), dtype=torch.long)
        for i, own in enumerate(clusters):
            self.of[list(own)] = i
        self.gone = torch.tensor([c for own in clusters for c in own[1:]], dtype=torch.long)
        self.shares = shares.double()

    def merge(self, sites: Sequence[Site], state: dict[str, Tensor], rule: Rule) -> None:
        """Put each cluster at its first channel, at every site, and zero the outgoing weights of its other channels."""
        for site in sites:
            state[site.key] = self.gather(site, state[site.key], rule)
            if site.reads:
                state[site.key].index_fill_(site.axis, site.index[self.gone].flatten(), 0.0)

    def gather(self, site: Site, value: Tensor, rule: Rule) -> Tensor:
        """Return the tensor with the sum or mean of each cluster at the position of its first channel."""
        averaged = site.reads != (rule == "fold")
        rows = value.movedim(site.axis, 0)[site.index]
        if averaged:
            rows = rows * self.shares.view(-1, *[1] * (rows.dim() - 1)).to(rows)
        merged = torch.zeros(len(self.first), *rows.shape[1:], dtype=rows.dtype).index_add_(0, self.of, rows)
        result = value.movedim(site.axis, 0).clone()
        result[site.index[self.first]] = merged
        return result.movedim(0, site.axis).contiguous()


def equal_shares(clusters: Sequence[Sequence[int]]) -> Float[Tensor, " channels"]:
    """Return equal weights of the channels in the mean of each cluster."""
    shares = torch.ones(sum(map(len, clusters)), dtype=torch.float64)
    for own in clusters:
        shares[list(own)] = 1 / len(own)
    return shares


class Merge(NamedTuple):
    """Step of the path: channel `gone` of a group is merged into channel `kept`.

    `share` is the weight of `kept` in the mean of the two, and `level` their squared distance as a share of the
    reference.
    """

    group: str
    kept: int
    gone: int
    share: float
    level: float


class _Group:
    """Channels of one group: inner products of their incoming and outgoing weights, and the closest pairs."""

    def __init__(self, sites: Sequence[Site], criterion: Criterion, moments: Tensor | None) -> None:
        self.sites, self.criterion = sites, criterion
        self.size = len(sites[0].index)
        self.alive = np.ones(self.size, dtype=bool)
        self.counts = np.ones(self.size)
        self.moments = None if moments is None else moments.double().clone().numpy()
        self.patience = max(1, self.size // 64)
        self.pending: list[tuple[bool, NDArray[np.float64], NDArray[np.float64]]] = []

    def build(self, tensors: Mapping[str, Tensor]) -> None:
        """Compute all inner products from the tensors."""
        self.made, self.offsets, self.read = (np.zeros((self.size, self.size)) for _ in range(3))
        for site in self.sites:
            value = tensors[site.key]
            if value.dim() >= 2:
                into = self.read if site.reads else self.made
                into += site.gram(value)
            elif not site.reads:
                self.offsets += site.gram(value)
        if self.moments is not None:
            self.made, self.offsets = self.moments, np.zeros_like(self.offsets)
        self.pending.clear()
        self._refresh()

    def neighbor(self, reads: bool, before: NDArray[np.float64], after: NDArray[np.float64]) -> None:
        """Record that a merge changed columns of a weight; distances are updated after 1/64 of the channels changed."""
        self.pending.append((reads, before, after))
        if len(self.pending) < self.patience:
            return
        for kind, gram in ((True, self.read), (False, self.made)):
            own = [(b, a) for r, b, a in self.pending if r == kind]
            if own:
                olds, news = (np.concatenate(m, 1) for m in zip(*own, strict=True))
                gram += news @ news.T - olds @ olds.T
        self.pending.clear()
        self._refresh()

    def _refresh(self) -> None:
        """Compute the distances of all pairs from the inner products."""
        self.scores = self._scores(slice(None))
        self.scores[~self.alive] = np.inf
        self.scores[:, ~self.alive] = np.inf
        np.fill_diagonal(self.scores, np.inf)
        self.nearest = self.scores.argmin(1)
        self.least = self.scores[np.arange(self.size), self.nearest]

    def spread(self) -> float:
        """Return the largest distance of two remaining channels."""
        return float(np.max(self.scores, initial=0.0, where=np.isfinite(self.scores)))

    def _scores(self, rows: slice | NDArray[np.intp]) -> NDArray[np.float64]:
        """Return the squared distances of some channels to all channels."""
        if self.criterion == "inout":
            found = _squares(self.made, rows) + _squares(self.read, rows)
            # biases and norms add nothing to the distance, but channels that differ only in them are not equal
            found[(found == 0) & (_squares(self.offsets, rows) > 0)] = np.finfo(float).tiny
            return found  # type: ignore[no-any-return]
        norms = np.sqrt(np.maximum(np.diagonal(self.read), 0))
        own, total = norms[rows][:, None], norms[rows][:, None] + norms
        weight = np.divide(own * norms, total, out=np.zeros_like(total), where=total > 0)
        return weight**2 * (_squares(self.made, rows) + _squares(self.offsets, rows))  # type: ignore[no-any-return]

    def share(self, i: int, j: int) -> float:
        """Return the weight of channel i in the mean of i and j: by the norms of outgoing weights, or by counts."""
        a, b = self.counts[i], self.counts[j]
        if self.criterion != "inout":
            norms = np.sqrt(np.maximum(self.read[[i, j], [i, j]], 0))
            if norms.sum() > 0:
                a, b = norms
        return float(a / (a + b))

    def merge(self, i: int, j: int, made: tuple[float, float], read: tuple[float, float]) -> None:
        """Merge channel j into channel i; only distances to i change."""
        for gram, (a, b) in ((self.made, made), (self.offsets, made), (self.read, read)):
            gram[i] = a * gram[i] + b * gram[j]
            gram[:, i] = a * gram[:, i] + b * gram[:, j]
            gram[j] = gram[:, j] = 0
        for reads, before, after in self.pending:
            a, b = read if reads else made
            for rows in (before, after):
                rows[i] = a * rows[i] + b * rows[j]
                rows[j] = 0
        self.alive[j] = False
        self.counts[i] += self.counts[j]
        row = self._scores(np.array([i]))[0]
        row[~self.alive] = row[i] = np.inf
        self.scores[i] = self.scores[:, i] = row
        self.scores[j] = self.scores[:, j] = np.inf
        closer = (row < self.least) | ((row == self.least) & (i < self.nearest))
        self.nearest[closer], self.least[closer] = i, row[closer]
        again = np.flatnonzero(((self.nearest == i) | (self.nearest == j)) & ~closer | (np.arange(self.size) == i))
        self.nearest[again] = self.scores[again].argmin(1)
        self.least[again] = self.scores[again, self.nearest[again]]


def merge_path(
    tensors: Mapping[str, Tensor],
    groups: Mapping[str, Sequence[Site]],
    *,
    rule: Rule,
    criterion: Criterion,
    reference: Reference,
    moments: Mapping[str, Tensor] | None = None,
) -> list[Merge]:
    """Merge the closest pair of channels, by the measure of its group, until one channel is left in every group.

    With `rule="fold"` incoming weights are averaged and outgoing weights are added. With `"ifm"` it is the other way
    round (Eqs. 9 to 11 of the paper). Ties go to the first pair.
    """
    tensors = {site.key: tensors[site.key].detach().double().clone() for sites in groups.values() for site in sites}
    found = {name: _Group(sites, criterion, (moments or {}).get(name)) for name, sites in groups.items()}
    for group in found.values():
        group.build(tensors)
    against = {name: group.spread() for name, group in found.items()}
    path: list[Merge] = []
    while True:
        levels = {name: float(group.least.min()) / (against[name] or 1.0)
                  for name, group in found.items() if group.alive.sum() > 1}  # fmt: skip
        if not levels:
            return path
        name = min(levels, key=levels.__getitem__)
        group = found[name]
        i = int(group.least.argmin())
        j = int(group.nearest[i])
        i, j = min(i, j), max(i, j)
        share = group.share(i, j)
        mean, both = (share, 1 - share), (1.0, 1.0)
        made, read = (mean, both) if rule == "fold" else (both, mean)
        path.append(Merge(name, i, j, share, levels[name]))
        stale: set[str] = set()
        touched = {name}
        for site in group.sites:
            _merge_slices(site, i, j, read if site.reads else made, tensors[site.key], found, stale, touched)
        group.merge(i, j, made, read)
        for other in stale:
            found[other].build(tensors)
        if reference == "current":
            against |= {other: found[other].spread() for other in touched | stale}


def _merge_slices(
    site: Site,
    i: int,
    j: int,
    weights: tuple[float, float],
    value: Tensor,
    groups: Mapping[str, _Group],
    stale: set[str],
    touched: set[str],
) -> None:
    """Merge along one axis of one tensor, and notify the groups on its other axes.

    Adds groups whose distances may change to `touched`, and groups whose inner products must be rebuilt to `stale`.
    """
    cells = site.index[[i, j]].flatten()
    sides = [(n, g, s) for n, g in groups.items() for s in g.sites if s.key == site.key and s is not site]
    stale |= {n for n, g, s in sides if site in g.sites or s.axis == site.axis}
    sides = [(n, g, s) for n, g, s in sides if n not in stale and (g.moments is None or s.reads)]
    before = [s.rows(value.index_select(site.axis, cells)).numpy() for _, _, s in sides]
    kept, gone = (value.index_select(site.axis, site.index[k]) for k in (i, j))
    value.index_copy_(site.axis, site.index[i], weights[0] * kept + weights[1] * gone)
    value.index_fill_(site.axis, site.index[j], 0.0)
    for (name, group, other), old in zip(sides, before, strict=True):
        group.neighbor(other.reads, old, other.rows(value.index_select(site.axis, cells)).numpy().copy())
        touched.add(name)


def _squares(gram: NDArray[np.float64], rows: slice | NDArray[np.intp]) -> NDArray[np.float64]:
    """Return squared distances from inner products, with rounding errors set to zero."""
    norms = np.diagonal(gram)
    total = norms[rows][:, None] + norms
    found = total - 2 * gram[rows]
    found[found <= _NOISE * total] = 0.0
    return found  # type: ignore[no-any-return]
