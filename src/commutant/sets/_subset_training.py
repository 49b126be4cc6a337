"""Training, calibration and predictions of a selector of subsets."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .._errors import InputError
from ..algebra import ConditionalBernoulli, poisson_binomial
from ._amortized import AmortizedInference
from ._enumeration import Enumeration, enumerations, tables
from ._mean_field import MeanField
from ._set_utility import GroundSets, SetUtility
from ._subsets import largest_of_each_set

_COPULA_RANK = 5
_FAR = 1e15  # features that are larger would lose themselves in sums in float32
_CLIP = 10.0  # norm at which gradients are clipped, as in the published code


class FittedSelector:
    """Networks of a selector, with their training, calibration and predictions.

    Args:
        arguments: Arguments of the estimator, by name.
        x: Elements of all ground sets, `(elements, features)`.
    """

    def __init__(self, arguments: Any, x: Tensor) -> None:
        a = arguments
        largest = x.abs().amax(0)
        unit = torch.where(largest > 0, largest, 1.0)  # squares of the features themselves could overflow
        spread = (x / unit).std(0, correction=0)
        self.mean = (x / unit).mean(0) * unit
        self.spread = torch.where(spread > 1e-12, spread * unit, unit)
        self.arguments, self.exact = a, a.inference == "exact"
        self.generator = torch.Generator().manual_seed(int(a.random_state))
        encoder, width = self._encoder(x.shape[1]), a.hidden_features
        pool = copy.deepcopy(a.pool)
        self.utility = SetUtility(encoder, width, 2 * width, background=a.background, pool=pool).float()
        self.amortized = None
        if a.inference in ("independent", "copula"):
            rank = _COPULA_RANK if a.inference == "copula" else 0
            self.amortized = AmortizedInference(self._encoder(x.shape[1]), width, 2 * width, rank=rank).float()
        self.infer = MeanField(self.utility, a.n_iter, a.n_samples, exact_below=0)
        self.share, self.slope, self.shift = 0.5, 1.0, 0.0
        self.history: list[dict[str, float]] = []

    def _encoder(self, features: int) -> nn.Module:
        a = self.arguments
        if a.encoder is not None:
            return copy.deepcopy(a.encoder)
        return nn.Sequential(
            nn.Linear(features, a.hidden_features), nn.ReLU(), nn.Linear(a.hidden_features, a.hidden_features)
        )

    def _standardized(self, x: Tensor) -> Tensor:
        found = (x - self.mean) / self.spread
        if not bool((found.abs() < _FAR).all()):
            row = int((~(found.abs() < _FAR)).any(1).nonzero()[0])
            raise InputError(f"element {row} of X lies more than {_FAR:.0e} standard deviations from the training mean")
        return found.float()

    def train(self, x: Tensor, sizes: Tensor, chosen: Tensor) -> None:
        """Train, keep the epoch that is best on held-out sets, and calibrate its scores.

        Args:
            x: Elements of all ground sets.
            sizes: Number of elements of each set.
            chosen: Whether each element is in the optimal subset.
        """
        a, lengths = self.arguments, sizes.tolist()
        self.share = float(_share(chosen, sizes).mean().clamp(0.01, 0.99))
        order = torch.randperm(len(sizes), generator=self.generator)
        held = min(len(sizes) - 1, max(1, round(a.validation_fraction * len(sizes))))
        examples = list(zip(self._standardized(x).split(lengths), chosen.split(lengths), strict=True))
        training, held_out = ([examples[i] for i in part.tolist()] for part in (order[held:], order[:held]))
        optimizers = [
            torch.optim.Adam(module.parameters(), lr=a.learning_rate, weight_decay=a.weight_decay)
            for module in self._modules()
        ]
        best, kept, since = math.inf, None, 0
        for _ in range(a.epochs):
            self._mode(True)
            shuffled = torch.randperm(len(training), generator=self.generator)
            losses = [
                self._step([training[i] for i in rows.tolist()], optimizers) for rows in shuffled.split(a.batch_size)
            ]
            found = self._calibrate(held_out)
            self.history.append({"loss": sum(losses) / len(losses), "held_out": found})
            if not math.isfinite(found) or not math.isfinite(losses[-1]):
                raise InputError("the loss is not finite; lower learning_rate, or check the encoder")
            since += 1
            if found < best or kept is None:
                best, since, kept = found, 0, copy.deepcopy([m.state_dict() for m in self._modules()])
            if since >= a.patience:
                break
        assert kept is not None
        for module, state in zip(self._modules(), kept, strict=True):
            module.load_state_dict(state)
        self._calibrate(held_out, samples=16)

    def _modules(self) -> list[nn.Module]:
        return [m for m in (self.utility, self.amortized) if m is not None]

    def _mode(self, training: bool) -> None:
        for module in (self.infer, *self._modules()):
            module.train(training)
        self.infer.n_samples = self.arguments.n_samples

    def _step(self, sets: list[tuple[Tensor, Tensor]], optimizers: Sequence[torch.optim.Optimizer]) -> float:
        x, chosen, sizes = _joined(sets)
        index = torch.repeat_interleave(sizes)
        start: float | Tensor = self.share
        if self.amortized is not None:
            bound = self.amortized.negative_elbo(
                self.utility, x, index, num_samples=self.infer.n_samples, generator=self.generator
            )
            _descend(bound, self.amortized, optimizers[1])
            start = self.amortized(x).detach().sigmoid()
        if self.exact:
            loss = -self._log_likelihood(x, chosen, sizes).mean()
        else:
            loss = self.infer.loss(
                x, chosen, index, negatives=self.arguments.negatives, start=start, generator=self.generator
            )
        _descend(loss, self.utility, optimizers[0])
        return float(loss.detach())

    def _log_likelihood(self, x: Tensor, chosen: Tensor, sizes: Tensor) -> Tensor:
        """Return the log-likelihood of the subset of each set, in some order."""
        sets = self._prepared(x, sizes)
        found = []
        for table, mask in zip(tables(self.utility, sets), sets.blocks.split(chosen[:, None], 1), strict=True):
            bits = 2 ** torch.arange(mask.shape[1])
            row = (mask[..., 0].long() * bits).sum(1, keepdim=True)
            found.append(table.gather(1, row)[:, 0] - table.logsumexp(1))
        return torch.cat(found)

    @torch.no_grad()
    def _calibrate(self, held_out: list[tuple[Tensor, Tensor]], samples: int = 2) -> float:
        """Fit slope and shift of the scores, and return the negative log-likelihood of held-out subsets.

        Args:
            held_out: Held-out sets and subsets.
            samples: Number of sampled subsets, in units of that in training.
        """
        self._mode(False)
        self.infer.n_samples *= samples
        x, chosen, sizes = _joined(held_out)
        if self.exact:
            return -float(self._log_likelihood(x, chosen, sizes).mean())
        scores = self._logits(x, sizes).double()
        if not bool(scores.isfinite().all()):
            return math.nan
        self.slope, self.shift = _logistic_fit(scores, chosen.double())
        found = scores * self.slope + self.shift
        loss = nn.functional.binary_cross_entropy_with_logits(found, chosen.double(), reduction="sum")
        return float(loss) / len(sizes)

    @torch.no_grad()
    def _logits(self, x: Tensor, sizes: Tensor) -> Tensor:
        """Return scores of elements; they do not depend on the batch, nor on the order of elements."""
        owner = torch.repeat_interleave(sizes)
        order = torch.from_numpy(np.lexsort((*x.T.numpy(), owner.numpy())))
        parts = []
        for rows, part in _batches(order, sizes):
            index, values = torch.repeat_interleave(part), x[rows]
            if self.exact:
                parts.append(torch.cat([e.log_odds() for e in self._enumerations(values, part)]))
                continue
            start = self.share if self.amortized is None else self.amortized(values).sigmoid()
            parts.append(self.infer(values, index, num_sets=len(part), start=start).logits)
        return torch.empty(len(x), dtype=torch.float32).index_copy(0, order, torch.cat(parts))

    def scores(self, x: Tensor, sizes: Tensor) -> Tensor:
        """Return calibrated log-odds of elements, `(elements,)`.

        Args:
            x: Elements.
            sizes: Size of each set.
        """
        return self._logits(self._standardized(x), sizes) * self.slope + self.shift

    @torch.no_grad()
    def probabilities(self, x: Tensor, sizes: Tensor, count: Tensor | None) -> Tensor:
        """Return the probability that each element is chosen.

        Args:
            x: Elements.
            sizes: Size of each set.
            count: Size of each subset, or None.
        """
        if count is None:
            return self.scores(x, sizes).sigmoid()
        if not self.exact:
            parts = zip(self.scores(x, sizes).split(sizes.tolist()), count.tolist(), strict=True)
            return torch.cat([ConditionalBernoulli(part, k).marginals() for part, k in parts])
        every = self._enumerations(self._standardized(x), sizes)
        return torch.cat([e.marginals(k) for e, k in zip(every, count.tolist(), strict=True)])

    def _prepared(self, x: Tensor, sizes: Tensor) -> GroundSets:
        return self.utility.prepare(x, torch.repeat_interleave(sizes), num_sets=len(sizes))

    def _enumerations(self, x: Tensor, sizes: Tensor) -> list[Enumeration]:
        return enumerations(self.utility, self._prepared(x, sizes))

    @torch.no_grad()
    def choose(self, x: Tensor, sizes: Tensor, count: Tensor | None) -> Tensor:
        """Return whether each element is chosen.

        Args:
            x: Elements.
            sizes: Size of each set.
            count: Size of each subset, or None.
        """
        if self.exact:
            every = self._enumerations(self._standardized(x), sizes)
            wanted = [None] * len(every) if count is None else count.tolist()
            return torch.cat([e.best(k) for e, k in zip(every, wanted, strict=True)])
        scores = self.scores(x, sizes)
        if count is None:
            padded = nn.utils.rnn.pad_sequence(scores.split(sizes.tolist()), batch_first=True, padding_value=-torch.inf)
            count = poisson_binomial(padded.double()).argmax(1)
        return largest_of_each_set(scores, sizes, count)


def _logistic_fit(scores: Tensor, target: Tensor) -> tuple[float, float]:
    """Return slope and shift of a logistic regression on one feature.

    The slope has a small penalty; the shift has none but half an observation of either class, so that the mean
    probability is that of the targets. A slope that is not positive is set to a small one, which keeps the order.
    """
    scale, center = float(scores.std(correction=0).clamp(min=1e-6)), float(scores.mean())
    design = torch.stack([(scores - center) / scale, torch.ones_like(scores)], 1)
    rate = (target.sum() + 0.5) / (len(target) + 1)
    weight = torch.stack([torch.zeros_like(rate), rate.logit()])
    soft = target + (rate - target) / (len(target) + 1)  # keeps the shift finite if all targets are equal
    penalty = torch.tensor([0.5, 1e-6], dtype=torch.float64)
    for _ in range(50):  # Newton steps
        psi = (design @ weight).sigmoid()
        slope = design.T @ (psi - soft) + penalty * weight
        curvature = design.T @ (design * (psi * (1 - psi))[:, None]) + penalty.diag()
        weight = weight - torch.linalg.solve(curvature, slope)
    if not weight[0] > 1e-3:
        return 1e-3 / scale, float(rate.logit() - 1e-3 * center / scale)
    return float(weight[0]) / scale, float(weight[1] - weight[0] * center / scale)


def _descend(loss: Tensor, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Take a step on the parameters of one network; gradients of others are dropped."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True):
        parameter.grad = gradient
    nn.utils.clip_grad_norm_(parameters, _CLIP)
    optimizer.step()


def _joined(sets: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    x, chosen = (torch.cat([part[i] for part in sets]) for i in range(2))
    return x, chosen, torch.tensor([len(part[0]) for part in sets])


def _batches(order: Tensor, sizes: Tensor, elements: int = 1 << 11) -> list[tuple[Tensor, Tensor]]:
    """Return the rows and the sizes of groups of sets, of bounded memory."""
    groups = (sizes.cumsum(0) - sizes) // elements
    out, start = [], 0
    for group in groups.unique(sorted=True):
        part = sizes[groups == group]
        out.append((order[start : start + int(part.sum())], part))
        start += int(part.sum())
    return out


def _share(chosen: Tensor, sizes: Tensor) -> Tensor:
    owner = torch.repeat_interleave(sizes)
    return torch.zeros(len(sizes), dtype=torch.float64).index_add(0, owner, chosen.double()) / sizes
